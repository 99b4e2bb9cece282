use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type, Schema, UInt8Type};
use proptest::prelude::*;

use super::*;

fn text_of(array: impl Array + 'static, zone: &str) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    let field = Field::new("c", array.data_type().clone(), true);
    let column = Column::compile(&field, &TimeZone::get(zone).unwrap()).unwrap();
    let mut cells = column.bind(&array).unwrap();
    (0..array.len())
        .map(|row| {
            if cells.is_null(row) {
                return "<null>".to_owned();
            }
            let mut out = Vec::new();
            cells.write_text(row, &mut out);
            String::from_utf8(out).unwrap()
        })
        .collect()
}

fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[test]
fn integers_at_their_extremes() {
    let values = Int64Array::from(vec![Some(i64::MIN), Some(0), None, Some(i64::MAX)]);
    assert_eq!(
        text_of(values, "UTC"),
        ["-9223372036854775808", "0", "<null>", "9223372036854775807"]
    );
    assert_eq!(
        text_of(UInt64Array::from(vec![u64::MAX]), "UTC"),
        ["18446744073709551615"]
    );
}

#[test]
fn decimals_keep_their_scale() {
    let money = Decimal128Array::from(vec![0, 5, -5, 100, -12345, i128::from(u64::MAX) * 10])
        .with_precision_and_scale(38, 2)
        .unwrap();
    assert_eq!(
        text_of(money, "UTC"),
        [
            "0.00",
            "0.05",
            "-0.05",
            "1.00",
            "-123.45",
            "1844674407370955161.50"
        ]
    );
    let hundreds = Decimal128Array::from(vec![0, 7, -7])
        .with_precision_and_scale(5, -2)
        .unwrap();
    assert_eq!(text_of(hundreds, "UTC"), ["0", "700", "-700"]);
    let all_fraction = Decimal128Array::from(vec![10_i128.pow(38) - 1, 1])
        .with_precision_and_scale(38, 38)
        .unwrap();
    assert_eq!(
        text_of(all_fraction, "UTC"),
        [
            format!("0.{}", "9".repeat(38)),
            format!("0.{}1", "0".repeat(37))
        ]
    );
}

#[test]
fn the_widest_decimals() {
    let nines = "9".repeat(76);
    let value = i256::from_string(&nines).unwrap();
    let sparse = i256::from_string(&format!("1{}", "0".repeat(57))).unwrap();
    let array = Decimal256Array::from(vec![
        value,
        value.wrapping_neg(),
        sparse,
        i256::from_i128(-1),
    ])
    .with_precision_and_scale(76, 10)
    .unwrap();
    let expected = format!("{}.{}", "9".repeat(66), "9".repeat(10));
    assert_eq!(
        text_of(array, "UTC"),
        [
            expected.clone(),
            format!("-{expected}"),
            format!("1{}.{}", "0".repeat(47), "0".repeat(10)),
            "-0.0000000001".to_owned(),
        ]
    );
}

#[test]
fn floats_are_the_shortest_text() {
    let values = Float64Array::from(vec![
        1.0,
        1.5,
        0.1,
        1e20,
        -1e-7,
        1e15,
        -0.0,
        0.0,
        f64::MAX,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]);
    assert_eq!(
        text_of(values, "UTC"),
        [
            "1",
            "1.5",
            "0.1",
            "1e20",
            "-1e-7",
            "1000000000000000",
            "-0.0",
            "0",
            "1.7976931348623157e308",
            "NaN",
            "Infinity",
            "-Infinity"
        ]
    );
    assert_eq!(
        text_of(Float32Array::from(vec![0.1, 16777216.0]), "UTC"),
        ["0.1", "16777216"]
    );
}

#[test]
fn zoned_times_have_the_offset_of_their_moment() {
    let array = || {
        TimestampMicrosecondArray::from(vec![
            micros("2024-01-15T12:00:00.123400Z"),
            micros("2024-07-15T12:00:00Z"),
            micros("2024-03-31T00:59:59.999999Z"),
            micros("2024-03-31T01:00:00Z"),
            micros("2024-10-27T00:59:59Z"),
            micros("2024-10-27T01:00:00Z"),
            micros("2024-01-15T12:00:00.000001Z"),
        ])
        .with_timezone("UTC")
    };
    assert_eq!(
        text_of(array(), "Europe/Berlin"),
        [
            "2024-01-15T13:00:00.1234+01:00",
            "2024-07-15T14:00:00+02:00",
            "2024-03-31T01:59:59.999999+01:00",
            "2024-03-31T03:00:00+02:00",
            "2024-10-27T02:59:59+02:00",
            "2024-10-27T02:00:00+01:00",
            "2024-01-15T13:00:00.000001+01:00",
        ]
    );
    assert_eq!(text_of(array(), "UTC")[0], "2024-01-15T12:00:00.1234+00:00");
    assert_eq!(
        text_of(array(), "America/St_Johns")[0],
        "2024-01-15T08:30:00.1234-03:30"
    );
}

