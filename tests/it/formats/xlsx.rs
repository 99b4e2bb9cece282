//! Workbooks, read by openpyxl.

mod overflow;

use std::{collections::BTreeMap, io, sync::Arc};

use arrow::{
    array::*,
    datatypes::{DataType, Field, Int32Type, TimeUnit, i256},
};
use rowgate::{
    export::{
        field::{kind, metadata},
        spec,
    },
    format::{Encoder, Error, xlsx::Xlsx},
};
use serde_json::{Value, json};

use super::{batch, encode, options, read_back, with};
use crate::support;

const READ: &str = include_str!("../python/read_xlsx.py");

fn encoder(batch: &RecordBatch, format: spec::Xlsx, zone: &str, dir: &std::path::Path) -> Xlsx {
    Xlsx::new(
        &format,
        options(&batch.schema(), zone, &dir.join("scratch")),
    )
    .unwrap()
}

/// Sheets as `read_xlsx.py` prints them, and fidelity by column and key.
async fn round_trip(
    batch: &RecordBatch,
    zone: &str,
) -> (Value, BTreeMap<String, BTreeMap<String, u64>>) {
    let dir = support::temp_dir();
    let encoder = encoder(batch, spec::Xlsx::default(), zone, dir.path());
    let (bytes, assembled) = encode(&encoder, std::slice::from_ref(batch)).unwrap();
    assert_eq!(assembled.sheets, 1);
    let left = std::fs::read_dir(dir.path().join("scratch")).unwrap();
    assert_eq!(left.count(), 0, "files are left in the scratch folder");
    let fidelity = assembled.fidelity.into_iter();
    (
        read_back(READ, dir.path(), &bytes).await,
        fidelity.map(|f| (f.column, f.counts)).collect(),
    )
}

fn text(name: &str, values: &[&str]) -> (Field, ArrayRef) {
    let array = StringArray::from(values.to_vec());
    (Field::new(name, DataType::Utf8, true), Arc::new(array))
}

/// Value, openpyxl's cell type, number format.
fn cells(sheets: &Value, column: usize) -> Vec<Value> {
    let rows = sheets[0]["rows"].as_array().unwrap().iter();
    rows.map(|row| json!([row[column][1], row[column][2], row[column][3]]))
        .collect()
}

