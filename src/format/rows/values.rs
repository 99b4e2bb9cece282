//! Rows as the wire bytes of `ValueRows { repeated google.protobuf.ListValue rows = 1; }`, written cell by cell.
//!
//! What a double holds exactly is a number; wider integers, decimals, times and the rest are strings, NaN and
//! infinities too (JSON has no number for them, and grpcurl prints JSON).

use crate::format::{
    json::write_base64,
    text::{Cells, Values, non_finite},
};

/// Length-delimited fields: `ValueRows.rows` and `ListValue.values` have number 1, `Value.string_value` 3,
/// `Value.list_value` 6.
const FIRST: u8 = 1 << 3 | 2;
const STRING: u8 = 3 << 3 | 2;
const LIST: u8 = 6 << 3 | 2;
/// `Value { null_value: NULL_VALUE }`, as an element.
const NULL: [u8; 4] = [FIRST, 2, 1 << 3, 0];
/// `Value { bool_value }` up to the value.
const BOOL: [u8; 3] = [FIRST, 2, 4 << 3];
/// `Value { number_value }` up to the value.
const NUMBER: [u8; 3] = [FIRST, 9, 2 << 3 | 1];

/// What a length of one byte can say of a message that holds a string's key and length, too.
const SHORT_TEXT_MAX: usize = 125;

/// Appends one element of `ValueRows.rows`.
#[inline]
pub(super) fn write_row(columns: &mut [Cells<'_>], row: usize, out: &mut Vec<u8>) {
    // Most rows take 128 to 16,383 bytes: their length two.
    out.extend_from_slice(&[FIRST, 0, 0]);
    let start = out.len();
    for cells in columns {
        write_value(cells, row, out);
    }
    let len = out.len() - start;
    if (0x80..0x4000).contains(&len) {
        out[start - 2] = len as u8 | 0x80;
        out[start - 1] = (len >> 7) as u8;
    } else {
        replace_length(out, start - 2, start, len);
    }
}

/// Appends one element of `ListValue.values`.
#[inline]
fn write_value(cells: &mut Cells<'_>, row: usize, out: &mut Vec<u8>) {
    if cells.is_null(row) {
        return out.extend_from_slice(&NULL);
    }
    match &mut cells.values {
        Values::Null => out.extend_from_slice(&NULL),
        Values::Bool(array) => {
            out.extend_from_slice(&BOOL);
            out.push(u8::from(array.value(row)));
        }
        Values::Int8(values) => write_number(values[row].into(), out),
        Values::Int16(values) => write_number(values[row].into(), out),
        Values::Int32(values) => write_number(values[row].into(), out),
        Values::UInt8(values) => write_number(values[row].into(), out),
        Values::UInt16(values) => write_number(values[row].into(), out),
        Values::UInt32(values) => write_number(values[row].into(), out),
        Values::Float32(values) => write_number(values[row].into(), out),
        Values::Float64(values) => write_number(values[row], out),
        Values::Text(array) => write_string(array.value(row).as_bytes(), out),
        Values::LargeText(array) => write_string(array.value(row).as_bytes(), out),
        Values::TextView(array) => write_string(array.value(row).as_bytes(), out),
        Values::Bytes(array) => write_bytes(array.value(row), out),
        Values::LargeBytes(array) => write_bytes(array.value(row), out),
        Values::BytesView(array) => write_bytes(array.value(row), out),
        Values::FixedBytes(array) => write_bytes(array.value(row), out),
        Values::Int64(_)
        | Values::UInt64(_)
        | Values::Decimal128(..)
        | Values::Decimal256(..)
        | Values::Date(_)
        | Values::DateMillis(_)
        | Values::Time32(..)
        | Values::Time64(..)
        | Values::Timestamp(..)
        | Values::Zoned { .. } => write_short_text(cells, row, out),
        Values::List(..) | Values::LargeList(..) => write_list(cells, row, out),
    }
}

#[inline]
fn write_number(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        out.extend_from_slice(&NUMBER);
        out.extend_from_slice(&value.to_le_bytes());
    } else {
        write_string(non_finite(value).as_bytes(), out);
    }
}

#[inline]
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    write_string_head(text.len(), out);
    out.extend_from_slice(text);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let len = base64::encoded_len(bytes.len(), true).expect("an Arrow value is far below usize");
    write_string_head(len, out);
    write_base64(bytes, out);
}

#[inline]
fn write_string_head(len: usize, out: &mut Vec<u8>) {
    out.push(FIRST);
    write_varint(1 + varint_len(len) + len, out);
    out.push(STRING);
    write_varint(len, out);
}

/// Numbers and times: their text is written in place and its lengths filled in. The longest, a decimal of 76 digits
/// and a scale of 127 at worst, is told apart.
#[inline]
fn write_short_text(cells: &mut Cells<'_>, row: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[FIRST, 0, STRING, 0]);
    let start = out.len();
    cells.write_text(row, out);
    let len = out.len() - start;
    if len <= SHORT_TEXT_MAX {
        out[start - 3] = (len + 2) as u8;
        out[start - 1] = len as u8;
    } else {
        let text = out.split_off(start);
        out.truncate(start - 4);
        write_string(&text, out);
    }
}

fn write_list(cells: &mut Cells<'_>, row: usize, out: &mut Vec<u8>) {
    let (items, range) = cells.elements(row).expect("called for lists only");
    out.extend_from_slice(&[FIRST, 0, LIST, 0]);
    let start = out.len();
    for item in range {
        write_value(items, item, out);
    }
    let len = out.len() - start;
    replace_length(out, start - 1, start, len);
    let value_len = out.len() - (start - 2);
    replace_length(out, start - 3, start - 2, value_len);
}

/// Puts a length of as many bytes as it takes where room for it was guessed.
fn replace_length(out: &mut Vec<u8>, at: usize, until: usize, len: usize) {
    let (bytes, count) = varint(len);
    out.splice(at..until, bytes[..count].iter().copied());
}

#[inline]
fn write_varint(value: usize, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        let (bytes, count) = varint(value);
        out.extend_from_slice(&bytes[..count]);
    }
}

fn varint(mut value: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut count = 0;
    while value >= 0x80 {
        bytes[count] = value as u8 | 0x80;
        value >>= 7;
        count += 1;
    }
    bytes[count] = value as u8;
    (bytes, count + 1)
}

#[inline]
fn varint_len(value: usize) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}
