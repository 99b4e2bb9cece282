//! Batches to bytes: one trait for every format, in two halves.
//!
//! [`Encoder::render`] turns a batch into bytes in parallel, on any thread; [`Assembler`] puts what was rendered
//! together, in order, on one thread. Nothing here knows where the bytes go. This module also owns how single values
//! are written as text ([`text`]), so that csv, JSON, row streams and samples agree.
//!
//! To add a format: a file beside `csv.rs`, a variant of `export::Format`, an arm in [`encoder`].

mod arrow;
mod columnar;
mod compress;
mod csv;
mod ipc;
mod json;
mod jsonl;
pub mod options;
mod parquet;
pub mod rows;
mod scan;
pub mod spool;
pub mod text;
pub mod xlsx;

use std::{any, io, sync::Arc};

use ::arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;

use crate::export::{self, Code, ColumnFidelity, Failure};

/// The encoder of a file format.
///
/// # Errors
/// [`Error::Invalid`] when the options don't go together or a column has no place in the format.
pub fn encoder(format: &export::Format, options: EncodeOptions) -> Result<Arc<dyn Encoder>, Error> {
    Ok(match format {
        export::Format::Csv(spec) => Arc::new(csv::CsvEncoder::new(spec, &options)?),
        export::Format::Jsonl(spec) => Arc::new(jsonl::JsonlEncoder::new(spec, &options)?),
        export::Format::Xlsx(spec) => Arc::new(xlsx::Xlsx::new(spec, options)?),
        export::Format::Parquet(spec) => Arc::new(parquet::Parquet::new(spec, &options)?),
        export::Format::Arrow(spec) => Arc::new(arrow::ArrowIpc::new(spec, &options)?),
    })
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that the format can't hold, under `Overflow::Error`. `row` counts from 0 within the result.
    #[error("row {row}, column {column}: {message}")]
    Value {
        /// VALUE_TOO_LONG, VALUE_OUT_OF_RANGE, ...
        reason: &'static str,
        row: u64,
        column: String,
        message: String,
    },
    /// One row is larger than a stream message may be.
    #[error("row {row} takes {bytes} bytes; a batch may take {bytes_max}")]
    RowTooLarge {
        row: u64,
        bytes: u64,
        bytes_max: u64,
    },
    /// The request's options don't go together, or a column's type has no place in this format.
    #[error("{0}")]
    Invalid(Failure),
    /// Stored rows that are not as they were written.
    #[error("stored rows are damaged: {0}")]
    Corrupt(String),
    /// Writing to the sink failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A library refused what it should accept.
    #[error("{0}")]
    Broken(String),
}

impl Error {
    /// Rows of a batch count from 0; this makes them count from the start of the result.
    pub fn after_rows(mut self, rows_before: u64) -> Self {
        if let Self::Value { row, .. } | Self::RowTooLarge { row, .. } = &mut self {
            *row += rows_before;
        }
        self
    }

    pub fn into_failure(self) -> Failure {
        let message = self.to_string();
        match self {
            Self::Value {
                reason,
                row,
                column,
                ..
            } => Failure::new(Code::FailedPrecondition, reason, message)
                .metadata("row", row.to_string())
                .metadata("column", column),
            Self::RowTooLarge { row, .. } => {
                Failure::new(Code::ResourceExhausted, "ROW_TOO_LARGE", message)
                    .metadata("row", row.to_string())
            }
            Self::Invalid(failure) => failure,
            Self::Corrupt(_) => Failure::new(Code::DataLoss, "CHECKSUM_MISMATCH", message),
            Self::Io(error) => Failure::internal(format!("{}: {error}", any::type_name::<Self>())),
            Self::Broken(text) => Failure::internal(text),
        }
    }
}

fn invalid(field: impl Into<String>, description: impl Into<String>) -> Error {
    Error::Invalid(Failure::invalid_field(field, description))
}

/// How much to reserve for a batch's text when the rows of the batch before took `row_bytes` each. Bounded by what the
/// batch itself holds: after one row of 30 MB, four thousand small ones must not reserve 120 GB.
fn capacity_hint(batch: &RecordBatch, row_bytes: usize) -> usize {
    /// Text takes at most some four times its Arrow form; a batch of nothing still has separators.
    const TEXT_FACTOR: usize = 4;
    const FLOOR_BYTES: usize = 64 << 10;
    let bytes_max = batch
        .get_array_memory_size()
        .saturating_mul(TEXT_FACTOR)
        .saturating_add(FLOOR_BYTES);
    let guessed = batch
        .num_rows()
        .saturating_mul(row_bytes.saturating_add(row_bytes / 8));
    guessed.min(bytes_max)
}

/// What `render` made of one batch; an assembler or a stream gets them in order.
#[derive(Debug)]
pub struct Rendered {
    pub rows: u64,
    pub payload: Payload,
}

#[derive(Debug)]
pub enum Payload {
    /// Finished bytes of a file.
    Bytes(Vec<u8>),
    /// For formats that can only be written by one thread: their assembler does the work.
    Batch(RecordBatch),
    /// Messages of a row stream.
    Chunks(Vec<RowChunk>),
    /// One segment of a spool.
    Segment(Vec<u8>),
}

impl Payload {
    /// What it takes in a queue.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) | Self::Segment(bytes) => bytes.len(),
            Self::Batch(batch) => batch.get_array_memory_size(),
            Self::Chunks(chunks) => chunks.iter().map(|chunk| chunk.payload.len()).sum(),
        }
    }
}

/// One message of a row stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowChunk {
    pub rows: u32,
    /// By encoding: an encapsulated Arrow record batch; JSON lines joined by newlines; the wire bytes of `ValueRows`.
    pub payload: Bytes,
}

/// The parallel half: pure, called by many threads at once, each with another batch.
pub trait Render: Send + Sync + 'static {
    /// # Errors
    /// Rows in errors count from 0 within this batch; the pipeline adds what came before.
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error>;
}

/// A file format.
pub trait Encoder: Render {
    /// `text/csv; charset=utf-8`.
    fn media_type(&self) -> &'static str;

    /// With its dot: `.csv`, `.csv.gz`.
    fn extension(&self) -> &'static str;

    /// Once for each result. It runs on a blocking thread of its own.
    fn assembler(&self) -> Result<Box<dyn Assembler>, Error>;
}

/// The ordered half. `out` blocks while the storage is behind.
pub trait Assembler: Send {
    /// Before the first batch: headers, magic numbers. Also called for a result without rows.
    fn start(&mut self, out: &mut dyn io::Write) -> Result<(), Error>;

    /// # Errors
    /// As for [`Render::render`]: rows count from 0 within this batch.
    fn push(&mut self, rendered: Rendered, out: &mut dyn io::Write) -> Result<(), Error>;

    fn finish(self: Box<Self>, out: &mut dyn io::Write) -> Result<Assembled, Error>;
}

/// What only the assembler knows about a finished file.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// Values that the format can't hold as they were, counted for each column by what was done to them.
    pub fidelity: Vec<ColumnFidelity>,
    /// xlsx only.
    pub sheets: u32,
}

/// What an encoder is told beside its format.
#[derive(Clone, Debug)]
pub struct EncodeOptions {
    /// After transforms; fields carry [`crate::export::field::metadata`].
    pub schema: SchemaRef,
    /// For the text of zoned times.
    pub time_zone: jiff::tz::TimeZone,
    /// Where rust_xlsxwriter may put its temporary files.
    pub scratch: std::path::PathBuf,
}
