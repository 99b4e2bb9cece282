//! The server's binary values to Arrow arrays, without an allocation for each cell.
//!
//! Rows come one by one and are decoded some at a time, column by column, so that the type is looked at once for
//! each column and chunk. Formats are those of the server's `*_send` functions.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
        Decimal256Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
        Int64Builder, ListArray, NullBufferBuilder, RecordBatch, StringBuilder,
        Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, FieldRef, SchemaRef, i256},
};
use sqlx::{Row as _, postgres::PgRow};

use super::{
    columns::{Column, DECIMAL128_DIGITS_MAX, Mapping, Scalar},
    numeric,
};
use crate::source::Error;

/// Between PostgreSQL's epoch, 2000-01-01, and Unix's.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
const DAY_US: i64 = 86_400_000_000;

/// Collects rows into one batch.
pub struct BatchBuilder {
    schema: SchemaRef,
    builders: Vec<Builder>,
    rows: usize,
}

impl BatchBuilder {
    pub fn new(columns: &[Column], schema: SchemaRef) -> Self {
        let builders = columns.iter().zip(schema.fields());
        Self {
            builders: builders
                .map(|(column, field)| Builder::of(column.mapping, field))
                .collect(),
            schema,
            rows: 0,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `rows_before` counts the rows of batches that are gone.
    pub fn append(&mut self, rows: &[PgRow], rows_before: u64) -> Result<(), Error> {
        for (index, builder) in self.builders.iter_mut().enumerate() {
            let cells = rows.iter().map(|row| {
                let value = row
                    .try_get_raw(index)
                    .expect("a row has the columns of its statement");
                value.as_bytes().ok()
            });
            builder
                .append(cells)
                .map_err(|(row, message)| Error::Value {
                    row: rows_before + (self.rows + row) as u64,
                    column: self.schema.field(index).name().clone(),
                    message,
                })?;
        }
        self.rows += rows.len();
        Ok(())
    }

    /// Leaves the builder empty.
    ///
    /// # Errors
    /// A column that the catalog calls NOT NULL holds a NULL: foreign tables are not held to it.
    pub fn finish(&mut self) -> Result<RecordBatch, Error> {
        self.rows = 0;
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(|error| Error::Query {
            sqlstate: None,
            message: format!("the rows are not what the table declares: {error}"),
            retryable: false,
        })
    }
}

enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal128(Decimal128Builder, u8),
    Decimal256(Decimal256Builder, u8),
    Numeric(StringBuilder),
    Text(StringBuilder),
    Char(StringBuilder),
    Jsonb(StringBuilder),
    Uuid(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    List(Box<ListBuilder>),
}

struct ListBuilder {
    field: FieldRef,
    ends: Vec<i32>,
    validity: NullBufferBuilder,
    length: i32,
    element: Builder,
}

impl Builder {
    fn of(mapping: Mapping, field: &FieldRef) -> Self {
        match (mapping, field.data_type()) {
            (Mapping::Scalar(scalar), _) => Self::of_scalar(scalar),
            (Mapping::List(scalar), DataType::List(element)) => Self::List(Box::new(ListBuilder {
                field: Arc::clone(element),
                ends: vec![0],
                validity: NullBufferBuilder::new(0),
                length: 0,
                element: Self::of_scalar(scalar),
            })),
            _ => Self::of_scalar(Scalar::Text),
        }
    }

    fn of_scalar(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Bool => Self::Bool(BooleanBuilder::new()),
            Scalar::Int2 => Self::Int2(Int16Builder::new()),
            Scalar::Int4 => Self::Int4(Int32Builder::new()),
            Scalar::Int8 => Self::Int8(Int64Builder::new()),
            Scalar::Oid => Self::Oid(Int64Builder::new()),
            Scalar::Float4 => Self::Float4(Float32Builder::new()),
            Scalar::Float8 => Self::Float8(Float64Builder::new()),
            Scalar::Decimal { precision, scale } if precision <= DECIMAL128_DIGITS_MAX => {
                let builder = Decimal128Builder::new().with_data_type(scalar.data_type());
                Self::Decimal128(builder, scale)
            }
            Scalar::Decimal { scale, .. } => {
                let builder = Decimal256Builder::new().with_data_type(scalar.data_type());
                Self::Decimal256(builder, scale)
            }
            Scalar::Numeric => Self::Numeric(StringBuilder::new()),
            Scalar::Text | Scalar::Json => Self::Text(StringBuilder::new()),
            Scalar::Char => Self::Char(StringBuilder::new()),
            Scalar::Jsonb => Self::Jsonb(StringBuilder::new()),
            Scalar::Uuid => Self::Uuid(StringBuilder::new()),
            Scalar::Bytea => Self::Bytea(BinaryBuilder::new()),
            Scalar::Date => Self::Date(Date32Builder::new()),
            Scalar::Time => Self::Time(Time64MicrosecondBuilder::new()),
            Scalar::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            Scalar::Timestamptz => Self::Timestamp(
                TimestampMicrosecondBuilder::new().with_data_type(scalar.data_type()),
            ),
        }
    }

    /// Errors carry the index of the cell.
    fn append<'a>(
        &mut self,
        cells: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<(), (usize, String)> {
        /// One loop for each type: a NULL, or a value that `$read` makes of the bytes.
        macro_rules! each {
            ($builder:expr, $read:expr) => {{
                for (index, cell) in cells.enumerate() {
                    match cell {
                        None => $builder.append_null(),
                        Some(bytes) => {
                            $builder.append_value($read(bytes).map_err(|m: String| (index, m))?)
                        }
                    }
                }
            }};
        }
        /// As `each!`, for text that is written piece by piece.
        macro_rules! each_text {
            ($builder:expr, $write:expr) => {{
                for (index, cell) in cells.enumerate() {
                    match cell {
                        None => $builder.append_null(),
                        Some(bytes) => {
                            $write(bytes, $builder).map_err(|m: String| (index, m))?;
                            $builder.append_value("");
                        }
                    }
                }
            }};
        }
        match self {
            Self::Bool(b) => each!(b, |v| fixed::<1>(v).map(|[v]| v != 0)),
            Self::Int2(b) => each!(b, |v| fixed(v).map(i16::from_be_bytes)),
            Self::Int4(b) => each!(b, |v| fixed(v).map(i32::from_be_bytes)),
            Self::Int8(b) => each!(b, |v| fixed(v).map(i64::from_be_bytes)),
            Self::Oid(b) => each!(b, |v| fixed(v).map(|v| i64::from(u32::from_be_bytes(v)))),
            Self::Float4(b) => each!(b, |v| fixed(v).map(f32::from_be_bytes)),
            Self::Float8(b) => each!(b, |v| fixed(v).map(f64::from_be_bytes)),
            Self::Decimal128(b, scale) => each!(b, |v| numeric::scaled::<i128>(v, *scale)),
            Self::Decimal256(b, scale) => each!(b, |v| numeric::scaled::<i256>(v, *scale)),
            Self::Numeric(b) => each_text!(b, numeric::write_text),
            Self::Text(b) => each!(b, text),
            Self::Char(b) => each_text!(b, write_char),
            Self::Jsonb(b) => each!(b, jsonb),
            Self::Uuid(b) => each_text!(b, write_uuid),
            Self::Bytea(b) => each!(b, Ok),
            Self::Date(b) => each!(b, |v| fixed(v).and_then(date)),
            Self::Time(b) => each!(b, |v| fixed(v).and_then(time)),
            Self::Timestamp(b) => each!(b, |v| fixed(v).and_then(timestamp)),
            Self::List(list) => {
                for (index, cell) in cells.enumerate() {
                    list.append(cell).map_err(|message| (index, message))?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int2(b) => Arc::new(b.finish()),
            Self::Int4(b) => Arc::new(b.finish()),
            Self::Int8(b) | Self::Oid(b) => Arc::new(b.finish()),
            Self::Float4(b) => Arc::new(b.finish()),
            Self::Float8(b) => Arc::new(b.finish()),
            Self::Decimal128(b, _) => Arc::new(b.finish()),
            Self::Decimal256(b, _) => Arc::new(b.finish()),
            Self::Numeric(b) | Self::Text(b) | Self::Char(b) | Self::Jsonb(b) | Self::Uuid(b) => {
                Arc::new(b.finish())
            }
            Self::Bytea(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::List(list) => Arc::new(list.finish()),
        }
    }
}

impl ListBuilder {
    /// `array_send`: dimensions, a flag, the element's type, then length and lower bound of each dimension, then the
    /// elements. Lower bounds are dropped.
    fn append(&mut self, cell: Option<&[u8]>) -> Result<(), String> {
        if let Some(bytes) = cell {
            let (header, rest) = bytes.split_at_checked(12).ok_or_else(malformed)?;
            let count = match i32::from_be_bytes([header[0], header[1], header[2], header[3]]) {
                0 => 0,
                1 => i32::from_be_bytes(fixed(rest.get(..4).ok_or_else(malformed)?)?),
                _ => {
                    return Err("an array with more than one dimension fits no list; \
                                select it as ::text"
                        .to_owned());
                }
            };
            self.length = self
                .length
                .checked_add(count)
                .ok_or("too many elements in one batch")?;
            let elements = Elements {
                left: count as usize,
                bytes: rest.get(8..).unwrap_or_default(),
            };
            self.element
                .append(elements)
                .map_err(|(index, message)| format!("element {}: {message}", index + 1))?;
        }
        self.validity.append(cell.is_some());
        self.ends.push(self.length);
        Ok(())
    }

    fn finish(&mut self) -> ListArray {
        self.length = 0;
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        ListArray::new(
            Arc::clone(&self.field),
            OffsetBuffer::new(ends.into()),
            self.element.finish(),
            self.validity.finish(),
        )
    }
}

/// Each is a length, -1 for NULL, and its bytes. A short message reads as NULLs; the protocol has checked lengths.
struct Elements<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.bytes.split_at_checked(4).unwrap_or((&[], &[]));
        let length = fixed(length).map_or(-1, i32::from_be_bytes);
        let value = usize::try_from(length).ok().and_then(|n| rest.get(..n));
        self.bytes = &rest[value.map_or(0, <[u8]>::len)..];
        Some(value)
    }
}

fn malformed() -> String {
    "the server sent a value of another length than its type has".to_owned()
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| malformed())
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "the text is not valid UTF-8".to_owned())
}

