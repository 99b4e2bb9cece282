//! Which cell a value becomes. What has no cell of its own is written as [`crate::format::text`] writes it.

use arrow::datatypes::TimeUnit;

use super::{
    fidelity::Treatment,
    serial::{self, Kept, Serial},
};
use crate::format::text::{Cells, TextKind, Values};

/// Digits that Excel keeps.
const DIGITS_MAX: usize = 15;
/// The largest number of so many digits.
const MAGNITUDE_MAX: u64 = 999_999_999_999_999;
/// The largest power of ten that a double holds exactly.
const EXACT_SCALE_MAX: i8 = 22;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Cell<'a> {
    Blank,
    Number(f64),
    Boolean(bool),
    Text(&'a str),
}

/// A cell, and what had to be done to the value.
pub(super) type Treated<'a> = (Cell<'a>, Option<Treatment>);

/// `scratch` holds the text of a value that isn't one already.
pub(super) fn cell<'a>(
    cells: &'a mut Cells<'_>,
    row: usize,
    scratch: &'a mut Vec<u8>,
) -> Treated<'a> {
    if cells.is_null(row) {
        return (Cell::Blank, None);
    }
    let number = match &mut cells.values {
        Values::Bool(array) => return (Cell::Boolean(array.value(row)), None),
        Values::Int8(values) => Number::signed(values[row].into()),
        Values::Int16(values) => Number::signed(values[row].into()),
        Values::Int32(values) => Number::signed(values[row].into()),
        Values::Int64(values) => Number::signed(values[row]),
        Values::UInt8(values) => Number::unsigned(values[row].into()),
        Values::UInt16(values) => Number::unsigned(values[row].into()),
        Values::UInt32(values) => Number::unsigned(values[row].into()),
        Values::UInt64(values) => Number::unsigned(values[row]),
        Values::Float32(values) => Number::float32(values[row]),
        Values::Float64(values) => Number::float64(values[row]),
        Values::Decimal128(values, scale) => Number::decimal(values[row], *scale),
        Values::Decimal256(..) => Number::Digits,
        Values::Date(days) => serial::date(days[row].into())
            .map_or(Number::Becomes(Treatment::DateAsText), Number::Exactly),
        Values::DateMillis(millis) => Number::instant(millis[row], TimeUnit::Millisecond, None),
        Values::Time32(values, unit) => Number::time(values[row].into(), *unit),
        Values::Time64(values, unit) => Number::time(values[row], *unit),
        Values::Timestamp(ticks, unit) => Number::instant(ticks[row], *unit, None),
        Values::Zoned {
            ticks,
            unit,
            offsets,
        } => {
            let seconds = split(ticks[row], *unit).0;
            Number::instant(ticks[row], *unit, Some(offsets.minutes_at(seconds)))
        }
        _ if cells.kind == TextKind::Numeric => Number::Digits,
        _ => Number::None,
    };
    match number {
        Number::Exactly(number) => return (Cell::Number(number), None),
        Number::Nearly(number) => {
            return (Cell::Number(number), Some(Treatment::MicrosecondsCut));
        }
        Number::None if cells.str(row).is_some() => {
            return string(cells.str(row).unwrap_or_default());
        }
        Number::None | Number::Digits | Number::Becomes(_) => {}
    }
    scratch.clear();
    cells.write_text(row, scratch);
    let text = std::str::from_utf8(scratch).expect("the text of a value is UTF-8");
    match number {
        Number::Digits => decimal(text),
        Number::Becomes(treatment) => (Cell::Text(text), Some(treatment)),
        _ => string(text),
    }
}

/// What a value is as a number.
enum Number {
    Exactly(f64),
    /// A time; the double can't name its last digits.
    Nearly(f64),
    /// Its digits must be counted.
    Digits,
    /// None that a cell can hold.
    Becomes(Treatment),
    /// It never was one.
    None,
}

impl Number {
    fn signed(value: i64) -> Self {
        if value.unsigned_abs() > MAGNITUDE_MAX {
            return Self::Becomes(Treatment::DigitsAsText);
        }
        Self::Exactly(value as f64)
    }

    fn unsigned(value: u64) -> Self {
        if value > MAGNITUDE_MAX {
            return Self::Becomes(Treatment::DigitsAsText);
        }
        Self::Exactly(value as f64)
    }

    /// The shortest text that reads back equal decides: 0.1 stays 0.1, not 0.10000000149011612.
    fn float32(value: f32) -> Self {
        if !value.is_finite() {
            return Self::Becomes(Treatment::NanAsText);
        }
        let wide = ryu::Buffer::new().format_finite(value).parse();
        Self::Exactly(wide.expect("ryu writes numbers"))
    }

    fn float64(value: f64) -> Self {
        if value.is_finite() {
            Self::Exactly(value)
        } else {
            Self::Becomes(Treatment::NanAsText)
        }
    }

