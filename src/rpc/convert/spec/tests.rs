use proptest::prelude::*;
use prost_types::{ListValue, Struct, Value, value::Kind};

use super::*;
use crate::{
    export::{
        Code,
        spec::{
            ArrowIpc, Bom, Compression, Csv, Format, Formulas, Header, Jsonl, LineEnd, Overflow,
            Parquet, Xlsx,
        },
    },
    rpc::pb::format::Kind as FormatKind,
};

fn valid() -> pb::ExportSpec {
    pb::ExportSpec {
        source: "shop".to_owned(),
        from: Some(From::Sql("select 1".to_owned())),
        ..Default::default()
    }
}

fn with(change: impl FnOnce(&mut pb::ExportSpec)) -> pb::ExportSpec {
    let mut spec = valid();
    change(&mut spec);
    spec
}

fn fields(failure: &Failure) -> Vec<&str> {
    failure.violations.iter().map(|v| &v.field[..]).collect()
}

/// Asserts that the spec is refused for exactly this field; returns what is said about it.
#[track_caller]
fn refused(spec: pb::ExportSpec, field: &str) -> String {
    let failure = spec_from_proto(spec).unwrap_err();
    assert_eq!(failure.code, Code::InvalidArgument);
    assert_eq!(failure.reason, "INVALID_FIELD");
    assert_eq!(fields(&failure), [field]);
    failure.violations[0].description.clone()
}

fn formatted(kind: FormatKind) -> pb::ExportSpec {
    with(|spec| spec.format = Some(pb::Format { kind: Some(kind) }))
}

fn csv(change: impl FnOnce(&mut pb::Csv)) -> pb::ExportSpec {
    let mut csv = pb::Csv::default();
    change(&mut csv);
    formatted(FormatKind::Csv(csv))
}

fn xlsx(change: impl FnOnce(&mut pb::Xlsx)) -> pb::ExportSpec {
    let mut xlsx = pb::Xlsx::default();
    change(&mut xlsx);
    formatted(FormatKind::Xlsx(xlsx))
}

fn param_of(kind: Option<Kind>) -> pb::ExportSpec {
    with(|spec| {
        spec.params.insert("p".to_owned(), Value { kind });
    })
}

#[test]
fn the_least_spec_has_no_options() {
    let spec = spec_from_proto(valid()).unwrap();
    assert_eq!(spec.source, "shop");
    assert_eq!(spec.from, ReadFrom::Sql("select 1".to_owned()));
    assert!(spec.format.is_none() && spec.filter.is_none() && spec.ttl.is_none());
    assert_eq!(spec.priority, 0);
}

#[test]
fn an_empty_spec_names_all_that_is_missing() {
    let failure = spec_from_proto(pb::ExportSpec::default()).unwrap_err();
    assert_eq!(fields(&failure), ["spec.source", "spec.from"]);
    assert!(failure.message.contains("and 1 more"));
}

#[test]
fn what_is_read_needs_a_name() {
    refused(
        with(|s| s.from = Some(From::Definition(String::new()))),
        "spec.definition",
    );
    refused(
        with(|s| s.from = Some(From::Sql(" \n".to_owned()))),
        "spec.sql",
    );
    refused(
        with(|s| s.from = Some(From::Sql("select '\0'".to_owned()))),
        "spec.sql",
    );
    refused(
        with(|s| s.from = Some(From::Sql("x".repeat(SQL_BYTES_MAX + 1)))),
        "spec.sql",
    );
    let table = |name: &str, order_by: &[&str], limit| {
        let order_by = order_by.iter().map(|entry| (*entry).to_owned()).collect();
        let name = name.to_owned();
        let table = pb::TableRead {
            name,
            order_by,
            limit,
        };
        with(|s| s.from = Some(From::Table(table)))
    };
    refused(table("", &[], 0), "spec.table.name");
    refused(table("t", &["id", ""], 0), "spec.table.order_by[1]");
    refused(
        table("t", &["id"; ORDER_BY_MAX + 1], 0),
        "spec.table.order_by",
    );
    refused(table("t", &[], -1), "spec.table.limit");
    let spec = spec_from_proto(table("public.t", &["id desc"], 0)).unwrap();
    let ReadFrom::Table(read) = spec.from else {
        panic!("{spec:?}");
    };
    assert_eq!((read.limit, &read.order_by[0][..]), (None, "id desc"));
}

