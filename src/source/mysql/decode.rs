//! From the bytes of a binary row to Arrow builders: exactly, or an error that names the value.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
        Decimal256Builder, Float32Builder, Float64Builder, Int8Builder, Int16Builder, Int32Builder,
        Int64Builder, StringBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt16Builder,
        UInt32Builder, UInt64Builder,
    },
    datatypes::DataType,
};

use super::{
    columns::{Planned, Wire},
    wkt,
};
use crate::source::{civil, decimal};

/// The values of one column in the batch that is being filled.
pub struct Column {
    wire: Wire,
    builder: Builder,
}

enum Builder {
    Bool(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal128(Decimal128Builder, u8, u8),
    Decimal256(Decimal256Builder, u8, u8),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

/// Calls the same method on whichever builder it is.
macro_rules! each {
    ($builder:expr, $name:ident => $body:expr) => {
        match $builder {
            Builder::Bool($name) => $body,
            Builder::Int8($name) => $body,
            Builder::Int16($name) => $body,
            Builder::Int32($name) => $body,
            Builder::Int64($name) => $body,
            Builder::UInt8($name) => $body,
            Builder::UInt16($name) => $body,
            Builder::UInt32($name) => $body,
            Builder::UInt64($name) => $body,
            Builder::Float32($name) => $body,
            Builder::Float64($name) => $body,
            Builder::Decimal128($name, ..) => $body,
            Builder::Decimal256($name, ..) => $body,
            Builder::Text($name) => $body,
            Builder::Binary($name) => $body,
            Builder::Date($name) => $body,
            Builder::Timestamp($name) => $body,
        }
    };
}

/// Why a value could not be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misfit(pub &'static str);

const BROKEN: Misfit = Misfit("the server sent a value that can't be read");
const NOT_BOOL: Misfit =
    Misfit("a tinyint(1) that is neither 0 nor 1; CAST(column AS SIGNED) exports it as a number");
const ZERO_DATE: Misfit = Misfit(
    "a zero date; NULLIF or CAST(column AS CHAR) in the query says what should become of it",
);

impl Column {
    pub fn new(planned: &Planned) -> Self {
        let builder = match planned.data_type() {
            DataType::Boolean => Builder::Bool(BooleanBuilder::new()),
            DataType::Int8 => Builder::Int8(Int8Builder::new()),
            DataType::Int16 => Builder::Int16(Int16Builder::new()),
            DataType::Int32 => Builder::Int32(Int32Builder::new()),
            DataType::Int64 => Builder::Int64(Int64Builder::new()),
            DataType::UInt8 => Builder::UInt8(UInt8Builder::new()),
            DataType::UInt16 => Builder::UInt16(UInt16Builder::new()),
            DataType::UInt32 => Builder::UInt32(UInt32Builder::new()),
            DataType::UInt64 => Builder::UInt64(UInt64Builder::new()),
            DataType::Float32 => Builder::Float32(Float32Builder::new()),
            DataType::Float64 => Builder::Float64(Float64Builder::new()),
            r#type @ DataType::Decimal128(precision, scale) => Builder::Decimal128(
                Decimal128Builder::new().with_data_type(r#type),
                precision,
                scale as u8,
            ),
            r#type @ DataType::Decimal256(precision, scale) => Builder::Decimal256(
                Decimal256Builder::new().with_data_type(r#type),
                precision,
                scale as u8,
            ),
            DataType::Binary => Builder::Binary(BinaryBuilder::new()),
            DataType::Date32 => Builder::Date(Date32Builder::new()),
            r#type @ DataType::Timestamp(..) => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(r#type))
            }
            _ => Builder::Text(StringBuilder::new()),
        };
        Self {
            wire: planned.wire,
            builder,
        }
    }

    /// How many bytes the value takes. `None` is NULL.
    pub fn append(&mut self, value: Option<&[u8]>) -> Result<usize, Misfit> {
        let Some(bytes) = value else {
            each!(&mut self.builder, builder => builder.append_null());
            return Ok(1);
        };
        match &mut self.builder {
            Builder::Text(builder) => return append_text(builder, self.wire, bytes),
            Builder::Binary(builder) => {
                builder.append_value(bytes);
                return Ok(4 + bytes.len());
            }
            Builder::Bool(builder) => builder.append_value(match bytes {
                [0] => false,
                [1] => true,
                _ => return Err(NOT_BOOL),
            }),
            Builder::Int8(builder) => builder.append_value(i8::from_le_bytes(fixed(bytes)?)),
            Builder::Int16(builder) => builder.append_value(i16::from_le_bytes(fixed(bytes)?)),
            Builder::Int32(builder) => builder.append_value(i32::from_le_bytes(fixed(bytes)?)),
            Builder::Int64(builder) => builder.append_value(i64::from_le_bytes(fixed(bytes)?)),
            Builder::UInt8(builder) => builder.append_value(u8::from_le_bytes(fixed(bytes)?)),
            Builder::UInt16(builder) => builder.append_value(u16::from_le_bytes(fixed(bytes)?)),
            Builder::UInt32(builder) => builder.append_value(u32::from_le_bytes(fixed(bytes)?)),
            Builder::UInt64(builder) => builder.append_value(match self.wire {
                Wire::Bit { .. } => big_endian(bytes)?,
                _ => u64::from_le_bytes(fixed(bytes)?),
            }),
            Builder::Float32(builder) => builder.append_value(f32::from_le_bytes(fixed(bytes)?)),
            Builder::Float64(builder) => builder.append_value(f64::from_le_bytes(fixed(bytes)?)),
            Builder::Decimal128(builder, precision, scale) => {
                builder.append_value(decimal::parse_i128(bytes, *precision, *scale).ok_or(BROKEN)?)
            }
            Builder::Decimal256(builder, precision, scale) => {
                builder.append_value(decimal::parse_i256(bytes, *precision, *scale).ok_or(BROKEN)?)
            }
            Builder::Date(builder) => builder.append_value(date(bytes)?.0),
            Builder::Timestamp(builder) => builder.append_value(datetime(bytes)?),
        }
        Ok(8)
    }

    /// The batch's array; the column starts the next one.
    pub fn finish(&mut self) -> ArrayRef {
        each!(&mut self.builder, builder => Arc::new(builder.finish()))
    }
}

fn append_text(builder: &mut StringBuilder, wire: Wire, bytes: &[u8]) -> Result<usize, Misfit> {
    let len = match wire {
        Wire::Time => {
            let text = time(bytes)?;
            builder.append_value(&text);
            text.len()
        }
        Wire::Geometry => {
            let text = wkt::of_geometry(bytes).ok_or(BROKEN)?;
            builder.append_value(&text);
            text.len()
        }
        _ => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Misfit("text that is no UTF-8; CAST(column AS BINARY) exports it"))?;
            builder.append_value(text);
            text.len()
        }
    };
    Ok(4 + len)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misfit> {
    bytes.try_into().map_err(|_| BROKEN)
}