fn values(sheets: &Value, column: usize) -> Vec<Value> {
    cells(sheets, column).iter().map(|c| c[0].clone()).collect()
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table: one case for each type")]
async fn every_type_has_its_cell() {
    let micros = 1_709_251_199_123_456; // 2024-02-29T23:59:59.123456Z
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None, Some(3)]),
        None,
    ]);
    let utf8 = |name: &str| Field::new(name, DataType::Utf8, true);
    let timestamp =
        |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let columns: Vec<(Field, ArrayRef, Value)> = vec![
        (
            Field::new("bool", DataType::Boolean, true),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            json!([true, "b", "General"]),
        ),
        (
            Field::new("int16", DataType::Int16, true),
            Arc::new(Int16Array::from(vec![Some(-7), None])),
            json!([-7, "n", "0"]),
        ),
        (
            Field::new("int64", DataType::Int64, true),
            Arc::new(Int64Array::from(vec![Some(-999_999_999_999_999), None])),
            json!([-999_999_999_999_999_i64, "n", "0"]),
        ),
        (
            Field::new("uint64", DataType::UInt64, true),
            Arc::new(UInt64Array::from(vec![Some(5), None])),
            json!([5, "n", "0"]),
        ),
        (
            Field::new("float32", DataType::Float32, true),
            Arc::new(Float32Array::from(vec![Some(0.1), None])),
            json!([0.1, "n", "General"]),
        ),
        (
            Field::new("float64", DataType::Float64, true),
            Arc::new(Float64Array::from(vec![Some(0.1 + 0.2), None])),
            json!([0.1 + 0.2, "n", "General"]),
        ),
        (
            Field::new("decimal", DataType::Decimal128(12, 2), true),
            Arc::new(
                Decimal128Array::from(vec![Some(-123_450), None])
                    .with_precision_and_scale(12, 2)
                    .unwrap(),
            ),
            json!([-1234.5, "n", "0.00"]),
        ),
        (
            Field::new("wide", DataType::Decimal256(50, 3), true),
            Arc::new(
                Decimal256Array::from(vec![Some(i256::from(1_500)), None])
                    .with_precision_and_scale(50, 3)
                    .unwrap(),
            ),
            json!([1.5, "n", "0.000"]),
        ),
        (
            with(utf8("numeric"), metadata::KIND, kind::NUMERIC),
            Arc::new(StringArray::from(vec![Some("12.3400"), None])),
            json!([12.34, "n", "General"]),
        ),
        (
            utf8("text"),
            Arc::new(StringArray::from(vec![Some("00123"), None])),
            json!(["00123", "s", "General"]),
        ),
        (
            Field::new("view", DataType::Utf8View, true),
            Arc::new(StringViewArray::from(vec![
                Some("longer than twelve bytes"),
                None,
            ])),
            json!(["longer than twelve bytes", "s", "General"]),
        ),
        (
            with(utf8("json"), metadata::KIND, kind::JSON),
            Arc::new(StringArray::from(vec![Some(r#"{"a": [1, "x"]}"#), None])),
            json!([r#"{"a": [1, "x"]}"#, "s", "General"]),
        ),
        (
            Field::new("bytes", DataType::Binary, true),
            Arc::new(BinaryArray::from(vec![Some(&b"\x00\xFF"[..]), None])),
            json!([r"\x00ff", "s", "General"]),
        ),
        (
            Field::new("date", DataType::Date32, true),
            Arc::new(Date32Array::from(vec![Some(19_782), None])),
            json!(["2024-02-29T00:00:00", "d", "yyyy-mm-dd"]),
        ),
        (
            Field::new("time", DataType::Time64(TimeUnit::Microsecond), true),
            Arc::new(Time64MicrosecondArray::from(vec![
                Some(86_399_500_000),
                None,
            ])),
            json!(["23:59:59.500000", "d", "hh:mm:ss"]),
        ),
        (
            Field::new("timestamp", timestamp(None), true),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(micros), None])),
            json!(["2024-02-29T23:59:59.123000", "d", "yyyy-mm-dd hh:mm:ss"]),
        ),
        (
            Field::new("timestamptz", timestamp(Some("UTC")), true),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(micros), None]).with_timezone("UTC"),
            ),
            json!(["2024-03-01T07:59:59.123000", "d", "yyyy-mm-dd hh:mm:ss"]),
        ),
        (
            Field::new("list", list.data_type().clone(), true),
            Arc::new(list),
            json!(["[1,null,3]", "s", "General"]),
        ),
        (
            Field::new("nothing", DataType::Null, true),
            Arc::new(NullArray::new(2)),
            json!([null, "n", "General"]),
        ),
    ];
    let expected: Vec<Value> = columns.iter().map(|column| column.2.clone()).collect();
    let batch = batch(columns.into_iter().map(|(f, a, _)| (f, a)).collect());
    let (sheets, fidelity) = round_trip(&batch, "Asia/Shanghai").await;
    assert_eq!(fidelity, BTreeMap::new());
    for (index, field) in batch.schema().fields().iter().enumerate() {
        let cells = cells(&sheets, index);
        assert_eq!(cells[0], expected[index], "{}", field.name());
        assert_eq!(cells.get(1).map_or(&Value::Null, |c| &c[0]), &Value::Null);
        assert_eq!(
            sheets[0]["titles"][index],
            json!([field.name(), true, "solid"])
        );
    }
    assert_eq!(sheets[0]["freeze"], "A2");
    assert_eq!(sheets[0]["name"], "Sheet1");
}

