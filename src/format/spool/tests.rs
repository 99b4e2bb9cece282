use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    compute::concat_batches,
};
use jiff::tz::TimeZone;

use crate::{
    export::Code,
    export::RowEncoding,
    format::rows::{RowOptions, RowRender},
};

use super::*;

fn batch(rows: Range<i64>) -> RecordBatch {
    let texts: StringArray = rows
        .clone()
        .map(|row| (row % 5 > 0).then(|| format!("row {row}")))
        .collect();
    RecordBatch::try_from_iter_with_nullable([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(rows)) as ArrayRef,
            false,
        ),
        ("text", Arc::new(texts), true),
    ])
    .unwrap()
}

fn object(batches: &[RecordBatch]) -> Vec<u8> {
    let encoder = SpoolEncoder::new(&batch(0..0).schema()).unwrap();
    let mut assembler = encoder.assembler().unwrap();
    let mut out = Vec::new();
    assembler.start(&mut out).unwrap();
    for batch in batches {
        assembler
            .push(encoder.render(batch.clone()).unwrap(), &mut out)
            .unwrap();
    }
    assembler.finish(&mut out).unwrap();
    out
}

fn segment_bytes(object: &[u8], segment: &Segment) -> Bytes {
    Bytes::copy_from_slice(&object[segment.bytes.start as usize..segment.bytes.end as usize])
}

fn data_loss<T: std::fmt::Debug>(result: Result<T, Error>) {
    let failure = result.unwrap_err().into_failure();
    assert_eq!(
        (failure.code, failure.reason.as_str()),
        (Code::DataLoss, "CHECKSUM_MISMATCH")
    );
}

#[test]
fn reads_back_what_was_written() {
    let batches = [
        batch(0..1_000),
        batch(1_000..1_000),
        batch(1_000..1_001),
        batch(1_001..3_000),
    ];
    let object = object(&batches);
    let index = SpoolIndex::of_object(&object).unwrap();
    assert_eq!(index.rows(), 3_000);
    assert_eq!(index.schema(), &batches[0].schema());
    let places: Vec<_> = index
        .segments()
        .iter()
        .map(|segment| (segment.first_row, segment.rows))
        .collect();
    assert_eq!(places, [(0, 1_000), (1_000, 1), (1_001, 1_999)]);
    let read: Vec<_> = index
        .segments()
        .iter()
        .enumerate()
        .map(|(number, segment)| {
            index
                .decode_segment(number, segment_bytes(&object, segment))
                .unwrap()
        })
        .collect();
    assert_eq!(
        concat_batches(index.schema(), &read).unwrap(),
        batch(0..3_000)
    );
}

#[test]
fn finds_the_segment_of_a_row() {
    let index =
        SpoolIndex::of_object(&object(&[batch(0..10), batch(10..11), batch(11..20)])).unwrap();
    for (row, segment) in [
        (0, Some(0)),
        (9, Some(0)),
        (10, Some(1)),
        (11, Some(2)),
        (19, Some(2)),
        (20, None),
        (u64::MAX, None),
    ] {
        assert_eq!(index.segment_for_row(row), segment, "row {row}");
    }
}

#[test]
fn a_result_without_rows() {
    let object = object(&[]);
    let index = SpoolIndex::of_object(&object).unwrap();
    assert_eq!(
        (
            index.rows(),
            index.segments().len(),
            index.segment_for_row(0)
        ),
        (0, 0, None)
    );
    assert_eq!(index.schema(), &batch(0..0).schema());
}

#[test]
fn columns_of_nothing_are_rows_too() {
    let nulls = RecordBatch::try_from_iter_with_nullable([(
        "n",
        Arc::new(arrow::array::NullArray::new(3)) as ArrayRef,
        true,
    )])
    .unwrap();
    let encoder = SpoolEncoder::new(&nulls.schema()).unwrap();
    let mut assembler = encoder.assembler().unwrap();
    let mut object = Vec::new();
    assembler.start(&mut object).unwrap();
    assembler
        .push(encoder.render(nulls.clone()).unwrap(), &mut object)
        .unwrap();
    assembler.finish(&mut object).unwrap();
    let index = SpoolIndex::of_object(&object).unwrap();
    let bytes = segment_bytes(&object, &index.segments()[0]);
    assert_eq!(index.decode_segment(0, bytes).unwrap(), nulls);
}

#[test]
fn compresses_what_shrinks() {
    let texts = StringArray::from(vec!["the same text again and again"; 5_000]);
    let batch = RecordBatch::try_from_iter([("t", Arc::new(texts) as ArrayRef)]).unwrap();
    let rendered = SpoolEncoder::new(&batch.schema())
        .unwrap()
        .render(batch.clone())
        .unwrap();
    assert!(rendered.payload.size_bytes() < batch.get_array_memory_size() / 4);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let object = object(&[batch(0..50), batch(50..80)]);
    let sound = SpoolIndex::of_object(&object).unwrap();
    // The leading magic is for people; nothing is read by it.
    for at in MAGIC.len()..object.len() {
        let mut damaged = object.clone();
        damaged[at] ^= 0x10;
        let in_segment = sound
            .segments()
            .iter()
            .position(|segment| segment.bytes.contains(&(at as u64)));
        match in_segment {
            Some(number) => data_loss(
                sound.decode_segment(number, segment_bytes(&damaged, &sound.segments()[number])),
            ),
            None if (object.len() - 12..object.len() - 8).contains(&at) => {} // reserved
            None => data_loss(SpoolIndex::of_object(&damaged)),
        }
    }
}

#[test]
fn cut_and_foreign_objects_are_refused() {
    let object = object(&[batch(0..50)]);
    for len in 0..object.len() {
        data_loss(SpoolIndex::of_object(&object[..len]));
    }
    let other = self::object(&[batch(0..50), batch(50..60)]);
    let index = SpoolIndex::of_object(&object).unwrap();
    let foreign = SpoolIndex::of_object(&other).unwrap();
    data_loss(index.decode_segment(0, segment_bytes(&other, &foreign.segments()[1])));
    data_loss(index.decode_segment(7, Bytes::new()));
}

#[test]
fn streams_of_a_spool_resume_byte_for_byte() {
    let object = object(&[batch(0..700), batch(700..1_500)]);
    let index = SpoolIndex::of_object(&object).unwrap();
    for encoding in [
        RowEncoding::Values,
        RowEncoding::ArrowIpc,
        RowEncoding::JsonLines,
    ] {
        let options = RowOptions {
            encoding,
            max_batch_rows: None,
            max_batch_bytes: Some(4_000),
        };
        let render = RowRender::new(options, index.schema(), &TimeZone::UTC).unwrap();
        let stream = |row: u64| {
            let mut chunks = Vec::new();
            let Some(first) = index.segment_for_row(row) else {
                return chunks;
            };
            for (number, segment) in index.segments().iter().enumerate().skip(first) {
                let batch = index
                    .decode_segment(number, segment_bytes(&object, segment))
                    .unwrap();
                let within = row.saturating_sub(segment.first_row) as usize;
                chunks.extend(render.chunks_from(batch, within).unwrap());
            }
            chunks
        };
        let whole = stream(0);
        let mut row = 0;
        for (at, chunk) in whole.iter().enumerate() {
            assert!(stream(row) == whole[at..], "{encoding:?} from row {row}");
            row += u64::from(chunk.rows);
        }
        assert_eq!((row, stream(row).len()), (1_500, 0));
    }
}