#[test]
fn the_exports_zone_counts_whatever_the_columns_type_names() {
    for zone in ["Asia/Shanghai", "-03:30", "+00:00"] {
        let array = TimestampMicrosecondArray::from(vec![0]).with_timezone(zone);
        assert_eq!(text_of(array, "Asia/Tokyo"), ["1970-01-01T09:00:00+09:00"]);
    }
}

#[test]
fn local_mean_time_keeps_the_instant() {
    let array =
        TimestampMicrosecondArray::from(vec![micros("1850-01-01T00:00:00Z")]).with_timezone("UTC");
    // Shanghai was 8:05:43 ahead; RFC 3339 has no seconds in offsets.
    assert_eq!(
        text_of(array, "Asia/Shanghai"),
        ["1850-01-01T08:05:00+08:05"]
    );
}

#[test]
fn far_years_and_infinities() {
    // The last three: 3 BC, PostgreSQL's first day, and nearly the end of 64 bits.
    let naive = TimestampMicrosecondArray::from(vec![
        i64::MAX,
        i64::MIN,
        253_402_300_800_000_000,
        -62_198_755_200_000_001,
        -210_866_803_200_000_000,
        9_223_371_331_199_999_000,
    ]);
    assert_eq!(
        text_of(naive, "UTC"),
        [
            "infinity",
            "-infinity",
            "+10000-01-01T00:00:00",
            "-0002-12-31T23:59:59.999999",
            "-4713-11-24T00:00:00",
            "+294247-01-01T23:59:59.999",
        ]
    );
    let zoned = TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN, 253_402_300_800_000_000])
        .with_timezone("UTC");
    assert_eq!(
        text_of(zoned, "Asia/Tokyo"),
        ["infinity", "-infinity", "+10000-01-01T09:00:00+09:00"]
    );
    let dates = Date32Array::from(vec![
        i32::MAX,
        i32::MIN,
        0,
        -719_528,
        -719_529,
        2_932_896,
        2_932_897,
        11_016,
    ]);
    assert_eq!(
        text_of(dates, "UTC"),
        [
            "infinity",
            "-infinity",
            "1970-01-01",
            "0000-01-01",
            "-0001-12-31",
            "9999-12-31",
            "+10000-01-01",
            "2000-02-29"
        ]
    );
}

#[test]
fn times_of_day() {
    let values = Time64MicrosecondArray::from(vec![0, 1, 86_400_000_000, 45_296_789_000]);
    assert_eq!(
        text_of(values, "UTC"),
        ["00:00:00", "00:00:00.000001", "24:00:00", "12:34:56.789"]
    );
    assert_eq!(
        text_of(Time64NanosecondArray::from(vec![1, 1_000]), "UTC"),
        ["00:00:00.000000001", "00:00:00.000001"]
    );
}

#[test]
fn bytes_lists_and_nothing() {
    assert_eq!(
        text_of(BinaryArray::from(vec![&b"\x00\xff"[..], b""]), "UTC"),
        ["\\x00ff", "\\x"]
    );
    assert_eq!(text_of(NullArray::new(2), "UTC"), ["<null>", "<null>"]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None, Some(-3)]),
        None,
        Some(vec![]),
    ]);
    assert_eq!(text_of(list, "UTC"), ["[1,null,-3]", "<null>", "[]"]);
    let sliced = ListArray::from_iter_primitive::<UInt8Type, _, _>(vec![
        Some(vec![Some(1), Some(2)]),
        Some(vec![Some(3)]),
    ])
    .slice(1, 1);
    assert_eq!(text_of(sliced, "UTC"), ["[3]"]);
}

