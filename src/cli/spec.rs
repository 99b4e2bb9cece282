//! What to export, from flags or from a JSON file in the spelling of grpcurl.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{Failure, fields};
use crate::rpc::{
    convert::{duration_to_proto, json_to_value},
    pb::{self, export_spec::From, format::Kind},
};

#[derive(Args, Debug, Default)]
pub struct SpecArgs {
    /// Source to read, by its name on the server
    #[arg(long)]
    source: Option<String>,
    /// Definition of the source
    #[arg(long, group = "from")]
    definition: Option<String>,
    /// Table of the source: `table` or `schema.table`
    #[arg(long, group = "from")]
    table: Option<String>,
    /// SELECT statement, where the source allows it; parameters are :name
    #[arg(long, group = "from")]
    sql: Option<String>,
    /// With --table: `column`, `column asc` or `column desc`; may be repeated
    #[arg(long, requires = "table")]
    order_by: Vec<String>,
    /// With --table: source rows at most
    #[arg(long, requires = "table")]
    limit: Option<i64>,
    /// Parameter, as text that suits its type, or as NAME:=JSON; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = fields::param)]
    param: Vec<(String, serde_json::Value)>,
    /// Column of the result, in order; may be repeated
    #[arg(long, value_name = "NAME[=EXPRESSION]")]
    column: Vec<String>,
    /// Boolean SQL expression over the source's columns
    #[arg(long)]
    filter: Option<String>,
    /// IANA name, for the text of zoned times
    #[arg(long)]
    time_zone: Option<String>,
    /// How long the result is kept, as 24h
    #[arg(long, value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = fields::pair)]
    label: Vec<(String, String)>,
    /// 0 (normal) to 9 (first)
    #[arg(long)]
    priority: Option<i32>,
    /// The spec as JSON, as grpcurl takes it; other flags override it
    #[arg(long, value_name = "SPEC_FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FormatName {
    Csv,
    Xlsx,
    Jsonl,
    Parquet,
    Arrow,
}

impl FormatName {
    pub fn of_extension(extension: &str) -> Option<Self> {
        Self::from_str(extension, true).ok()
    }

    /// With the server's choices.
    pub fn to_proto(self) -> pb::Format {
        let kind = match self {
            Self::Csv => Kind::Csv(pb::Csv::default()),
            Self::Xlsx => Kind::Xlsx(pb::Xlsx::default()),
            Self::Jsonl => Kind::Jsonl(pb::JsonLines::default()),
            Self::Parquet => Kind::Parquet(pb::Parquet::default()),
            Self::Arrow => Kind::Arrow(pb::ArrowIpc::default()),
        };
        pb::Format { kind: Some(kind) }
    }
}

impl SpecArgs {
    /// Whether any of it was given: for commands that take a spec or something else.
    pub fn is_given(&self) -> bool {
        self.source.is_some() || self.json.is_some()
    }

    pub fn into_proto(self) -> Result<pb::ExportSpec, Failure> {
        let mut spec = match &self.json {
            Some(path) => read_json(path)?,
            None => pb::ExportSpec::default(),
        };
        spec.source = self.source.unwrap_or(spec.source);
        let table = self.table.map(|name| {
            From::Table(pb::TableRead {
                name,
                order_by: self.order_by,
                limit: self.limit.unwrap_or(0),
            })
        });
        let from = table
            .or(self.definition.map(From::Definition))
            .or(self.sql.map(From::Sql));
        spec.from = from.or(spec.from);
        let params = self.param.into_iter();
        spec.params
            .extend(params.map(|(name, value)| (name, json_to_value(&value))));
        if !self.column.is_empty() {
            spec.columns = self.column.iter().map(|text| column(text)).collect();
        }
        spec.filter = self.filter.unwrap_or(spec.filter);
        spec.time_zone = self.time_zone.unwrap_or(spec.time_zone);
        spec.ttl = self.ttl.map(duration_to_proto).or(spec.ttl);
        spec.labels.extend(self.label);
        spec.priority = self.priority.unwrap_or(spec.priority);
        Ok(spec)
    }
}

