//! Typed parameters: from the JSON values of a request to values that a driver binds.
//!
//! Owns the names of the types and the rules for what a client may send for each: strings always, JSON numbers and
//! booleans where they are exact. Refuses to know databases.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::export::Failure;

/// A client that sends more values than this should send a table instead; drivers have bounds of their own near it.
pub const LIST_VALUES_MAX: usize = 50_000;

/// From here on a JSON number, which travels as a double, may not be the one that was meant.
const JSON_EXACT_MAX: f64 = 9_007_199_254_740_992.0;

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
    /// At most microseconds.
    Time(jiff::civil::Time),
    /// At most microseconds.
    Timestamp(jiff::civil::DateTime),
    /// At most microseconds.
    Timestamptz(jiff::Timestamp),
    Uuid(Uuid),
    Bytes(Vec<u8>),
    /// Elements are of the scalar type or `Null`.
    List(ScalarType, Vec<ParamValue>),
    /// Ad-hoc SQL: typed by the database's prepared statement where it tells, else by its JSON shape.
    Untyped(Value),
}

impl ScalarType {
    pub const ALL: [Self; 11] = [
        Self::Bool,
        Self::Int64,
        Self::Float64,
        Self::Decimal,
        Self::Text,
        Self::Date,
        Self::Time,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Uuid,
        Self::Bytes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Decimal => "decimal",
            Self::Text => "text",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Uuid => "uuid",
            Self::Bytes => "bytes",
        }
    }

    /// What a client should send, for error messages.
    fn expected(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int64 => "an integer of 64 bits, as a string or a whole number within +-2^53",
            Self::Float64 => "a number, as a string or a number within +-2^53",
            Self::Decimal => {
                "a decimal number, best as a string such as \"12.50\"; numbers within +-2^53"
            }
            Self::Text => "a string",
            Self::Date => "a date as \"2024-01-31\"",
            Self::Time => "a time of day as \"13:45:00\", with at most microseconds",
            Self::Timestamp => {
                "a time without zone as \"2024-01-31T13:45:00\", with at most microseconds"
            }
            Self::Timestamptz => {
                "a time with its zone as \"2024-01-31T13:45:00Z\" or \"...+08:00\", with at most microseconds"
            }
            Self::Uuid => "a UUID as \"018f4e3c-....\"",
            Self::Bytes => "base64, or hex digits behind \"\\x\"",
        }
    }
}

impl ParamType {
    pub fn parse(text: &str) -> Option<Self> {
        let (name, is_list) = match text.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let scalar = ScalarType::ALL.into_iter().find(|t| t.name() == name)?;
        Some(Self { scalar, is_list })
    }

    /// Converts a request's value. `null` becomes a typed NULL.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for the field `spec.params.NAME`, saying what would be right.
    pub fn convert(self, name: &str, value: &Value) -> Result<ParamValue, Failure> {
        self.value(value)
            .map_err(|message| Failure::invalid_field(format!("spec.params.{name}"), message))
    }

    /// As [`Self::convert`], for values that come from elsewhere; errors say only what would be right.
    pub fn value(self, value: &Value) -> Result<ParamValue, String> {
        match (self.is_list, value) {
            (_, Value::Null) => Ok(ParamValue::Null(Some(self))),
            (false, value) => scalar(self.scalar, value),
            (true, Value::Array(items)) => {
                if items.len() > LIST_VALUES_MAX {
                    return Err(format!("a list of at most {LIST_VALUES_MAX} values"));
                }
                let element = Self {
                    is_list: false,
                    ..self
                };
                let items = items.iter().enumerate().map(|(index, item)| {
                    element
                        .value(item)
                        .map_err(|message| format!("element {index}: {message}"))
                });
                Ok(ParamValue::List(
                    self.scalar,
                    items.collect::<Result<_, _>>()?,
                ))
            }
            (true, _) => Err(format!(
                "must be a list, each element {}",
                self.scalar.expected()
            )),
        }
    }
}

/// For ad-hoc SQL: keeps the JSON value until the database tells the type.
///
/// # Errors
/// A JSON number that may not be the one that was meant, an object, a list that is too long.
pub fn untyped(name: &str, value: &Value) -> Result<ParamValue, Failure> {
    let invalid = |text: &str| Failure::invalid_field(format!("spec.params.{name}"), text);
    match value {
        Value::Null => return Ok(ParamValue::Null(None)),
        Value::Object(_) => return Err(invalid("must not be an object; JSON goes as a string")),
        Value::Number(number) if !is_exact(number) => return Err(invalid(INEXACT)),
        Value::Array(items) if items.len() > LIST_VALUES_MAX => {
            return Err(invalid(&format!(
                "a list of at most {LIST_VALUES_MAX} values"
            )));
        }
        Value::Array(items) => {
            for item in items {
                untyped(name, item)?;
            }
        }
        _ => {}
    }
    Ok(ParamValue::Untyped(value.clone()))
}

