//! How single values are written as text, so that csv, JSON, row streams, sheets and samples agree.
//!
//! A [`Column`] is compiled once from a field and the export's time zone; [`Column::bind`] looks at an array once for each
//! batch and gives [`Cells`], whose values are then written without allocation or dynamic calls. Quoting and escaping
//! belong to the formats.

mod names;
mod number;
#[cfg(test)]
mod tests;
mod time;

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray,
        LargeBinaryArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Field, Float32Type,
        Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, Time32MillisecondType,
        Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
    },
};
use jiff::tz::TimeZone;

use crate::export::{
    Failure,
    field::{kind, metadata},
};

use super::{Error, json};

pub use names::{fields, type_name};
pub(super) use number::{is_json_number, non_finite, write_float, write_integer};
use time::Offsets;

/// What a text column holds beyond its Arrow type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextKind {
    Plain,
    /// Decimal digits of any length, or `NaN`, `Infinity`, `-Infinity`.
    Numeric,
    Json,
    Uuid,
}

/// How the values of one column are written; compiled once for an export.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    header: String,
    kind: TextKind,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The array's own type says it all.
    Plain,
    Zoned(Offsets),
    List(Arc<Column>),
}

impl Column {
    /// Zoned times are written in `zone`, whatever zone the column's type names: Arrow's values are UTC in any case.
    ///
    /// # Errors
    /// [`Error::Invalid`] for types that have no text form here.
    pub fn compile(field: &Field, zone: &TimeZone) -> Result<Self, Error> {
        let form = match field.data_type() {
            DataType::Timestamp(_, Some(_)) => Form::Zoned(Offsets::new(zone.clone())),
            DataType::List(item) | DataType::LargeList(item) => {
                Form::List(Arc::new(Self::compile(item, zone)?))
            }
            plain if is_plain(plain) => Form::Plain,
            other => {
                return Err(Error::Invalid(Failure::invalid_field(
                    "spec.columns",
                    format!(
                        "column {} has the type {}, which has no text form; cast it in an expression",
                        field.name(),
                        type_name(other)
                    ),
                )));
            }
        };
        let metadata = field.metadata();
        Ok(Self {
            name: field.name().clone(),
            header: metadata
                .get(metadata::HEADER)
                .unwrap_or(field.name())
                .clone(),
            kind: match metadata.get(metadata::KIND).map(String::as_str) {
                Some(kind::NUMERIC) => TextKind::Numeric,
                Some(kind::JSON) => TextKind::Json,
                Some(kind::UUID) => TextKind::Uuid,
                _ => TextKind::Plain,
            },
            form,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The title in files.
    pub fn header(&self) -> &str {
        &self.header
    }

    pub fn kind(&self) -> TextKind {
        self.kind
    }

    /// Looks at the array's type, once for each batch.
    ///
    /// # Errors
    /// [`Error::Broken`] when the array is not of the field's type.
    pub fn bind<'a>(&self, array: &'a ArrayRef) -> Result<Cells<'a>, Error> {
        let values = match &self.form {
            Form::Plain => plain_values(array.as_ref()),
            Form::Zoned(offsets) => instants(array.as_ref()).map(|(ticks, unit)| Values::Zoned {
                ticks,
                unit,
                offsets: offsets.clone(),
            }),
            Form::List(item) => list_values(array.as_ref(), item)?,
        };
        let values = values.ok_or_else(|| {
            Error::Broken(format!(
                "column {} arrived as {}",
                self.name,
                type_name(array.data_type())
            ))
        })?;
        Ok(Cells {
            nulls: array.nulls(),
            kind: self.kind,
            values,
        })
    }
}

/// The columns of a schema.
pub fn compile_all(schema: &Schema, zone: &TimeZone) -> Result<Vec<Column>, Error> {
    schema
        .fields()
        .iter()
        .map(|field| Column::compile(field, zone))
        .collect()
}

/// # Errors
/// [`Error::Broken`] when the batch is not of the schema that the columns were compiled from.
pub fn bind_all<'a>(columns: &[Column], batch: &'a RecordBatch) -> Result<Vec<Cells<'a>>, Error> {
    if columns.len() != batch.num_columns() {
        return Err(Error::Broken(format!(
            "a batch of {} columns arrived where {} were announced",
            batch.num_columns(),
            columns.len()
        )));
    }
    columns
        .iter()
        .zip(batch.columns())
        .map(|(column, array)| column.bind(array))
        .collect()
}

