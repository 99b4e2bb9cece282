//! Row streams: batches rendered into the messages that clients get, in three encodings.
//!
//! How a batch is cut into chunks is a function of its rows and the options alone, so that a stream that is resumed
//! from stored rows sends the same bytes again.

#[cfg(test)]
mod tests;
mod values;

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use bytes::Bytes;
use jiff::tz::TimeZone;

use crate::export::RowEncoding;

use super::{
    Error, Payload, Render, Rendered, RowChunk,
    ipc::{self, BodyCompression, MessageWriter, PlainSchema},
    json::Objects,
    text::{self, Column},
};

/// What chunks aim at: large enough that a message's own cost vanishes, small enough to flow.
pub const CHUNK_BYTES_AIM: usize = 256 << 10;
/// No chunk passes it: gRPC clients refuse messages of more than 4 MiB by default.
pub const CHUNK_BYTES_MAX: usize = 3 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowOptions {
    pub encoding: RowEncoding,
    /// `None`: as many as fit.
    pub max_batch_rows: Option<u32>,
    /// As encoded. `None`: aims at [`CHUNK_BYTES_AIM`] and lets a single larger row pass up to [`CHUNK_BYTES_MAX`]; a value
    /// is never passed, and above [`CHUNK_BYTES_MAX`] it means that.
    pub max_batch_bytes: Option<u32>,
}

/// `StreamHeader.arrow_schema`: these bytes followed by every ARROW_IPC chunk are an IPC stream.
pub fn arrow_schema_bytes(schema: &Schema) -> Result<Bytes, Error> {
    let plain = PlainSchema::of(schema)?;
    Ok(ipc::schema_message(&plain.schema)?.into())
}

pub struct RowRender {
    form: Form,
    bounds: Bounds,
    /// Of the last batch: what to reserve for the next.
    row_bytes: AtomicUsize,
}

enum Form {
    Values(Vec<Column>),
    ArrowIpc(PlainSchema),
    JsonLines(Objects),
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    rows_max: usize,
    /// Chunks of several rows stay below it.
    bytes_aim: usize,
    /// A chunk of one row stays below it.
    bytes_max: usize,
}

impl RowRender {
    /// # Errors
    /// [`Error::Invalid`] for columns that the encoding can't carry.
    pub fn new(options: RowOptions, schema: &SchemaRef, zone: &TimeZone) -> Result<Self, Error> {
        let form = match options.encoding {
            RowEncoding::Values => Form::Values(text::compile_all(schema, zone)?),
            RowEncoding::ArrowIpc => Form::ArrowIpc(PlainSchema::of(schema)?),
            RowEncoding::JsonLines => Form::JsonLines(Objects::compile(schema, zone)?),
        };
        let asked = options
            .max_batch_bytes
            .map(|bytes| (bytes as usize).clamp(1, CHUNK_BYTES_MAX));
        Ok(Self {
            form,
            bounds: Bounds {
                rows_max: options
                    .max_batch_rows
                    .map_or(usize::MAX, |rows| rows.max(1) as usize),
                bytes_aim: asked.unwrap_or(CHUNK_BYTES_AIM),
                bytes_max: asked.unwrap_or(CHUNK_BYTES_MAX),
            },
            row_bytes: AtomicUsize::new(32 * schema.fields().len()),
        })
    }

    /// The chunks of a whole batch.
    ///
    /// # Errors
    /// [`Error::RowTooLarge`], its row counted from 0 within the batch.
    pub fn chunks(&self, batch: RecordBatch) -> Result<Vec<RowChunk>, Error> {
        match &self.form {
            Form::ArrowIpc(plain) => {
                ArrowChunks::new(plain, plain.plain(batch)?, self.bounds)?.all()
            }
            Form::Values(_) | Form::JsonLines(_) => {
                let written = self.write_rows(&batch)?;
                cut(&written, self.bounds)
            }
        }
    }

    /// The chunks from a row of the batch on: where the row begins one of [`Self::chunks`], these are that chunk and
    /// the ones after it, byte for byte; elsewhere the first is what is left of the chunk that the row is in.
    pub fn chunks_from(&self, batch: RecordBatch, row: usize) -> Result<Vec<RowChunk>, Error> {
        let mut chunks = self.chunks(batch.clone())?;
        let mut before = 0;
        let mut end = 0;
        for chunk in &chunks {
            end += chunk.rows as usize;
            if end > row {
                break;
            }
            before += 1;
        }
        let mut rest = chunks.split_off(before);
        let Some(first) = rest.first_mut() else {
            return Ok(rest);
        };
        if end - first.rows as usize != row {
            *first = self.one_chunk(batch.slice(row, end - row))?;
        }
        Ok(rest)
    }

    /// Fewer rows of what was a chunk: it fits.
    fn one_chunk(&self, batch: RecordBatch) -> Result<RowChunk, Error> {
        let rows = batch.num_rows();
        match &self.form {
            Form::ArrowIpc(plain) => {
                ArrowChunks::new(plain, plain.plain(batch)?, self.bounds)?.encode(0..rows)
            }
            Form::Values(_) | Form::JsonLines(_) => {
                let written = self.write_rows(&batch)?;
                Ok(written.chunk(0..rows))
            }
        }
    }

