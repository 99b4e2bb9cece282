use std::io::Read as _;

use arrow::{
    array::*,
    datatypes::{DataType, Field, Int64Type, Schema, i256},
};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, value::RawValue};

use crate::export::{
    field::{kind, metadata},
    spec::Compression,
};

use super::*;

fn options(schema: &Schema) -> EncodeOptions {
    EncodeOptions {
        schema: Arc::new(schema.clone()),
        time_zone: TimeZone::get("Asia/Shanghai").unwrap(),
        scratch: std::env::temp_dir(),
    }
}

fn file(compression: Compression, batch: &RecordBatch) -> Vec<u8> {
    let encoder = JsonlEncoder::new(&Jsonl { compression }, &options(&batch.schema())).unwrap();
    let mut assembler = encoder.assembler().unwrap();
    let mut out = Vec::new();
    assembler.start(&mut out).unwrap();
    let half = batch.num_rows() / 2;
    for part in [
        batch.slice(0, half),
        batch.slice(half, batch.num_rows() - half),
    ] {
        assembler
            .push(encoder.render(part).unwrap(), &mut out)
            .unwrap();
    }
    assembler.finish(&mut out).unwrap();
    out
}

fn lines(columns: Vec<(Field, ArrayRef)>) -> Vec<String> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let text = String::from_utf8(file(Compression::None, &batch)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn column(name: &str, array: impl Array + 'static) -> (Field, ArrayRef) {
    (
        Field::new(name, array.data_type().clone(), true),
        Arc::new(array),
    )
}

fn of_kind(kind: &str, (field, array): (Field, ArrayRef)) -> (Field, ArrayRef) {
    (
        field.with_metadata([(metadata::KIND.to_owned(), kind.to_owned())].into()),
        array,
    )
}

#[test]
fn numbers_keep_all_their_digits() {
    let wide = i256::from_string(&"9".repeat(60)).unwrap();
    let lines = lines(vec![
        column("i", Int64Array::from(vec![i64::MIN])),
        column("u", UInt64Array::from(vec![u64::MAX])),
        column(
            "d",
            Decimal128Array::from(vec![-50])
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        column(
            "w",
            Decimal256Array::from(vec![wide])
                .with_precision_and_scale(76, 1)
                .unwrap(),
        ),
        column("f", Float64Array::from(vec![0.1])),
        of_kind(
            kind::NUMERIC,
            column(
                "n",
                StringArray::from(vec!["123456789012345678901234567890.10"]),
            ),
        ),
    ]);
    assert_eq!(
        lines,
        [format!(
            "{{\"i\":-9223372036854775808,\"u\":18446744073709551615,\"d\":-0.50,\"w\":{}.9,\"f\":0.1,\"n\":123456789012345678901234567890.10}}",
            "9".repeat(59)
        )]
    );
}

#[test]
fn what_json_has_no_number_for_is_a_string() {
    let lines = lines(vec![
        column(
            "f",
            Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        ),
        of_kind(
            kind::NUMERIC,
            column("n", StringArray::from(vec!["NaN", "Infinity", "-Infinity"])),
        ),
        column(
            "t",
            TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN, 0]).with_timezone("UTC"),
        ),
    ]);
    assert_eq!(
        lines,
        [
            r#"{"f":"NaN","n":"NaN","t":"infinity"}"#,
            r#"{"f":"Infinity","n":"Infinity","t":"-infinity"}"#,
            r#"{"f":"-Infinity","n":"-Infinity","t":"1970-01-01T08:00:00+08:00"}"#,
        ]
    );
}

#[test]
fn json_is_embedded_on_one_line_or_is_a_string() {
    let lines = lines(vec![of_kind(
        kind::JSON,
        column(
            "j",
            StringArray::from(vec![
                Some("{\"a\": [1.10,\n  true]}"),
                Some("\"text\\n\""),
                Some("not json"),
                Some("{\"a\":1} {}"),
                None,
            ]),
        ),
    )]);
    assert_eq!(
        lines,
        [
            r#"{"j":{"a": [1.10,   true]}}"#,
            r#"{"j":"text\n"}"#,
            r#"{"j":"not json"}"#,
            r#"{"j":"{\"a\":1} {}"}"#,
            r#"{"j":null}"#,
        ]
    );
}

