use std::{io::Cursor, sync::Arc};

use arrow::{
    array::*,
    compute::concat_batches,
    datatypes::{DataType, Field, Int64Type},
    ipc::reader::StreamReader,
};
use proptest::prelude::*;
use prost::Message;
use prost_types::{ListValue, Value, value::Kind};

use super::*;

const ENCODINGS: [RowEncoding; 3] = [
    RowEncoding::Values,
    RowEncoding::ArrowIpc,
    RowEncoding::JsonLines,
];

#[derive(Clone, PartialEq, Message)]
struct ValueRows {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<ListValue>,
}

fn options(encoding: RowEncoding) -> RowOptions {
    RowOptions {
        encoding,
        max_batch_rows: None,
        max_batch_bytes: None,
    }
}

fn render(options: RowOptions, batch: &RecordBatch) -> Result<Vec<RowChunk>, Error> {
    RowRender::new(options, &batch.schema(), &TimeZone::UTC)?.chunks(batch.clone())
}

fn orders(rows: usize, note_bytes: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..rows as i64);
    let notes: StringArray = (0..rows)
        .map(|row| (row % 7 != 3).then(|| "é".repeat((row * 31 + row / 5) % (note_bytes + 1))))
        .collect();
    let amounts = Decimal128Array::from_iter_values((0..rows as i128).map(|row| row * 101))
        .with_precision_and_scale(12, 2)
        .unwrap();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(ids) as ArrayRef, false),
        ("note", Arc::new(notes), true),
        ("amount", Arc::new(amounts), true),
    ])
    .unwrap()
}

/// Each row as a text that is the same whatever the chunks.
fn rows_of(encoding: RowEncoding, schema: &SchemaRef, chunks: &[RowChunk]) -> Vec<String> {
    let mut rows = Vec::new();
    for chunk in chunks {
        let before = rows.len();
        match encoding {
            RowEncoding::Values => rows.extend(
                ValueRows::decode(chunk.payload.clone())
                    .unwrap()
                    .rows
                    .iter()
                    .map(|row| format!("{row:?}")),
            ),
            RowEncoding::JsonLines => rows.extend(
                std::str::from_utf8(&chunk.payload)
                    .unwrap()
                    .split('\n')
                    .map(str::to_owned),
            ),
            RowEncoding::ArrowIpc => {
                for batch in read_stream(schema, std::slice::from_ref(chunk)) {
                    rows.extend(
                        (0..batch.num_rows()).map(|row| format!("{:?}", batch.slice(row, 1))),
                    );
                }
            }
        }
        assert_eq!(rows.len() - before, chunk.rows as usize);
    }
    rows
}

fn read_stream(schema: &SchemaRef, chunks: &[RowChunk]) -> Vec<RecordBatch> {
    let mut stream = arrow_schema_bytes(schema).unwrap().to_vec();
    for chunk in chunks {
        stream.extend_from_slice(&chunk.payload);
    }
    StreamReader::try_new(Cursor::new(stream), None)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn one_row(columns: Vec<(&str, ArrayRef)>) -> Vec<Kind> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let chunks = render(options(RowEncoding::Values), &batch).unwrap();
    let mut rows = ValueRows::decode(chunks[0].payload.clone()).unwrap().rows;
    assert_eq!(rows.len(), 1);
    kinds(rows.remove(0).values)
}

fn kinds(values: Vec<Value>) -> Vec<Kind> {
    values
        .into_iter()
        .map(|value| value.kind.unwrap())
        .collect()
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

#[test]
fn values_are_native_where_a_double_is_exact() {
    let kinds = one_row(vec![
        ("b", Arc::new(BooleanArray::from(vec![false]))),
        ("i32", Arc::new(Int32Array::from(vec![i32::MIN]))),
        ("u8", Arc::new(UInt8Array::from(vec![255]))),
        ("i64", Arc::new(Int64Array::from(vec![i64::MIN]))),
        ("f64", Arc::new(Float64Array::from(vec![0.1]))),
        ("nan", Arc::new(Float64Array::from(vec![f64::NAN]))),
        (
            "dec",
            Arc::new(
                Decimal128Array::from(vec![-5])
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
        ),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")),
        ),
        ("s", Arc::new(StringArray::from(vec![""]))),
        (
            "long",
            Arc::new(StringArray::from(vec!["é".repeat(20_000)])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![&b"\x00\xff\x01"[..]])),
        ),
        ("none", Arc::new(Int64Array::from(vec![None]))),
        ("null", Arc::new(NullArray::new(1))),
    ]);
    assert_eq!(
        kinds,
        [
            Kind::BoolValue(false),
            Kind::NumberValue(-2_147_483_648.0),
            Kind::NumberValue(255.0),
            text("-9223372036854775808"),
            Kind::NumberValue(0.1),
            text("NaN"),
            text("-0.05"),
            text("1970-01-01T00:00:00.000001+00:00"),
            text(""),
            text(&"é".repeat(20_000)),
            text("AP8B"),
            Kind::NullValue(0),
            Kind::NullValue(0),
        ]
    );
}

