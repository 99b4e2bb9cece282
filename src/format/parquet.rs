//! Parquet files.
//!
//! Owns where row groups end and how pages are compressed. A row group lives in memory, encoded and compressed,
//! until it is complete, so its size is what an export to Parquet costs: a bound in bytes ends it before the bound in
//! rows if it must. What the footer will say of each column of each row group stays in memory, too, until the end: the
//! number of these is bounded.

use arrow::array::RecordBatch;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, GzipLevel, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
};

use super::{
    Assembled, Assembler, EncodeOptions, Encoder, Error, Payload, Render, Rendered,
    columnar::{Chunks, FileSchema},
    invalid, options as rules,
};
use crate::export::spec;

/// As pyarrow has it: what readers are tuned for.
const ROW_GROUP_ROWS: u64 = 1024 * 1024;
/// Encoded bytes of the row group in the making.
const ROW_GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What the encoders hold altogether, dictionaries and unfinished pages included.
const ENCODER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The format counts row groups in 16 bits with a sign.
const ROW_GROUPS_MAX: u64 = i16::MAX as u64;
/// Columns of all row groups together. The footer's entry of one takes up to about 1 KiB until the file is complete.
const COLUMN_CHUNKS_MAX: u64 = 128 * 1024;

#[derive(Clone, Debug)]
pub struct Parquet {
    schema: FileSchema,
    group_rows: u64,
    properties: WriterProperties,
}

impl Parquet {
    /// # Errors
    /// [`Error::Invalid`] for row groups of no rows.
    pub fn new(format: &spec::Parquet, options: &EncodeOptions) -> Result<Self, Error> {
        let rows = format.row_group_rows.unwrap_or(ROW_GROUP_ROWS);
        rules::row_group_rows(rows).map_err(invalid_row_groups)?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("rowgate ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(compression(format.compression))
            .set_max_row_group_row_count(Some(usize::try_from(rows).unwrap_or(usize::MAX)))
            // of pages: that is what a page index is made of
            .set_statistics_enabled(EnabledStatistics::Page)
            .build();
        Ok(Self {
            schema: FileSchema::new(&options.schema),
            group_rows: rows,
            properties,
        })
    }
}

impl Render for Parquet {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        Ok(Rendered {
            rows: batch.num_rows() as u64,
            payload: Payload::Batch(self.schema.batch(&batch)?),
        })
    }
}

impl Encoder for Parquet {
    fn media_type(&self) -> &'static str {
        "application/vnd.apache.parquet"
    }

    fn extension(&self) -> &'static str {
        ".parquet"
    }

    fn assembler(&self) -> Result<Box<dyn Assembler>, Error> {
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone());
        let schema = self.schema.schema().clone();
        let writer = ArrowWriter::try_new_with_options(Chunks::default(), schema, options)
            .map_err(broken)?;
        let columns = self.schema.schema().fields().len().max(1) as u64;
        Ok(Box::new(File {
            group_rows: self.group_rows,
            groups_max: (COLUMN_CHUNKS_MAX / columns).clamp(1, ROW_GROUPS_MAX),
            writer,
        }))
    }
}

struct File {
    group_rows: u64,
    groups_max: u64,
    writer: ArrowWriter<Chunks>,
}

impl File {
    /// How many of `rows` more the row group in the making takes; at least one, since a full one has been written.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the file can't hold the row groups that they need.
    fn room(&self, rows: usize) -> Result<usize, Error> {
        let in_progress = self.writer.in_progress_rows() as u64;
        let groups = self.writer.flushed_row_groups().len() as u64
            + (in_progress + rows as u64).div_ceil(self.group_rows);
        if groups > self.groups_max {
            return Err(invalid_row_groups(format!(
                "is too small for this result: a file of so many columns holds {} row groups here; ask for larger \
                 ones, for fewer columns, or for a part of the rows",
                self.groups_max
            )));
        }
        let room = usize::try_from(self.group_rows - in_progress).unwrap_or(usize::MAX);
        Ok(room.min(rows))
    }
}

impl Assembler for File {
    fn start(&mut self, out: &mut dyn std::io::Write) -> Result<(), Error> {
        // the magic number, which the writer has put into its buffer
        Ok(self.writer.inner_mut().drain(out)?)
    }

    fn push(&mut self, rendered: Rendered, out: &mut dyn std::io::Write) -> Result<(), Error> {
        let Payload::Batch(batch) = rendered.payload else {
            return Err(Error::Broken("parquet was given no batch".to_owned()));
        };
        // The writer cuts a batch at the ends of row groups, too, but by calling itself: thousands of small groups
        // would overflow the stack.
        let (mut at, rows) = (0, batch.num_rows());
        while at < rows {
            let taken = self.room(rows - at)?;
            self.writer.write(&batch.slice(at, taken)).map_err(broken)?;
            at += taken;
            if self.writer.in_progress_size() >= ROW_GROUP_BYTES_MAX
                || self.writer.memory_size() >= ENCODER_BYTES_MAX
            {
                self.writer.flush().map_err(broken)?;
            }
            self.writer.inner_mut().drain(out)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, out: &mut dyn std::io::Write) -> Result<Assembled, Error> {
        self.writer.finish().map_err(broken)?;
        self.writer.inner_mut().drain(out)?;
        Ok(Assembled::default())
    }
}

fn compression(asked: Option<spec::Compression>) -> Compression {
    match asked.unwrap_or(spec::Compression::Zstd) {
        spec::Compression::None => Compression::UNCOMPRESSED,
        spec::Compression::Gzip => Compression::GZIP(GzipLevel::default()),
        spec::Compression::Zstd => Compression::ZSTD(ZstdLevel::default()),
        spec::Compression::Snappy => Compression::SNAPPY,
        // the older LZ4 of Parquet has a framing that readers disagree on
        spec::Compression::Lz4 => Compression::LZ4_RAW,
    }
}

fn invalid_row_groups(description: impl Into<String>) -> Error {
    invalid("spec.format.parquet.row_group_rows", description)
}

fn broken(error: ParquetError) -> Error {
    Error::Broken(error.to_string())
}
