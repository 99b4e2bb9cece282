//! Parameters as MySQL's binary protocol has them.
//!
//! Dates and times are bound as text, which MySQL compares with a column as what the column is; those with a zone in
//! UTC, the session's zone. Decimals are bound as integers or as text with a cast around it: beside a plain text or a double,
//! MySQL compares decimals as doubles. A list is bound value by value, see `expand_lists`.

use sqlx::{Arguments, mysql::MySqlArguments};

use super::super::{Error, Param, ParamValue};
use crate::{
    export::Failure,
    source::decimal::{self, Plain},
};

/// Of MySQL's decimals; MariaDB takes more digits behind the point.
const DIGITS_MAX: usize = 65;
const SCALE_MAX: usize = 30;
const NESTED: &str = "must be one value, or a list of single values";

/// `names` has one entry for each `?`, and for each list.
pub fn bind(names: &[String], params: &[Param]) -> Result<MySqlArguments, Error> {
    let mut arguments = MySqlArguments::default();
    for name in names {
        let invalid = |text: &str| {
            Error::Invalid(Failure::invalid_field(format!("spec.params.{name}"), text))
        };
        let param = params
            .iter()
            .find(|param| param.name == *name)
            .ok_or_else(|| invalid("is required"))?;
        add(&mut arguments, &param.value).map_err(|text| invalid(&text))?;
    }
    Ok(arguments)
}

/// How a value stands in the SQL text.
pub fn written(value: &ParamValue) -> String {
    match decimal_of(value) {
        Some(Plain {
            precision, scale, ..
        }) => format!("cast(? as decimal({precision}, {scale}))"),
        None => "?".to_owned(),
    }
}

/// A decimal that doesn't go as an integer, and fits.
fn decimal_of(value: &ParamValue) -> Option<Plain> {
    match value {
        ParamValue::Decimal(text) if text.parse::<i64>().is_err() => {
            decimal::plain(text, DIGITS_MAX, SCALE_MAX)
        }
        _ => None,
    }
}

fn add(arguments: &mut MySqlArguments, value: &ParamValue) -> Result<(), String> {
    let added = match value {
        ParamValue::Null(_) => arguments.add(None::<String>),
        // What `true` is in SQL here.
        ParamValue::Bool(value) => arguments.add(i64::from(*value)),
        ParamValue::Int64(value) => arguments.add(*value),
        ParamValue::Float64(value) if !value.is_finite() => {
            return Err("MySQL has no NaN and no infinity".to_owned());
        }
        ParamValue::Float64(value) => arguments.add(*value),
        ParamValue::Decimal(text) => match (text.parse::<i64>(), decimal_of(value)) {
            (Ok(integer), _) => arguments.add(integer),
            (_, Some(plain)) => arguments.add(plain.text),
            _ => {
                return Err(format!(
                    "must be a decimal number of at most {DIGITS_MAX} digits, {SCALE_MAX} of them behind the point"
                ));
            }
        },
        ParamValue::Text(text) => arguments.add(text.as_str()),
        ParamValue::Date(date) => arguments.add(date.to_string()),
        ParamValue::Time(time) => arguments.add(time.to_string()),
        ParamValue::Timestamp(at) => arguments.add(datetime(*at)),
        ParamValue::Timestamptz(at) => {
            arguments.add(datetime(at.to_zoned(jiff::tz::TimeZone::UTC).datetime()))
        }
        ParamValue::Uuid(uuid) => arguments.add(uuid.hyphenated().to_string()),
        ParamValue::Bytes(bytes) => arguments.add(bytes.as_slice()),
        ParamValue::List(_, items) => {
            return items.iter().try_for_each(|item| add(arguments, item));
        }
        ParamValue::Untyped(serde_json::Value::Array(items)) => {
            return items
                .iter()
                .try_for_each(|item| add_untyped(arguments, item));
        }
        ParamValue::Untyped(json) => return add_untyped(arguments, json),
    };
    added.map_err(|error| error.to_string())
}

fn datetime(at: jiff::civil::DateTime) -> String {
    format!("{} {}", at.date(), at.time())
}

fn add_untyped(arguments: &mut MySqlArguments, json: &serde_json::Value) -> Result<(), String> {
    use serde_json::Value as Json;
    let added = match json {
        Json::Null => arguments.add(None::<String>),
        Json::Bool(value) => arguments.add(i64::from(*value)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => arguments.add(integer),
            (None, Some(real)) if real.fract() == 0.0 && real.abs() <= 9_007_199_254_740_992.0 => {
                arguments.add(real as i64)
            }
            (None, Some(real)) => arguments.add(real),
            (None, None) => return Err("must be a number that a double holds".to_owned()),
        },
        Json::String(text) => arguments.add(text.as_str()),
        Json::Array(_) | Json::Object(_) => return Err(NESTED.to_owned()),
    };
    added.map_err(|error| error.to_string())
}
