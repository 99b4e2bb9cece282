//! Parameters as SQLite has them: integer, real, text, blob.
//!
//! Times are bound in the form that SQLite's own functions write, timestamps with a zone in UTC; comparing them with
//! another form needs `datetime(column)`. Decimals are bound as numbers where that is exact, else as text.

use rusqlite::{Statement, types::Value};

use super::super::{Error, Param, ParamValue};
use crate::{export::Failure, source::decimal};

/// Decimal digits that a double holds in any case.
const REAL_DIGITS: usize = 15;

/// `names` has one entry for each `?`.
pub fn bind(
    statement: &mut Statement<'_>,
    names: &[String],
    params: &[Param],
) -> Result<(), Error> {
    if statement.parameter_count() != names.len() {
        return Err(Error::Rejected {
            sqlstate: None,
            message: "parameters are written as `:name`".to_owned(),
            position: None,
        });
    }
    for (index, name) in names.iter().enumerate() {
        let invalid = |text: &str| {
            Error::Invalid(Failure::invalid_field(format!("spec.params.{name}"), text))
        };
        let param = params
            .iter()
            .find(|param| param.name == *name)
            .ok_or_else(|| invalid("is required"))?;
        let value = value(&param.value).map_err(invalid)?;
        statement
            .raw_bind_parameter(index + 1, value)
            .map_err(|error| invalid(&error.to_string()))?;
    }
    Ok(())
}

fn value(value: &ParamValue) -> Result<Value, &'static str> {
    Ok(match value {
        ParamValue::Null(_) => Value::Null,
        ParamValue::Bool(value) => Value::Integer(i64::from(*value)),
        ParamValue::Int64(value) => Value::Integer(*value),
        // SQLite would make NULL of it.
        ParamValue::Float64(value) if value.is_nan() => return Err("SQLite has no NaN"),
        ParamValue::Float64(value) => Value::Real(*value),
        ParamValue::Decimal(text) => number(text),
        ParamValue::Text(text) => Value::Text(text.clone()),
        ParamValue::Date(date) => Value::Text(date.to_string()),
        ParamValue::Time(time) => Value::Text(time.to_string()),
        ParamValue::Timestamp(at) => Value::Text(datetime(*at)),
        ParamValue::Timestamptz(at) => {
            Value::Text(datetime(at.to_zoned(jiff::tz::TimeZone::UTC).datetime()))
        }
        ParamValue::Uuid(uuid) => Value::Text(uuid.hyphenated().to_string()),
        ParamValue::Bytes(bytes) => Value::Blob(bytes.clone()),
        ParamValue::List(..) => return Err(NO_LISTS),
        ParamValue::Untyped(json) => untyped(json)?,
    })
}

fn datetime(at: jiff::civil::DateTime) -> String {
    format!("{} {}", at.date(), at.time())
}

fn number(text: &str) -> Value {
    if let Ok(integer) = text.parse() {
        return Value::Integer(integer);
    }
    match text.parse() {
        Ok(real) if decimal::significant_digits(text.as_bytes()) <= REAL_DIGITS => {
            Value::Real(real)
        }
        _ => Value::Text(text.to_owned()),
    }
}

const NO_LISTS: &str = "SQLite binds no lists: send a JSON text, and read it with json_each(:name)";

fn untyped(json: &serde_json::Value) -> Result<Value, &'static str> {
    use serde_json::Value as Json;
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Integer(i64::from(*value)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(real)) if real.fract() == 0.0 && real.abs() <= 9_007_199_254_740_992.0 => {
                Value::Integer(real as i64)
            }
            (None, Some(real)) => Value::Real(real),
            (None, None) => return Err("must be a number that a double holds"),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(_) | Json::Object(_) => return Err(NO_LISTS),
    })
}