#[test]
fn a_delimiter_is_one_ascii_character_that_csv_can_use() {
    for bad in ["\"", "\r", "\n", "\0", ";;", "，", "é"] {
        let spec = csv(|csv| csv.delimiter = bad.to_owned());
        refused(spec, "spec.format.csv.delimiter");
    }
    for (text, byte) in [("", b','), ("\t", b'\t'), (";", b';')] {
        let spec = spec_from_proto(csv(|csv| csv.delimiter = text.to_owned())).unwrap();
        let Some(Format::Csv(csv)) = spec.format else {
            panic!("{spec:?}");
        };
        assert_eq!(csv.delimiter, byte);
    }
}

#[test]
fn null_text_can_be_told_from_text() {
    for bad in ["a\"b", "a\nb", "a,b"] {
        refused(
            csv(|csv| csv.null_text = bad.to_owned()),
            "spec.format.csv.null_text",
        );
    }
    spec_from_proto(csv(|csv| csv.null_text = "\\N".to_owned())).unwrap();
}

#[test]
fn compression_has_to_go_with_the_format() {
    let number = |compression: pb::Compression| i32::from(compression);
    let said = refused(
        csv(|csv| csv.compression = number(pb::Compression::Snappy)),
        "spec.format.csv.compression",
    );
    assert!(said.contains("COMPRESSION_GZIP") && !said.contains("COMPRESSION_LZ4"));
    refused(
        csv(|csv| csv.compression = 77),
        "spec.format.csv.compression",
    );
    let compression = number(pb::Compression::Lz4);
    let jsonl = pb::JsonLines { compression };
    refused(
        formatted(FormatKind::Jsonl(jsonl)),
        "spec.format.jsonl.compression",
    );
    let compression = number(pb::Compression::Gzip);
    let arrow = pb::ArrowIpc { compression };
    refused(
        formatted(FormatKind::Arrow(arrow)),
        "spec.format.arrow.compression",
    );
    let parquet = pb::Parquet {
        compression: -1,
        row_group_rows: -1,
    };
    let failure = spec_from_proto(formatted(FormatKind::Parquet(parquet))).unwrap_err();
    assert_eq!(
        fields(&failure),
        [
            "spec.format.parquet.row_group_rows",
            "spec.format.parquet.compression"
        ]
    );
}

#[test]
fn xlsx_options_are_within_what_excel_opens() {
    // 0 (stored) is for later.
    for level in [-1, 0, 10, 300] {
        let spec = xlsx(|xlsx| xlsx.compression_level = Some(level));
        refused(spec, "spec.format.xlsx.compression_level");
    }
    spec_from_proto(xlsx(|xlsx| xlsx.compression_level = Some(9))).unwrap();
    for bad in ["a/b", "a[1]", "'x", "history", " ", &"名".repeat(32)] {
        let spec = xlsx(|xlsx| xlsx.sheet = bad.to_owned());
        refused(spec, "spec.format.xlsx.sheet");
    }
    refused(xlsx(|xlsx| xlsx.overflow = 9), "spec.format.xlsx.overflow");
}

#[test]
fn what_later_versions_bring_is_refused() {
    let said = refused(xlsx(|xlsx| xlsx.plain = true), "spec.format.xlsx.plain");
    assert!(said.contains("not supported by this version"));
}

#[test]
fn a_format_names_its_kind() {
    refused(
        with(|s| s.format = Some(pb::Format { kind: None })),
        "spec.format",
    );
}

#[test]
fn priority_and_ttl_are_bounded() {
    for priority in [-1, 10, i32::MAX] {
        refused(with(|s| s.priority = priority), "spec.priority");
    }
    for (seconds, nanos) in [
        (0, 0),
        (-1, 0),
        (1, -1),
        (0, 999_999_999),
        (1, 1_000_000_000),
        (31 * 24 * 3600, 0),
        (i64::MAX, 0),
    ] {
        let ttl = Some(prost_types::Duration { seconds, nanos });
        refused(with(|s| s.ttl = ttl), "spec.ttl");
    }
}

#[test]
fn a_time_zone_is_known() {
    for bad in ["Mars/Olympus", "+08:00", "Asia/../etc", " "] {
        refused(with(|s| s.time_zone = bad.to_owned()), "spec.time_zone");
    }
    let spec = spec_from_proto(with(|s| s.time_zone = "asia/SHANGHAI".to_owned())).unwrap();
    assert_eq!(spec.time_zone.as_deref(), Some("Asia/Shanghai"));
}

