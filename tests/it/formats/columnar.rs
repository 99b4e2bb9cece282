//! Parquet and Arrow IPC files, read by pyarrow, and Parquet by DuckDB as well.

use std::{path::Path, sync::Arc};

use arrow::{
    array::*,
    datatypes::{DataType, Field, Int32Type, TimeUnit, i256},
};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rowgate::{
    export::{
        Format,
        field::{kind, metadata},
        spec::{self, Compression},
    },
    format::{self, Encoder, Error},
};
use serde_json::{Value, json};

use super::{batch, encode, options, with};
use crate::support;

const READ: &str = include_str!("../python/read_columnar.py");

fn encoder(batch: &RecordBatch, format: Format) -> Arc<dyn Encoder> {
    format::encoder(
        &format,
        options(&batch.schema(), "Asia/Shanghai", Path::new("/")),
    )
    .unwrap()
}

async fn read_back(format: Format, batches: &[RecordBatch], arguments: &[&str]) -> Value {
    let kind = format.name();
    let (bytes, assembled) = encode(&*encoder(&batches[0], format), batches).unwrap();
    assert!(assembled.fidelity.is_empty() && assembled.sheets == 0);
    let dir = support::temp_dir();
    let path = dir.path().join("result");
    std::fs::write(&path, bytes).unwrap();
    let arguments = [&[path.to_str().unwrap(), kind], arguments].concat();
    let printed = support::python(READ, &arguments).await.success();
    serde_json::from_str(&printed).unwrap()
}

fn parquet() -> Format {
    Format::Parquet(spec::Parquet::default())
}

fn arrow_ipc(compression: Compression) -> Format {
    Format::Arrow(spec::ArrowIpc { compression })
}

/// A column, its type as pyarrow spells it, its two values as Python prints them.
type Case = (Field, ArrayRef, &'static str, Value);

#[allow(clippy::too_many_lines, reason = "a table: one case for each type")]
fn every_type() -> Vec<Case> {
    let micros = 1_709_251_199_123_456;
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None, Some(3)]),
        None,
    ]);
    let texts = |text: &str| Arc::new(StringArray::from(vec![Some(text), None]));
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let timestamp =
        |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    vec![
        (
            field("bool", DataType::Boolean),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            "bool",
            json!([true, null]),
        ),
        (
            field("int16", DataType::Int16),
            Arc::new(Int16Array::from(vec![Some(-7), None])),
            "int16",
            json!([-7, null]),
        ),
        (
            field("int64", DataType::Int64),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            "int64",
            json!([i64::MIN, null]),
        ),
        (
            field("uint64", DataType::UInt64),
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
            "uint64",
            json!([u64::MAX, null]),
        ),
        (
            field("float32", DataType::Float32),
            Arc::new(Float32Array::from(vec![Some(0.5), None])),
            "float",
            json!([0.5, null]),
        ),
        (
            field("float64", DataType::Float64),
            Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), None])),
            "double",
            json!([0.1 + 0.2, null]),
        ),
        (
            field("decimal", DataType::Decimal128(38, 2)),
            Arc::new(
                Decimal128Array::from(vec![Some(-10_i128.pow(37) - 5), None])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
            "decimal128(38, 2)",
            json!(["-100000000000000000000000000000000000.05", null]),
        ),
        (
            with(
                field("numeric", DataType::Utf8),
                metadata::KIND,
                kind::NUMERIC,
            ),
            texts("12345678901234567890.123400"),
            "string",
            json!(["12345678901234567890.123400", null]),
        ),
        (
            with(field("uuid", DataType::Utf8), metadata::KIND, kind::UUID),
            texts("018f2f0c-0000-7000-8000-000000000001"),
            "string",
            json!(["018f2f0c-0000-7000-8000-000000000001", null]),
        ),
        (
            field("text", DataType::Utf8),
            texts("王秀英 👩‍👩‍👧 \0 =1+1\r\n"),
            "string",
            json!(["王秀英 👩‍👩‍👧 \0 =1+1\r\n", null]),
        ),
        (
            field("view", DataType::Utf8View),
            Arc::new(StringViewArray::from(vec![
                Some("longer than twelve bytes"),
                None,
            ])),
            "string",
            json!(["longer than twelve bytes", null]),
        ),
        (
            field("bytes", DataType::Binary),
            Arc::new(BinaryArray::from(vec![Some(&b"\x00\xFF"[..]), None])),
            "binary",
            json!(["AP8=", null]),
        ),
        (
            field("date", DataType::Date32),
            Arc::new(Date32Array::from(vec![Some(-100_000), None])),
            "date32[day]",
            json!(["1696-03-17", null]),
        ),
        (
            field("time", DataType::Time64(TimeUnit::Microsecond)),
            Arc::new(Time64MicrosecondArray::from(vec![
                Some(86_399_999_999),
                None,
            ])),
            "time64[us]",
            json!(["23:59:59.999999", null]),
        ),
        (
            field("timestamp", timestamp(None)),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(micros), None])),
            "timestamp[us]",
            json!(["2024-02-29 23:59:59.123456", null]),
        ),
        (
            field("timestamptz", timestamp(Some("UTC"))),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(micros), None]).with_timezone("UTC"),
            ),
            "timestamp[us, tz=UTC]",
            json!(["2024-02-29 23:59:59.123456+00:00", null]),
        ),
        (
            field("list", list.data_type().clone()),
            Arc::new(list),
            "list<item: int32>",
            json!([[1, null, 3], null]),
        ),
        (
            field("nothing", DataType::Null),
            Arc::new(NullArray::new(2)),
            "null",
            json!([null, null]),
        ),
    ]
}