#[test]
fn decimals_longer_than_a_short_length() {
    for (scale, expected) in [
        (76, format!("-0.{}1", "0".repeat(75))),
        (-76, format!("-1{}", "0".repeat(76))),
        (-127, format!("-1{}", "0".repeat(127))),
    ] {
        let array = Decimal256Array::from(vec![arrow::datatypes::i256::MINUS_ONE])
            .with_precision_and_scale(76, scale)
            .unwrap();
        assert_eq!(one_row(vec![("d", Arc::new(array))]), [text(&expected)]);
    }
}

#[test]
fn lists_of_any_length_are_lists() {
    for len in [0, 1, 30, 200, 5_000] {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(
            (0..len).map(Some).chain([None]),
        )]);
        let kinds = one_row(vec![
            ("l", Arc::new(list)),
            ("after", Arc::new(StringArray::from(vec!["x"]))),
        ]);
        let Kind::ListValue(list) = &kinds[0] else {
            panic!("{:?}", kinds[0])
        };
        let mut expected: Vec<_> = (0..len).map(|item| text(&item.to_string())).collect();
        expected.push(Kind::NullValue(0));
        assert_eq!(self::kinds(list.values.clone()), expected);
        assert_eq!(kinds[1], text("x"));
    }
}

#[test]
fn arrow_chunks_are_a_stream_behind_the_schema() {
    let views = StringViewArray::from_iter(
        (0..3_000).map(|row| (row % 3 > 0).then(|| format!("a text beyond twelve bytes {row}"))),
    );
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("v", Arc::new(views) as ArrayRef, true),
        (
            "z",
            Arc::new(TimestampMicrosecondArray::from_iter_values(0..3_000).with_timezone("UTC")),
            true,
        ),
        (
            "l",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                (0..3_000).map(|row| (row % 2 == 0).then(|| vec![Some(row), None])),
            )),
            true,
        ),
    ])
    .unwrap();
    let chunks = render(
        RowOptions {
            max_batch_bytes: Some(40_000),
            ..options(RowEncoding::ArrowIpc)
        },
        &batch,
    )
    .unwrap();
    assert!(chunks.len() > 3, "{} chunks", chunks.len());
    let read = read_stream(&batch.schema(), &chunks);
    assert_eq!(read[0].schema().field(0).data_type(), &DataType::Utf8);
    let whole = concat_batches(&read[0].schema(), &read).unwrap();
    assert_eq!(
        whole,
        PlainSchema::of(&batch.schema())
            .unwrap()
            .plain(batch)
            .unwrap()
    );
}

#[test]
fn arrow_refuses_dictionaries_even_in_lists() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let list = DataType::List(Arc::new(Field::new("item", dictionary, true)));
    let error = arrow_schema_bytes(&Schema::new(vec![Field::new("d", list, true)])).unwrap_err();
    assert!(error.to_string().contains("column d"), "{error}");
}

#[test]
fn json_lines_are_joined_and_not_ended() {
    let batch = orders(3, 2);
    let chunks = render(
        RowOptions {
            max_batch_rows: Some(2),
            ..options(RowEncoding::JsonLines)
        },
        &batch,
    )
    .unwrap();
    let payloads: Vec<_> = chunks
        .iter()
        .map(|chunk| std::str::from_utf8(&chunk.payload).unwrap())
        .collect();
    assert_eq!(
        payloads,
        [
            "{\"id\":0,\"note\":\"\",\"amount\":0.00}\n{\"id\":1,\"note\":\"é\",\"amount\":1.01}",
            "{\"id\":2,\"note\":\"éé\",\"amount\":2.02}",
        ]
    );
}