#[test]
fn a_file_name_is_no_path() {
    for bad in [
        "a/b.csv",
        "..",
        "..\\x",
        "a\nb",
        "a\0b",
        "a\u{202e}vsc.exe",
        "  ",
        &"x".repeat(FILE_NAME_BYTES_MAX + 1),
    ] {
        refused(with(|s| s.file_name = bad.to_owned()), "spec.file_name");
    }
    spec_from_proto(with(|s| s.file_name = "订单 2026.xlsx".to_owned())).unwrap();
}

#[test]
fn labels_are_bounded() {
    let label = |key: &str, value: &str| {
        with(|s| {
            s.labels.insert(key.to_owned(), value.to_owned());
        })
    };
    refused(label("", "x"), "spec.labels.");
    let key = "k".repeat(64);
    refused(label(&key, "x"), &format!("spec.labels.{key}"));
    refused(label("k", &"v".repeat(256)), "spec.labels.k");
    let many = with(|s| {
        s.labels = (0..=LABELS_MAX)
            .map(|i| (i.to_string(), String::new()))
            .collect();
    });
    refused(many, "spec.labels");
}

#[test]
fn columns_are_named_once_and_have_a_width_that_excel_has() {
    let columns = |columns: &[(&str, f64)]| {
        let column = |(name, width): &(&str, f64)| pb::Column {
            name: (*name).to_owned(),
            width: *width,
            ..Default::default()
        };
        let columns = columns.iter().map(column).collect();
        with(|s| s.columns = columns)
    };
    refused(columns(&[("a", 0.0), ("", 0.0)]), "spec.columns[1].name");
    refused(columns(&[("a", 0.0), ("a", 0.0)]), "spec.columns[1].name");
    for width in [-1.0, 255.5, f64::NAN, f64::INFINITY] {
        refused(columns(&[("a", width)]), "spec.columns[0].width");
    }
    let blank = with(|s| {
        s.columns.push(pb::Column {
            name: "a".to_owned(),
            expression: " ".to_owned(),
            ..Default::default()
        });
    });
    refused(blank, "spec.columns[0].expression");
    refused(with(|s| s.filter = "\t".to_owned()), "spec.filter");
}

#[test]
fn a_parameter_is_a_value_or_a_list_of_values() {
    let list = |kinds: Vec<Option<Kind>>| {
        let values = kinds.into_iter().map(|kind| Value { kind }).collect();
        Some(Kind::ListValue(ListValue { values }))
    };
    refused(param_of(None), "spec.params.p");
    refused(
        param_of(Some(Kind::StructValue(Struct::default()))),
        "spec.params.p",
    );
    refused(param_of(list(vec![list(vec![])])), "spec.params.p[0]");
    for number in [9.1e15, -1e300, f64::NAN, f64::INFINITY] {
        let said = refused(param_of(Some(Kind::NumberValue(number))), "spec.params.p");
        assert!(said.contains("as a string"));
    }
    let many = list(vec![Some(Kind::NullValue(0)); 10_001]);
    refused(param_of(many), "spec.params.p");

    let mixed = list(vec![
        Some(Kind::NumberValue(9_007_199_254_740_992.0)),
        Some(Kind::NumberValue(-0.5)),
        Some(Kind::StringValue("x".to_owned())),
        Some(Kind::BoolValue(true)),
        Some(Kind::NullValue(0)),
    ]);
    let spec = spec_from_proto(param_of(mixed)).unwrap();
    let expected = serde_json::json!([9_007_199_254_740_992_i64, -0.5, "x", true, null]);
    assert_eq!(spec.params["p"], expected);
}

#[test]
fn a_spec_has_a_size() {
    let spec = with(|s| {
        let value = Kind::StringValue("x".repeat(60 * 1024));
        for i in 0..20 {
            let kind = Some(value.clone());
            s.params.insert(format!("p{i}"), Value { kind });
        }
    });
    refused(spec, "spec");
}

#[test]
fn twenty_violations_are_named_and_no_more() {
    let spec = with(|s| s.columns = vec![pb::Column::default(); 30]);
    let failure = spec_from_proto(spec).unwrap_err();
    assert_eq!(failure.violations.len(), 20);
    assert_eq!(failure.violations[19].field, "spec.columns[19].name");
}

fn read_from_strategy() -> impl Strategy<Value = ReadFrom> {
    let order_by = prop::collection::vec("[a-z]{1,8}( asc| desc)?", 0..3);
    prop_oneof![
        "[a-z_]{1,20}".prop_map(ReadFrom::Definition),
        "select [a-z, ]{0,30}".prop_map(ReadFrom::Sql),
        ("[a-z.]{1,20}", order_by, prop::option::of(1..u64::MAX >> 1)).prop_map(
            |(name, order_by, limit)| {
                ReadFrom::Table(TableRead {
                    name,
                    order_by,
                    limit,
                })
            }
        ),
    ]
}