/// openpyxl rounds to milliseconds; the number in the file does not.
#[tokio::test]
async fn microseconds_are_in_the_file() {
    let micros: Vec<i64> = (0..500)
        .map(|i| 1_577_836_800_000_000 + i * 86_399_654_321)
        .collect();
    let batch = batch(vec![(
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Arc::new(TimestampMicrosecondArray::from(micros.clone())),
    )]);
    let (sheets, fidelity) = round_trip(&batch, "UTC").await;
    assert_eq!(fidelity, BTreeMap::new());
    let rows = sheets[0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), micros.len());
    for (row, micros) in rows.iter().zip(micros) {
        let serial: f64 = row[0][4].as_str().unwrap().parse().unwrap();
        let day = serial.floor() as i64 - 25_569;
        let of_day = (serial.fract() * 86_400_000_000.0).round() as i64;
        assert_eq!(day * 86_400_000_000 + of_day, micros);
    }
}

#[tokio::test]
async fn texts_stay_texts() {
    let texts = [
        "=SUM(A1:A9)",
        "+1",
        "@x",
        "https://example.com/?a=1&b=<2>",
        "mailto:a@example.com",
        "{=1}",
        "王秀英 (北京分公司)",
        "Zoë 👩‍👩‍👧‍👦 \u{202E}rtl",
        " spaces\tand\nlines ",
        "1234567890123456789",
        "TRUE",
        "_x0041_",
        "_x005F_x0041_",
        "_x004",
        "#N/A",
        "'quoted",
    ];
    let batch = batch(vec![text("t", &texts)]);
    let (sheets, fidelity) = round_trip(&batch, "UTC").await;
    assert_eq!(fidelity, BTreeMap::new());
    assert_eq!(values(&sheets, 0), texts.map(Value::from));
    assert!(cells(&sheets, 0).iter().all(|cell| cell[1] == "s"));
    assert_eq!(sheets[0]["hyperlinks"], 0);
}

#[tokio::test]
async fn rows_over_the_limit_open_another_sheet() {
    let dir = support::temp_dir();
    let ids = |ids: std::ops::Range<i64>| {
        let field = Field::new("id", DataType::Int64, false);
        batch(vec![(field, Arc::new(Int64Array::from_iter_values(ids)))])
    };
    let format = spec::Xlsx {
        sheet: Some("Orders".to_owned()),
        ..spec::Xlsx::default()
    };
    let batches = [ids(0..5), ids(5..5), ids(5..9)];
    let encoder = encoder(&batches[0], format, "UTC", dir.path()).sheet_rows_max(4);
    let (bytes, assembled) = encode(&encoder, &batches).unwrap();
    assert_eq!(assembled.sheets, 3);
    let sheets = read_back(READ, dir.path(), &bytes).await;
    let sheets = sheets.as_array().unwrap();
    let names: Vec<_> = sheets.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Orders", "Orders (2)", "Orders (3)"]);
    let mut next = 0;
    for sheet in sheets {
        assert_eq!(sheet["titles"], json!([["id", true, "solid"]]));
        assert_eq!(sheet["freeze"], "A2");
        let rows = sheet["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        for row in rows {
            assert_eq!(row[0][1], next);
            next += 1;
        }
    }
    assert_eq!(next, 9);
}

#[tokio::test]
async fn a_result_without_rows_has_its_titles() {
    let (sheets, fidelity) = round_trip(&batch(vec![text("名称", &[])]), "UTC").await;
    assert_eq!(fidelity, BTreeMap::new());
    assert_eq!(sheets[0]["titles"], json!([["名称", true, "solid"]]));
    assert_eq!(sheets[0]["rows"], json!([]));
}