/// A version byte, then the text.
fn jsonb(bytes: &[u8]) -> Result<&str, String> {
    match bytes.split_first() {
        Some((1, rest)) => text(rest),
        _ => Err("an unknown version of jsonb".to_owned()),
    }
}

/// `"char"` is one byte; zero is the empty text, and what is not ASCII is written as PostgreSQL 16 does.
fn write_char(bytes: &[u8], out: &mut StringBuilder) -> Result<(), String> {
    let [byte] = fixed(bytes)?;
    match byte {
        0 => Ok(()),
        1..=127 => out.write_char(char::from(byte)),
        _ => write!(out, "\\{byte:03o}"),
    }
    .map_err(|_| malformed())
}

fn write_uuid(bytes: &[u8], out: &mut StringBuilder) -> Result<(), String> {
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = uuid::Uuid::from_bytes(fixed(bytes)?);
    out.write_str(id.hyphenated().encode_lower(&mut buffer))
        .map_err(|_| malformed())
}

/// Infinities are the extremes of the integer, there and here.
fn date(bytes: [u8; 4]) -> Result<i32, String> {
    match i32::from_be_bytes(bytes) {
        infinite @ (i32::MIN | i32::MAX) => Ok(infinite),
        days => days
            .checked_add(EPOCH_DAYS)
            .ok_or_else(|| "the date is out of range".to_owned()),
    }
}

fn timestamp(bytes: [u8; 8]) -> Result<i64, String> {
    match i64::from_be_bytes(bytes) {
        infinite @ (i64::MIN | i64::MAX) => Ok(infinite),
        us => us
            .checked_add(EPOCH_US)
            .ok_or_else(|| "a time after the year 294246 is out of range".to_owned()),
    }
}

fn time(bytes: [u8; 8]) -> Result<i64, String> {
    match i64::from_be_bytes(bytes) {
        us if us < DAY_US => Ok(us),
        _ => Err("24:00:00 is no time of a day; select it as ::text".to_owned()),
    }
}
