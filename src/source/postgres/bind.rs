//! Parameters to the server's binary formats.
//!
//! A declared type is tried first. Where the text wants another one, or none is declared, the type that the server's
//! own inference gives is filled from the value's text. A type that has no binary form here (an enum, an interval)
//! goes as text with a cast that is written into the SQL.

use serde_json::Value;
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
};

use super::numeric;
use crate::{
    export::Failure,
    source::{
        Error, Param,
        params::{self, ParamType, ParamValue, ScalarType},
    },
};

pub const UNSPECIFIED: u32 = 0;
pub const TEXT: u32 = 25;
/// Days and microseconds between 1970 and the server's epoch.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_US: i64 = EPOCH_DAYS * 86_400_000_000;

/// A scalar's own type, its array, and the family that its values are read as.
const TYPES: [(u32, u32, ScalarType); 20] = [
    // The first of a family is what a declared type is sent as.
    (16, 1000, ScalarType::Bool),
    (20, 1016, ScalarType::Int64),
    (21, 1005, ScalarType::Int64),
    (23, 1007, ScalarType::Int64),
    (26, 1028, ScalarType::Int64),
    (701, 1022, ScalarType::Float64),
    (700, 1021, ScalarType::Float64),
    (1700, 1231, ScalarType::Decimal),
    (25, 1009, ScalarType::Text),
    (1043, 1015, ScalarType::Text),
    (1042, 1014, ScalarType::Text),
    (19, 1003, ScalarType::Text),
    (114, 199, ScalarType::Text),
    (3802, 3807, ScalarType::Text),
    (1082, 1182, ScalarType::Date),
    (1083, 1183, ScalarType::Time),
    (1114, 1115, ScalarType::Timestamp),
    (1184, 1185, ScalarType::Timestamptz),
    (2950, 2951, ScalarType::Uuid),
    (17, 1001, ScalarType::Bytes),
];

const JSONB: u32 = 3802;

