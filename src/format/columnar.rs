//! What the columnar files (Parquet, Arrow IPC) share: the schema that readers see, and a buffer between writers that
//! keep their sink and an `out` that is only lent.

use std::{io, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
};

use super::Error;
use crate::export::field::metadata;

/// A piece of [`Chunks`]: small enough not to be worth growing, large enough for few of them.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The columns as files hold them: names, types and nullability as they are, but text views as text and dictionaries
/// as their values, because those are ways to hold text in memory that not every reader knows.
#[derive(Clone, Debug)]
pub(super) struct FileSchema {
    schema: SchemaRef,
}

impl FileSchema {
    pub(super) fn new(schema: &Schema) -> Self {
        let fields: Vec<Field> = schema.fields().iter().map(|field| stored(field)).collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
        }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns
            .map(
                |(array, field)| match array.data_type() == field.data_type() {
                    true => Ok(Arc::clone(array)),
                    false => cast(array, field.data_type()),
                },
            )
            .collect::<Result<Vec<_>, _>>()
            .map_err(broken)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(broken)
    }
}

/// Metadata that says what the data is goes along; what says how a sheet should look does not.
fn stored(field: &Field) -> Field {
    let kept = field
        .metadata()
        .iter()
        .filter(|(key, _)| matches!(key.as_str(), metadata::SOURCE_TYPE | metadata::KIND))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Field::new(
        field.name(),
        stored_type(field.data_type()),
        field.is_nullable(),
    )
    .with_metadata(kept)
}

fn stored_type(data_type: &DataType) -> DataType {
    let item = |field: &FieldRef| Arc::new(stored(field));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => stored_type(values),
        DataType::List(field) => DataType::List(item(field)),
        DataType::LargeList(field) => DataType::LargeList(item(field)),
        other => other.clone(),
    }
}

fn broken(error: ArrowError) -> Error {
    Error::Broken(error.to_string())
}

/// Bytes that a writer produced and `out` has not taken yet. In pieces, so that a row group of 32 MiB takes 32 MiB,
/// where a vector that doubles would take up to three times as much while it grows.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    chunks: Vec<Vec<u8>>,
}

impl Chunks {
    pub(super) fn drain(&mut self, out: &mut dyn io::Write) -> io::Result<()> {
        for chunk in std::mem::take(&mut self.chunks) {
            out.write_all(&chunk)?;
        }
        Ok(())
    }
}

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.chunks.last_mut() {
            Some(last) if last.len() + bytes.len() <= CHUNK_BYTES => last.extend_from_slice(bytes),
            _ => self.chunks.push(bytes.to_vec()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn chunks_keep_the_order_of_bytes() {
        let mut chunks = Chunks::default();
        let mut expected = Vec::new();
        for size in [1, 5, CHUNK_BYTES - 3, 7, CHUNK_BYTES * 2, 1, 0, 9] {
            let bytes = vec![size as u8; size];
            chunks.write_all(&bytes).unwrap();
            expected.extend(bytes);
        }
        let mut drained = Vec::new();
        chunks.drain(&mut drained).unwrap();
        assert!(drained == expected);
        chunks.drain(&mut drained).unwrap();
        assert_eq!(drained.len(), expected.len());
    }

    #[test]
    fn views_and_dictionaries_are_stored_as_text() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let look = [
            (metadata::WIDTH.to_owned(), "20".to_owned()),
            (metadata::KIND.to_owned(), "json".to_owned()),
        ];
        let schema = FileSchema::new(&Schema::new(vec![
            Field::new("a", DataType::Utf8View, true).with_metadata(look.into()),
            Field::new("b", dictionary, false),
            Field::new_list("c", Field::new_list_field(DataType::Utf8View, true), true),
        ]));
        let fields = schema.schema().fields();
        assert_eq!(*fields[0].data_type(), DataType::Utf8);
        assert_eq!(fields[0].metadata().len(), 1);
        assert_eq!(fields[1], Arc::new(Field::new("b", DataType::Utf8, false)));
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        assert_eq!(*fields[2].data_type(), list);
    }
}