fn assert_equal(read: &Value, cases: &[Case]) {
    for (index, (field, _, data_type, values)) in cases.iter().enumerate() {
        assert_eq!(
            read["schema"][index],
            json!([field.name(), data_type, true])
        );
        assert_eq!(&read["columns"][index], values, "{}", field.name());
    }
}

fn batch_of(cases: &[Case]) -> RecordBatch {
    batch(cases.iter().map(|c| (c.0.clone(), c.1.clone())).collect())
}

#[tokio::test]
async fn every_type_comes_back_from_parquet() {
    let cases = every_type();
    let read = read_back(parquet(), &[batch_of(&cases)], &[]).await;
    assert_equal(&read, &cases);
    assert_eq!(read["compression"], json!(["ZSTD"]));
    assert_eq!(read["page_index"], true);
    assert!(read["created_by"].as_str().unwrap().starts_with("rowgate "));
}

#[tokio::test]
async fn every_type_comes_back_from_arrow() {
    let cases = every_type();
    for compression in [Compression::None, Compression::Zstd, Compression::Lz4] {
        let read = read_back(arrow_ipc(compression), &[batch_of(&cases)], &[]).await;
        assert_equal(&read, &cases);
    }
}

/// DuckDB has no decimals of more than 38 digits.
#[tokio::test]
async fn wide_decimals_come_back() {
    let huge = "-12345678901234567890123456789012345678901234567890123456.789";
    let value = i256::from_string(&huge.replace('.', "")).unwrap();
    let array = Decimal256Array::from(vec![value])
        .with_precision_and_scale(76, 3)
        .unwrap();
    let field = Field::new("wide", DataType::Decimal256(76, 3), true);
    let batch = batch(vec![(field, Arc::new(array))]);
    for format in [parquet(), arrow_ipc(Compression::None)] {
        let read = read_back(format, std::slice::from_ref(&batch), &["no-duckdb"]).await;
        assert_eq!(read["schema"], json!([["wide", "decimal256(76, 3)", true]]));
        assert_eq!(read["columns"], json!([[huge]]));
    }
}

#[tokio::test]
async fn metadata_says_what_the_data_is_not_how_a_sheet_looks() {
    let field = Field::new("amount", DataType::Utf8, false);
    let field = with(field, metadata::SOURCE_TYPE, "numeric");
    let field = with(field, metadata::KIND, kind::NUMERIC);
    let field = with(field, metadata::WIDTH, "20");
    let batch = batch(vec![(field, Arc::new(StringArray::from(vec!["1.50"])))]);
    for format in [parquet(), arrow_ipc(Compression::None)] {
        let read = read_back(format, std::slice::from_ref(&batch), &[]).await;
        let kept = json!({"rowgate.source_type": "numeric", "rowgate.kind": "numeric"});
        assert_eq!(read["metadata"], json!([kept]));
        assert_eq!(read["schema"][0][2], false);
    }
}

#[tokio::test]
async fn a_result_without_rows_has_its_schema() {
    let empty = batch_of(&every_type()).slice(0, 0);
    for format in [parquet(), arrow_ipc(Compression::Zstd)] {
        let none = read_back(format.clone(), std::slice::from_ref(&empty), &[]).await;
        assert_eq!(none["rows"], 0);
        assert_eq!(
            none["schema"].as_array().unwrap().len(),
            empty.num_columns()
        );
    }
}

fn ids(ids: std::ops::Range<i64>) -> RecordBatch {
    let field = Field::new("id", DataType::Int64, false);
    batch(vec![(field, Arc::new(Int64Array::from_iter_values(ids)))])
}

#[tokio::test]
async fn compressions_and_row_groups_are_as_asked() {
    let batches = [ids(0..700), ids(700..1_000), ids(1_000..2_500)];
    for (compression, name) in [
        (Compression::None, "UNCOMPRESSED"),
        (Compression::Gzip, "GZIP"),
        (Compression::Zstd, "ZSTD"),
        (Compression::Snappy, "SNAPPY"),
        (Compression::Lz4, "LZ4"),
    ] {
        let format = Format::Parquet(spec::Parquet {
            compression: Some(compression),
            row_group_rows: Some(1_000),
        });
        let read = read_back(format, &batches, &[]).await;
        assert_eq!(read["compression"], json!([name]));
        assert_eq!(read["groups"], json!([1_000, 1_000, 500]));
        assert_eq!(read["statistics"], true);
        let expected: Vec<i64> = (0..2_500).collect();
        assert_eq!(read["columns"], json!([expected]));
    }
}

