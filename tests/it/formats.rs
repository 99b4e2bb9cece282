//! Files as readers that are not ours see them.

mod columnar;
mod xlsx;

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Field, Schema},
};
use jiff::tz::TimeZone;
use rowgate::format::{Assembled, EncodeOptions, Encoder, Error};

use crate::support;

pub fn options(schema: &Schema, zone: &str, scratch: &Path) -> EncodeOptions {
    EncodeOptions {
        schema: Arc::new(schema.clone()),
        time_zone: TimeZone::get(zone).unwrap(),
        scratch: scratch.to_owned(),
    }
}

pub fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

pub fn with(field: Field, key: &str, value: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(key.to_owned(), value.to_owned());
    field.with_metadata(metadata)
}

/// The file's bytes, and what the assembler says of it.
pub fn encode(
    encoder: &dyn Encoder,
    batches: &[RecordBatch],
) -> Result<(Vec<u8>, Assembled), Error> {
    let mut out = Vec::new();
    let mut assembler = encoder.assembler()?;
    assembler.start(&mut out)?;
    for batch in batches {
        let rendered = encoder.render(batch.clone())?;
        assembler.push(rendered, &mut out)?;
    }
    let assembled = assembler.finish(&mut out)?;
    Ok((out, assembled))
}

/// What the Python program prints of the file.
pub async fn read_back(program: &str, dir: &Path, bytes: &[u8]) -> serde_json::Value {
    let path = dir.join("result");
    std::fs::write(&path, bytes).unwrap();
    let printed = support::python(program, &[path]).await.success();
    serde_json::from_str(&printed).unwrap()
}
