//! Comma-separated values as RFC 4180 has them, with the choices of [`spec::Csv`](crate::export::spec::Csv).
//!
//! NULL is nothing, or `null_text`; the empty string is `""`; a text that reads like NULL is quoted. Readers that tell
//! quoted from unquoted therefore get back what the table held.

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arrow::array::RecordBatch;

use crate::export::spec::{Bom, Csv, Formulas, Header, LineEnd};

use super::{
    Assembler, EncodeOptions, Encoder, Error, Payload, Render, Rendered,
    compress::{Appender, Compressor},
    invalid, options as rules, scan,
    text::{self, Cells, Column, TextKind, Values},
};

const BOM: &[u8] = b"\xEF\xBB\xBF";
/// PostgreSQL's COPY, up to version 17, takes such a line for the end of the data, and silently reads no further.
const COPY_END: &[u8] = b"\\.";

pub struct CsvEncoder {
    columns: Vec<Column>,
    style: Style,
    head: Vec<u8>,
    compressor: Arc<Compressor>,
    /// Of the last batch: what to reserve for the next.
    row_bytes: AtomicUsize,
}

impl CsvEncoder {
    /// # Errors
    /// [`Error::Invalid`] for a delimiter or `null_text` that could not be read back, a compression that csv has
    /// not, or a column without a text form.
    pub fn new(spec: &Csv, options: &EncodeOptions) -> Result<Self, Error> {
        let columns = text::compile_all(&options.schema, &options.time_zone)?;
        let style = Style::new(spec, columns.len())?;
        let mut head = Vec::new();
        if spec.bom == Bom::Written {
            head.extend_from_slice(BOM);
        }
        if spec.header == Header::Written {
            style.write_header(&columns, &mut head);
        }
        Ok(Self {
            row_bytes: AtomicUsize::new(16 * columns.len()),
            compressor: Arc::new(Compressor::new(
                spec.compression,
                "spec.format.csv.compression",
            )?),
            columns,
            style,
            head,
        })
    }
}

impl Render for CsvEncoder {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        let rows = batch.num_rows();
        let mut columns = text::bind_all(&self.columns, &batch)?;
        let row_bytes = self.row_bytes.load(Ordering::Relaxed);
        let mut out = Vec::with_capacity(super::capacity_hint(&batch, row_bytes));
        let mut scratch = Vec::new();
        for row in 0..rows {
            for (index, cells) in columns.iter_mut().enumerate() {
                if index > 0 {
                    out.push(self.style.delimiter);
                }
                self.style.write_cell(cells, row, &mut scratch, &mut out);
            }
            out.extend_from_slice(self.style.line_end);
        }
        if let Some(row_bytes) = out.len().checked_div(rows) {
            self.row_bytes.store(row_bytes, Ordering::Relaxed);
            out = self.compressor.compress(out)?;
        }
        Ok(Rendered {
            rows: rows as u64,
            payload: Payload::Bytes(out),
        })
    }
}

impl Encoder for CsvEncoder {
    fn media_type(&self) -> &'static str {
        self.compressor.choose(
            "text/csv; charset=utf-8",
            "application/gzip",
            "application/zstd",
        )
    }

    fn extension(&self) -> &'static str {
        self.compressor.choose(".csv", ".csv.gz", ".csv.zst")
    }

    fn assembler(&self) -> Result<Box<dyn Assembler>, Error> {
        let compressor = Arc::clone(&self.compressor);
        Ok(Box::new(Appender::new(compressor, self.head.clone())?))
    }
}

/// The dialect: what separates, what is quoted, what is disarmed.
struct Style {
    delimiter: u8,
    line_end: &'static [u8],
    null_text: Vec<u8>,
    formulas: Formulas,
    values: ValueCheck,
    /// A cell is a line.
    is_lone: bool,
}

/// Whether numbers, times and the like can contain the delimiter or read like `null_text`, so that each has to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueCheck {
    Needless,
    Each,
}

impl Style {
    fn new(spec: &Csv, columns: usize) -> Result<Self, Error> {
        let delimiter = spec.delimiter;
        rules::delimiter(delimiter).map_err(|wrong| invalid("spec.format.csv.delimiter", wrong))?;
        rules::null_text(&spec.null_text, delimiter)
            .map_err(|wrong| invalid("spec.format.csv.null_text", wrong))?;
        let null_text = spec.null_text.as_bytes();
        let in_values = delimiter.is_ascii_alphanumeric() || b"+-.:\\".contains(&delimiter);
        Ok(Self {
            delimiter,
            line_end: match spec.line_end {
                LineEnd::Lf => b"\n",
                LineEnd::CrLf => b"\r\n",
            },
            null_text: null_text.to_vec(),
            formulas: spec.formulas,
            is_lone: columns == 1,
            values: if in_values || !null_text.is_empty() {
                ValueCheck::Each
            } else {
                ValueCheck::Needless
            },
        })
    }

    fn write_header(&self, columns: &[Column], out: &mut Vec<u8>) {
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(self.delimiter);
            }
            self.write_text(column.header(), TextKind::Plain, out);
        }
        out.extend_from_slice(self.line_end);
    }

    #[inline]
    fn write_cell(
        &self,
        cells: &mut Cells<'_>,
        row: usize,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        if cells.is_null(row) {
            return out.extend_from_slice(&self.null_text);
        }
        match &cells.values {
            Values::Text(array) => self.write_text(array.value(row), cells.kind, out),
            Values::LargeText(array) => self.write_text(array.value(row), cells.kind, out),
            Values::TextView(array) => self.write_text(array.value(row), cells.kind, out),
            Values::List(..) | Values::LargeList(..) => {
                scratch.clear();
                cells.write_text(row, scratch);
                self.write_checked(scratch, out);
            }
            _ if self.values == ValueCheck::Each => {
                scratch.clear();
                cells.write_text(row, scratch);
                self.write_checked(scratch, out);
            }
            _ => cells.write_text(row, out),
        }
    }

    #[inline]
    fn write_text(&self, text: &str, kind: TextKind, out: &mut Vec<u8>) {
        let bytes = text.as_bytes();
        if self.formulas == Formulas::Guarded
            && kind == TextKind::Plain
            && matches!(bytes, [b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r', ..])
        {
            return self.write_guarded(bytes, out);
        }
        self.write_checked(bytes, out);
    }

    /// Spreadsheets take a cell that begins with an apostrophe for text.
    #[cold]
    fn write_guarded(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut guarded = Vec::with_capacity(bytes.len() + 1);
        guarded.push(b'\'');
        guarded.extend_from_slice(bytes);
        self.write_checked(&guarded, out);
    }

    /// Quotes what needs it.
    #[inline]
    fn write_checked(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let delimiter = self.delimiter;
        let special = move |byte: u8| {
            (byte == b'"') | (byte == delimiter) | (byte == b'\n') | (byte == b'\r')
        };
        // With no `null_text`, NULL is nothing: the comparison then finds the empty string.
        if bytes.is_empty()
            || scan::any(bytes, special)
            || bytes == self.null_text
            || (self.is_lone && bytes == COPY_END)
        {
            write_quoted(bytes, out);
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

fn write_quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 8);
    out.push(b'"');
    let mut copied = 0;
    for (at, _) in bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'"') {
        out.extend_from_slice(&bytes[copied..=at]);
        out.push(b'"');
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
