//! JSON Lines: one object a row, one row a line.

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arrow::array::RecordBatch;

use crate::export::spec::Jsonl;

use super::{
    Assembler, EncodeOptions, Encoder, Error, Payload, Render, Rendered,
    compress::{Appender, Compressor},
    json::Objects,
};

pub struct JsonlEncoder {
    objects: Objects,
    compressor: Arc<Compressor>,
    /// Of the last batch: what to reserve for the next.
    row_bytes: AtomicUsize,
}

impl JsonlEncoder {
    /// # Errors
    /// [`Error::Invalid`] for columns of the same name, a compression that jsonl has not, or a column without a JSON form.
    pub fn new(spec: &Jsonl, options: &EncodeOptions) -> Result<Self, Error> {
        Ok(Self {
            objects: Objects::compile(&options.schema, &options.time_zone)?,
            compressor: Arc::new(Compressor::new(
                spec.compression,
                "spec.format.jsonl.compression",
            )?),
            row_bytes: AtomicUsize::new(32 * options.schema.fields().len()),
        })
    }
}

impl Render for JsonlEncoder {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        let rows = batch.num_rows();
        let mut columns = self.objects.bind(&batch)?;
        let row_bytes = self.row_bytes.load(Ordering::Relaxed);
        let mut out = Vec::with_capacity(super::capacity_hint(&batch, row_bytes));
        for row in 0..rows {
            self.objects.write_row(&mut columns, row, &mut out);
            out.push(b'\n');
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

impl Encoder for JsonlEncoder {
    fn media_type(&self) -> &'static str {
        self.compressor.choose(
            "application/x-ndjson",
            "application/gzip",
            "application/zstd",
        )
    }

    fn extension(&self) -> &'static str {
        self.compressor.choose(".jsonl", ".jsonl.gz", ".jsonl.zst")
    }

    fn assembler(&self) -> Result<Box<dyn Assembler>, Error> {
        let compressor = Arc::clone(&self.compressor);
        Ok(Box::new(Appender::new(compressor, Vec::new())?))
    }
}