#[test]
fn chunks_aim_at_64_to_256_kib() {
    let batch = orders(8_192, 200);
    for encoding in ENCODINGS {
        let chunks = render(options(encoding), &batch).unwrap();
        assert!(chunks.len() > 1);
        for chunk in &chunks {
            let bytes = chunk.payload.len();
            assert!(
                (CHUNK_BYTES_AIM / 4..=CHUNK_BYTES_AIM).contains(&bytes),
                "{encoding:?}: {bytes}"
            );
        }
    }
}

#[test]
fn a_large_row_goes_alone_and_a_larger_one_is_refused() {
    let batch = |bytes: usize| {
        let texts = StringArray::from(vec!["a".to_owned(), "x".repeat(bytes), "b".to_owned()]);
        RecordBatch::try_from_iter([("t", Arc::new(texts) as ArrayRef)]).unwrap()
    };
    for encoding in ENCODINGS {
        let chunks = render(options(encoding), &batch(2_900_000)).unwrap();
        let rows: Vec<_> = chunks.iter().map(|chunk| chunk.rows).collect();
        assert_eq!(rows, [1, 1, 1], "{encoding:?}");
        match render(options(encoding), &batch(CHUNK_BYTES_MAX)) {
            Err(Error::RowTooLarge {
                row: 1,
                bytes,
                bytes_max,
            }) => {
                assert!(bytes > bytes_max && bytes_max == CHUNK_BYTES_MAX as u64);
            }
            other => panic!("{encoding:?}: {other:?}"),
        }
        let asked = RowOptions {
            max_batch_bytes: Some(100_000),
            ..options(encoding)
        };
        assert!(matches!(
            render(asked, &batch(100_001)),
            Err(Error::RowTooLarge {
                row: 1,
                bytes_max: 100_000,
                ..
            })
        ));
    }
}

#[test]
fn an_empty_batch_has_no_chunks() {
    for encoding in ENCODINGS {
        assert_eq!(render(options(encoding), &orders(0, 0)).unwrap(), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn chunks_hold_all_rows_within_the_bounds(
        rows in 1_usize..600,
        note_bytes in 0_usize..400,
        max_rows in proptest::option::of(1_u32..700),
        max_bytes in 3_000_u32..60_000,
    ) {
        let batch = orders(rows, note_bytes);
        for encoding in ENCODINGS {
            let all = render(options(encoding), &batch).unwrap();
            let options = RowOptions { encoding, max_batch_rows: max_rows, max_batch_bytes: Some(max_bytes) };
            let chunks = render(options, &batch).unwrap();
            for chunk in &chunks {
                prop_assert!(chunk.payload.len() <= max_bytes as usize);
                prop_assert!(chunk.rows >= 1 && max_rows.is_none_or(|max| chunk.rows <= max));
            }
            prop_assert_eq!(rows_of(encoding, &batch.schema(), &chunks), rows_of(encoding, &batch.schema(), &all));
        }
    }

    #[test]
    fn resuming_gives_the_same_bytes(rows in 1_usize..400, from in 0_usize..450, max_bytes in 3_000_u32..20_000) {
        let batch = orders(rows, 60);
        for encoding in ENCODINGS {
            let options = RowOptions { encoding, max_batch_rows: None, max_batch_bytes: Some(max_bytes) };
            let render = RowRender::new(options, &batch.schema(), &TimeZone::UTC).unwrap();
            let whole = render.chunks(batch.clone()).unwrap();
            let mut start = 0;
            for (at, chunk) in whole.iter().enumerate() {
                prop_assert_eq!(&render.chunks_from(batch.clone(), start).unwrap()[..], &whole[at..]);
                start += chunk.rows as usize;
            }
            let rest = render.chunks_from(batch.clone(), from).unwrap();
            let expected: Vec<_> = rows_of(encoding, &batch.schema(), &whole).into_iter().skip(from).collect();
            prop_assert_eq!(rows_of(encoding, &batch.schema(), &rest), expected);
            // Behind the cut chunk, the boundaries are those of the whole.
            if rest.len() > 1 {
                prop_assert_eq!(&rest[1..], &whole[whole.len() + 1 - rest.len()..]);
            }
        }
    }
}
