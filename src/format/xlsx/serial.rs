//! Dates and times as Excel counts them: days since 1899-12-31 with a 29 February 1900 that never was, time as the
//! fraction of a day, all in one double.

/// 1900-01-01 in days since 1970-01-01.
const FIRST_DAY: i64 = -25_567;
/// 9999-12-31.
const LAST_DAY: i64 = 2_932_896;
const LAST_SERIAL: f64 = (LAST_DAY + EPOCH_SERIAL) as f64;
/// 1970-01-01, counted as every day after the false one is.
const EPOCH_SERIAL: i64 = 25_569;
/// 1900-03-01, the first day that is counted one too high. Programs that don't share Excel's calendar (LibreOffice)
/// show the 59 days before it one day early.
const FIRST_SERIAL_AFTER_LEAP_BUG: i64 = 61;

const DAY_SECONDS: i64 = 86_400;
const DAY_MICROS: i64 = DAY_SECONDS * 1_000_000;

/// A point on Excel's time line.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Serial {
    pub(super) number: f64,
    pub(super) kept: Kept,
}

/// Whether the double still names the microsecond (or whole millisecond) that it was made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    Exactly,
    /// From 2079-06-05 on the double's steps are wider than a microsecond; nanoseconds never fit.
    Nearly,
}

/// `None` outside 1900-01-01 to 9999-12-31.
pub(super) fn date(days: i64) -> Option<f64> {
    if !(FIRST_DAY..=LAST_DAY).contains(&days) {
        return None;
    }
    let serial = days + EPOCH_SERIAL;
    let serial = if serial < FIRST_SERIAL_AFTER_LEAP_BUG {
        serial - 1
    } else {
        serial
    };
    Some(serial as f64)
}

/// A wall clock's reading: seconds since 1970-01-01T00:00:00 on that clock, and the nanoseconds in the second.
pub(super) fn date_time(seconds: i64, nanos: u32) -> Option<Serial> {
    let day = date(seconds.div_euclid(DAY_SECONDS))?;
    let micros = seconds.rem_euclid(DAY_SECONDS) * 1_000_000 + i64::from(nanos / 1_000);
    // The calendar's last millisecond stays in it: its microseconds would be rounded to midnight, by the double or by a
    // reader, which Excel has no day for.
    let cut = if day == LAST_SERIAL {
        micros.min(DAY_MICROS - 1_000)
    } else {
        micros
    };
    let number = day + cut as f64 / DAY_MICROS as f64;
    // whole milliseconds need no check: even in 9999 the steps are 40 microseconds, and readers round
    let kept = if nanos.is_multiple_of(1_000_000)
        || nanos.is_multiple_of(1_000) && micros_of(number) == micros
    {
        Kept::Exactly
    } else {
        Kept::Nearly
    };
    Some(Serial { number, kept })
}

/// A time of day; `None` from 24:00 on, which a cell would show as midnight.
pub(super) fn time(seconds: i64, nanos: u32) -> Option<Serial> {
    if !(0..DAY_SECONDS).contains(&seconds) {
        return None;
    }
    let micros = seconds * 1_000_000 + i64::from(nanos / 1_000);
    let kept = if nanos.is_multiple_of(1_000) {
        Kept::Exactly
    } else {
        Kept::Nearly
    };
    Some(Serial {
        number: micros as f64 / DAY_MICROS as f64,
        kept,
    })
}

/// What a reader makes of the fraction. Taking the whole days off first loses nothing.
fn micros_of(serial: f64) -> i64 {
    (serial.fract() * DAY_MICROS as f64).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_at_the_edges() {
        assert_eq!(date(FIRST_DAY - 1), None);
        assert_eq!(date(FIRST_DAY), Some(1.0));
        // 1900-02-28 and 1900-03-01; 60 is the day that never was
        assert_eq!(date(FIRST_DAY + 58), Some(59.0));
        assert_eq!(date(FIRST_DAY + 59), Some(61.0));
        assert_eq!(date(0), Some(25_569.0));
        assert_eq!(date(LAST_DAY), Some(2_958_465.0));
        assert_eq!(date(LAST_DAY + 1), None);
    }

    #[test]
    fn microseconds_survive_until_2079() {
        // 2024-02-29T23:59:59.999999
        let serial = date_time(1_709_251_199, 999_999_000).unwrap();
        assert_eq!(serial.kept, Kept::Exactly);
        assert_eq!(micros_of(serial.number), DAY_MICROS - 1);
        let every_7_s: Vec<_> = (0..200_000)
            .map(|i| {
                date_time(
                    1_577_836_800 + i * 777,
                    (i as u32 * 7_919 % 1_000_000) * 1_000,
                )
            })
            .collect();
        assert!(every_7_s.iter().all(|s| s.unwrap().kept == Kept::Exactly));
    }

    #[test]
    fn what_a_double_cannot_hold_is_said() {
        assert_eq!(date_time(0, 1).unwrap().kept, Kept::Nearly);
        assert_eq!(time(0, 1_001).unwrap().kept, Kept::Nearly);
        // the year 9000: steps of 20 microseconds
        let seconds = 221_845_392_000;
        assert_eq!(date_time(seconds, 0).unwrap().kept, Kept::Exactly);
        assert!((1..200).any(|i| date_time(seconds, i * 1_000).unwrap().kept == Kept::Nearly));
    }

    #[test]
    fn the_last_microsecond_stays_in_the_calendar() {
        let last = (LAST_DAY + 1) * DAY_SECONDS - 1;
        let serial = date_time(last, 999_999_000).unwrap();
        assert_eq!(serial.kept, Kept::Nearly);
        // What readers that round to milliseconds make of it.
        let millis = (serial.number.fract() * DAY_SECONDS as f64 * 1_000.0).round();
        assert_eq!((serial.number.floor(), millis), (LAST_SERIAL, 86_399_999.0));
        assert_eq!(date_time(last, 999_000_000).unwrap().kept, Kept::Exactly);
    }

    #[test]
    fn times_of_day() {
        assert_eq!(time(0, 0).unwrap().number, 0.0);
        assert_eq!(time(DAY_SECONDS / 2, 0).unwrap().number, 0.5);
        assert_eq!(time(DAY_SECONDS, 0), None);
        assert_eq!(time(-1, 0), None);
    }

    #[test]
    fn times_that_no_calendar_knows() {
        assert_eq!(date_time(i64::MAX, 0), None);
        assert_eq!(date_time(i64::MIN, 0), None);
    }
}
