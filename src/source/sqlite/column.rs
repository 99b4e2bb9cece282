//! From SQLite's values to Arrow builders: exactly, or not at all.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
        Int64Builder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    },
    datatypes::DataType,
};
use rusqlite::types::ValueRef;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::typing::Kind;
use crate::source::{civil, decimal};

/// Integers up to here are exact in a double.
const DOUBLE_EXACT_MAX: u64 = 1 << 53;
/// Decimal digits that SQLite gives back from a real as they were written.
const REAL_DIGITS: usize = 15;

/// A value as its column's type has it.
pub enum Decoded<'a> {
    Bool(bool),
    Int64(i64),
    Float64(f64),
    Decimal(i128),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    Days(i32),
    Micros(i64),
}

/// `None`: the column can't hold this value without changing it. NULL is not decoded.
pub fn decode(kind: Kind, value: ValueRef<'_>) -> Option<Decoded<'_>> {
    use ValueRef::{Blob, Integer, Real, Text};
    Some(match (kind, value) {
        (Kind::Int64, Integer(value)) => Decoded::Int64(value),
        (Kind::Float64, Real(value)) => Decoded::Float64(value),
        (Kind::Float64, Integer(value)) if value.unsigned_abs() <= DOUBLE_EXACT_MAX => {
            Decoded::Float64(value as f64)
        }
        (Kind::Text | Kind::MixedText, Text(bytes)) => {
            Decoded::Text(std::str::from_utf8(bytes).ok()?.into())
        }
        (Kind::MixedText, Integer(value)) => Decoded::Text(value.to_string().into()),
        (Kind::MixedText, Real(value)) => Decoded::Text(format!("{value:?}").into()),
        (Kind::Binary | Kind::MixedBinary, Blob(bytes)) | (Kind::MixedBinary, Text(bytes)) => {
            Decoded::Bytes(bytes)
        }
        (Kind::Bool, Integer(value @ 0..=1)) => Decoded::Bool(value == 1),
        (Kind::Decimal { precision, scale }, value) => {
            Decoded::Decimal(decode_decimal(value, precision, scale)?)
        }
        (Kind::Numeric, value) => Decoded::Text(decode_numeric(value)?),
        (Kind::Date, Text(bytes)) => Decoded::Days(civil::parse_date(bytes)?),
        (Kind::Time, Text(bytes)) => Decoded::Micros(civil::parse_time(bytes)?),
        (Kind::Timestamp, Text(bytes)) => Decoded::Micros(civil::parse_timestamp(bytes)?),
        (Kind::Timestamptz, Text(bytes)) => Decoded::Micros(civil::parse_timestamptz(bytes)?),
        (Kind::Uuid, Text(bytes)) if bytes.len() == 36 => {
            Uuid::try_parse_ascii(bytes).ok()?;
            Decoded::Text(std::str::from_utf8(bytes).ok()?.into())
        }
        (Kind::Json, Text(bytes)) => {
            serde_json::from_slice::<IgnoredAny>(bytes).ok()?;
            Decoded::Text(std::str::from_utf8(bytes).ok()?.into())
        }
        (Kind::Json, Integer(value)) => Decoded::Text(value.to_string().into()),
        (Kind::Json, Real(value)) if value.is_finite() => {
            Decoded::Text(format!("{value:?}").into())
        }
        _ => return None,
    })
}

fn decode_decimal(value: ValueRef<'_>, precision: u8, scale: u8) -> Option<i128> {
    match value {
        ValueRef::Integer(value) => {
            let mut buffer = itoa::Buffer::new();
            decimal::parse_i128(buffer.format(value).as_bytes(), precision, scale)
        }
        ValueRef::Real(value) => {
            decimal::parse_i128(exact_text(value)?.as_bytes(), precision, scale)
        }
        ValueRef::Text(text) => decimal::parse_i128(text, precision, scale),
        _ => None,
    }
}

/// The full decimal text of a number of any size.
fn decode_numeric(value: ValueRef<'_>) -> Option<Cow<'_, str>> {
    match value {
        ValueRef::Integer(value) => Some(value.to_string().into()),
        // The shortest text that reads back equal, without an exponent.
        ValueRef::Real(value) if value.is_finite() => Some(value.to_string().into()),
        ValueRef::Real(value) if value > 0.0 => Some("Infinity".into()),
        ValueRef::Real(_) => Some("-Infinity".into()),
        ValueRef::Text(text) if decimal::is_decimal(text) => {
            Some(std::str::from_utf8(text).ok()?.into())
        }
        _ => None,
    }
}

/// The decimal number that was written where a real is stored: SQLite keeps 15 digits of it, more are guesswork.
fn exact_text(value: f64) -> Option<String> {
    let text = value.to_string();
    (value.is_finite() && decimal::significant_digits(text.as_bytes()) <= REAL_DIGITS)
        .then_some(text)
}

/// The values of one column in the batch that is being filled.
pub struct Column {
    pub kind: Kind,
    builder: Builder,
}

enum Builder {
    Bool(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Column {
    pub fn new(kind: Kind) -> Self {
        let builder = match kind.data_type() {
            DataType::Boolean => Builder::Bool(BooleanBuilder::new()),
            DataType::Int64 => Builder::Int64(Int64Builder::new()),
            DataType::Float64 => Builder::Float64(Float64Builder::new()),
            decimal @ DataType::Decimal128(..) => {
                Builder::Decimal(Decimal128Builder::new().with_data_type(decimal))
            }
            DataType::Binary => Builder::Binary(BinaryBuilder::new()),
            DataType::Date32 => Builder::Date(Date32Builder::new()),
            DataType::Time64(_) => Builder::Time(Time64MicrosecondBuilder::new()),
            timestamp @ DataType::Timestamp(..) => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(timestamp))
            }
            _ => Builder::Text(StringBuilder::new()),
        };
        Self { kind, builder }
    }

    /// How many bytes the value takes, or `None` where the column can't hold it.
    pub fn append(&mut self, value: ValueRef<'_>) -> Option<usize> {
        if matches!(value, ValueRef::Null) {
            self.append_null();
            return Some(1);
        }
        match (&mut self.builder, decode(self.kind, value)?) {
            (Builder::Text(builder), Decoded::Text(text)) => {
                builder.append_value(&text);
                return Some(4 + text.len());
            }
            (Builder::Binary(builder), Decoded::Bytes(bytes)) => {
                builder.append_value(bytes);
                return Some(4 + bytes.len());
            }
            (Builder::Bool(builder), Decoded::Bool(value)) => builder.append_value(value),
            (Builder::Int64(builder), Decoded::Int64(value)) => builder.append_value(value),
            (Builder::Float64(builder), Decoded::Float64(value)) => builder.append_value(value),
            (Builder::Decimal(builder), Decoded::Decimal(value)) => builder.append_value(value),
            (Builder::Date(builder), Decoded::Days(value)) => builder.append_value(value),
            (Builder::Time(builder), Decoded::Micros(value)) => builder.append_value(value),
            (Builder::Timestamp(builder), Decoded::Micros(value)) => builder.append_value(value),
            _ => unreachable!("the builder was made for what its kind decodes to"),
        }
        Some(8)
    }

    pub fn append_null(&mut self) {
        match &mut self.builder {
            Builder::Bool(builder) => builder.append_null(),
            Builder::Int64(builder) => builder.append_null(),
            Builder::Float64(builder) => builder.append_null(),
            Builder::Decimal(builder) => builder.append_null(),
            Builder::Text(builder) => builder.append_null(),
            Builder::Binary(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Time(builder) => builder.append_null(),
            Builder::Timestamp(builder) => builder.append_null(),
        }
    }

    /// The batch's array; the column starts the next one.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Bool(builder) => Arc::new(builder.finish()),
            Builder::Int64(builder) => Arc::new(builder.finish()),
            Builder::Float64(builder) => Arc::new(builder.finish()),
            Builder::Decimal(builder) => Arc::new(builder.finish()),
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Binary(builder) => Arc::new(builder.finish()),
            Builder::Date(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}
