//! Typed parameters: from the JSON values of a request to values that a driver binds.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A parameter's declared type. Lists are written `int64[]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParamType {
    pub scalar: ScalarType,
    pub is_list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScalarType {
    Bool,
    Int64,
    Float64,
    Decimal,
    Text,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Uuid,
    Bytes,
}

/// A value that is ready to be bound.
#[derive(Clone, PartialEq, Debug)]
pub enum ParamValue {
    /// NULL of a declared type, or of the prepared one when `None`.
    Null(Option<ParamType>),
    Bool(bool),
    Int64(i64),
    Float64(f64),
    /// Digits with an optional sign, point and exponent.
    Decimal(String),
    Text(String),
    Date(jiff::civil::Date),
    Time(jiff::civil::Time),
    Timestamp(jiff::civil::DateTime),
    Timestamptz(jiff::Timestamp),
    Uuid(Uuid),
    Bytes(Vec<u8>),
    List(ScalarType, Vec<ParamValue>),
    /// Ad-hoc SQL: typed by the database's prepared statement where it tells, else by its JSON shape.
    Untyped(serde_json::Value),
}

impl TryFrom<String> for ParamType {
    type Error = String;
    fn try_from(_text: String) -> Result<Self, String> {
        unimplemented!()
    }
}
impl From<ParamType> for String {
    fn from(_t: ParamType) -> Self {
        unimplemented!()
    }
}