const INEXACT: &str = "a number beyond +-2^53 must be sent as a string: as a JSON number it may already have been \
                       rounded";

fn scalar(scalar: ScalarType, value: &Value) -> Result<ParamValue, String> {
    let wrong = || format!("must be {}", scalar.expected());
    match value {
        Value::String(text) => from_text(scalar, text).ok_or_else(wrong),
        Value::Bool(value) if scalar == ScalarType::Bool => Ok(ParamValue::Bool(*value)),
        Value::Number(number) => {
            let value = number.as_f64().ok_or_else(wrong)?;
            match scalar {
                ScalarType::Int64 | ScalarType::Float64 | ScalarType::Decimal
                    if !is_exact(number) =>
                {
                    Err(INEXACT.to_owned())
                }
                ScalarType::Int64 if value.fract() == 0.0 => Ok(ParamValue::Int64(value as i64)),
                ScalarType::Float64 => Ok(ParamValue::Float64(value)),
                ScalarType::Decimal => Ok(ParamValue::Decimal(number_text(value))),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

fn is_exact(number: &serde_json::Number) -> bool {
    number.as_f64().is_some_and(|n| n.abs() < JSON_EXACT_MAX)
}

/// The shortest text that reads back equal, without `.0`.
fn number_text(value: f64) -> String {
    format!("{value}")
}

/// Reads a value from its text, as every type accepts it.
pub fn from_text(scalar: ScalarType, text: &str) -> Option<ParamValue> {
    Some(match scalar {
        ScalarType::Bool => ParamValue::Bool(match text {
            "true" => true,
            "false" => false,
            _ => return None,
        }),
        ScalarType::Int64 => ParamValue::Int64(text.parse().ok()?),
        ScalarType::Float64 => ParamValue::Float64(text.parse().ok()?),
        ScalarType::Decimal => ParamValue::Decimal(is_decimal(text).then(|| text.to_owned())?),
        ScalarType::Text => ParamValue::Text(text.to_owned()),
        // jiff reads a date from a time stamp and drops the rest; a value must not change in silence.
        ScalarType::Date => {
            ParamValue::Date((!text.contains([':', 'T', 't', ' '])).then(|| text.parse().ok())??)
        }
        ScalarType::Time => {
            let time: jiff::civil::Time =
                (!text.contains(['-', '+', 'T', 't', 'Z'])).then(|| text.parse().ok())??;
            (time.subsec_nanosecond() % 1000 == 0).then_some(ParamValue::Time(time))?
        }
        ScalarType::Timestamp => ParamValue::Timestamp(civil(text)?),
        ScalarType::Timestamptz => {
            let at: jiff::Timestamp = text.parse().ok()?;
            (at.subsec_nanosecond() % 1000 == 0).then_some(ParamValue::Timestamptz(at))?
        }
        ScalarType::Uuid => ParamValue::Uuid(Uuid::try_parse(text).ok()?),
        ScalarType::Bytes => ParamValue::Bytes(match text.strip_prefix("\\x") {
            Some(digits) => hex::decode(digits).ok()?,
            None => BASE64.decode(text).ok()?,
        }),
    })
}

/// A time without zone. `Z` is accepted, since sessions run in UTC; another offset would be dropped in silence.
fn civil(text: &str) -> Option<jiff::civil::DateTime> {
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let clock = text.find(['T', 't', ' ']).map_or("", |at| &text[at + 1..]);
    if clock.contains(['+', '-', '[', 'Z', 'z']) {
        return None;
    }
    let at: jiff::civil::DateTime = text.parse().ok()?;
    (at.subsec_nanosecond() % 1000 == 0).then_some(at)
}

fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mantissa = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let is_number = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some((whole, "")) => digits(whole),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
    };
    is_number && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

impl std::fmt::Display for ParamType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.scalar.name())?;
        f.write_str(if self.is_list { "[]" } else { "" })
    }
}

impl ParamValue {
    /// How many values a list has; `None` for a single value.
    pub fn list_len(&self) -> Option<usize> {
        match self {
            Self::List(_, items) => Some(items.len()),
            Self::Untyped(Value::Array(items)) => Some(items.len()),
            _ => None,
        }
    }
}

impl TryFrom<String> for ParamType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| {
            let names: Vec<_> = ScalarType::ALL.iter().map(|t| t.name()).collect();
            format!(
                "{text:?} is no parameter type; there are {}, and lists of them, written as int64[]",
                names.join(", ")
            )
        })
    }
}

impl From<ParamType> for String {
    fn from(r#type: ParamType) -> Self {
        r#type.to_string()
    }
}

#[cfg(test)]
mod tests;
