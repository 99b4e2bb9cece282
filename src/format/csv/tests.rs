use std::{io::Read as _, sync::Arc};

use arrow::{
    array::{ArrayRef, Decimal128Array, Int64Array, ListArray, StringArray},
    datatypes::{DataType, Field, Int32Type, Schema},
};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use crate::export::{
    field::{kind, metadata},
    spec::Compression,
};

use super::*;

fn options(schema: &Schema) -> EncodeOptions {
    EncodeOptions {
        schema: Arc::new(schema.clone()),
        time_zone: TimeZone::UTC,
        scratch: std::env::temp_dir(),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap()
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// The whole file, of the batch cut in two.
fn file(spec: &Csv, batch: &RecordBatch) -> Vec<u8> {
    let encoder = CsvEncoder::new(spec, &options(&batch.schema())).unwrap();
    let mut assembler = encoder.assembler().unwrap();
    let mut out = Vec::new();
    assembler.start(&mut out).unwrap();
    let half = batch.num_rows() / 2;
    for part in [
        batch.slice(0, half),
        batch.slice(half, batch.num_rows() - half),
    ] {
        let rendered = encoder.render(part).unwrap();
        assembler.push(rendered, &mut out).unwrap();
    }
    assembler.finish(&mut out).unwrap();
    out
}

fn text(spec: &Csv, batch: &RecordBatch) -> String {
    String::from_utf8(file(spec, batch)).unwrap()
}

fn plain() -> Csv {
    Csv {
        header: Header::Omitted,
        ..Csv::default()
    }
}

/// A reader of RFC 4180 that tells quoted from unquoted cells.
fn parse(text: &str, delimiter: char) -> Vec<Vec<(String, bool)>> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        let quoted = chars.next_if_eq(&'"').is_some();
        let mut cell = String::new();
        loop {
            let at_end = |&c: &char| c == delimiter || c == '\n' || c == '\r';
            if !quoted && chars.peek().is_none_or(at_end) {
                break;
            }
            match chars.next() {
                Some('"') if quoted => match chars.next_if_eq(&'"') {
                    Some(_) => cell.push('"'),
                    None => break,
                },
                Some(other) => cell.push(other),
                None => panic!("an unfinished cell: {cell:?}"),
            }
        }
        row.push((cell, quoted));
        match chars.next() {
            Some('\n') | None => rows.push(std::mem::take(&mut row)),
            Some('\r') => {
                assert_eq!(chars.next(), Some('\n'));
                rows.push(std::mem::take(&mut row));
            }
            Some(other) => assert_eq!(other, delimiter),
        }
    }
    rows
}

#[test]
fn quotes_only_what_needs_it() {
    let rows = batch(vec![
        (
            "a",
            texts(&[
                Some("plain"),
                Some("a,b"),
                Some("say \"hi\""),
                Some("two\nlines"),
                Some("cr\r"),
                Some("王伟 🎉"),
                Some(""),
                None,
            ]),
        ),
        (
            "b",
            Arc::new(Int64Array::from(vec![
                Some(1),
                None,
                Some(-3),
                Some(4),
                Some(5),
                Some(6),
                Some(7),
                None,
            ])),
        ),
    ]);
    assert_eq!(
        text(&Csv::default(), &rows),
        "a,b\nplain,1\n\"a,b\",\n\"say \"\"hi\"\"\",-3\n\"two\nlines\",4\n\"cr\r\",5\n王伟 🎉,6\n\"\",7\n,\n"
    );
}

#[test]
fn header_bom_line_ends_and_delimiter() {
    let schema = Schema::new(vec![
        Field::new("a", DataType::Utf8, true)
            .with_metadata([(metadata::HEADER.to_owned(), "The; \"a\"".to_owned())].into()),
        Field::new("b", DataType::Utf8, true),
    ]);
    let rows = RecordBatch::try_new(
        Arc::new(schema),
        vec![texts(&[Some("x,y")]), texts(&[Some("p;q")])],
    )
    .unwrap();
    let spec = Csv {
        delimiter: b';',
        bom: Bom::Written,
        line_end: LineEnd::CrLf,
        ..Csv::default()
    };
    assert_eq!(
        text(&spec, &rows),
        "\u{feff}\"The; \"\"a\"\"\";b\r\nx,y;\"p;q\"\r\n"
    );
}