#[test]
fn deep_json_does_not_overflow_the_stack() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let lines = lines(vec![of_kind(
        kind::JSON,
        column("j", StringArray::from(vec![deep.as_str()])),
    )]);
    assert_eq!(lines, [format!("{{\"j\":{deep}}}")]);
}

#[test]
fn lists_bytes_and_the_rest() {
    let lists =
        ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let lines = lines(vec![
        column("l", lists),
        column(
            "b",
            BinaryArray::from(vec![Some(&b"\x00\xff\x01"[..]), Some(b"")]),
        ),
        column("t", BooleanArray::from(vec![Some(true), None])),
        column("d", Date32Array::from(vec![0, 1])),
        column("x", NullArray::new(2)),
        of_kind(
            kind::UUID,
            column(
                "u",
                StringArray::from(vec!["0190b0a0-0000-7000-8000-000000000000"; 2]),
            ),
        ),
    ]);
    assert_eq!(
        lines,
        [
            r#"{"l":[1,null],"b":"AP8B","t":true,"d":"1970-01-01","x":null,"u":"0190b0a0-0000-7000-8000-000000000000"}"#,
            r#"{"l":null,"b":"","t":null,"d":"1970-01-02","x":null,"u":"0190b0a0-0000-7000-8000-000000000000"}"#,
        ]
    );
}

#[test]
fn names_are_escaped_and_repeated_ones_refused() {
    let lines = lines(vec![column("a \"b\"\n", Int64Array::from(vec![1]))]);
    assert_eq!(lines, [r#"{"a \"b\"\n":1}"#]);
    let field = || Field::new("id", DataType::Int64, true);
    let schema = Schema::new(vec![field(), field()]);
    let error = JsonlEncoder::new(&Jsonl::default(), &options(&schema))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("two columns are named id"),
        "{error}"
    );
}

#[test]
fn line_separators_are_escaped() {
    let lines = lines(vec![column(
        "s",
        StringArray::from(vec!["a\u{2028}b\u{2029}c—d\u{1}\u{1f}\u{7f}"]),
    )]);
    assert_eq!(
        lines,
        ["{\"s\":\"a\\u2028b\\u2029c—d\\u0001\\u001f\u{7f}\"}"]
    );
}

#[test]
fn compressed_files_hold_the_same_bytes() {
    let batch = RecordBatch::try_from_iter([(
        "a",
        Arc::new(Int64Array::from_iter_values(0..5_000)) as ArrayRef,
    )])
    .unwrap();
    let expected = file(Compression::None, &batch);
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(file(Compression::Gzip, &batch).as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == expected);
    assert!(zstd::decode_all(file(Compression::Zstd, &batch).as_slice()).unwrap() == expected);
    let empty = file(Compression::Gzip, &batch.slice(0, 0));
    unpacked.clear();
    flate2::read::MultiGzDecoder::new(empty.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(!empty.is_empty() && unpacked.is_empty());
}

proptest! {
    #[test]
    fn any_text_reads_back(texts in proptest::collection::vec(any::<Option<String>>(), 1..20)) {
        let lines = lines(vec![column("s", StringArray::from(texts.clone()))]);
        prop_assert_eq!(lines.len(), texts.len());
        for (line, text) in lines.iter().zip(texts) {
            let row: Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(row["s"].as_str().map(str::to_owned), text);
        }
    }

    #[test]
    fn numbers_read_back(float in any::<f64>(), decimal in any::<i64>()) {
        let lines = lines(vec![
            column("f", Float64Array::from(vec![float])),
            column("d", Decimal128Array::from(vec![i128::from(decimal)]).with_precision_and_scale(38, 7).unwrap()),
        ]);
        let row: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_str(&lines[0]).unwrap();
        if float.is_finite() {
            prop_assert_eq!(row["f"].get().parse::<f64>().unwrap().to_bits(), float.to_bits());
        }
        let (whole, fraction) = row["d"].get().split_once('.').unwrap();
        prop_assert_eq!(fraction.len(), 7);
        prop_assert_eq!(format!("{whole}{fraction}").parse::<i64>().unwrap(), decimal);
    }
}