/// A value in the form that goes over the wire.
pub struct Bound {
    oid: u32,
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Bound {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(TEXT))
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for Bound {
    fn encode_by_ref(
        &self,
        buffer: &mut PgArgumentBuffer,
    ) -> Result<IsNull, sqlx::error::BoxDynError> {
        match &self.bytes {
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }
}

/// What a value's declared type is to the server; [`UNSPECIFIED`] where it shall tell.
pub fn declared_oid(value: &ParamValue) -> u32 {
    let r#type = match value {
        ParamValue::Null(r#type) => *r#type,
        ParamValue::List(scalar, _) => Some(ParamType {
            scalar: *scalar,
            is_list: true,
        }),
        ParamValue::Untyped(_) => None,
        scalar => scalar_type(scalar).map(|scalar| ParamType {
            scalar,
            is_list: false,
        }),
    };
    r#type.map_or(UNSPECIFIED, oid_of)
}

/// For a parameter that the server can't tell the type of: by the value's JSON shape.
pub fn oid_by_shape(value: &ParamValue) -> u32 {
    fn scalar(value: &Value) -> ScalarType {
        match value {
            Value::Bool(_) => ScalarType::Bool,
            Value::Number(n) if n.as_f64().is_some_and(|n| n.fract() == 0.0) => ScalarType::Int64,
            Value::Number(_) => ScalarType::Float64,
            _ => ScalarType::Text,
        }
    }
    match value {
        ParamValue::Untyped(Value::Array(items)) => oid_of(ParamType {
            scalar: items.first().map_or(ScalarType::Text, scalar),
            is_list: true,
        }),
        ParamValue::Untyped(value) => oid_of(ParamType {
            scalar: scalar(value),
            is_list: false,
        }),
        ParamValue::Null(None) => TEXT,
        typed => declared_oid(typed),
    }
}

/// Whether [`bind`] has a binary form for the type.
pub fn is_known(oid: u32) -> bool {
    TYPES
        .iter()
        .any(|(scalar, array, _)| oid == *scalar || oid == *array)
}

/// # Errors
/// INVALID_ARGUMENT naming the parameter: the value doesn't fit the type that the server wants.
pub fn bind(param: &Param, oid: u32) -> Result<Bound, Error> {
    let bytes = value_bytes(&param.value, oid).map_err(|message| {
        Error::Invalid(Failure::invalid_field(
            format!("spec.params.{}", param.name),
            message,
        ))
    })?;
    Ok(Bound { oid, bytes })
}

/// As text, for `($1::text::TYPE)`.
pub fn bind_text(param: &Param) -> Bound {
    let text = match &param.value {
        ParamValue::Null(_) | ParamValue::Untyped(Value::Null) => None,
        ParamValue::List(_, items) => Some(array_literal(items.iter().map(text_of))),
        ParamValue::Untyped(Value::Array(items)) => {
            Some(array_literal(items.iter().map(json_text)))
        }
        ParamValue::Untyped(value) => json_text(value),
        value => text_of(value),
    };
    Bound {
        oid: TEXT,
        bytes: text.map(String::into_bytes),
    }
}

fn oid_of(r#type: ParamType) -> u32 {
    let (scalar, array, _) = TYPES
        .iter()
        .find(|(_, _, family)| *family == r#type.scalar)
        .expect("every scalar type is in the table");
    if r#type.is_list { *array } else { *scalar }
}

fn value_bytes(value: &ParamValue, oid: u32) -> Result<Option<Vec<u8>>, String> {
    if matches!(
        value,
        ParamValue::Null(_) | ParamValue::Untyped(Value::Null)
    ) {
        return Ok(None);
    }
    if let Some((scalar, _, family)) = TYPES.iter().find(|(scalar, ..)| *scalar == oid) {
        return scalar_bytes(value, *scalar, *family).map(Some);
    }
    let (element, _, family) = TYPES
        .iter()
        .find(|(_, array, _)| *array == oid)
        .ok_or("has a type that can't be sent")?;
    let items = match value {
        ParamValue::List(_, items) => items.clone(),
        ParamValue::Untyped(Value::Array(items)) => {
            items.iter().cloned().map(ParamValue::Untyped).collect()
        }
        _ => return Err("must be a list".to_owned()),
    };
    array_bytes(&items, *element, *family).map(Some)
}

/// One dimension that begins at 1; none when it is empty.
fn array_bytes(items: &[ParamValue], element: u32, family: ScalarType) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(20 + 12 * items.len());
    bytes.extend(i32::from(!items.is_empty()).to_be_bytes());
    bytes.extend(1_i32.to_be_bytes());
    bytes.extend(element.to_be_bytes());
    if !items.is_empty() {
        bytes.extend((items.len() as i32).to_be_bytes());
        bytes.extend(1_i32.to_be_bytes());
    }
    for (index, item) in items.iter().enumerate() {
        if matches!(item, ParamValue::Null(_) | ParamValue::Untyped(Value::Null)) {
            bytes.extend((-1_i32).to_be_bytes());
            continue;
        }
        let item = scalar_bytes(item, element, family)
            .map_err(|message| format!("element {index}: {message}"))?;
        bytes.extend((item.len() as i32).to_be_bytes());
        bytes.extend(item);
    }
    Ok(bytes)
}

fn scalar_bytes(value: &ParamValue, oid: u32, family: ScalarType) -> Result<Vec<u8>, String> {
    let r#type = ParamType {
        scalar: family,
        is_list: false,
    };
    let value = match value {
        // The server takes any parameter that it knows nothing about for text.
        ParamValue::Untyped(Value::Number(_) | Value::Bool(_)) if family == ScalarType::Text => {
            ParamValue::Text(untyped_text(value))
        }
        ParamValue::Untyped(json) => r#type.value(json)?,
        ParamValue::List(..) => {
            return Err("must be one value; for a list write `= any(:name)`".to_owned());
        }
        value if scalar_type(value) == Some(family) => value.clone(),
        value => text_of(value)
            .and_then(|text| params::from_text(family, &text))
            .ok_or_else(|| format!("the source wants a value of type {}", family.name()))?,
    };
    encode(&value, oid).ok_or_else(|| "is out of the range of the source's type".to_owned())
}

fn untyped_text(value: &ParamValue) -> String {
    match value {
        ParamValue::Untyped(json) => json_text(json).unwrap_or_default(),
        _ => String::new(),
    }
}

/// `None` when the value is out of the type's range.
fn encode(value: &ParamValue, oid: u32) -> Option<Vec<u8>> {
    Some(match value {
        ParamValue::Bool(value) => vec![u8::from(*value)],
        ParamValue::Int64(value) => match oid {
            21 => i16::try_from(*value).ok()?.to_be_bytes().to_vec(),
            23 => i32::try_from(*value).ok()?.to_be_bytes().to_vec(),
            26 => u32::try_from(*value).ok()?.to_be_bytes().to_vec(),
            _ => value.to_be_bytes().to_vec(),
        },
        ParamValue::Float64(value) if oid == 700 => (*value as f32).to_be_bytes().to_vec(),
        ParamValue::Float64(value) => value.to_be_bytes().to_vec(),
        ParamValue::Decimal(text) => numeric::encode(text)?,
        ParamValue::Text(text) if oid == JSONB => [&[1], text.as_bytes()].concat(),
        ParamValue::Text(text) => text.clone().into_bytes(),
        ParamValue::Date(date) => {
            let days = jiff::civil::date(1970, 1, 1).until(*date).ok()?.get_days();
            i32::try_from(i64::from(days) - EPOCH_DAYS)
                .ok()?
                .to_be_bytes()
                .to_vec()
        }
        ParamValue::Time(time) => {
            let second = i64::from(time.hour()) * 3600
                + i64::from(time.minute()) * 60
                + i64::from(time.second());
            let us = second * 1_000_000 + i64::from(time.subsec_nanosecond() / 1000);
            us.to_be_bytes().to_vec()
        }
        ParamValue::Timestamp(at) => {
            let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
            (at.as_microsecond() - EPOCH_US).to_be_bytes().to_vec()
        }
        ParamValue::Timestamptz(at) => (at.as_microsecond() - EPOCH_US).to_be_bytes().to_vec(),
        ParamValue::Uuid(id) => id.as_bytes().to_vec(),
        ParamValue::Bytes(bytes) => bytes.clone(),
        ParamValue::Null(_) | ParamValue::List(..) | ParamValue::Untyped(_) => return None,
    })
}

fn scalar_type(value: &ParamValue) -> Option<ScalarType> {
    Some(match value {
        ParamValue::Bool(_) => ScalarType::Bool,
        ParamValue::Int64(_) => ScalarType::Int64,
        ParamValue::Float64(_) => ScalarType::Float64,
        ParamValue::Decimal(_) => ScalarType::Decimal,
        ParamValue::Text(_) => ScalarType::Text,
        ParamValue::Date(_) => ScalarType::Date,
        ParamValue::Time(_) => ScalarType::Time,
        ParamValue::Timestamp(_) => ScalarType::Timestamp,
        ParamValue::Timestamptz(_) => ScalarType::Timestamptz,
        ParamValue::Uuid(_) => ScalarType::Uuid,
        ParamValue::Bytes(_) => ScalarType::Bytes,
        ParamValue::Null(_) | ParamValue::List(..) | ParamValue::Untyped(_) => return None,
    })
}

/// The text that every type of the server reads; `None` for NULL.
fn text_of(value: &ParamValue) -> Option<String> {
    Some(match value {
        ParamValue::Bool(value) => value.to_string(),
        ParamValue::Int64(value) => value.to_string(),
        ParamValue::Float64(value) => value.to_string(),
        ParamValue::Decimal(text) | ParamValue::Text(text) => text.clone(),
        ParamValue::Date(date) => date.to_string(),
        ParamValue::Time(time) => time.to_string(),
        ParamValue::Timestamp(at) => at.to_string(),
        ParamValue::Timestamptz(at) => at.to_string(),
        ParamValue::Uuid(id) => id.to_string(),
        ParamValue::Bytes(bytes) => format!("\\x{}", hex::encode(bytes)),
        ParamValue::Untyped(value) => return json_text(value),
        ParamValue::Null(_) | ParamValue::List(..) => return None,
    })
}

fn json_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        // Whole numbers arrive as doubles.
        Value::Number(number) => number.as_f64().map(|number| number.to_string()),
        other => Some(other.to_string()),
    }
}

fn array_literal(items: impl Iterator<Item = Option<String>>) -> String {
    let items: Vec<_> = items
        .map(|item| match item {
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            None => "NULL".to_owned(),
        })
        .collect();
    format!("{{{}}}", items.join(","))
}