    fn write_rows(&self, batch: &RecordBatch) -> Result<Written, Error> {
        let rows = batch.num_rows();
        let row_bytes = self.row_bytes.load(Ordering::Relaxed);
        let mut bytes = Vec::with_capacity(super::capacity_hint(batch, row_bytes));
        let mut ends = Vec::with_capacity(rows);
        let between = match &self.form {
            Form::Values(columns) => {
                let mut cells = text::bind_all(columns, batch)?;
                for row in 0..rows {
                    values::write_row(&mut cells, row, &mut bytes);
                    ends.push(bytes.len());
                }
                0
            }
            Form::JsonLines(objects) => {
                let mut cells = objects.bind(batch)?;
                for row in 0..rows {
                    objects.write_row(&mut cells, row, &mut bytes);
                    bytes.push(b'\n');
                    ends.push(bytes.len());
                }
                1
            }
            Form::ArrowIpc(_) => unreachable!("record batches are not written row by row"),
        };
        if let Some(row_bytes) = bytes.len().checked_div(rows) {
            self.row_bytes.store(row_bytes, Ordering::Relaxed);
        }
        Ok(Written {
            bytes: bytes.into(),
            ends,
            between,
        })
    }
}

impl Render for RowRender {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        Ok(Rendered {
            rows: batch.num_rows() as u64,
            payload: Payload::Chunks(self.chunks(batch)?),
        })
    }
}

/// All rows of a batch in one buffer, which the chunks share.
struct Written {
    bytes: Bytes,
    /// Where each row ends.
    ends: Vec<usize>,
    /// Bytes behind each row that separate it from the next and are left off at a chunk's end.
    between: usize,
}

impl Written {
    fn start_of(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.ends[row - 1] }
    }

    fn bytes_of(&self, rows: &Range<usize>) -> usize {
        self.ends[rows.end - 1] - self.between - self.start_of(rows.start)
    }

    fn chunk(&self, rows: Range<usize>) -> RowChunk {
        let start = self.start_of(rows.start);
        RowChunk {
            rows: rows.len() as u32,
            payload: self.bytes.slice(start..start + self.bytes_of(&rows)),
        }
    }
}

/// Chunks of about equal size, none above the bounds.
fn cut(written: &Written, bounds: Bounds) -> Result<Vec<RowChunk>, Error> {
    let count = written.bytes.len().div_ceil(bounds.bytes_aim).max(1);
    let target = written.bytes.len().div_ceil(count);
    let mut chunks = Vec::with_capacity(count + 1);
    let mut start = 0;
    let rows = written.ends.len();
    while start < rows {
        let mut end = start + 1;
        let alone = written.bytes_of(&(start..end));
        if alone > bounds.bytes_max {
            return Err(too_large(start, alone, bounds));
        }
        while end < rows
            && end - start < bounds.rows_max
            && written.bytes_of(&(start..end)) < target
            && written.bytes_of(&(start..end + 1)) <= bounds.bytes_aim
        {
            end += 1;
        }
        chunks.push(written.chunk(start..end));
        start = end;
    }
    Ok(chunks)
}

fn too_large(row: usize, bytes: usize, bounds: Bounds) -> Error {
    Error::RowTooLarge {
        row: row as u64,
        bytes: bytes as u64,
        bytes_max: bounds.bytes_max as u64,
    }
}

/// Cuts a batch by its size in memory and cuts again where a piece came out too large.
struct ArrowChunks {
    writer: MessageWriter,
    batch: RecordBatch,
    bounds: Bounds,
}

impl ArrowChunks {
    fn new(plain: &PlainSchema, batch: RecordBatch, bounds: Bounds) -> Result<Self, Error> {
        Ok(Self {
            writer: MessageWriter::of_batches(&plain.schema, BodyCompression::None)?,
            batch,
            bounds,
        })
    }

    fn all(mut self) -> Result<Vec<RowChunk>, Error> {
        let rows = self.batch.num_rows();
        let mut bytes = 0;
        for column in self.batch.columns() {
            bytes += column
                .to_data()
                .get_slice_memory_size()
                .map_err(ipc::broken)?;
        }
        // An eighth is left for metadata and padding, so that even rows are encoded once.
        let count = bytes
            .div_ceil((self.bounds.bytes_aim * 7 / 8).max(1))
            .max(1);
        let step = rows.div_ceil(count).clamp(1, self.bounds.rows_max);
        let mut chunks = Vec::with_capacity(rows.div_ceil(step));
        for start in (0..rows).step_by(step) {
            self.push(start..(start + step).min(rows), &mut chunks)?;
        }
        Ok(chunks)
    }

    fn push(&mut self, rows: Range<usize>, chunks: &mut Vec<RowChunk>) -> Result<(), Error> {
        let chunk = self.encode(rows.clone())?;
        let bytes = chunk.payload.len();
        if rows.len() == 1 && bytes > self.bounds.bytes_max {
            return Err(too_large(rows.start, bytes, self.bounds));
        }
        if rows.len() == 1 || bytes <= self.bounds.bytes_aim {
            chunks.push(chunk);
            return Ok(());
        }
        drop(chunk);
        let middle = rows.start + rows.len() / 2;
        self.push(rows.start..middle, chunks)?;
        self.push(middle..rows.end, chunks)
    }

    fn encode(&mut self, rows: Range<usize>) -> Result<RowChunk, Error> {
        let slice = self.batch.slice(rows.start, rows.len());
        Ok(RowChunk {
            rows: rows.len() as u32,
            payload: self.writer.message(&slice)?.into(),
        })
    }
}
