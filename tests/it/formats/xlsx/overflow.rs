//! Values that Excel can't hold, under both policies.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::*,
    datatypes::{DataType, Field, TimeUnit},
};
use rowgate::{
    export::{
        field::{kind, metadata},
        spec::{self, Overflow},
    },
    format::Error,
};
use serde_json::{Value, json};

use super::{encoder, round_trip, text, values};
use crate::{
    formats::{batch, encode, with},
    support,
};

#[tokio::test]
async fn control_characters_are_escaped_and_counted() {
    let texts = [
        "a\0b",
        "line\r\nline",
        "_x0041\u{B}",
        "_x0041_\u{1F}",
        "\u{FFFF}",
        "fine",
    ];
    let batch = batch(vec![text("t", &texts)]);
    let (sheets, fidelity) = round_trip(&batch, "UTC").await;
    assert_eq!(values(&sheets, 0), texts.map(Value::from));
    assert_eq!(
        fidelity["t"],
        BTreeMap::from([("control_escaped".to_owned(), 5)])
    );
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table: one case for each type")]
async fn what_excel_cannot_hold_becomes_text_and_is_counted() {
    let long = "王".repeat(32_766) + "😀";
    let date_time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let batch = batch(vec![
        (
            Field::new("big", DataType::Int64, true),
            Arc::new(Int64Array::from(vec![
                i64::MIN,
                1_000_000_000_000_000,
                999_999_999_999_999,
            ])),
        ),
        (
            Field::new("money", DataType::Decimal128(38, 2), true),
            Arc::new(
                Decimal128Array::from(vec![
                    12_345_678_901_234_567_890_i128,
                    12_345_678_901_234_560,
                    -1_234_567_890_123_450,
                ])
                .with_precision_and_scale(38, 2)
                .unwrap(),
            ),
        ),
        (
            with(
                Field::new("numeric", DataType::Utf8, true),
                metadata::KIND,
                kind::NUMERIC,
            ),
            Arc::new(StringArray::from(vec![
                "NaN",
                "1234567890.1234567",
                "-Infinity",
            ])),
        ),
        (
            Field::new("float", DataType::Float64, true),
            Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, 1e300])),
        ),
        (
            Field::new("date", DataType::Date32, true),
            Arc::new(Date32Array::from(vec![-25_568, 2_932_897, -25_567])),
        ),
        (
            Field::new("at", date_time, true),
            Arc::new(TimestampMicrosecondArray::from(vec![
                -2_208_988_800_000_001,
                i64::MAX,
                253_402_300_799_000_000,
            ])),
        ),
        text("long", &[&long, "short", ""]),
    ]);
    let (sheets, fidelity) = round_trip(&batch, "UTC").await;
    assert_eq!(
        values(&sheets, 0),
        [
            json!("-9223372036854775808"),
            json!("1000000000000000"),
            json!(999_999_999_999_999_i64)
        ]
    );
    assert_eq!(
        values(&sheets, 1),
        [
            json!("123456789012345678.90"),
            json!("123456789012345.60"),
            json!(-12_345_678_901_234.5)
        ]
    );
    assert_eq!(
        values(&sheets, 2),
        [
            json!("NaN"),
            json!("1234567890.1234567"),
            json!("-Infinity")
        ]
    );
    assert_eq!(values(&sheets, 3)[..2], [json!("NaN"), json!("-Infinity")]);
    assert_eq!(
        sheets[0]["rows"][2][3][4].as_str().unwrap().parse(),
        Ok(1e300)
    );
    assert_eq!(
        values(&sheets, 4),
        [
            json!("1899-12-31"),
            json!("+10000-01-01"),
            json!("1900-01-01T00:00:00")
        ]
    );
    assert_eq!(
        values(&sheets, 5),
        [
            json!("1899-12-31T23:59:59.999999"),
            json!("infinity"),
            json!("9999-12-31T23:59:59")
        ]
    );
    assert_eq!(
        values(&sheets, 6),
        [json!("王".repeat(32_766)), json!("short"), Value::Null]
    );
    let counts = |counts: &[(&str, u64)]| -> BTreeMap<String, u64> {
        counts
            .iter()
            .map(|(key, count)| ((*key).to_owned(), *count))
            .collect()
    };
    let expected = [
        ("big", counts(&[("digits_as_text", 2)])),
        ("money", counts(&[("digits_as_text", 2)])),
        (
            "numeric",
            counts(&[("digits_as_text", 1), ("nan_as_text", 2)]),
        ),
        ("float", counts(&[("nan_as_text", 2)])),
        ("date", counts(&[("date_as_text", 2)])),
        ("at", counts(&[("date_as_text", 2)])),
        (
            "long",
            counts(&[("text_cut", 1), ("empty_text_as_blank", 1)]),
        ),
    ];
    let expected = expected.map(|(column, counts)| (column.to_owned(), counts));
    assert_eq!(fidelity, BTreeMap::from(expected));
}

#[tokio::test]
async fn digits_of_a_time_that_a_double_cannot_hold_are_counted() {
    let field = Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true);
    let array = TimestampNanosecondArray::from(vec![1_500_000_000, 1_500_000_001]);
    let batch = batch(vec![(field, Arc::new(array))]);
    let (sheets, fidelity) = round_trip(&batch, "UTC").await;
    assert_eq!(values(&sheets, 0), ["1970-01-01T00:00:01.500000"; 2]);
    assert_eq!(
        fidelity["at"],
        BTreeMap::from([("microseconds_cut".to_owned(), 1)])
    );
    assert_eq!(refusal(&batch), ("VALUE_TOO_PRECISE", 1, "at".to_owned()));
}

#[test]
fn what_excel_cannot_hold_fails_where_that_is_asked_for() {
    let refused = |name: &str, data_type: DataType, array: ArrayRef| {
        let (reason, row, column) = refusal(&batch(vec![
            text("before", &["a", ""]),
            (Field::new(name, data_type, true), array),
        ]));
        assert_eq!((row, column.as_str()), (1, name));
        reason
    };
    assert_eq!(
        refused(
            "i",
            DataType::Int64,
            Arc::new(Int64Array::from(vec![1, i64::MAX]))
        ),
        "VALUE_TOO_PRECISE"
    );
    assert_eq!(
        refused(
            "f",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![1.0, f64::NAN]))
        ),
        "VALUE_OUT_OF_RANGE"
    );
    assert_eq!(
        refused(
            "d",
            DataType::Date32,
            Arc::new(Date32Array::from(vec![0, -25_568]))
        ),
        "VALUE_OUT_OF_RANGE"
    );
    let texts = |second: String| Arc::new(StringArray::from(vec!["a".to_owned(), second]));
    assert_eq!(
        refused("t", DataType::Utf8, texts("😀".repeat(16_384))),
        "VALUE_TOO_LONG"
    );
    assert_eq!(
        refused("t", DataType::Utf8, texts("a\u{7}".to_owned())),
        "VALUE_CONTROL_CHARACTER"
    );
}

fn refusal(batch: &RecordBatch) -> (&'static str, u64, String) {
    let dir = support::temp_dir();
    let format = spec::Xlsx {
        overflow: Overflow::Error,
        ..spec::Xlsx::default()
    };
    let encoder = encoder(batch, format, "UTC", dir.path());
    match encode(&encoder, std::slice::from_ref(batch)) {
        Err(Error::Value {
            reason,
            row,
            column,
            ..
        }) => (reason, row, column),
        other => panic!("{other:?}"),
    }
}