fn big_endian(bytes: &[u8]) -> Result<u64, Misfit> {
    if bytes.len() > 8 {
        return Err(BROKEN);
    }
    Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

/// Days since 1970, and what follows the date: a length byte, then year, month, day.
fn date(bytes: &[u8]) -> Result<(i32, &[u8]), Misfit> {
    match bytes {
        [0] => Err(ZERO_DATE),
        [4 | 7 | 11, y0, y1, month, day, rest @ ..] => {
            let year = i32::from(u16::from_le_bytes([*y0, *y1]));
            if year == 0 || *month == 0 || *day == 0 {
                return Err(ZERO_DATE);
            }
            let days = civil::days(year, u32::from(*month), u32::from(*day));
            // ALLOW_INVALID_DATES lets 31 February in.
            let days = days.ok_or(Misfit("a day that no calendar has"))?;
            Ok((days, rest))
        }
        _ => Err(BROKEN),
    }
}

fn datetime(bytes: &[u8]) -> Result<i64, Misfit> {
    let (days, rest) = date(bytes)?;
    let micros = match *rest {
        [] => Some(0),
        [hour, minute, second] => civil::micros(hour.into(), minute.into(), second.into(), 0),
        [hour, minute, second, m0, m1, m2, m3] => civil::micros(
            hour.into(),
            minute.into(),
            second.into(),
            u32::from_le_bytes([m0, m1, m2, m3]),
        ),
        _ => None,
    };
    Ok(i64::from(days) * civil::MICROS_PER_DAY + micros.ok_or(BROKEN)?)
}

/// `[-]HHH:MM:SS[.ffffff]`, trailing zeros cut.
fn time(bytes: &[u8]) -> Result<String, Misfit> {
    let (negative, days, clock, micro) = match *bytes {
        [0] => (0, 0, [0, 0, 0], 0),
        [8, negative, d0, d1, d2, d3, h, m, s] => {
            (negative, u32::from_le_bytes([d0, d1, d2, d3]), [h, m, s], 0)
        }
        [12, negative, d0, d1, d2, d3, h, m, s, m0, m1, m2, m3] => (
            negative,
            u32::from_le_bytes([d0, d1, d2, d3]),
            [h, m, s],
            u32::from_le_bytes([m0, m1, m2, m3]),
        ),
        _ => return Err(BROKEN),
    };
    let sign = if negative == 1 { "-" } else { "" };
    let hours = u64::from(days) * 24 + u64::from(clock[0]);
    let mut text = format!("{sign}{hours:02}:{:02}:{:02}", clock[1], clock[2]);
    if micro > 0 {
        write!(text, ".{micro:06}").expect("a String takes everything");
        text.truncate(text.trim_end_matches('0').len());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(&[0]).as_deref(), Ok("00:00:00"));
        assert_eq!(
            time(&[8, 1, 34, 0, 0, 0, 22, 59, 59]).as_deref(),
            Ok("-838:59:59")
        );
        assert_eq!(
            time(&[12, 0, 0, 0, 0, 0, 1, 2, 3, 0x20, 0xa1, 0x07, 0]).as_deref(),
            Ok("01:02:03.5")
        );
        assert_eq!(time(&[3, 0]), Err(BROKEN));
    }

    #[test]
    fn zero_dates_and_dates_that_do_not_exist() {
        assert_eq!(date(&[0]), Err(ZERO_DATE));
        assert_eq!(date(&[4, 0xe8, 0x07, 0, 10]), Err(ZERO_DATE));
        assert!(date(&[4, 0xe7, 0x07, 2, 31]).is_err());
        assert_eq!(date(&[4, 0xb2, 0x07, 1, 2]), Ok((1, &[][..])));
        assert_eq!(
            datetime(&[7, 0xb2, 0x07, 1, 2, 0, 0, 1]),
            Ok(86_401_000_000)
        );
    }
}
