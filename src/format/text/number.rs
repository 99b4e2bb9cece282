//! Numbers as text: integers, decimals with their scale, floats as the shortest text that reads back equal.

use arrow::datatypes::i256;

/// Digits that fit in a limb of [`split_digits`].
const LIMB_DIGITS: usize = 19;
const LIMB: u128 = 10_u128.pow(LIMB_DIGITS as u32);
/// An i256 has at most 77 digits.
const DIGITS_MAX: usize = 80;

#[inline]
pub(in crate::format) fn write_integer<I: itoa::Integer>(out: &mut Vec<u8>, value: I) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `1.5`, `1`, `1e20`, `-0.0`, `NaN`, `Infinity`. A whole number loses the `.0` that ryu writes, as PostgreSQL does it;
/// minus zero keeps it, because JSON readers take `-0` for the integer 0.
#[inline]
pub(in crate::format) fn write_float<F: ryu::Float + Into<f64>>(out: &mut Vec<u8>, value: F) {
    let wide: f64 = value.into();
    if !wide.is_finite() {
        out.extend_from_slice(non_finite(wide).as_bytes());
        return;
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    let text = match text {
        b"-0.0" => text,
        [whole @ .., b'.', b'0'] => whole,
        _ => text,
    };
    out.extend_from_slice(text);
}

#[inline]
pub(in crate::format) fn non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// `value` x 10^-`scale` with exactly `scale` digits after the point; a negative scale appends zeros.
#[inline]
pub(super) fn write_decimal(out: &mut Vec<u8>, value: i128, scale: i8) {
    if value < 0 {
        out.push(b'-');
    }
    let magnitude = value.unsigned_abs();
    let mut buffer = itoa::Buffer::new();
    // Most money fits in 64 bits, where itoa is three times as fast.
    let digits = match u64::try_from(magnitude) {
        Ok(small) => buffer.format(small),
        Err(_) => buffer.format(magnitude),
    };
    place_point(out, digits.as_bytes(), scale);
}

pub(super) fn write_decimal256(out: &mut Vec<u8>, value: i256, scale: i8) {
    if let Some(narrow) = value.to_i128() {
        return write_decimal(out, narrow, scale);
    }
    if value.is_negative() {
        out.push(b'-');
    }
    let mut digits = [b'0'; DIGITS_MAX];
    let start = split_digits(value.wrapping_abs(), &mut digits);
    place_point(out, &digits[start..], scale);
}

/// Writes the digits of a magnitude right-aligned; returns where they begin. Division by 10^19, limb by limb, so
/// that nothing is allocated for a cell.
fn split_digits(magnitude: i256, digits: &mut [u8; DIGITS_MAX]) -> usize {
    let (low, high) = magnitude.to_parts();
    let high = high as u128;
    let mut limbs = [
        (high >> 64) as u64,
        high as u64,
        (low >> 64) as u64,
        low as u64,
    ];
    let mut end = DIGITS_MAX;
    while end >= LIMB_DIGITS && limbs != [0; 4] {
        let mut remainder = 0_u128;
        for limb in &mut limbs {
            let part = (remainder << 64) | u128::from(*limb);
            *limb = (part / LIMB) as u64;
            remainder = part % LIMB;
        }
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(remainder as u64).as_bytes();
        digits[end - text.len()..end].copy_from_slice(text);
        end -= LIMB_DIGITS;
    }
    digits
        .iter()
        .position(|&digit| digit != b'0')
        .unwrap_or(DIGITS_MAX - 1)
}

#[inline]
fn place_point(out: &mut Vec<u8>, digits: &[u8], scale: i8) {
    if scale <= 0 {
        out.extend_from_slice(digits);
        if digits != b"0" {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - digits.len(), b'0');
        out.extend_from_slice(digits);
    }
}

/// Whether a text is a number as JSON writes it, so that it can be embedded unquoted.
pub(in crate::format) fn is_json_number(text: &str) -> bool {
    fn digits(bytes: &[u8]) -> Option<&[u8]> {
        let count = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        (count > 0).then(|| &bytes[count..])
    }
    fn number(bytes: &[u8]) -> Option<&[u8]> {
        let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
        let mut rest = match bytes {
            [b'0', rest @ ..] => rest,
            _ => digits(bytes)?,
        };
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let exponent = match exponent {
                [b'+' | b'-', exponent @ ..] => exponent,
                _ => exponent,
            };
            rest = digits(exponent)?;
        }
        Some(rest)
    }
    number(text.as_bytes()).is_some_and(<[u8]>::is_empty)
}