/// 100,000 rows of 1 KiB that don't compress: what is written reaches the sink as row groups complete, long before
/// the end, and no row group takes much more than 32 MiB.
#[tokio::test]
async fn parquet_keeps_a_bounded_row_group_in_memory() {
    const BATCH_ROWS: u64 = 4_000;
    const GROUP_BYTES_MAX: usize = 40 << 20;
    let mut state = 1_u64;
    let mut noise = || {
        let mut value = vec![0_u8; 1_024];
        for word in value.chunks_exact_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
        }
        value
    };
    let mut next = || {
        let values = (0..BATCH_ROWS).map(|_| Some(noise()));
        let field = Field::new("noise", DataType::Binary, false);
        batch(vec![(field, Arc::new(BinaryArray::from_iter(values)))])
    };
    let first = next();
    let encoder = encoder(&first, parquet());
    let mut assembler = encoder.assembler().unwrap();
    let mut out = Vec::new();
    let mut given = 0;
    assembler.start(&mut out).unwrap();
    for number in 0..25 {
        let batch = if number == 0 { first.clone() } else { next() };
        given += batch.num_rows() * 1_024;
        assembler
            .push(encoder.render(batch).unwrap(), &mut out)
            .unwrap();
        assert!(
            given - out.len().min(given) < GROUP_BYTES_MAX,
            "after batch {number}"
        );
    }
    assembler.finish(&mut out).unwrap();
    let dir = support::temp_dir();
    let path = dir.path().join("result");
    std::fs::write(&path, out).unwrap();
    let arguments = [path.to_str().unwrap(), "parquet", "no-values"];
    let printed = support::python(READ, &arguments).await.success();
    let read: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read["rows"], 100_000);
    assert!(read["groups"].as_array().unwrap().len() >= 3, "{read}");
}

#[tokio::test]
async fn arrow_reaches_the_sink_batch_by_batch() {
    let encoder = encoder(&ids(0..0), arrow_ipc(Compression::None));
    let mut assembler = encoder.assembler().unwrap();
    let mut out = Vec::new();
    assembler.start(&mut out).unwrap();
    for number in 0..10_i64 {
        let before = out.len();
        let rows = ids(number * 1_000..(number + 1) * 1_000);
        assembler
            .push(encoder.render(rows).unwrap(), &mut out)
            .unwrap();
        assert!(out.len() >= before + 8_000);
    }
    assembler.finish(&mut out).unwrap();
    let dir = support::temp_dir();
    let path = dir.path().join("result");
    std::fs::write(&path, out).unwrap();
    let printed = support::python(READ, &[path.to_str().unwrap(), "arrow"])
        .await
        .success();
    let read: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read["batches"], 10);
    let expected: Vec<i64> = (0..10_000).collect();
    assert_eq!(read["columns"], json!([expected]));
}

#[test]
fn options_that_make_no_file_are_refused() {
    let rows = ids(0..3);
    let refused = |format: Format| {
        let options = options(&rows.schema(), "UTC", Path::new("/"));
        match format::encoder(&format, options).err() {
            Some(Error::Invalid(failure)) => failure.violations[0].field.clone(),
            other => panic!("{other:?}"),
        }
    };
    for compression in [Compression::Gzip, Compression::Snappy] {
        assert_eq!(
            refused(arrow_ipc(compression)),
            "spec.format.arrow.compression"
        );
    }
    let groups = |row_group_rows| {
        Format::Parquet(spec::Parquet {
            row_group_rows: Some(row_group_rows),
            ..spec::Parquet::default()
        })
    };
    assert_eq!(refused(groups(0)), "spec.format.parquet.row_group_rows");
    // More row groups than the format counts; and, of a wide table, more than the footer's memory should take.
    let wide = (0..1_000).map(|number| {
        let field = Field::new(format!("c{number}"), DataType::Null, true);
        (field, Arc::new(NullArray::new(200)) as ArrayRef)
    });
    for many in [ids(0..40_000), batch(wide.collect())] {
        match encode(&*encoder(&many, groups(1)), std::slice::from_ref(&many)) {
            Err(Error::Invalid(failure)) => assert_eq!(
                failure.violations[0].field,
                "spec.format.parquet.row_group_rows"
            ),
            other => panic!("{other:?}"),
        }
    }
}

/// The writer's own way to cut a batch calls itself once for each row group.
#[test]
fn a_batch_of_very_many_row_groups_does_not_overflow_the_stack() {
    const ROWS: i64 = 30_000;
    let rows = ids(0..ROWS);
    let format = Format::Parquet(spec::Parquet {
        compression: Some(Compression::None),
        row_group_rows: Some(1),
    });
    let (bytes, _) = encode(&*encoder(&rows, format), std::slice::from_ref(&rows)).unwrap();
    let file = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let groups = file.metadata().row_groups();
    assert_eq!(groups.len() as i64, ROWS);
    assert!(groups.iter().all(|group| group.num_rows() == 1));
}
