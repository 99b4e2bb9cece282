//! `numeric` on the wire: groups of four decimal digits.
//!
//! Counts of groups, the weight of the first (in powers of 10,000), a sign, and how many digits are shown behind the
//! point; then the groups. Trailing zero groups are left out.

use std::fmt::Write;

use arrow::array::ArrowNativeTypeOp;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

struct Wire<'a> {
    weight: i32,
    sign: u16,
    shown_scale: usize,
    groups: &'a [u8],
}

impl<'a> Wire<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let word = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
        };
        let read = || {
            let count = usize::from(word(0)?);
            Some(Self {
                weight: i32::from(word(2)? as i16),
                sign: word(4)?,
                shown_scale: usize::from(word(6)?),
                groups: bytes.get(8..8 + 2 * count)?,
            })
        };
        read().ok_or_else(|| "a malformed numeric".to_owned())
    }

    fn groups(&self) -> impl Iterator<Item = u16> {
        self.groups
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }
}

/// The value times `10^scale`, exactly.
pub fn scaled<T: ArrowNativeTypeOp + From<i128>>(bytes: &[u8], scale: u8) -> Result<T, String> {
    let wire = Wire::read(bytes)?;
    let special = match wire.sign {
        0 | NEGATIVE => None,
        NAN => Some("NaN"),
        INFINITY => Some("Infinity"),
        _ => Some("-Infinity"),
    };
    if let Some(special) = special {
        return Err(format!("{special} fits no decimal; select it as ::text"));
    }
    let too_large = |_| "the number has too many digits".to_owned();
    let mut value = T::ZERO;
    // The power of ten that the last digit of the group stands for, in units of the result.
    let mut exponent = 4 * wire.weight + i32::from(scale);
    for group in wire.groups() {
        let (kept_digits, cut) = match exponent {
            0.. => (4, 1),
            -1 => (3, 10),
            -2 => (2, 100),
            -3 => (1, 1_000),
            _ => (0, 10_000),
        };
        if group % cut != 0 {
            return Err(format!(
                "the number has more than {scale} digits behind its point"
            ));
        }
        value = value
            .mul_checked(T::from(10_i128.pow(kept_digits)))
            .and_then(|v| v.add_checked(T::from(i128::from(group / cut))))
            .map_err(too_large)?;
        exponent -= 4;
    }
    // The last group may stand for more than units.
    for _ in 0..(exponent + 4).max(0) {
        if wire.groups.is_empty() {
            break;
        }
        value = value.mul_checked(T::from(10)).map_err(too_large)?;
    }
    if wire.sign == NEGATIVE {
        value = value.neg_checked().map_err(too_large)?;
    }
    Ok(value)
}

/// As the server writes it: every shown digit, no exponent.
pub fn write_text(bytes: &[u8], out: &mut impl Write) -> Result<(), String> {
    let wire = Wire::read(bytes)?;
    let special = match wire.sign {
        NAN => Some("NaN"),
        INFINITY => Some("Infinity"),
        NEGATIVE_INFINITY => Some("-Infinity"),
        _ => None,
    };
    let written = match special {
        Some(text) => out.write_str(text),
        None => write_digits(&wire, out),
    };
    written.map_err(|_| "a numeric that can't be written".to_owned())
}

fn write_digits(wire: &Wire<'_>, out: &mut impl Write) -> std::fmt::Result {
    if wire.sign == NEGATIVE {
        out.write_char('-')?;
    }
    let mut groups = wire.groups();
    if wire.weight < 0 {
        out.write_char('0')?;
    } else {
        for index in 0..=wire.weight {
            let group = groups.next().unwrap_or(0);
            if index == 0 {
                write!(out, "{group}")?;
            } else {
                write!(out, "{group:04}")?;
            }
        }
    }
    if wire.shown_scale == 0 {
        return Ok(());
    }
    out.write_char('.')?;
    // Groups between the point and the first one are zero.
    let zero_groups = usize::try_from(-1 - wire.weight).unwrap_or(0);
    let fraction = std::iter::repeat_n(0, zero_groups)
        .chain(groups)
        .chain(std::iter::repeat(0));
    let mut left = wire.shown_scale;
    for group in fraction {
        let digits = [group / 1000, group / 100 % 10, group / 10 % 10, group % 10];
        for digit in digits {
            if left == 0 {
                return Ok(());
            }
            out.write_char(char::from(b'0' + digit as u8))?;
            left -= 1;
        }
    }
    Ok(())
}

