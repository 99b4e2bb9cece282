//! `rowgate.v1.ValueRows` as bytes that are already encoded.
//!
//! Building a tree of `google.protobuf.Value`s for each cell and walking it twice again (length, then bytes) would cost
//! more than reading the rows did. So the format `rows` renders the wire bytes of `ValueRows` in parallel, and the message
//! that goes out carries them as they are. build.rs puts [`EncodedRows`] in the place of the generated type; clients
//! of ours read its [`rows`](EncodedRows::rows), all others never notice.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, encode_key, encode_varint, skip_field},
};
use prost_types::ListValue;

/// Field number of `ValueRows.rows`.
const ROWS_TAG: u32 = 1;

/// The wire bytes of one `ValueRows`: a sequence of (key, length, `ListValue`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct EncodedRows {
    pub wire: Bytes,
}

impl EncodedRows {
    /// # Errors
    /// `wire` is not the encoding of a `ValueRows`.
    pub fn rows(&self) -> Result<Vec<ListValue>, DecodeError> {
        Ok(PlainRows::decode(self.wire.clone())?.rows)
    }
}

impl From<Bytes> for EncodedRows {
    fn from(wire: Bytes) -> Self {
        Self { wire }
    }
}

impl Message for EncodedRows {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.wire);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != ROWS_TAG {
            return skip_field(wire_type, tag, buf, ctx);
        }
        let mut row = Bytes::new();
        encoding::bytes::merge(wire_type, &mut row, buf, ctx)?;
        // Nobody else holds the bytes while a message is being decoded, so this is an append, not a copy.
        let mut wire = std::mem::take(&mut self.wire)
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        encode_key(ROWS_TAG, WireType::LengthDelimited, &mut wire);
        encode_varint(row.len() as u64, &mut wire);
        wire.put(row);
        self.wire = wire.freeze();
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.wire.len()
    }

    fn clear(&mut self) {
        self.wire = Bytes::new();
    }
}

/// What prost would have generated.
#[derive(Clone, PartialEq, Message)]
struct PlainRows {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<ListValue>,
}

#[cfg(test)]
mod tests {
    use prost_types::{Value, value::Kind};

    use super::*;
    use crate::rpc::pb;

    /// `RowBatch` as it would be with the generated `ValueRows`.
    #[derive(Clone, PartialEq, Message)]
    struct PlainBatch {
        #[prost(int64, tag = "1")]
        first_row: i64,
        #[prost(message, optional, tag = "10")]
        values: Option<PlainRows>,
    }

    fn rows() -> PlainRows {
        let value = |kind| Value { kind: Some(kind) };
        PlainRows {
            rows: vec![
                ListValue {
                    values: vec![
                        value(Kind::StringValue("张伟".repeat(200))),
                        value(Kind::NullValue(0)),
                        value(Kind::NumberValue(0.0)),
                        value(Kind::BoolValue(false)),
                    ],
                },
                ListValue { values: vec![] },
                ListValue {
                    values: vec![value(Kind::ListValue(ListValue {
                        values: vec![value(Kind::NumberValue(-1.5))],
                    }))],
                },
            ],
        }
    }

    fn batch(values: EncodedRows) -> pb::RowBatch {
        pb::RowBatch {
            first_row: 7,
            rows: Some(pb::row_batch::Rows::Values(values)),
            ..Default::default()
        }
    }

    fn values(batch: pb::RowBatch) -> EncodedRows {
        match batch.rows {
            Some(pb::row_batch::Rows::Values(values)) => values,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_is_wire_identical_with_the_generated_message() {
        let plain = PlainBatch {
            first_row: 7,
            values: Some(rows()),
        };
        let ours = batch(Bytes::from(rows().encode_to_vec()).into());
        assert_eq!(ours.encode_to_vec(), plain.encode_to_vec());

        let read = pb::RowBatch::decode(&plain.encode_to_vec()[..]).unwrap();
        assert_eq!(read, ours);
        assert_eq!(values(read).rows().unwrap(), rows().rows);
    }

    #[test]
    fn no_rows_is_an_empty_message_that_is_present() {
        let ours = batch(EncodedRows::default());
        let read = pb::RowBatch::decode(&ours.encode_to_vec()[..]).unwrap();
        assert!(values(read).rows().unwrap().is_empty());
    }

    #[test]
    fn unknown_fields_are_skipped_and_halves_are_joined() {
        let mut wire = BytesMut::new();
        let encoded = rows().encode_to_vec();
        wire.put_slice(&encoded);
        encode_key(99, WireType::Varint, &mut wire);
        encode_varint(5, &mut wire);
        wire.put_slice(&encoded);
        let read = <EncodedRows as Message>::decode(wire.freeze()).unwrap();
        assert_eq!(read.wire, [&encoded[..], &encoded[..]].concat());
    }

    #[test]
    fn a_length_past_the_end_is_an_error() {
        let encoded = rows().encode_to_vec();
        let cut = &encoded[..encoded.len() - 1];
        assert!(<EncodedRows as Message>::decode(cut).is_err());
        let wire = Bytes::copy_from_slice(cut);
        assert!(EncodedRows { wire }.rows().is_err());
    }
}