fn column(text: &str) -> pb::Column {
    let (name, expression) = text.split_once('=').unwrap_or((text, ""));
    pb::Column {
        name: name.to_owned(),
        expression: expression.to_owned(),
        ..Default::default()
    }
}

fn read_json(path: &PathBuf) -> Result<pb::ExportSpec, Failure> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("--json {name}: {error}")))?;
    let spec: JsonSpec = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("--json {name}: {error}")))?;
    spec.into_proto()
        .map_err(|why| Failure::Usage(format!("--json {name}: {why}")))
}

/// Names as protobuf's JSON has them; those of the `.proto` file are taken, too.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct JsonSpec {
    source: String,
    definition: Option<String>,
    table: Option<JsonTable>,
    sql: Option<String>,
    params: BTreeMap<String, serde_json::Value>,
    columns: Vec<JsonColumn>,
    filter: String,
    format: Option<JsonFormat>,
    #[serde(alias = "file_name")]
    file_name: String,
    #[serde(alias = "time_zone")]
    time_zone: String,
    ttl: Option<String>,
    labels: BTreeMap<String, String>,
    priority: i32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct JsonTable {
    name: String,
    #[serde(alias = "order_by")]
    order_by: Vec<String>,
    limit: Option<Int64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct JsonColumn {
    name: String,
    expression: String,
    header: String,
    #[serde(alias = "number_format")]
    number_format: String,
    width: f64,
}

/// Protobuf writes 64-bit integers as strings and reads both.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Int64 {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum JsonFormat {
    Csv(JsonOptions),
    Xlsx(JsonOptions),
    Jsonl(JsonOptions),
    Parquet(JsonOptions),
    Arrow(JsonOptions),
}

/// The options of all formats; those of other formats are refused by [`JsonOptions::only`].
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct JsonOptions {
    compression: Option<String>,
    delimiter: Option<String>,
    #[serde(alias = "no_header")]
    no_header: Option<bool>,
    bom: Option<bool>,
    #[serde(alias = "null_text")]
    null_text: Option<String>,
    #[serde(alias = "guard_formulas")]
    guard_formulas: Option<bool>,
    crlf: Option<bool>,
    sheet: Option<String>,
    #[serde(alias = "compression_level")]
    compression_level: Option<i32>,
    overflow: Option<String>,
    plain: Option<bool>,
    #[serde(alias = "row_group_rows")]
    row_group_rows: Option<Int64>,
}

impl JsonSpec {
    fn into_proto(self) -> Result<pb::ExportSpec, String> {
        let mut from = Vec::new();
        from.extend(self.definition.map(From::Definition));
        from.extend(self.sql.map(From::Sql));
        if let Some(table) = self.table {
            from.push(From::Table(pb::TableRead {
                name: table.name,
                order_by: table.order_by,
                limit: int64(table.limit, "table.limit")?,
            }));
        }
        if from.len() > 1 {
            return Err("set only one of definition, table and sql".to_owned());
        }
        let params = self.params.iter();
        let columns = self.columns.into_iter().map(|column| pb::Column {
            name: column.name,
            expression: column.expression,
            header: column.header,
            number_format: column.number_format,
            width: column.width,
        });
        Ok(pb::ExportSpec {
            source: self.source,
            from: from.pop(),
            params: params
                .map(|(name, value)| (name.clone(), json_to_value(value)))
                .collect(),
            columns: columns.collect(),
            filter: self.filter,
            format: self.format.map(JsonFormat::into_proto).transpose()?,
            file_name: self.file_name,
            time_zone: self.time_zone,
            ttl: self.ttl.map(|text| duration(&text)).transpose()?,
            labels: self.labels,
            priority: self.priority,
        })
    }
}

