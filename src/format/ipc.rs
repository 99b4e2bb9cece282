//! Record batches as encapsulated Arrow IPC messages, each on its own: for row streams and spooled segments.
//!
//! The bytes of [`schema_message`] followed by any number of a [`MessageWriter`]'s messages are a valid IPC stream.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::{
        CompressionType, MetadataVersion,
        writer::{IpcWriteOptions, StreamWriter},
    },
};

use crate::export::Failure;

use super::{Error, text::type_name};

/// Of buffers within a message. 64 would pay for vector instructions on mapped files; these bytes travel in messages
/// that align nothing, and small batches would be mostly padding.
const ALIGNMENT: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyCompression {
    None,
    /// Buffers that do not shrink stay as they are.
    Lz4,
}

impl BodyCompression {
    fn options(self) -> Result<IpcWriteOptions, Error> {
        let options =
            IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5).map_err(broken)?;
        match self {
            Self::None => Ok(options),
            Self::Lz4 => options
                .try_with_compression(Some(CompressionType::LZ4_FRAME))
                .map_err(broken),
        }
    }
}

/// What readers everywhere understand: text and binary views become plain arrays, dictionaries are refused (a batch
/// on its own could not carry them).
#[derive(Clone, Debug)]
pub(super) struct PlainSchema {
    pub(super) schema: SchemaRef,
    /// Columns that are cast in each batch.
    views: Vec<usize>,
}

impl PlainSchema {
    pub(super) fn of(schema: &Schema) -> Result<Self, Error> {
        let mut views = Vec::new();
        let mut fields = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let plain = match field.data_type() {
                DataType::Utf8View => DataType::Utf8,
                DataType::BinaryView => DataType::Binary,
                other if has_dictionary(other) => {
                    return Err(Error::Invalid(Failure::invalid_field(
                        "spec.columns",
                        format!(
                            "column {} has the type {}, which has no place in a row stream; cast it in an expression",
                            field.name(),
                            type_name(other)
                        ),
                    )));
                }
                _ => {
                    fields.push(Arc::clone(field));
                    continue;
                }
            };
            views.push(index);
            fields.push(Arc::new(field.as_ref().clone().with_data_type(plain)));
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            views,
        })
    }

    /// The batch under this schema.
    pub(super) fn plain(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        let (_, mut columns, rows) = batch.into_parts();
        for &index in &self.views {
            if let Some(column) = columns.get_mut(index) {
                *column = cast(column, self.schema.field(index).data_type()).map_err(broken)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(broken)
    }
}

fn has_dictionary(data_type: &DataType) -> bool {
    let nested = |field: &Arc<Field>| has_dictionary(field.data_type());
    match data_type {
        DataType::Dictionary(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => nested(item),
        DataType::RunEndEncoded(_, values) => nested(values),
        DataType::Struct(fields) => fields.iter().any(nested),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| nested(field)),
        _ => false,
    }
}

/// The encapsulated schema message.
pub(super) fn schema_message(schema: &Schema) -> Result<Vec<u8>, Error> {
    Ok(std::mem::take(
        MessageWriter::new(schema, BodyCompression::None)?
            .writer
            .get_mut(),
    ))
}

/// Writes batches of one schema, each into bytes of its own.
pub(super) struct MessageWriter {
    writer: StreamWriter<Vec<u8>>,
}

impl MessageWriter {
    fn new(schema: &Schema, compression: BodyCompression) -> Result<Self, Error> {
        let writer = StreamWriter::try_new_with_options(Vec::new(), schema, compression.options()?)
            .map_err(broken)?;
        Ok(Self { writer })
    }

    /// Positioned behind the schema.
    pub(super) fn of_batches(schema: &Schema, compression: BodyCompression) -> Result<Self, Error> {
        let mut this = Self::new(schema, compression)?;
        this.writer.get_mut().clear();
        Ok(this)
    }

    pub(super) fn message(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
        self.writer.write(batch).map_err(broken)?;
        Ok(std::mem::take(self.writer.get_mut()))
    }
}

pub(super) fn broken(error: ArrowError) -> Error {
    Error::Broken(format!("arrow: {error}"))
}