/// The wire form of a decimal text, for parameters. `None` when it is too large for the wire.
pub fn encode(text: &str) -> Option<Vec<u8>> {
    let (is_negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent.abs() > 1000 {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: Vec<u8> = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|b| b - b'0')
        .collect();
    // How many of the digits stand before the point; may be negative, or beyond their end.
    let mut point = i32::try_from(whole.len()).ok()? + exponent;
    let shown_scale = (i32::try_from(fraction.len()).ok()? - exponent).max(0);
    // Align the point to a group.
    let lead = (4 - point.rem_euclid(4)) % 4;
    digits.splice(0..0, std::iter::repeat_n(0, lead as usize));
    point += lead;
    while !digits.len().is_multiple_of(4) {
        digits.push(0);
    }
    let mut groups: Vec<u16> = digits
        .chunks_exact(4)
        .map(|d| {
            d.iter()
                .fold(0, |group, digit| group * 10 + u16::from(*digit))
        })
        .collect();
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    let weight = if groups.is_empty() {
        0
    } else {
        point / 4 - 1 - i32::try_from(zeros).ok()?
    };
    let sign = if is_negative && !groups.is_empty() {
        NEGATIVE
    } else {
        0
    };
    let mut bytes = Vec::with_capacity(8 + 2 * groups.len());
    bytes.extend(u16::try_from(groups.len()).ok()?.to_be_bytes());
    bytes.extend(i16::try_from(weight).ok()?.to_be_bytes());
    bytes.extend(sign.to_be_bytes());
    bytes.extend(u16::try_from(shown_scale).ok()?.to_be_bytes());
    bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::i256;
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = String::new();
        write_text(bytes, &mut out).expect("well-formed");
        out
    }

    #[test]
    fn known_numbers() {
        for (given, shown) in [
            ("0", "0"),
            ("-0.00", "0.00"),
            ("12345.6789", "12345.6789"),
            ("-0.00001", "-0.00001"),
            ("1e5", "100000"),
            ("1.5e-6", "0.0000015"),
            ("100000000", "100000000"),
            (".5", "0.5"),
            ("007", "7"),
        ] {
            assert_eq!(text(&encode(given).expect("fits")), shown, "{given}");
        }
        let bytes = encode("-99999999999999999999999999999999999.999").expect("fits");
        assert_eq!(
            scaled::<i128>(&bytes, 3),
            Ok(-99_999_999_999_999_999_999_999_999_999_999_999_999)
        );
        assert!(scaled::<i128>(&bytes, 2).is_err());
        assert!(scaled::<i128>(&bytes, 9).is_err());
        assert!(scaled::<i256>(&bytes, 9).is_ok());
        let nan = [0, 0, 0, 0, 0xC0, 0, 0, 0];
        assert!(scaled::<i128>(&nan, 2).is_err());
        assert_eq!(text(&nan), "NaN");
        assert_eq!(text(&[0, 0, 0, 0, 0xF0, 0, 0, 0]), "-Infinity");
    }

    proptest! {
        #[test]
        fn text_and_scaled_value_agree(whole in -10_i128.pow(20)..10_i128.pow(20), scale in 0_u8..15) {
            let divisor = 10_i128.pow(u32::from(scale));
            let sign = if whole < 0 { "-" } else { "" };
            let (high, low) = (whole.abs() / divisor, whole.abs() % divisor);
            let given = match scale {
                0 => format!("{sign}{high}"),
                _ => format!("{sign}{high}.{low:0width$}", width = usize::from(scale)),
            };
            let bytes = encode(&given).expect("fits");
            prop_assert_eq!(text(&bytes), given);
            prop_assert_eq!(scaled::<i128>(&bytes, scale), Ok(whole));
        }
    }
}
