//! Values and rows as JSON: for jsonl files, JSON_LINES streams, and lists in csv.
//!
//! Integers and decimals are numbers with all their digits, json columns are embedded, lists are arrays, bytes base64;
//! what JSON has no number for (NaN, infinities) and everything else is a string.

use std::collections::BTreeSet;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::tz::TimeZone;
use serde::de::IgnoredAny;

use crate::export::Failure;

use super::{
    Error, scan,
    text::{self, Cells, Column, TextKind, Values},
};

/// Writes rows as objects, keyed by column name.
#[derive(Debug)]
pub(super) struct Objects {
    columns: Vec<Column>,
    /// `{"id":` of the first column, `,"name":` of the others.
    keys: Vec<Vec<u8>>,
}

impl Objects {
    /// # Errors
    /// [`Error::Invalid`] when two columns share a name: readers of JSON keep only one of them.
    pub(super) fn compile(schema: &SchemaRef, zone: &TimeZone) -> Result<Self, Error> {
        refuse_duplicates(schema)?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        let mut keys = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            columns.push(Column::compile(field, zone)?);
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            write_string(field.name(), &mut key);
            key.push(b':');
            keys.push(key);
        }
        Ok(Self { columns, keys })
    }

    /// Looks at the types of a batch, once.
    pub(super) fn bind<'a>(&self, batch: &'a RecordBatch) -> Result<Vec<Cells<'a>>, Error> {
        text::bind_all(&self.columns, batch)
    }

    /// Appends one object, without a newline.
    #[inline]
    pub(super) fn write_row(&self, cells: &mut [Cells<'_>], row: usize, out: &mut Vec<u8>) {
        for (key, cells) in self.keys.iter().zip(cells.iter_mut()) {
            out.extend_from_slice(key);
            write_value(cells, row, out);
        }
        out.extend_from_slice(if self.keys.is_empty() { b"{}" } else { b"}" });
    }
}

fn refuse_duplicates(schema: &Schema) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match schema
        .fields()
        .iter()
        .find(|field| !seen.insert(field.name()))
    {
        None => Ok(()),
        Some(field) => Err(Error::Invalid(Failure::invalid_field(
            "spec.columns",
            format!(
                "two columns are named {}; a JSON object keeps one of them: rename one, in the query or here",
                field.name()
            ),
        ))),
    }
}

/// Appends one value, `null` included.
#[inline]
pub(super) fn write_value(cells: &mut Cells<'_>, row: usize, out: &mut Vec<u8>) {
    if cells.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match &mut cells.values {
        Values::Text(array) => write_text(array.value(row), cells.kind, out),
        Values::LargeText(array) => write_text(array.value(row), cells.kind, out),
        Values::TextView(array) => write_text(array.value(row), cells.kind, out),
        Values::Float32(values) => match values[row] {
            value if value.is_finite() => text::write_float(out, value),
            value => write_plain(text::non_finite(value.into()), out),
        },
        Values::Float64(values) => match values[row] {
            value if value.is_finite() => text::write_float(out, value),
            value => write_plain(text::non_finite(value), out),
        },
        Values::Bool(_)
        | Values::Int8(_)
        | Values::Int16(_)
        | Values::Int32(_)
        | Values::Int64(_)
        | Values::UInt8(_)
        | Values::UInt16(_)
        | Values::UInt32(_)
        | Values::UInt64(_)
        | Values::Decimal128(..)
        | Values::Decimal256(..) => cells.write_text(row, out),
        Values::Date(_)
        | Values::DateMillis(_)
        | Values::Time32(..)
        | Values::Time64(..)
        | Values::Timestamp(..)
        | Values::Zoned { .. } => {
            out.push(b'"');
            cells.write_text(row, out);
            out.push(b'"');
        }
        Values::Bytes(array) => write_base64_string(array.value(row), out),
        Values::LargeBytes(array) => write_base64_string(array.value(row), out),
        Values::BytesView(array) => write_base64_string(array.value(row), out),
        Values::FixedBytes(array) => write_base64_string(array.value(row), out),
        Values::List(..) | Values::LargeList(..) => write_list(cells, row, out),
        Values::Null => out.extend_from_slice(b"null"),
    }
}

#[inline]
fn write_text(text: &str, kind: TextKind, out: &mut Vec<u8>) {
    match kind {
        TextKind::Plain => write_string(text, out),
        TextKind::Numeric if text::is_json_number(text) => out.extend_from_slice(text.as_bytes()),
        TextKind::Json => write_embedded(text, out),
        TextKind::Numeric | TextKind::Uuid => write_string(text, out),
    }
}

fn write_list(cells: &mut Cells<'_>, row: usize, out: &mut Vec<u8>) {
    let (items, range) = cells.elements(row).expect("called for lists only");
    out.push(b'[');
    for (index, item) in range.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_value(items, item, out);
    }
    out.push(b']');
}

/// JSON text goes out as it came, on one line. What does not parse (SQLite checks no declared type) is a string: one
/// bad cell must not break the file.
fn write_embedded(text: &str, out: &mut Vec<u8>) {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return write_string(text, out);
    }
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    // Valid JSON has line breaks only between tokens.
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// A text that needs no escaping.
fn write_plain(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// First byte of U+2028 and U+2029, which JavaScript takes for line ends.
const SEPARATOR_LEAD: u8 = 0xE2;

#[inline]
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    let special =
        |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == SEPARATOR_LEAD);
    if scan::any(text.as_bytes(), special) {
        write_escaped(text, out);
    } else {
        write_plain(text, out);
    }
}

#[inline(never)]
fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 16);
    out.push(b'"');
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let mut buffer = *b"\\u00__";
        let (escape, taken): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0C => (b"\\f", 1),
            0x00..0x20 => {
                buffer[4] = b'0' + (byte >> 4);
                buffer[5] = b"0123456789abcdef"[usize::from(byte & 15)];
                (&buffer, 1)
            }
            SEPARATOR_LEAD => match bytes.get(at + 1..at + 3) {
                Some([0x80, 0xA8]) => (b"\\u2028", 3),
                Some([0x80, 0xA9]) => (b"\\u2029", 3),
                _ => continue,
            },
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(escape);
        copied = at + taken;
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

fn write_base64_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    write_base64(bytes, out);
    out.push(b'"');
}

/// Standard alphabet, with padding.
pub(super) fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let len = base64::encoded_len(bytes.len(), true).expect("an Arrow value is far below usize");
    out.resize(start + len, 0);
    BASE64
        .encode_slice(bytes, &mut out[start..])
        .expect("the slice was made for it");
}