#[test]
fn slices_read_their_own_rows() {
    let views = StringViewArray::from(vec![
        Some("a"),
        None,
        Some("a text that is longer than twelve"),
    ]);
    assert_eq!(
        text_of(views.slice(1, 2), "UTC"),
        ["<null>", "a text that is longer than twelve"]
    );
    let flags = BooleanArray::from(vec![true, false, true]);
    assert_eq!(text_of(flags.slice(1, 2), "UTC"), ["false", "true"]);
}

#[test]
fn types_without_a_text_form_are_refused() {
    let field = Field::new("d", DataType::Duration(TimeUnit::Second), true);
    let error = Column::compile(&field, &TimeZone::UTC).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column d has the type duration[s]"),
        "{error}"
    );
}

#[test]
fn types_are_spelled_as_pyarrow_does() {
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    for (data_type, name) in [
        (DataType::Int64, "int64"),
        (DataType::Float64, "double"),
        (DataType::Decimal128(12, 2), "decimal128(12, 2)"),
        (
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "timestamp[us, tz=UTC]",
        ),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            "timestamp[ns]",
        ),
        (DataType::List(item(DataType::Int32)), "list<item: int32>"),
        (DataType::Date32, "date32[day]"),
        (DataType::Time64(TimeUnit::Microsecond), "time64[us]"),
        (DataType::FixedSizeBinary(16), "fixed_size_binary[16]"),
    ] {
        assert_eq!(type_name(&data_type), name);
    }
    let schema = Schema::new(vec![
        Field::new("a", DataType::Utf8View, false)
            .with_metadata([(metadata::SOURCE_TYPE.to_owned(), "citext".to_owned())].into()),
    ]);
    let seen = fields(&schema);
    assert_eq!(
        (
            seen[0].r#type.as_str(),
            seen[0].source_type.as_str(),
            seen[0].nullable
        ),
        ("string", "citext", false)
    );
}

#[test]
fn json_numbers_and_what_only_looks_like_one() {
    for yes in [
        "0",
        "-0",
        "1",
        "-12.50",
        "1e5",
        "1E-5",
        "0.001",
        "123456789012345678901234567890",
    ] {
        assert!(is_json_number(yes), "{yes}");
    }
    for no in [
        "", "-", "01", "1.", ".5", "+1", "1e", "NaN", "Infinity", "1 ", "0x1",
    ] {
        assert!(!is_json_number(no), "{no}");
    }
}

proptest! {
    #[test]
    fn decimals_as_arrow_formats_them(value in any::<i128>(), scale in 0_i8..=38) {
        let value = value % 10_i128.pow(38);
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap();
        let expected = array.value_as_string(0);
        prop_assert_eq!(&text_of(array, "UTC")[0], &expected);
    }

    #[test]
    fn wide_decimals_as_arrow_formats_them(low in any::<u128>(), high in any::<i128>(), scale in 0_i8..=76) {
        let limit = i256::from_string(&format!("1{}", "0".repeat(76))).unwrap();
        let value = i256::from_parts(low, high).checked_rem(limit).unwrap();
        let array = Decimal256Array::from(vec![value]).with_precision_and_scale(76, scale).unwrap();
        let expected = array.value_as_string(0);
        prop_assert_eq!(&text_of(array, "UTC")[0], &expected);
    }

    #[test]
    fn floats_read_back_equal(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let text = text_of(Float64Array::from(vec![value]), "UTC").remove(0);
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
    }

    #[test]
    fn zoned_times_read_back_the_same_instant(
        micros in proptest::collection::vec(-3_000_000_000_000_000_i64..30_000_000_000_000_000, 1..40),
        zone in prop_oneof![Just("Europe/London"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("Asia/Kathmandu")],
    ) {
        let texts = text_of(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC"), zone);
        let zone = TimeZone::get(zone).unwrap();
        for (text, micros) in texts.iter().zip(micros) {
            let instant = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap(), instant);
            let offset_minutes = zone.to_offset(instant).seconds() / 60;
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let offset = format!("{sign}{:02}:{:02}", offset_minutes.abs() / 60, offset_minutes.abs() % 60);
            prop_assert!(text.ends_with(&offset), "{} should end with {}", text, offset);
        }
    }

    #[test]
    fn dates_as_chrono_has_them(days in -90_000_000_i32..90_000_000) {
        let text = text_of(Date32Array::from(vec![days]), "UTC").remove(0);
        let expected = arrow::temporal_conversions::date32_to_datetime(days).unwrap().format("%Y-%m-%d").to_string();
        prop_assert_eq!(text, expected);
    }
}
