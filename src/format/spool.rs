//! Rows as they are stored for `StreamRows` by id: segments that are read back one by one, from any row.
//!
//! ```text
//! magic | segment .. segment | tail: schema, index | footer
//! ```
//!
//! A segment is one encapsulated Arrow record batch (its buffers lz4 where that pays) and has a checksum in the
//! index; the tail has one in the footer. A reader takes the footer ([`FOOTER_BYTES`] at the end), then the tail, then
//! only the segments that it needs. How it gets bytes is not known here.

#[cfg(test)]
mod tests;

use std::{io, ops::Range, sync::Arc};

use arrow::{array::RecordBatch, buffer::Buffer, datatypes::SchemaRef, ipc::reader::StreamDecoder};
use bytes::Bytes;

use super::{
    Assembled, Assembler, Encoder, Error, Payload, Render, Rendered,
    ipc::{self, BodyCompression, MessageWriter, PlainSchema},
};

const MAGIC: &[u8; 8] = b"RGROWS\x00\x01";
/// Tail length u64, rows u64, tail's crc32c u32, zero u32, magic; little-endian, as all numbers here.
pub const FOOTER_BYTES: usize = 32;
/// Length, rows, crc32c: three u32.
const ENTRY_BYTES: usize = 12;

pub struct SpoolEncoder {
    plain: PlainSchema,
}

impl SpoolEncoder {
    /// # Errors
    /// [`Error::Invalid`] for columns that can't be stored.
    pub fn new(schema: &SchemaRef) -> Result<Self, Error> {
        Ok(Self {
            plain: PlainSchema::of(schema)?,
        })
    }
}

impl Render for SpoolEncoder {
    fn render(&self, batch: RecordBatch) -> Result<Rendered, Error> {
        let rows = batch.num_rows() as u64;
        let segment = if rows == 0 {
            Vec::new()
        } else {
            MessageWriter::of_batches(&self.plain.schema, BodyCompression::Lz4)?
                .message(&self.plain.plain(batch)?)?
        };
        Ok(Rendered {
            rows,
            payload: Payload::Segment(segment),
        })
    }
}

impl Encoder for SpoolEncoder {
    fn media_type(&self) -> &'static str {
        "application/vnd.rowgate.rows"
    }

    fn extension(&self) -> &'static str {
        ".rows"
    }

    fn assembler(&self) -> Result<Box<dyn Assembler>, Error> {
        Ok(Box::new(SpoolAssembler {
            schema: ipc::schema_message(&self.plain.schema)?,
            index: Vec::new(),
            rows: 0,
        }))
    }
}

struct SpoolAssembler {
    schema: Vec<u8>,
    index: Vec<u8>,
    rows: u64,
}

impl Assembler for SpoolAssembler {
    fn start(&mut self, out: &mut dyn io::Write) -> Result<(), Error> {
        Ok(out.write_all(MAGIC)?)
    }

    fn push(&mut self, rendered: Rendered, out: &mut dyn io::Write) -> Result<(), Error> {
        let Payload::Segment(segment) = rendered.payload else {
            return Err(Error::Broken("not a segment of rows".to_owned()));
        };
        if rendered.rows == 0 {
            return Ok(());
        }
        out.write_all(&segment)?;
        for number in [
            u32_of(segment.len())?,
            u32_of(rendered.rows)?,
            crc32c::crc32c(&segment),
        ] {
            self.index.extend_from_slice(&number.to_le_bytes());
        }
        self.rows += rendered.rows;
        Ok(())
    }

    fn finish(self: Box<Self>, out: &mut dyn io::Write) -> Result<Assembled, Error> {
        let mut tail = Vec::with_capacity(4 + self.schema.len() + self.index.len() + FOOTER_BYTES);
        tail.extend_from_slice(&u32_of(self.schema.len())?.to_le_bytes());
        tail.extend_from_slice(&self.schema);
        tail.extend_from_slice(&self.index);
        let tail_bytes = tail.len() as u64;
        let checksum = crc32c::crc32c(&tail);
        tail.extend_from_slice(&tail_bytes.to_le_bytes());
        tail.extend_from_slice(&self.rows.to_le_bytes());
        tail.extend_from_slice(&checksum.to_le_bytes());
        tail.extend_from_slice(&[0; 4]);
        tail.extend_from_slice(MAGIC);
        out.write_all(&tail)?;
        Ok(Assembled::default())
    }
}

fn u32_of(number: impl TryInto<u32>) -> Result<u32, Error> {
    number
        .try_into()
        .map_err(|_| Error::Broken("a segment of more than 4 GiB or rows".to_owned()))
}

/// The end of a spool: where its tail is.
#[derive(Clone, Debug)]
pub struct Footer {
    tail: Range<u64>,
    rows: u64,
    checksum: u32,
}