#[tokio::test]
async fn columns_look_as_asked() {
    let look = |field: Field| {
        let field = with(field, metadata::HEADER, "Amount, =EUR");
        let field = with(field, metadata::NUMBER_FORMAT, "#,##0.00 [$€-407]");
        with(field, metadata::WIDTH, "33.5")
    };
    let field = Field::new("amount", DataType::Float64, true);
    let array: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
    let (sheets, _) = round_trip(&batch(vec![(look(field), array)]), "UTC").await;
    assert_eq!(sheets[0]["titles"][0][0], "Amount, =EUR");
    assert_eq!(cells(&sheets, 0), [json!([1.5, "n", "#,##0.00 [$€-407]"])]);
    let width = sheets[0]["widths"]["A"].as_f64().unwrap();
    assert!((width - 33.5).abs() < 1.0, "{width}");
}

#[test]
fn what_excel_would_call_damaged_is_refused() {
    let dir = support::temp_dir();
    let rows = batch(vec![text("t", &[])]);
    let refused = |format: spec::Xlsx, batch: &RecordBatch| match Xlsx::new(
        &format,
        options(&batch.schema(), "UTC", dir.path()),
    ) {
        Err(Error::Invalid(failure)) => failure.violations[0].field.clone(),
        other => panic!("{other:?}"),
    };
    let long = "a".repeat(32);
    for name in [
        "",
        long.as_str(),
        "a/b",
        "a[1]",
        "'a",
        "a'",
        "History",
        "a\u{1}b",
        "a:b",
    ] {
        let format = spec::Xlsx {
            sheet: Some(name.to_owned()),
            ..spec::Xlsx::default()
        };
        assert_eq!(refused(format, &rows), "spec.format.xlsx.sheet", "{name:?}");
    }
    for level in [0, 10] {
        let format = spec::Xlsx {
            compression_level: Some(level),
            ..spec::Xlsx::default()
        };
        assert_eq!(refused(format, &rows), "spec.format.xlsx.compression_level");
    }
    let wide: Vec<_> = (0..16_385).map(|i| text(&i.to_string(), &[])).collect();
    assert_eq!(
        refused(spec::Xlsx::default(), &batch(wide)),
        "spec.format.xlsx"
    );
    let field = with(
        Field::new("t", DataType::Utf8, true),
        metadata::WIDTH,
        "NaN",
    );
    let array: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let wrong = batch(vec![(field, array)]);
    assert_eq!(refused(spec::Xlsx::default(), &wrong), "spec.columns");
}

#[test]
fn compression_levels_are_obeyed() {
    let dir = support::temp_dir();
    let texts: Vec<String> = (0..3_000).map(|i| format!("note {}", i * 7_919)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rows = batch(vec![text("t", &texts)]);
    let size = |compression_level| {
        let format = spec::Xlsx {
            compression_level: Some(compression_level),
            ..spec::Xlsx::default()
        };
        let encoder = encoder(&rows, format, "UTC", dir.path());
        encode(&encoder, std::slice::from_ref(&rows))
            .unwrap()
            .0
            .len()
    };
    assert!(size(9) < size(1));
}

struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_ends_the_export_and_leaves_nothing() {
    let dir = support::temp_dir();
    let rows = batch(vec![text("t", &["a"; 10_000])]);
    let encoder = encoder(&rows, spec::Xlsx::default(), "UTC", dir.path());
    let mut assembler = encoder.assembler().unwrap();
    assembler.start(&mut Full).unwrap();
    for _ in 0..3 {
        let rendered = rowgate::format::Render::render(&encoder, rows.clone()).unwrap();
        assembler.push(rendered, &mut Full).unwrap();
    }
    let failed = assembler.finish(&mut Full);
    assert!(matches!(failed, Err(Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
    let left = std::fs::read_dir(dir.path().join("scratch")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_scratch_folder_that_is_none_is_an_error_not_a_panic() {
    let dir = support::temp_dir();
    std::fs::write(dir.path().join("scratch"), "a file").unwrap();
    let rows = batch(vec![text("t", &["a"])]);
    let encoder = encoder(&rows, spec::Xlsx::default(), "UTC", dir.path());
    let failed = encoder.assembler().unwrap().start(&mut Full);
    assert!(matches!(failed, Err(Error::Io(_))), "{failed:?}");
}
