//! A column of a result as clients see it.

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    /// Spelled as pyarrow does: `int64`, `decimal128(12, 2)`, `timestamp[us, tz=UTC]`, `string`.
    pub r#type: String,
    pub nullable: bool,
    /// The database's own name of the type; empty for a computed column.
    pub source_type: String,
}

/// Keys of the metadata on an Arrow field that travels through the pipeline.
pub mod metadata {
    /// The database's own type name.
    pub const SOURCE_TYPE: &str = "rowgate.source_type";
    /// What a text or binary column holds beyond its Arrow type: one of [`super::kind`].
    pub const KIND: &str = "rowgate.kind";
    /// Title in files, when it is not the name.
    pub const HEADER: &str = "rowgate.header";
    /// Excel number format.
    pub const NUMBER_FORMAT: &str = "rowgate.number_format";
    /// Excel column width, in characters.
    pub const WIDTH: &str = "rowgate.width";
}

/// Values of [`metadata::KIND`].
pub mod kind {
    /// A number of any size as its full decimal text (`numeric` without a scale), or `NaN`, `Infinity`, `-Infinity`.
    pub const NUMERIC: &str = "numeric";
    /// JSON text, embedded as it is in JSON outputs.
    pub const JSON: &str = "json";
    /// The hyphenated text of a UUID.
    pub const UUID: &str = "uuid";
}
