//! `google.protobuf` values: parameters, moments, durations.

use std::time::Duration;

use jiff::Timestamp;
use prost_types::{ListValue, Value, value::Kind};
use serde_json::Number;

use super::check::Check;

/// Beyond this a double no longer holds every integer.
const NUMBER_MAX: f64 = 9_007_199_254_740_992.0;

pub const LIST_ENTRIES_MAX: usize = 10_000;
pub const STRING_BYTES_MAX: usize = 64 * 1024;

/// A parameter's value: null, bool, number, string, or a list of those.
pub fn param(check: &mut Check, field: &str, value: Value) -> serde_json::Value {
    match value.kind {
        Some(Kind::ListValue(list)) => {
            check.count(field, list.values.len(), LIST_ENTRIES_MAX);
            let entries = list.values.into_iter().take(LIST_ENTRIES_MAX).enumerate();
            entries
                .map(|(i, entry)| scalar(check, &format!("{field}[{i}]"), entry.kind))
                .collect()
        }
        kind => scalar(check, field, kind),
    }
}

fn scalar(check: &mut Check, field: &str, kind: Option<Kind>) -> serde_json::Value {
    match kind {
        Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::StringValue(text)) => check.text(field, text, STRING_BYTES_MAX).into(),
        Some(Kind::NumberValue(number)) => number_to_json(check, field, number),
        Some(Kind::ListValue(_)) => {
            check.refuse(field, "is a list within a list; lists hold single values");
            serde_json::Value::Null
        }
        Some(Kind::StructValue(_)) => {
            check.refuse(
                field,
                "is an object; send null, a bool, a number, a string or a list",
            );
            serde_json::Value::Null
        }
        None => {
            check.refuse(field, "has no value; send null for NULL");
            serde_json::Value::Null
        }
    }
}

fn number_to_json(check: &mut Check, field: &str, number: f64) -> serde_json::Value {
    if !number.is_finite() {
        check.refuse(field, "is not a finite number; send it as a string");
        return serde_json::Value::Null;
    }
    if number.abs() > NUMBER_MAX {
        check.refuse(
            field,
            "is beyond 2^53, where JSON numbers lose digits; send it as a string",
        );
        return serde_json::Value::Null;
    }
    // 1 is the integer 1 and not 1.0; but -0.0 is no integer.
    let integer = number as i64;
    if integer as f64 == number && !(integer == 0 && number.is_sign_negative()) {
        return integer.into();
    }
    Number::from_f64(number).map_or(serde_json::Value::Null, Into::into)
}

/// The reverse of what parameters accept.
pub fn json_to_value(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(number) => match number.as_f64() {
            Some(number) if number.abs() <= NUMBER_MAX => Kind::NumberValue(number),
            // A default in the configuration may be beyond what a double holds.
            _ => Kind::StringValue(number.to_string()),
        },
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(entries) => Kind::ListValue(ListValue {
            values: entries.iter().map(json_to_value).collect(),
        }),
        serde_json::Value::Object(entries) => Kind::StructValue(prost_types::Struct {
            fields: entries
                .iter()
                .map(|(key, value)| (key.clone(), json_to_value(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}

pub fn timestamp_to_proto(moment: Timestamp) -> prost_types::Timestamp {
    let nanoseconds = moment.as_nanosecond();
    prost_types::Timestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000))
            .expect("jiff's years end at 9999"),
        nanos: i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).expect("less than a second"),
    }
}

/// Longer than protobuf can say becomes the longest that it can.
pub fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    const SECONDS_MAX: i64 = 315_576_000_000;
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).map_or(SECONDS_MAX, |s| s.min(SECONDS_MAX)),
        nanos: i32::try_from(duration.subsec_nanos()).expect("less than a second"),
    }
}

/// Counts that protobuf sends as int64.
pub fn int64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Counts that protobuf sends as int32.
pub fn int32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