impl JsonFormat {
    fn into_proto(self) -> Result<pb::Format, String> {
        let kind = match self {
            Self::Csv(o) => {
                o.only("csv", CSV_OPTIONS)?;
                Kind::Csv(pb::Csv {
                    compression: o.compression()?,
                    delimiter: o.delimiter.unwrap_or_default(),
                    no_header: o.no_header.unwrap_or_default(),
                    bom: o.bom.unwrap_or_default(),
                    null_text: o.null_text.unwrap_or_default(),
                    guard_formulas: o.guard_formulas.unwrap_or_default(),
                    crlf: o.crlf.unwrap_or_default(),
                })
            }
            Self::Xlsx(o) => {
                o.only("xlsx", XLSX_OPTIONS)?;
                let overflow = o.overflow.as_deref().unwrap_or("OVERFLOW_UNSPECIFIED");
                let overflow = pb::Overflow::from_str_name(overflow)
                    .ok_or_else(|| format!("{overflow:?} is no Overflow"))?;
                Kind::Xlsx(pb::Xlsx {
                    sheet: o.sheet.unwrap_or_default(),
                    compression_level: o.compression_level,
                    overflow: overflow.into(),
                    plain: o.plain.unwrap_or_default(),
                })
            }
            Self::Jsonl(o) => {
                o.only("jsonl", &["compression"])?;
                Kind::Jsonl(pb::JsonLines {
                    compression: o.compression()?,
                })
            }
            Self::Parquet(o) => {
                o.only("parquet", &["compression", "rowGroupRows"])?;
                Kind::Parquet(pb::Parquet {
                    compression: o.compression()?,
                    row_group_rows: int64(o.row_group_rows, "rowGroupRows")?,
                })
            }
            Self::Arrow(o) => {
                o.only("arrow", &["compression"])?;
                Kind::Arrow(pb::ArrowIpc {
                    compression: o.compression()?,
                })
            }
        };
        Ok(pb::Format { kind: Some(kind) })
    }
}

const CSV_OPTIONS: &[&str] = &[
    "compression",
    "delimiter",
    "noHeader",
    "bom",
    "nullText",
    "guardFormulas",
    "crlf",
];
const XLSX_OPTIONS: &[&str] = &["sheet", "compressionLevel", "overflow", "plain"];

impl JsonOptions {
    fn only(&self, format: &str, allowed: &[&str]) -> Result<(), String> {
        let given = [
            ("compression", self.compression.is_some()),
            ("delimiter", self.delimiter.is_some()),
            ("noHeader", self.no_header.is_some()),
            ("bom", self.bom.is_some()),
            ("nullText", self.null_text.is_some()),
            ("guardFormulas", self.guard_formulas.is_some()),
            ("crlf", self.crlf.is_some()),
            ("sheet", self.sheet.is_some()),
            ("compressionLevel", self.compression_level.is_some()),
            ("overflow", self.overflow.is_some()),
            ("plain", self.plain.is_some()),
            ("rowGroupRows", self.row_group_rows.is_some()),
        ];
        let wrong = given
            .into_iter()
            .find(|(name, given)| *given && !allowed.contains(name));
        wrong.map_or(Ok(()), |(name, _)| {
            Err(format!("{format} has no option {name}"))
        })
    }

    fn compression(&self) -> Result<i32, String> {
        let name = self.compression.as_deref();
        let name = name.unwrap_or("COMPRESSION_UNSPECIFIED");
        pb::Compression::from_str_name(name)
            .map(Into::into)
            .ok_or_else(|| format!("{name:?} is no Compression; write it as COMPRESSION_GZIP"))
    }
}

fn int64(number: Option<Int64>, field: &str) -> Result<i64, String> {
    match number {
        None => Ok(0),
        Some(Int64::Number(number)) => Ok(number),
        Some(Int64::Text(text)) => text
            .parse()
            .map_err(|_| format!("{field}: {text:?} is no integer")),
    }
}

/// `3600s`, as protobuf's JSON has it, or `1h`.
fn duration(text: &str) -> Result<prost_types::Duration, String> {
    let fraction = text
        .strip_suffix('s')
        .and_then(|seconds| seconds.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = match fraction {
        Some(duration) => Ok(duration),
        None => humantime::parse_duration(text),
    };
    duration
        .map(duration_to_proto)
        .map_err(|error| format!("{text:?} is no duration: {error}"))
}
