//! Arrow IPC files: batches as they are in memory, and a footer that finds them.
//!
//! One thread writes them for now. Without compression that is copying.

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    ipc::{
        CompressionType,
        writer::{FileWriter, IpcWriteOptions},
    },
};

use super::{
    Assembled, Assembler, EncodeOptions, Encoder, Error, Payload, Render, Rendered,
    columnar::{Chunks, FileSchema},
};
use crate::export::{Failure, spec};

#[derive(Clone, Debug)]
pub struct ArrowIpc {
    schema: FileSchema,
    options: IpcWriteOptions,
}

impl ArrowIpc {
    /// # Errors
    /// [`Error::Invalid`] for a compression that the format doesn't have.
    pub fn new(format: &spec::ArrowIpc, options: &EncodeOptions) -> Result<Self, Error> {
        let compression = match format.compression {
            spec::Compression::None => None,
            spec::Compression::Zstd => Some(CompressionType::ZSTD),
            spec::Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            spec::Compression::Gzip | spec::Compression::Snappy => {
                return Err(Error::Invalid(Failure::invalid_field(
                    "spec.format.arrow.compression",
                    "Arrow IPC files know none, zstd and lz4",
                )));
            }
        };
        Ok(Self {
            schema: FileSchema::new(&options.schema),
            options: IpcWriteOptions::default()
                .try_with_compression(compression)
                .map_err(broken)?,
        })
    }
}

impl Render for ArrowIpc {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        Ok(Rendered {
            rows: batch.num_rows() as u64,
            payload: Payload::Batch(self.schema.batch(&batch)?),
        })
    }
}

impl Encoder for ArrowIpc {
    fn media_type(&self) -> &'static str {
        "application/vnd.apache.arrow.file"
    }

    fn extension(&self) -> &'static str {
        ".arrow"
    }

    fn assembler(&self) -> Result<Box<dyn Assembler>, Error> {
        let schema = self.schema.schema();
        let writer =
            FileWriter::try_new_with_options(Chunks::default(), schema, self.options.clone())
                .map_err(broken)?;
        Ok(Box::new(File { writer }))
    }
}

struct File {
    writer: FileWriter<Chunks>,
}

impl Assembler for File {
    fn start(&mut self, out: &mut dyn std::io::Write) -> Result<(), Error> {
        // the magic number and the schema, which the writer has put into its buffer
        Ok(self.writer.get_mut().drain(out)?)
    }

    fn push(&mut self, rendered: Rendered, out: &mut dyn std::io::Write) -> Result<(), Error> {
        let Payload::Batch(batch) = rendered.payload else {
            return Err(Error::Broken("arrow was given no batch".to_owned()));
        };
        self.writer.write(&batch).map_err(broken)?;
        Ok(self.writer.get_mut().drain(out)?)
    }

    fn finish(mut self: Box<Self>, out: &mut dyn std::io::Write) -> Result<Assembled, Error> {
        self.writer.finish().map_err(broken)?;
        self.writer.get_mut().drain(out)?;
        Ok(Assembled::default())
    }
}

fn broken(error: ArrowError) -> Error {
    Error::Broken(error.to_string())
}