fn param_strategy() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-(1_i64 << 53)..=1 << 53).prop_map(Into::into),
        (-1e15..1e15_f64)
            .prop_filter("an integer comes back as one", |x| x.fract() != 0.0)
            .prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
    ];
    let list = prop::collection::vec(scalar.clone(), 0..5).prop_map(Into::into);
    prop_oneof![scalar, list]
}

fn column_strategy() -> impl Strategy<Value = Column> {
    (
        "[a-z]{1,10}",
        prop::option::of("[a-z]{1,10}"),
        prop::option::of("\\PC{1,20}"),
        prop::option::of("[0#.]{1,10}"),
        prop::option::of(0.1..255.0_f64),
    )
        .prop_map(|(name, expression, header, number_format, width)| Column {
            name,
            expression,
            header,
            number_format,
            width,
        })
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(choices: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(choices)
}

fn format_strategy() -> impl Strategy<Value = Format> {
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    let text = &[None, Gzip, Zstd];
    prop_oneof![
        (
            one_of(b",;\t|a"),
            one_of(&[Header::Written, Header::Omitted]),
            one_of(&[Bom::Written, Bom::Absent]),
            one_of(&["", "NULL", "\\N"]),
            one_of(&[Formulas::AsTheyAre, Formulas::Guarded]),
            one_of(&[LineEnd::Lf, LineEnd::CrLf]),
            one_of(text),
        )
            .prop_map(
                |(delimiter, header, bom, null_text, formulas, line_end, compression)| {
                    Format::Csv(Csv {
                        delimiter,
                        header,
                        bom,
                        null_text: null_text.to_owned(),
                        formulas,
                        line_end,
                        compression,
                    })
                }
            ),
        (
            prop::option::of("[A-Z][a-z]{0,20}"),
            prop::option::of(1..=9_u8),
            one_of(&[Overflow::Text, Overflow::Error]),
        )
            .prop_map(|(sheet, compression_level, overflow)| {
                Format::Xlsx(Xlsx {
                    sheet: sheet.filter(|name| name != "History"),
                    compression_level,
                    overflow,
                })
            }),
        one_of(text).prop_map(|compression| Format::Jsonl(Jsonl { compression })),
        (
            prop::option::of(one_of(&[None, Gzip, Zstd, Snappy, Lz4])),
            prop::option::of(1..100_000_u64),
        )
            .prop_map(|(compression, row_group_rows)| {
                Format::Parquet(Parquet {
                    compression,
                    row_group_rows,
                })
            }),
        one_of(&[None, Zstd, Lz4]).prop_map(|compression| Format::Arrow(ArrowIpc { compression })),
    ]
}

fn spec_strategy() -> impl Strategy<Value = ExportSpec> {
    let columns = prop::collection::vec(column_strategy(), 0..4).prop_map(|mut columns| {
        for (i, column) in columns.iter_mut().enumerate() {
            column.name = format!("{}{i}", column.name);
        }
        columns
    });
    let ttl = (1..30 * 24 * 3600_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos));
    (
        ("[a-z]{1,10}", read_from_strategy()),
        prop::collection::btree_map("[a-z]{1,8}", param_strategy(), 0..4),
        columns,
        prop::option::of("[a-z]{1,10} > 1"),
        prop::option::of(format_strategy()),
        prop::option::of("[a-z名]{1,10}"),
        prop::option::of(one_of(&["Asia/Shanghai", "Europe/Berlin", "UTC"])),
        prop::option::of(ttl),
        prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,20}", 0..4),
        0..=9_u8,
    )
        .prop_map(
            |(
                (source, from),
                params,
                columns,
                filter,
                format,
                file_name,
                time_zone,
                ttl,
                labels,
                priority,
            )| ExportSpec {
                source,
                from,
                params,
                columns,
                filter,
                format,
                file_name,
                time_zone: time_zone.map(str::to_owned),
                ttl,
                labels,
                priority,
            },
        )
}

proptest! {
    /// What the server tells of a spec can be sent again, and means the same.
    #[test]
    fn a_spec_comes_back_as_it_was(spec in spec_strategy()) {
        let wire = spec_to_proto(&spec).encode_to_vec();
        let read = spec_from_proto(pb::ExportSpec::decode(&wire[..]).unwrap());
        let read = read.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        prop_assert_eq!(read.hash(), spec.hash());
        prop_assert_eq!(read, spec);
    }
}
