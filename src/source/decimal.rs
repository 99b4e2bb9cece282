//! Exact decimal numbers from their text. Nothing is rounded: a number that doesn't fit is `None`.

use arrow::datatypes::i256;

/// `[+-]digits[.digits]` as an integer of 10^-scale, of at most `precision` digits.
pub fn parse_i128(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let mut value: i128 = 0;
    let negative = scan(text, precision, scale, |digit| {
        value = value * 10 + i128::from(digit);
    })?;
    Some(if negative { -value } else { value })
}

/// The same for more than 38 digits.
pub fn parse_i256(text: &[u8], precision: u8, scale: u8) -> Option<i256> {
    let (mut value, ten) = (i256::ZERO, i256::from_i128(10));
    let negative = scan(text, precision, scale, |digit| {
        value = value
            .wrapping_mul(ten)
            .wrapping_add(i256::from_i128(i128::from(digit)));
    })?;
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// Whether the text is a plain decimal number of any size.
pub fn is_decimal(text: &[u8]) -> bool {
    let digits = match text {
        [b'+' | b'-', rest @ ..] => rest,
        all => all,
    };
    let (whole, fraction) = split(digits);
    !(whole.is_empty() && fraction.is_empty())
        && whole.iter().chain(fraction).all(u8::is_ascii_digit)
        && digits.last() != Some(&b'.')
}

/// How many digits a plain decimal number has between its first and its last non-zero one.
pub fn significant_digits(text: &[u8]) -> usize {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_digit).collect();
    let first = digits.iter().position(|digit| *digit != b'0');
    let last = digits.iter().rposition(|digit| *digit != b'0');
    match (first, last) {
        (Some(first), Some(last)) => last - first + 1,
        _ => 0,
    }
}

/// A number written without an exponent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plain {
    pub text: String,
    /// Digits in all, at least one and at least `scale`.
    pub precision: usize,
    /// Digits behind the point.
    pub scale: usize,
}

/// `[+-]digits[.digits][e[+-]digits]` without its exponent. `None` where it is none of these, or has more digits than
/// that: zeros at its ends don't count where they need not be written.
pub fn plain(text: &str, precision_max: usize, scale_max: usize) -> Option<Plain> {
    let (number, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "0"),
    };
    let (sign, digits) = match number.as_bytes() {
        [b'-', rest @ ..] => ("-", rest),
        [b'+', rest @ ..] => ("", rest),
        all => ("", all),
    };
    let (whole, fraction) = split(digits);
    let all: Vec<u8> = [whole, fraction].concat();
    if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let zeros = all.iter().take_while(|digit| **digit == b'0').count();
    let mut all = String::from_utf8(all[zeros..].to_vec()).ok()?;
    if all.is_empty() {
        return Some(Plain {
            text: "0".to_owned(),
            precision: 1,
            scale: 0,
        });
    }
    // A number of so large an exponent doesn't fit either.
    let exponent: i64 = exponent.parse().ok()?;
    let mut scale = i64::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    while scale > scale_max as i64 && all.ends_with('0') {
        all.pop();
        scale -= 1;
    }
    if scale < 0 {
        let zeros = usize::try_from(scale.unsigned_abs()).ok()?;
        if zeros > precision_max {
            return None;
        }
        all.push_str(&"0".repeat(zeros));
        scale = 0;
    }
    let scale = usize::try_from(scale).ok()?;
    let precision = all.len().max(scale);
    if scale > scale_max || precision > precision_max {
        return None;
    }
    let mut text = format!(
        "{sign}{}{all}",
        "0".repeat((scale + 1).saturating_sub(all.len()))
    );
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    Some(Plain {
        text,
        precision,
        scale,
    })
}

/// Hands over the digits of the scaled integer, most significant first; whether the number is negative.
fn scan(text: &[u8], precision: u8, scale: u8, mut push: impl FnMut(u8)) -> Option<bool> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    if !is_decimal(digits) || matches!(digits.first(), Some(b'+' | b'-')) {
        return None;
    }
    let (whole, fraction) = split(digits);
    let whole = &whole[whole.iter().take_while(|digit| **digit == b'0').count()..];
    let scale = usize::from(scale);
    let (kept, cut) = fraction.split_at(fraction.len().min(scale));
    if whole.len() + scale > usize::from(precision) || cut.iter().any(|digit| *digit != b'0') {
        return None;
    }
    for digit in whole.iter().chain(kept) {
        push(digit - b'0');
    }
    for _ in kept.len()..scale {
        push(0);
    }
    Some(negative)
}

fn split(digits: &[u8]) -> (&[u8], &[u8]) {
    match digits.iter().position(|byte| *byte == b'.') {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_exact() {
        assert_eq!(parse_i128(b"12.34", 12, 2), Some(1234));
        assert_eq!(parse_i128(b"-12.3", 12, 2), Some(-1230));
        assert_eq!(parse_i128(b"+0012", 4, 2), Some(1200));
        assert_eq!(parse_i128(b".5", 2, 2), Some(50));
        assert_eq!(parse_i128(b"1.500", 3, 1), Some(15));
        let nines = "9".repeat(38);
        assert_eq!(
            parse_i128(nines.as_bytes(), 38, 0),
            Some(10_i128.pow(38) - 1)
        );
    }

    #[test]
    fn what_does_not_fit_is_none() {
        for text in [
            "1.234",
            "12345678901.00",
            "",
            "-",
            ".",
            "1.",
            "1e3",
            "1,5",
            "--1",
            "+-1",
            "NaN",
            "1.2.3",
        ] {
            assert_eq!(parse_i128(text.as_bytes(), 12, 2), None, "{text}");
        }
    }

    #[test]
    fn more_than_38_digits() {
        let text = format!("-{}.5", "9".repeat(64));
        let expected = format!("-{}5", "9".repeat(64));
        assert_eq!(
            parse_i256(text.as_bytes(), 65, 1),
            i256::from_string(&expected)
        );
        assert_eq!(parse_i256(b"10", 1, 0), None);
    }

    #[test]
    fn a_plain_number_is_the_same_number() {
        for (text, plain_text, precision, scale) in [
            ("12.50", "12.50", 4, 2),
            ("-0.05", "-0.05", 2, 2),
            ("+.5", "0.5", 1, 1),
            ("007.", "7", 1, 0),
            ("1.5e3", "1500", 4, 0),
            ("15e-3", "0.015", 3, 3),
            ("1E+2", "100", 3, 0),
            ("-0.000", "0", 1, 0),
            ("0e999999999999999999999", "0", 1, 0),
            ("1.5000000000000000", "1.5000000000", 11, 10),
            ("123456789012345678.01", "123456789012345678.01", 20, 2),
        ] {
            let expected = Plain {
                text: plain_text.to_owned(),
                precision,
                scale,
            };
            assert_eq!(plain(text, 20, 10), Some(expected), "{text}");
        }
        for text in [
            "1e400",
            "1e-400",
            "1e999999999999999999999",
            "1e-9223372036854775808",
            "1e9223372036854775807",
            "123456789012345678901",
            "0.00000000001",
            "",
            "-",
            ".",
            "1.2.3",
            "NaN",
        ] {
            assert_eq!(plain(text, 20, 10), None, "{text}");
        }
    }

    #[test]
    fn significant_digits_ignore_zeros_outside() {
        assert_eq!(significant_digits(b"0.00120300"), 4);
        assert_eq!(significant_digits(b"-100000"), 1);
        assert_eq!(significant_digits(b"0"), 0);
    }
}
