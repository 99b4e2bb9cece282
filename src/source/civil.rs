//! Calendar days as Arrow counts them, and the ISO texts that databases without date types keep.
//!
//! Strict: a text is a date or a time only where nothing would be lost by treating it as one. Knows no database.

const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days since 1970-01-01 in the proleptic Gregorian calendar; `None` for a day that doesn't exist.
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub fn days(year: i32, month: u32, day: u32) -> Option<i32> {
    if !(1..=12).contains(&month) || day == 0 || day > month_days(year, month) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_from_march = (month as i32 + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn month_days(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Microseconds since midnight; `None` for a time that no clock shows.
pub fn micros(hour: u32, minute: u32, second: u32, micro: u32) -> Option<i64> {
    if hour > 23 || minute > 59 || second > 59 || micro > 999_999 {
        return None;
    }
    Some(i64::from(hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND + i64::from(micro))
}

/// `YYYY-MM-DD`.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *text else {
        return None;
    };
    let year = digits(&[y0, y1, y2, y3])?;
    days(year as i32, digits(&[m0, m1])?, digits(&[d0, d1])?)
}

/// `HH:MM[:SS[.f]]` with at most six digits of a fraction.
pub fn parse_time(text: &[u8]) -> Option<i64> {
    let (hour, rest) = (text.get(..2)?, &text[2..]);
    let [b':', m0, m1, rest @ ..] = rest else {
        return None;
    };
    let (hour, minute) = (digits(hour)?, digits(&[*m0, *m1])?);
    match rest {
        [] => micros(hour, minute, 0, 0),
        [b':', s0, s1, fraction @ ..] => micros(
            hour,
            minute,
            digits(&[*s0, *s1])?,
            match fraction {
                [] => 0,
                [b'.', digits @ ..] => parse_fraction(digits)?,
                _ => return None,
            },
        ),
        _ => None,
    }
}

/// `YYYY-MM-DD HH:MM[:SS[.f]]` (or `T`), without a zone: microseconds since 1970 on the wall clock.
pub fn parse_timestamp(text: &[u8]) -> Option<i64> {
    let date = parse_date(text.get(..10)?)?;
    let (b' ' | b'T') = text.get(10)? else {
        return None;
    };
    Some(i64::from(date) * MICROS_PER_DAY + parse_time(&text[11..])?)
}

/// The same with `Z`, `+HH:MM`, `-HH:MM`, `+HHMM` or `+HH` behind it: microseconds since 1970 in UTC.
pub fn parse_timestamptz(text: &[u8]) -> Option<i64> {
    if let [local @ .., b'Z' | b'z'] = text {
        return parse_timestamp(local);
    }
    // A sign behind the date belongs to the zone.
    let at = 11
        + text
            .get(11..)?
            .iter()
            .position(|byte| matches!(byte, b'+' | b'-'))?;
    let (local, zone) = text.split_at(at);
    let (hours, minutes) = match zone[1..] {
        [h0, h1] => (digits(&[h0, h1])?, 0),
        [h0, h1, m0, m1] | [h0, h1, b':', m0, m1] => (digits(&[h0, h1])?, digits(&[m0, m1])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = i64::from(hours * 3600 + minutes * 60) * MICROS_PER_SECOND;
    let local = parse_timestamp(local)?;
    Some(if zone[0] == b'+' {
        local - offset
    } else {
        local + offset
    })
}

fn parse_fraction(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 6 {
        return None;
    }
    Some(digits(text)? * 10_u32.pow(6 - text.len() as u32))
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_jiff_over_ten_thousand_years() {
        let epoch = jiff::civil::date(1970, 1, 1);
        let mut day = jiff::civil::date(1, 1, 1);
        while day < jiff::civil::date(9999, 12, 1) {
            let expected = epoch
                .until((jiff::Unit::Day, day))
                .expect("within range")
                .get_days();
            let (year, month) = (i32::from(day.year()), day.month() as u32);
            assert_eq!(days(year, month, day.day() as u32), Some(expected), "{day}");
            day = day.saturating_add(jiff::Span::new().days(13));
        }
    }

    #[test]
    fn days_that_do_not_exist_are_none() {
        for text in [
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-04-31",
            "2024-1-1",
            "0000-00-00",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_date(b"2000-02-29"), Some(11_016));
        assert_eq!(parse_date(b"1969-12-31"), Some(-1));
    }

    #[test]
    fn times_and_zones() {
        assert_eq!(parse_time(b"23:59:59.999999"), Some(MICROS_PER_DAY - 1));
        assert_eq!(parse_time(b"00:01"), Some(60_000_000));
        assert_eq!(parse_time(b"00:00:00.5"), Some(500_000));
        for text in [
            "24:00:00",
            "1:00",
            "00:00:00.1234567",
            "00:00:60",
            "00:00:00.",
            "",
            "12",
        ] {
            assert_eq!(parse_time(text.as_bytes()), None, "{text}");
        }
        assert_eq!(
            parse_timestamp(b"1970-01-02T00:00:01"),
            Some(86_401_000_000)
        );
        assert_eq!(parse_timestamp(b"1970-01-02 00:00:01Z"), None);
        assert_eq!(parse_timestamp(b"1970-01-02"), None);
        assert_eq!(parse_timestamptz(b"1970-01-01 01:00:00+01:00"), Some(0));
        assert_eq!(parse_timestamptz(b"1969-12-31T23:30:00-0030"), Some(0));
        assert_eq!(parse_timestamptz(b"1970-01-01T00:00:00.000001Z"), Some(1));
        assert_eq!(parse_timestamptz(b"1970-01-01T00:00:00"), None);
    }
}