    /// Both operands are exact doubles, so that the quotient is the double nearest to the decimal.
    fn decimal(value: i128, scale: i8) -> Self {
        match u64::try_from(value.unsigned_abs()) {
            Ok(0..=MAGNITUDE_MAX) if (0..=EXACT_SCALE_MAX).contains(&scale) => {
                Self::Exactly(value as f64 / 10_f64.powi(scale.into()))
            }
            _ => Self::Digits,
        }
    }

    fn time(value: i64, unit: TimeUnit) -> Self {
        let (seconds, nanos) = split(value, unit);
        Self::serial(serial::time(seconds, nanos))
    }

    fn instant(ticks: i64, unit: TimeUnit, offset_minutes: Option<i32>) -> Self {
        let (seconds, nanos) = split(ticks, unit);
        let offset_seconds = i64::from(offset_minutes.unwrap_or(0)) * 60;
        Self::serial(serial::date_time(
            seconds.saturating_add(offset_seconds),
            nanos,
        ))
    }

    fn serial(serial: Option<Serial>) -> Self {
        match serial {
            Some(Serial {
                number,
                kept: Kept::Exactly,
            }) => Self::Exactly(number),
            Some(Serial {
                number,
                kept: Kept::Nearly,
            }) => Self::Nearly(number),
            None => Self::Becomes(Treatment::DateAsText),
        }
    }
}

/// Whole seconds, rounded down, and the nanoseconds after them.
fn split(ticks: i64, unit: TimeUnit) -> (i64, u32) {
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let nanos = ticks.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (ticks.div_euclid(per_second), nanos as u32)
}

/// A decimal of any size, or one of PostgreSQL's words for what is none.
fn decimal(text: &str) -> Treated<'_> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return (Cell::Text(text), Some(Treatment::NanAsText));
    }
    let number = match significant_digits(text) {
        Some(0..=DIGITS_MAX) => text.parse::<f64>().ok(),
        _ => None,
    };
    match number {
        Some(number) if number.is_normal() => (Cell::Number(number), None),
        // below the normal doubles digits get lost and Excel reads 0
        Some(_) if text.bytes().all(|byte| !matches!(byte, b'1'..=b'9')) => {
            (Cell::Number(0.0), None)
        }
        _ => (Cell::Text(text), Some(Treatment::DigitsAsText)),
    }
}

/// From the first digit that isn't 0 to the last of the whole part, or the last that isn't 0 behind the point: zeros
/// at the end of a fraction are in the number format, not in the value. `None` if `text` is no plain decimal.
fn significant_digits(text: &str) -> Option<usize> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    Some(if whole.is_empty() {
        fraction.trim_start_matches('0').len()
    } else {
        whole.len() + fraction.len()
    })
}

fn string(text: &str) -> Treated<'_> {
    if text.is_empty() {
        (Cell::Blank, Some(Treatment::EmptyTextAsBlank))
    } else {
        (Cell::Text(text), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal_number(text: &str) -> Option<f64> {
        match decimal(text) {
            (Cell::Number(number), None) => Some(number),
            (Cell::Text(_), Some(Treatment::DigitsAsText)) => None,
            _ => panic!("{text}: neither a number nor digits as text"),
        }
    }

    #[test]
    fn fifteen_digits_are_a_number_and_sixteen_are_text() {
        for (text, number) in [
            ("0", 0.0),
            ("-0.00", 0.0),
            ("1.50", 1.5),
            ("999999999999999", 999_999_999_999_999.0),
            ("-9999999999999.99", -9_999_999_999_999.99),
            ("12345678901234.50", 12_345_678_901_234.5),
            (
                "0.000000000000000000123456789012345",
                1.234_567_890_123_45e-19,
            ),
        ] {
            assert_eq!(decimal_number(text), Some(number), "{text}");
        }
        for text in [
            "1000000000000000",
            "99999999999999.99",
            "0.1234567890123456",
            "not a number",
            "",
        ] {
            assert_eq!(decimal_number(text), None, "{text}");
        }
        let tiny = format!("0.{}1", "0".repeat(400));
        assert_eq!(decimal_number(&tiny), None);
    }

    #[test]
    fn words_for_no_number() {
        for text in ["NaN", "Infinity", "-Infinity"] {
            let (Cell::Text(kept), Some(Treatment::NanAsText)) = decimal(text) else {
                panic!("{text}")
            };
            assert_eq!(kept, text);
        }
    }

    #[test]
    fn single_precision_stays_as_short_as_it_was() {
        assert!(matches!(Number::float32(0.1), Number::Exactly(number) if number == 0.1));
    }

    #[test]
    fn decimals_become_the_nearest_double() {
        for (value, scale) in [
            (1, 22),
            (-999_999_999_999_999, 2),
            (123_456_789, 4),
            (5, 0),
            (333_333_333_333_333, 15),
        ] {
            let Number::Exactly(number) = Number::decimal(value, scale) else {
                panic!("no number")
            };
            let text = format!("{value}e-{scale}");
            assert_eq!(number, text.parse::<f64>().unwrap(), "{text}");
        }
        assert!(matches!(
            Number::decimal(1_000_000_000_000_000, 2),
            Number::Digits
        ));
    }
}