#[test]
fn null_text_and_texts_that_read_like_it() {
    let rows = batch(vec![
        ("a", texts(&[None, Some("NULL"), Some(""), Some("null")])),
        (
            "b",
            Arc::new(Int64Array::from(vec![None, Some(0), Some(1), None])),
        ),
    ]);
    let spec = Csv {
        null_text: "NULL".to_owned(),
        ..plain()
    };
    assert_eq!(
        text(&spec, &rows),
        "NULL,NULL\n\"NULL\",0\n\"\",1\nnull,NULL\n"
    );
    let zero = Csv {
        null_text: "0".to_owned(),
        ..plain()
    };
    assert_eq!(text(&zero, &rows), "0,0\nNULL,\"0\"\n\"\",1\nnull,0\n");
}

#[test]
fn guards_text_and_leaves_numbers() {
    let numeric = |name: &str| {
        Field::new(name, DataType::Utf8, true)
            .with_metadata([(metadata::KIND.to_owned(), kind::NUMERIC.to_owned())].into())
    };
    let schema = Schema::new(vec![
        Field::new("-t", DataType::Utf8, true),
        numeric("n"),
        Field::new("d", DataType::Decimal128(5, 2), true),
    ]);
    let rows = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            texts(&[
                Some("=1+1"),
                Some("+4"),
                Some("-x"),
                Some("@a"),
                Some("\tq"),
                Some("\rq"),
                Some("a=b"),
                Some("=\"a\",b"),
            ]),
            texts(&[Some("-1"); 8]),
            Arc::new(
                Decimal128Array::from(vec![-150; 8])
                    .with_precision_and_scale(5, 2)
                    .unwrap(),
            ),
        ],
    )
    .unwrap();
    let spec = Csv {
        formulas: Formulas::Guarded,
        ..Csv::default()
    };
    let first = |cell: &str| format!("{cell},-1,-1.50\n");
    assert_eq!(
        text(&spec, &rows),
        "'-t,n,d\n".to_owned()
            + &[
                "'=1+1",
                "'+4",
                "'-x",
                "'@a",
                "'\tq",
                "\"'\rq\"",
                "a=b",
                "\"'=\"\"a\"\",b\""
            ]
            .map(first)
            .concat()
    );
    assert!(text(&plain(), &rows).starts_with("=1+1,-1,-1.50\n"));
}

#[test]
fn delimiters_that_occur_in_values() {
    let rows = batch(vec![
        (
            "d",
            Arc::new(
                Decimal128Array::from(vec![150])
                    .with_precision_and_scale(5, 2)
                    .unwrap(),
            ) as ArrayRef,
        ),
        ("n", Arc::new(Int64Array::from(vec![-1]))),
    ]);
    let spec = |delimiter| Csv {
        delimiter,
        ..plain()
    };
    assert_eq!(text(&spec(b'.'), &rows), "\"1.50\".-1\n");
    assert_eq!(text(&spec(b'-'), &rows), "1.50-\"-1\"\n");
    assert_eq!(text(&spec(b'5'), &rows), "\"1.50\"5-1\n");
}

#[test]
fn a_line_is_never_the_mark_that_ends_a_copy() {
    let rows = batch(vec![("\\.", texts(&[Some("\\."), Some("a\\."), None]))]);
    assert_eq!(text(&Csv::default(), &rows), "\"\\.\"\n\"\\.\"\na\\.\n\n");
    let rows = batch(vec![
        ("a", texts(&[Some("\\.")])),
        ("b", texts(&[Some("\\.")])),
    ]);
    assert_eq!(text(&plain(), &rows), "\\.,\\.\n");
}

#[test]
fn lists_are_quoted_json() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        Some(vec![Some(2)]),
    ]);
    let rows = batch(vec![("l", Arc::new(list) as ArrayRef)]);
    assert_eq!(text(&plain(), &rows), "\"[1,null]\"\n[2]\n");
}

