//! What expressions give, over the rows of the sample: the first full, the second of NULLs, the third odd.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_expr::Volatility;

use super::{
    super::{functions, *},
    sample::{eval, filtered},
};

fn check(cases: &[(&str, DataType, [&str; 3])]) {
    for (expression, data_type, values) in cases {
        let (found_type, found) = eval(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
        assert_eq!(&found_type, data_type, "{expression}");
        assert_eq!(found, values, "{expression}");
    }
}

/// Fails on a value, not before.
fn check_failures(cases: &[(&str, &str)]) {
    for (expression, part) in cases {
        match eval(expression) {
            Err(Error::Evaluation { message, .. }) => {
                assert!(message.contains(part), "{expression}: {message}");
            }
            other => panic!("{expression} doesn't fail on a value: {other:?}"),
        }
    }
}

const WALL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

#[test]
fn arithmetic_keeps_types_exact() {
    use DataType::*;
    check(&[
        ("id + 1", Int64, ["2", "3", "4"]),
        ("\"two words\" * 2", Int64, ["14", "-", "0"]),
        ("id / 2", Int64, ["0", "1", "1"]),
        ("-id", Int64, ["-1", "-2", "-3"]),
        ("amount * 1.2", Decimal128(15, 3), ["12.600", "-", "-3.000"]),
        ("amount + id", Decimal128(23, 2), ["11.50", "-", "0.50"]),
        ("0.1 + 0.2", Decimal128(2, 1), ["0.3", "0.3", "0.3"]),
        ("1e3", Decimal128(4, 0), ["1000", "1000", "1000"]),
        (
            "big + 1",
            Decimal128(21, 0),
            ["18446744073709551616", "-", "6"],
        ),
        ("ratio * 2", Float64, ["1.0", "-", "0.0"]),
        ("round(amount, 1)", Decimal128(12, 1), ["10.5", "-", "-2.5"]),
        ("floor(amount)", Decimal128(12, 2), ["10.00", "-", "-3.00"]),
        ("abs(amount)", Decimal128(12, 2), ["10.50", "-", "2.50"]),
        ("power(id, 2)", Float64, ["1.0", "4.0", "9.0"]),
    ]);
}

#[test]
fn a_decimal_that_meets_a_float_becomes_one() {
    use DataType::*;
    let yes = ["true", "true", "true"];
    check(&[
        ("cast('1e300' as double) > 0.5", Boolean, yes),
        ("cast('-1.7e308' as double) < -0.5", Boolean, yes),
        ("cast('1e-300' as double) > 0.0", Boolean, yes),
        ("cast('NaN' as double) is distinct from 0.5", Boolean, yes),
        ("cast('1e300' as double) not in (0.5, 1.5)", Boolean, yes),
        (
            "cast('1e300' as double) not between 0.5 and 1.5",
            Boolean,
            yes,
        ),
        ("cast('0.1' as real) = 0.1", Boolean, yes),
        ("cast('-0.1' as real) = -0.1", Boolean, yes),
        (
            "case cast('1e300' as double) when 0.5 then 'half' else 'huge' end",
            Utf8,
            ["huge", "huge", "huge"],
        ),
        ("coalesce(ratio, 0.25)", Float64, ["0.5", "0.25", "0.0"]),
        ("coalesce(ratio, amount)", Float64, ["0.5", "-", "0.0"]),
        ("greatest(ratio, 0.1)", Float64, ["0.5", "0.1", "0.1"]),
        (
            "case when id = 1 then cast('1e300' as double) else 0.5 end",
            Float64,
            ["1e300", "0.5", "0.5"],
        ),
    ]);
}

#[test]
fn nothing_wraps_and_nothing_becomes_infinite() {
    check_failures(&[
        ("id + 9223372036854775806", "verflow"),
        ("id * 9223372036854775807", "verflow"),
        ("-9223372036854775807 - id", "verflow"),
        ("id - id + 9223372036854775807 + id", "verflow"),
        ("10 / \"two words\"", "division by zero"),
        ("10 % \"two words\"", "division by zero"),
        ("1.0 / (amount - amount)", "division by zero"),
        ("1 / ratio", "division by zero"),
        ("ratio / ratio", "division by zero"),
        ("exp(id * 1000)", "out of range"),
        ("ln(ratio)", "out of range"),
        ("round(ratio, 400)", "out of range"),
        (
            "cast(id as double) * cast('1e308' as double) * 10",
            "overflow in *",
        ),
        ("amount * 99999999999999999999999999999999999999", "verflow"),
    ]);
}

#[test]
fn casts_fail_or_are_tried() {
    use DataType::*;
    check(&[
        ("cast(id as text)", Utf8, ["1", "2", "3"]),
        ("id::text", Utf8, ["1", "2", "3"]),
        ("try_cast(email as bigint)", Int64, ["-", "-", "-"]),
        (
            "try_cast(\"any\" as decimal(20, 4))",
            Decimal128(20, 4),
            ["12.5000", "-", "-"],
        ),
        (
            "cast(amount as decimal(3, 1))",
            Decimal128(3, 1),
            ["10.5", "-", "-2.5"],
        ),
        (
            "cast(day as timestamp)",
            WALL,
            ["2024-01-31T00:00:00", "-", "2024-02-29T00:00:00"],
        ),
        ("cast(null as text)", Utf8, ["-", "-", "-"]),
        (
            "date '2024-01-31'",
            Date32,
            ["2024-01-31", "2024-01-31", "2024-01-31"],
        ),
        (
            "cast('3000-01-15' as timestamp)",
            WALL,
            ["3000-01-15T00:00:00"; 3],
        ),
    ]);
    check_failures(&[
        (
            "cast(email as bigint)",
            "Cannot cast string 'ann.lee@example.com'",
        ),
        ("cast(\"any\" as decimal(20, 4))", "'NaN'"),
        ("cast(300 + id as tinyint)", "301"),
        ("cast(big as bigint)", "18446744073709551615"),
        ("cast(amount as decimal(2, 2))", "10.50"),
    ]);
}

#[test]
fn a_filter_compares_what_a_cast_gives() {
    assert_eq!(filtered("cast(amount as bigint) = 10").unwrap(), [1]);
    assert_eq!(filtered("10 < cast(amount as bigint)").unwrap(), [0_i64; 0]);
    assert_eq!(
        filtered("cast(amount as bigint) in (10, -2)").unwrap(),
        [1, 3]
    );
    assert_eq!(
        filtered("cast(amount as bigint) between -2 and 10").unwrap(),
        [1, 3]
    );
    assert_eq!(filtered("try_cast(big as int) > 5").unwrap(), [0_i64; 0]);
    assert_eq!(filtered("try_cast(big as int) is null").unwrap(), [1, 2]);
    assert_eq!(filtered("cast(status as bigint) = 1").unwrap(), [2]);
    assert_eq!(filtered("cast(id as text) = '2'").unwrap(), [2]);
    for overflowing in [
        "cast(big as int) > 5",
        "cast(big as smallint) in (5)",
        "cast(amount as decimal(2, 2)) <> 0.5",
    ] {
        let outcome = filtered(overflowing);
        assert!(
            matches!(outcome, Err(Error::Evaluation { .. })),
            "{overflowing}: {outcome:?}"
        );
    }
}

#[test]
fn whole_numbers_stay_whole() {
    use DataType::*;
    check(&[
        ("ceil(big)", UInt64, ["18446744073709551615", "-", "5"]),
        ("floor(id)", Int64, ["1", "2", "3"]),
        (
            "trunc(id + 9007199254740990)",
            Int64,
            ["9007199254740991", "9007199254740992", "9007199254740993"],
        ),
        (
            "trunc(id + 9007199254740990, -1)",
            Decimal128(19, 0),
            ["9007199254740990", "9007199254740990", "9007199254740990"],
        ),
        (
            "trunc(big, 0)",
            Decimal128(20, 0),
            ["18446744073709551615", "-", "5"],
        ),
    ]);
}

#[test]
fn integers_are_not_cut_to_floats_of_32_bits() {
    use DataType::*;
    let (yes, no) = (["true"; 3], ["false"; 3]);
    check(&[
        ("cast('16777216' as real) = 16777217", Boolean, no),
        ("cast('16777216' as real) < id + 16777216", Boolean, yes),
        ("cast('16777216' as real) in (1, 16777217)", Boolean, no),
        (
            "greatest(cast('16777216' as real), 16777217)",
            Float64,
            ["16777217.0"; 3],
        ),
        ("cast('0.5' as real) * id", Float64, ["0.5", "1.0", "1.5"]),
        ("cast('0.1' as real) * 2", Float32, ["0.2"; 3]),
        ("cast('0.5' as real) = -1", Boolean, no),
    ]);
}

#[test]
fn choices_are_lazy() {
    use DataType::*;
    check(&[
        (
            "case status when 0 then 'new' when 1 then 'paid' end",
            Utf8,
            ["new", "paid", "-"],
        ),
        (
            "case when \"two words\" = 0 then null else 70 / \"two words\" end",
            Int64,
            ["10", "-", "-"],
        ),
        (
            "coalesce(amount, 0)",
            Decimal128(22, 2),
            ["10.50", "0.00", "-2.50"],
        ),
        ("nullif(id, 1)", Int64, ["-", "2", "3"]),
        ("greatest(id, 2)", Int64, ["2", "2", "3"]),
        ("70 / nullif(\"two words\", 0)", Int64, ["10", "-", "-"]),
    ]);
}

#[test]
fn text_counts_characters() {
    use DataType::*;
    check(&[
        ("upper(Name)", Utf8, ["张三丰", "-", "BO"]),
        ("length(Name)", Int32, ["3", "-", "2"]),
        ("substr(Name, 2)", Utf8, ["三丰", "-", "o"]),
        ("substring(email from 1 for 3)", Utf8, ["ann", "x@y", "non"]),
        ("Name || '!'", Utf8, ["张三丰!", "-", "Bo!"]),
        ("id || '-' || amount", Utf8, ["1-10.50", "-", "3--2.50"]),
        ("concat(Name, '!')", Utf8, ["张三丰!", "!", "Bo!"]),
        ("rpad(Name, 5, '*')", Utf8, ["张三丰**", "-", "Bo***"]),
        ("split_part(email, '@', 2)", Utf8, ["example.com", "y", ""]),
        (
            "regexp_like(email, '^[a-z.]+@')",
            Boolean,
            ["true", "true", "false"],
        ),
        ("email ilike 'ANN%'", Boolean, ["true", "false", "false"]),
        (
            "replace(email, 'e', 'ee')",
            Utf8,
            ["ann.leeee@eexamplee.com", "x@y", "nonseensee"],
        ),
    ]);
}

#[test]
fn masks_show_only_what_they_are_told_to() {
    use DataType::Utf8;
    check(&[
        ("mask(Name, 1, 0)", Utf8, ["张**", "-", "B*"]),
        (
            "mask(email, 2, 4)",
            Utf8,
            ["an*************.com", "***", "no**ense"],
        ),
        (
            "mask(email, 0, 0)",
            Utf8,
            ["*******************", "***", "********"],
        ),
        // Eight characters, of which eight would be shown: all are masked.
        (
            "mask(email, 4, 4)",
            Utf8,
            ["ann.***********.com", "***", "********"],
        ),
        (
            "mask(email, 9223372036854775807, 9223372036854775807)",
            Utf8,
            ["*******************", "***", "********"],
        ),
        (
            "mask(email, 1, nullif(id, 2))",
            Utf8,
            ["a*****************m", "-", "n****nse"],
        ),
        ("mask('', 1, 1)", Utf8, ["", "", ""]),
        (
            "mask_email(email)",
            Utf8,
            ["a******@example.com", "*@y", "********"],
        ),
        ("mask_email('a@b@c')", Utf8, ["a**@c"; 3]),
        ("mask_email('@c')", Utf8, ["@c"; 3]),
        ("mask_email(Name)", Utf8, ["***", "-", "**"]),
    ]);
    check_failures(&[("mask(email, 0 - id, 0)", "0 or more characters")]);
}

#[test]
fn times_keep_microseconds_and_infinity() {
    use DataType::*;
    check(&[
        (
            "at_zone(at, 'Asia/Shanghai')",
            WALL,
            ["2024-01-31T18:20:30.123456", "-", "infinity"],
        ),
        (
            "wall",
            WALL,
            ["2024-01-31T10:20:30.123456", "-", "infinity"],
        ),
        (
            "coalesce(wall, wall)",
            WALL,
            ["2024-01-31T10:20:30.123456", "-", "infinity"],
        ),
        (
            "at >= '2024-01-31T18:20:30.123456+08:00'",
            Boolean,
            ["true", "-", "true"],
        ),
        (
            "at > '2024-01-31T18:20:30.123456+08:00'",
            Boolean,
            ["false", "-", "true"],
        ),
        ("wall < '2030-01-01'", Boolean, ["true", "-", "false"]),
        ("wall >= day", Boolean, ["true", "-", "true"]),
        ("day >= '2024-02-01'", Boolean, ["false", "-", "true"]),
        ("day + 1", Date32, ["2024-02-01", "-", "2024-03-01"]),
        ("day - date '2024-01-01'", Int64, ["30", "-", "59"]),
        (
            "day + interval '1 hour'",
            WALL,
            ["2024-01-31T01:00:00", "-", "2024-02-29T01:00:00"],
        ),
        (
            "date_trunc('month', day)",
            WALL,
            ["2024-01-01T00:00:00", "-", "2024-02-01T00:00:00"],
        ),
        ("extract(year from day)", Int32, ["2024", "-", "2024"]),
        (
            "to_char(day, '%d.%m.%Y')",
            Utf8,
            ["31.01.2024", "-", "29.02.2024"],
        ),
    ]);
    check_failures(&[("wall + interval '1 day'", "out of range")]);
}

#[test]
fn infinity_never_becomes_an_ordinary_number() {
    use DataType::*;
    check(&[
        ("extract(year from at)", Int32, ["2024", "-", "-"]),
        ("date_part('second', wall)", Int32, ["30", "-", "-"]),
        (
            "to_unixtime(case when id = 1 then at end)",
            Int64,
            ["1706696430", "-", "-"],
        ),
        (
            "coalesce(at, at) is null",
            Boolean,
            ["false", "true", "false"],
        ),
    ]);
    assert_eq!(filtered("extract(year from at) >= 2024").unwrap(), [1]);
    check_failures(&[
        ("to_unixtime(at)", "out of range"),
        ("to_unixtime(wall)", "out of range"),
        ("extract(epoch from at)", "out of range"),
        ("extract(epoch from at - at)", "out of range"),
        ("date_trunc('day', wall)", "out of range"),
        ("date_trunc('month', at)", "out of range"),
        ("day - cast(2147483647 as date)", "out of range"),
        ("cast(-2147483648 as date) - day", "out of range"),
    ]);
}

#[test]
fn a_zone_has_its_summer() {
    let berlin = |moment: &str| {
        let expression = format!("at_zone(timestamptz '{moment}', 'Europe/Berlin')");
        eval(&expression).unwrap().1.remove(0)
    };
    assert_eq!(berlin("2024-03-31T00:59:59Z"), "2024-03-31T01:59:59");
    assert_eq!(berlin("2024-03-31T01:00:00Z"), "2024-03-31T03:00:00");
    // The hour that comes twice.
    assert_eq!(berlin("2024-10-27T00:30:00Z"), "2024-10-27T02:30:00");
    assert_eq!(berlin("2024-10-27T01:30:00Z"), "2024-10-27T02:30:00");
    // A moment given with an offset is the same moment.
    assert_eq!(berlin("2024-07-01T00:00:00+08:00"), "2024-06-30T18:00:00");
}

#[test]
fn names_are_matched_exactly() {
    assert!(eval("\"two words\"").is_ok());
    assert!(eval("Name").is_ok());
    assert!(eval("\"Name\"").is_ok());
    assert!(eval("NAME").is_err());
    assert!(eval("ID").is_err());
    assert!(eval("UPPER(Name)").is_ok());
}

#[test]
fn too_large_a_result_fails_before_it_is_made() {
    check_failures(&[
        ("repeat(email, 1000000000000)", "more than 67108864 bytes"),
        ("lpad(email, id * 1000000000)", "more than 67108864 bytes"),
        (
            "replace(repeat(email, 100000), 'n', repeat('y', 10000))",
            "more than 67108864 bytes",
        ),
        (
            "repeat(email, 2000000) || repeat(email, 2000000)",
            "more than 67108864 bytes",
        ),
    ]);
}

#[test]
fn filters_compare_as_sql_does() {
    assert_eq!(filtered("Name <> 'Bo'").unwrap(), [1]);
    assert_eq!(filtered("Name is distinct from 'Bo'").unwrap(), [1, 2]);
    assert_eq!(filtered("status in (0, 1)").unwrap(), [1, 2]);
    assert_eq!(filtered("status not in (1, null)").unwrap(), [0_i64; 0]);
    assert_eq!(filtered("amount between -3 and 0").unwrap(), [3]);
    assert_eq!(filtered("big > 5").unwrap(), [1]);
    assert_eq!(filtered("big >= id").unwrap(), [1, 3]);
}

#[test]
fn every_function_gives_the_same_value_each_time() {
    for name in functions::names() {
        let function = functions::find(name).unwrap();
        assert_eq!(
            function.signature().volatility,
            Volatility::Immutable,
            "{name}"
        );
    }
}