impl Footer {
    /// `bytes` are the last [`FOOTER_BYTES`] of an object of `size_bytes`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are no footer, or that of another object.
    pub fn parse(size_bytes: u64, bytes: &[u8]) -> Result<Self, Error> {
        let footer: &[u8; FOOTER_BYTES] = bytes
            .try_into()
            .map_err(|_| corrupt("the footer is incomplete"))?;
        if footer[24..] != *MAGIC {
            return Err(corrupt("the footer is not one of stored rows"));
        }
        let tail_bytes = u64_at(footer, 0);
        let end = size_bytes
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| corrupt("the object is too small"))?;
        let start = end
            .checked_sub(tail_bytes)
            .filter(|&start| start >= MAGIC.len() as u64)
            .ok_or_else(|| corrupt("the footer names more bytes than there are"))?;
        Ok(Self {
            tail: start..end,
            rows: u64_at(footer, 8),
            checksum: u32_at(footer, 16),
        })
    }

    /// The bytes that [`SpoolIndex::parse`] needs.
    pub fn tail(&self) -> Range<u64> {
        self.tail.clone()
    }
}

/// One stored batch.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it is in the object.
    pub bytes: Range<u64>,
    pub first_row: u64,
    pub rows: u32,
    checksum: u32,
}

/// What is where in a spool.
#[derive(Clone, Debug)]
pub struct SpoolIndex {
    schema: SchemaRef,
    schema_message: Buffer,
    segments: Arc<[Segment]>,
    rows: u64,
}

impl SpoolIndex {
    /// # Errors
    /// [`Error::Corrupt`] when a checksum or a sum does not hold.
    pub fn parse(footer: &Footer, tail: &[u8]) -> Result<Self, Error> {
        if tail.len() as u64 != footer.tail.end - footer.tail.start
            || crc32c::crc32c(tail) != footer.checksum
        {
            return Err(corrupt("the index fails its checksum"));
        }
        let cut = || corrupt("the index is incomplete");
        let (schema_bytes, rest) = tail.split_first_chunk::<4>().ok_or_else(cut)?;
        let (schema_message, index) = rest
            .split_at_checked(u32::from_le_bytes(*schema_bytes) as usize)
            .ok_or_else(cut)?;
        let (entries, rest) = index.as_chunks::<ENTRY_BYTES>();
        let mut segments = Vec::with_capacity(entries.len());
        let mut at = MAGIC.len() as u64;
        let mut first_row = 0;
        for entry in entries {
            let segment = Segment {
                bytes: at..at + u64::from(u32_at(entry, 0)),
                first_row,
                rows: u32_at(entry, 4),
                checksum: u32_at(entry, 8),
            };
            at = segment.bytes.end;
            first_row += u64::from(segment.rows);
            segments.push(segment);
        }
        if !rest.is_empty() || at != footer.tail.start || first_row != footer.rows {
            return Err(corrupt("the index does not add up"));
        }
        let schema_message = Buffer::from(schema_message.to_vec());
        let mut decoder = StreamDecoder::new();
        let schema = decoder
            .decode(&mut schema_message.clone())
            .and_then(|_| decoder.decode(&mut end_of_stream()))
            .ok()
            .and_then(|_| decoder.schema())
            .ok_or_else(|| corrupt("the schema can't be read"))?;
        Ok(Self {
            schema,
            schema_message,
            segments: segments.into(),
            rows: first_row,
        })
    }

    /// From a whole object.
    pub fn of_object(object: &[u8]) -> Result<Self, Error> {
        let footer_at = object.len().saturating_sub(FOOTER_BYTES);
        let footer = Footer::parse(object.len() as u64, &object[footer_at..])?;
        let tail = footer.tail();
        Self::parse(&footer, &object[tail.start as usize..tail.end as usize])
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// In the order of their rows.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of the segment that holds a row, counted from 0; `None` at the end and beyond.
    pub fn segment_for_row(&self, row: u64) -> Option<usize> {
        (row < self.rows).then(|| {
            self.segments
                .partition_point(|segment| segment.first_row <= row)
                - 1
        })
    }

    /// The rows of a segment from its bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not the bytes that were written.
    pub fn decode_segment(&self, number: usize, bytes: Bytes) -> Result<RecordBatch, Error> {
        let lost = |what: &str| {
            let first_row = self
                .segments
                .get(number)
                .map_or(0, |segment| segment.first_row);
            corrupt(format!("the rows from {first_row} on {what}"))
        };
        let segment = self
            .segments
            .get(number)
            .ok_or_else(|| lost("are not in the index"))?;
        if crc32c::crc32c(&bytes) != segment.checksum {
            return Err(lost("fail their checksum"));
        }
        let mut decoder = StreamDecoder::new();
        decoder
            .decode(&mut self.schema_message.clone())
            .map_err(|_| lost("have no schema"))?;
        let batch = decoder
            .decode(&mut Buffer::from(bytes))
            .and_then(|batch| match batch {
                Some(batch) => Ok(Some(batch)),
                None => decoder.decode(&mut end_of_stream()),
            })
            .map_err(|_| lost("can't be read"))?
            .ok_or_else(|| lost("are incomplete"))?;
        if batch.num_rows() != segment.rows as usize {
            return Err(lost("are not as many as were written"));
        }
        Ok(batch)
    }
}

/// arrow's decoder takes up a message without a body only when it sees that more bytes follow.
fn end_of_stream() -> Buffer {
    Buffer::from([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0])
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::Corrupt(what.into())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
