//! Parameters as SQLite has them: integer, real, text, blob.
//!
//! Times are bound in the form that SQLite's own functions write, timestamps with a zone in UTC; comparing them with
//! another form needs `datetime(column)`. Decimals are bound as numbers where that is exact, else as text. A list is
//! bound value by value, see `expand_lists`.

use rusqlite::{Statement, types::Value};

use super::super::{Error, Param, ParamValue};
use crate::{export::Failure, source::decimal};

/// Decimal digits that a double holds in any case.
const REAL_DIGITS: usize = 15;

/// `names` has one entry for each `?`, and for each list.
pub fn bind(
    statement: &mut Statement<'_>,
    names: &[String],
    params: &[Param],
) -> Result<(), Error> {
    let mut bound = 0;
    for name in names {
        let invalid = |text: &str| {
            Error::Invalid(Failure::invalid_field(format!("spec.params.{name}"), text))
        };
        let param = params
            .iter()
            .find(|param| param.name == *name)
            .ok_or_else(|| invalid("is required"))?;
        for value in values(&param.value).map_err(invalid)? {
            bound += 1;
            statement
                .raw_bind_parameter(bound, value)
                .map_err(|error| invalid(&error.to_string()))?;
        }
    }
    if statement.parameter_count() != bound {
        return Err(Error::Rejected {
            sqlstate: None,
            message: "parameters are written as `:name`".to_owned(),
            position: None,
        });
    }
    Ok(())
}

fn values(of: &ParamValue) -> Result<Vec<Value>, &'static str> {
    match of {
        ParamValue::List(_, items) => items.iter().map(value).collect(),
        ParamValue::Untyped(serde_json::Value::Array(items)) => items.iter().map(untyped).collect(),
        single => Ok(vec![value(single)?]),
    }
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
        ParamValue::List(..) => return Err(NESTED),
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

const NESTED: &str = "must be one value, or a list of single values";

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
        Json::Array(_) | Json::Object(_) => return Err(NESTED),
    })
}