/// The cells of one column of one batch.
pub struct Cells<'a> {
    nulls: Option<&'a NullBuffer>,
    pub(super) kind: TextKind,
    pub(super) values: Values<'a>,
}

/// Typed views of an array: the row loops of the formats match on them.
pub(super) enum Values<'a> {
    Null,
    Bool(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal128(&'a [i128], i8),
    Decimal256(&'a [i256], i8),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Bytes(&'a BinaryArray),
    LargeBytes(&'a LargeBinaryArray),
    BytesView(&'a BinaryViewArray),
    FixedBytes(&'a FixedSizeBinaryArray),
    Date(&'a [i32]),
    /// Milliseconds.
    DateMillis(&'a [i64]),
    Time32(&'a [i32], TimeUnit),
    Time64(&'a [i64], TimeUnit),
    Timestamp(&'a [i64], TimeUnit),
    Zoned {
        ticks: &'a [i64],
        unit: TimeUnit,
        offsets: Offsets,
    },
    List(&'a OffsetBuffer<i32>, Box<Cells<'a>>),
    LargeList(&'a OffsetBuffer<i64>, Box<Cells<'a>>),
}

impl<'a> Cells<'a> {
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self.nulls {
            Some(nulls) => nulls.is_null(row),
            None => matches!(self.values, Values::Null),
        }
    }

    /// The value of a text column.
    #[inline]
    pub fn str(&self, row: usize) -> Option<&str> {
        match &self.values {
            Values::Text(array) => Some(array.value(row)),
            Values::LargeText(array) => Some(array.value(row)),
            Values::TextView(array) => Some(array.value(row)),
            _ => None,
        }
    }

    /// The elements of a list cell: their cells, and the range of rows in them.
    pub(super) fn elements(&mut self, row: usize) -> Option<(&mut Cells<'a>, Range<usize>)> {
        match &mut self.values {
            Values::List(offsets, items) => {
                Some((items, offsets[row] as usize..offsets[row + 1] as usize))
            }
            Values::LargeList(offsets, items) => {
                Some((items, offsets[row] as usize..offsets[row + 1] as usize))
            }
            _ => None,
        }
    }

    /// Appends the text of one cell that is not null: no quotes, no escapes; bytes as `\x` hex, lists as JSON text.
    /// It is always valid UTF-8.
    #[inline]
    pub fn write_text(&mut self, row: usize, out: &mut Vec<u8>) {
        match &mut self.values {
            Values::Null => {}
            Values::Bool(array) => out.extend_from_slice(bool_text(array.value(row))),
            Values::Int8(values) => write_integer(out, values[row]),
            Values::Int16(values) => write_integer(out, values[row]),
            Values::Int32(values) => write_integer(out, values[row]),
            Values::Int64(values) => write_integer(out, values[row]),
            Values::UInt8(values) => write_integer(out, values[row]),
            Values::UInt16(values) => write_integer(out, values[row]),
            Values::UInt32(values) => write_integer(out, values[row]),
            Values::UInt64(values) => write_integer(out, values[row]),
            Values::Float32(values) => write_float(out, values[row]),
            Values::Float64(values) => write_float(out, values[row]),
            Values::Decimal128(values, scale) => number::write_decimal(out, values[row], *scale),
            Values::Decimal256(values, scale) => number::write_decimal256(out, values[row], *scale),
            Values::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::LargeText(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::TextView(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Bytes(array) => write_hex(out, array.value(row)),
            Values::LargeBytes(array) => write_hex(out, array.value(row)),
            Values::BytesView(array) => write_hex(out, array.value(row)),
            Values::FixedBytes(array) => write_hex(out, array.value(row)),
            Values::Date(days) => time::write_date(out, days[row]),
            Values::DateMillis(millis) => {
                let days = millis[row].div_euclid(86_400_000);
                time::write_date(out, days.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
            }
            Values::Time32(values, unit) => time::write_time(out, values[row].into(), *unit),
            Values::Time64(values, unit) => time::write_time(out, values[row], *unit),
            Values::Timestamp(values, unit) => time::write_timestamp(out, values[row], *unit),
            Values::Zoned {
                ticks,
                unit,
                offsets,
            } => time::write_zoned(out, ticks[row], *unit, offsets),
            Values::List(..) | Values::LargeList(..) => json::write_value(self, row, out),
        }
    }
}

pub(super) fn bool_text(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

/// `\x` and two lower-case digits a byte, as PostgreSQL writes bytea.
fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(2 + 2 * bytes.len());
    out.extend_from_slice(b"\\x");
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    hex::encode_to_slice(bytes, &mut out[start..]).expect("the slice was made for it");
}

fn is_plain(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(
        data_type,
        T::Null
            | T::Boolean
            | T::Int8
            | T::Int16
            | T::Int32
            | T::Int64
            | T::UInt8
            | T::UInt16
            | T::UInt32
            | T::UInt64
            | T::Float32
            | T::Float64
            | T::Decimal128(..)
            | T::Decimal256(..)
            | T::Utf8
            | T::LargeUtf8
            | T::Utf8View
            | T::Binary
            | T::LargeBinary
            | T::BinaryView
            | T::FixedSizeBinary(_)
            | T::Date32
            | T::Date64
            | T::Time32(_)
            | T::Time64(_)
            | T::Timestamp(_, None)
    )
}

fn plain_values(array: &dyn Array) -> Option<Values<'_>> {
    use DataType as T;
    Some(match array.data_type() {
        T::Null => Values::Null,
        T::Boolean => Values::Bool(array.as_boolean()),
        T::Int8 => Values::Int8(array.as_primitive::<Int8Type>().values()),
        T::Int16 => Values::Int16(array.as_primitive::<Int16Type>().values()),
        T::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
        T::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
        T::UInt8 => Values::UInt8(array.as_primitive::<UInt8Type>().values()),
        T::UInt16 => Values::UInt16(array.as_primitive::<UInt16Type>().values()),
        T::UInt32 => Values::UInt32(array.as_primitive::<UInt32Type>().values()),
        T::UInt64 => Values::UInt64(array.as_primitive::<UInt64Type>().values()),
        T::Float32 => Values::Float32(array.as_primitive::<Float32Type>().values()),
        T::Float64 => Values::Float64(array.as_primitive::<Float64Type>().values()),
        T::Decimal128(_, scale) => {
            Values::Decimal128(array.as_primitive::<Decimal128Type>().values(), *scale)
        }
        T::Decimal256(_, scale) => {
            Values::Decimal256(array.as_primitive::<Decimal256Type>().values(), *scale)
        }
        T::Utf8 => Values::Text(array.as_string()),
        T::LargeUtf8 => Values::LargeText(array.as_string()),
        T::Utf8View => Values::TextView(array.as_string_view()),
        T::Binary => Values::Bytes(array.as_binary()),
        T::LargeBinary => Values::LargeBytes(array.as_binary()),
        T::BinaryView => Values::BytesView(array.as_binary_view()),
        T::FixedSizeBinary(_) => Values::FixedBytes(array.as_fixed_size_binary()),
        T::Date32 => Values::Date(array.as_primitive::<Date32Type>().values()),
        T::Date64 => Values::DateMillis(array.as_primitive::<Date64Type>().values()),
        T::Time32(unit @ TimeUnit::Second) => {
            Values::Time32(array.as_primitive::<Time32SecondType>().values(), *unit)
        }
        T::Time32(unit) => Values::Time32(
            array.as_primitive::<Time32MillisecondType>().values(),
            *unit,
        ),
        T::Time64(unit @ TimeUnit::Microsecond) => Values::Time64(
            array.as_primitive::<Time64MicrosecondType>().values(),
            *unit,
        ),
        T::Time64(unit) => {
            Values::Time64(array.as_primitive::<Time64NanosecondType>().values(), *unit)
        }
        T::Timestamp(_, None) => {
            let (ticks, unit) = instants(array)?;
            Values::Timestamp(ticks, unit)
        }
        _ => return None,
    })
}

fn instants(array: &dyn Array) -> Option<(&[i64], TimeUnit)> {
    let DataType::Timestamp(unit, _) = array.data_type() else {
        return None;
    };
    let ticks: &[i64] = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
    };
    Some((ticks, *unit))
}

fn list_values<'a>(array: &'a dyn Array, item: &Column) -> Result<Option<Values<'a>>, Error> {
    Ok(match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            Some(Values::List(
                list.offsets(),
                Box::new(item.bind(list.values())?),
            ))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            Some(Values::LargeList(
                list.offsets(),
                Box::new(item.bind(list.values())?),
            ))
        }
        _ => None,
    })
}
