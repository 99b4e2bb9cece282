//! What a client asks for. Checked at the edge (`rpc/convert.rs`), stored as JSON with the job, never mutated.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExportSpec {
    /// A name from the server's configuration.
    pub source: String,
    pub from: ReadFrom,
    /// By parameter name; typed only when the query is resolved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, serde_json::Value>,
    /// Empty: every column as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// `None`: rows, spooled for `StreamRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// IANA name, for the text of zoned times; UTC when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// 0 (normal) to 9 (first).
    #[serde(default)]
    pub priority: u8,
}

impl ExportSpec {
    /// Equal for equal specs whatever the order in which a client wrote its maps: struct fields serialise in the
    /// order of declaration and maps are sorted.
    pub fn hash(&self) -> SpecHash {
        let json =
            serde_json::to_vec(self).expect("a spec has only string keys and finite numbers");
        SpecHash(Sha256::digest(json).into())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpecHash(pub [u8; 32]);

impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    Definition(String),
    Table(TableRead),
    Sql(String),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TableRead {
    /// `table` or `schema.table`, exact names.
    pub name: String,
    /// `column`, `column asc` or `column desc`, exact names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<String>,
    /// Counts source rows, before the filter. `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Column {
    /// Name in the result.
    pub name: String,
    /// `None`: the source column of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Title in files; `None`: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// For xlsx, as Excel writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_format: Option<String>,
    /// For xlsx, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Csv(Csv),
    Xlsx(Xlsx),
    Jsonl(Jsonl),
    Parquet(Parquet),
    Arrow(ArrowIpc),
}

impl Format {
    /// As configuration, logs and file names spell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Csv(_) => "csv",
            Self::Xlsx(_) => "xlsx",
            Self::Jsonl(_) => "jsonl",
            Self::Parquet(_) => "parquet",
            Self::Arrow(_) => "arrow",
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Csv {
    /// One ASCII character.
    pub delimiter: u8,
    pub header: Header,
    pub bom: Bom,
    pub null_text: String,
    pub formulas: Formulas,
    pub line_end: LineEnd,
    pub compression: Compression,
}

impl Default for Csv {
    fn default() -> Self {
        Self {
            delimiter: b',',
            header: Header::Written,
            bom: Bom::Absent,
            null_text: String::new(),
            formulas: Formulas::AsTheyAre,
            line_end: LineEnd::Lf,
            compression: Compression::None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    Written,
    Omitted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bom {
    Written,
    Absent,
}

/// Whether text that a spreadsheet would run as a formula is disarmed with a leading apostrophe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Formulas {
    AsTheyAre,
    Guarded,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    Lf,
    CrLf,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Xlsx {
    /// Name of the first sheet; further ones get a number behind it. `None`: `Sheet1`.
    pub sheet: Option<String>,
    /// 0 to 9; `None`: the server's choice.
    pub compression_level: Option<u8>,
    pub overflow: Overflow,
}

/// What becomes of a value that the format can't hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Written as text, or cut, and counted in the fidelity report.
    #[default]
    Text,
    /// The export fails, naming row and column.
    Error,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Jsonl {
    pub compression: Compression,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Parquet {
    /// `None`: zstd.
    pub compression: Option<Compression>,
    /// `None`: the server's choice.
    pub row_group_rows: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ArrowIpc {
    pub compression: Compression,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
    Snappy,
    Lz4,
}