#[test]
fn options_that_could_not_be_read_back_are_refused() {
    let schema = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
    let refused = |spec: Csv| match CsvEncoder::new(&spec, &options(&schema)) {
        Err(Error::Invalid(failure)) => failure.violations[0].field.clone(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    for delimiter in [b'"', b'\n', b'\r', 0, 0x80] {
        assert_eq!(
            refused(Csv {
                delimiter,
                ..plain()
            }),
            "spec.format.csv.delimiter"
        );
    }
    for null_text in ["a,b", "\"", "\n"] {
        let null_text = null_text.to_owned();
        assert_eq!(
            refused(Csv {
                null_text,
                ..plain()
            }),
            "spec.format.csv.null_text"
        );
    }
    for compression in [Compression::Snappy, Compression::Lz4] {
        assert_eq!(
            refused(Csv {
                compression,
                ..plain()
            }),
            "spec.format.csv.compression"
        );
    }
}

#[test]
fn compressed_files_hold_the_same_bytes() {
    let rows = batch(vec![(
        "a",
        Arc::new(Int64Array::from_iter_values(0..10_000)) as ArrayRef,
    )]);
    let expected = file(&Csv::default(), &rows);
    let gzip = file(
        &Csv {
            compression: Compression::Gzip,
            ..Csv::default()
        },
        &rows,
    );
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(gzip.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == expected && gzip.len() < expected.len());
    let zstd = file(
        &Csv {
            compression: Compression::Zstd,
            ..Csv::default()
        },
        &rows,
    );
    assert!(zstd::decode_all(zstd.as_slice()).unwrap() == expected && zstd.len() < expected.len());
    // Readers in wide use stop after the first frame.
    let mut one_frame = zstd::Decoder::new(zstd.as_slice()).unwrap().single_frame();
    unpacked.clear();
    one_frame.read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == expected);
}

#[test]
fn results_without_rows_are_valid_files() {
    let rows = batch(vec![("a", texts(&[]))]);
    assert_eq!(text(&Csv::default(), &rows), "a\n");
    assert_eq!(text(&plain(), &rows), "");
    let gzip = file(
        &Csv {
            compression: Compression::Gzip,
            ..plain()
        },
        &rows,
    );
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(gzip.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(!gzip.is_empty() && unpacked.is_empty());
    let zstd = file(
        &Csv {
            compression: Compression::Zstd,
            ..plain()
        },
        &rows,
    );
    assert!(!zstd.is_empty() && zstd::decode_all(zstd.as_slice()).unwrap().is_empty());
}

#[test]
fn a_batch_of_another_schema_is_an_error() {
    let encoder =
        CsvEncoder::new(&plain(), &options(&batch(vec![("a", texts(&[]))]).schema())).unwrap();
    let two = batch(vec![("a", texts(&[None])), ("b", texts(&[None]))]);
    assert!(matches!(encoder.render(two), Err(Error::Broken(_))));
}

fn any_cell() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![
        proptest::collection::vec(
            prop_oneof![
                Just('"'),
                Just(','),
                Just(';'),
                Just('\n'),
                Just('\r'),
                Just('a'),
                Just('N'),
                Just('é'),
                Just('🎉'),
                any::<char>()
            ],
            0..40
        )
        .prop_map(|chars| chars.into_iter().collect::<String>()),
        Just("NULL".to_owned()),
    ])
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(
        cells in proptest::collection::vec((any_cell(), any_cell(), any::<Option<i64>>()), 0..30),
        delimiter in prop_oneof![Just(','), Just(';'), Just('\t'), Just('|'), Just('1')],
        null_text in prop_oneof![Just(""), Just("NULL"), Just("7")],
        line_end in prop_oneof![Just(LineEnd::Lf), Just(LineEnd::CrLf)],
    ) {
        let a: StringArray = cells.iter().map(|row| row.0.clone()).collect();
        let b: StringArray = cells.iter().map(|row| row.1.clone()).collect();
        let n: Int64Array = cells.iter().map(|row| row.2).collect();
        let rows = batch(vec![("a", Arc::new(a)), ("b", Arc::new(b)), ("n", Arc::new(n))]);
        let spec = Csv { delimiter: delimiter as u8, null_text: null_text.to_owned(), line_end, ..plain() };
        let value = |(cell, quoted): &(String, bool)| (*quoted || cell != null_text).then(|| cell.clone());
        let read: Vec<_> = parse(&text(&spec, &rows), delimiter)
            .iter()
            .map(|row| (value(&row[0]), value(&row[1]), value(&row[2]).map(|text| text.parse::<i64>().unwrap())))
            .collect();
        prop_assert_eq!(read, cells);
    }
}
