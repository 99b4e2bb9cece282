//! Dates, times of day and instants as text, with the offsets of a time zone.
//!
//! Years 0000 to 9999 have four digits; others a sign, as ISO 8601 extends them: `+10000`, `-0043` (44 BC). The
//! largest and smallest values of a type stand for PostgreSQL's `infinity` and `-infinity`.

use arrow::datatypes::TimeUnit;
use jiff::{Timestamp, tz::TimeZone};

const SECONDS_PER_DAY: i64 = 86_400;
/// Bounds what a zone's cache may hold: 250 years of two changes a year.
const SPANS_MAX: usize = 512;

const INFINITY: &[u8] = b"infinity";
const MINUS_INFINITY: &[u8] = b"-infinity";

/// `2024-02-29`.
#[inline]
pub(super) fn write_date(out: &mut Vec<u8>, days: i32) {
    match days {
        i32::MAX => out.extend_from_slice(INFINITY),
        i32::MIN => out.extend_from_slice(MINUS_INFINITY),
        _ => {
            let mut text = Scratch::new();
            text.date(i64::from(days));
            out.extend_from_slice(text.bytes());
        }
    }
}

/// `23:59:59.5`; `24:00:00` where PostgreSQL has it.
#[inline]
pub(super) fn write_time(out: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    let (seconds, nanos) = split(value, unit);
    if seconds < 0 {
        // No source yields it, but nothing is changed silently: the magnitude with its sign.
        out.push(b'-');
        return write_time(out, value.saturating_neg(), unit);
    }
    let mut text = Scratch::new();
    text.clock(seconds);
    text.fraction(nanos);
    out.extend_from_slice(text.bytes());
}

/// `2024-02-29T23:59:59.5`.
#[inline]
pub(super) fn write_timestamp(out: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    if let Some(word) = infinite(value) {
        return out.extend_from_slice(word);
    }
    let (seconds, nanos) = split(value, unit);
    let mut text = Scratch::new();
    text.date_time(seconds, nanos);
    out.extend_from_slice(text.bytes());
}

/// `2024-02-29T23:59:59.5+08:00`.
#[inline]
pub(super) fn write_zoned(out: &mut Vec<u8>, value: i64, unit: TimeUnit, offsets: &mut Offsets) {
    if let Some(word) = infinite(value) {
        return out.extend_from_slice(word);
    }
    let (seconds, nanos) = split(value, unit);
    let offset_minutes = offsets.minutes_at(seconds);
    let mut text = Scratch::new();
    text.date_time(
        seconds.saturating_add(i64::from(offset_minutes) * 60),
        nanos,
    );
    text.offset(offset_minutes);
    out.extend_from_slice(text.bytes());
}

#[inline]
fn infinite(value: i64) -> Option<&'static [u8]> {
    match value {
        i64::MAX => Some(INFINITY),
        i64::MIN => Some(MINUS_INFINITY),
        _ => None,
    }
}

/// Whole seconds, rounded down, and the nanoseconds after them.
#[inline]
fn split(value: i64, unit: TimeUnit) -> (i64, u32) {
    let (per_second, nanos_each) = match unit {
        TimeUnit::Second => return (value, 0),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    let part = value.rem_euclid(per_second) as u32;
    (value.div_euclid(per_second), part * nanos_each)
}

/// Year, month, day of a count of days since 1970-01-01, in the proleptic Gregorian calendar (Howard Hinnant,
/// "chrono-compatible low-level date algorithms").
#[inline]
fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097) as u32;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = i64::from(year_of_era) + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Longest: `-292277026596-12-04T15:30:08.123456789+15:59`.
struct Scratch {
    bytes: [u8; 64],
    len: usize,
}

impl Scratch {
    #[inline]
    fn new() -> Self {
        Self {
            bytes: [0; 64],
            len: 0,
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn two(&mut self, number: u32) {
        self.push(b'0' + (number / 10) as u8);
        self.push(b'0' + (number % 10) as u8);
    }

    #[inline]
    fn date(&mut self, days: i64) {
        let (year, month, day) = civil(days);
        if (0..=9999).contains(&year) {
            self.two(year as u32 / 100);
            self.two(year as u32 % 100);
        } else {
            self.long_year(year);
        }
        self.push(b'-');
        self.two(month);
        self.push(b'-');
        self.two(day);
    }

    #[cold]
    fn long_year(&mut self, year: i64) {
        self.push(if year < 0 { b'-' } else { b'+' });
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(year.unsigned_abs()).as_bytes();
        for _ in digits.len()..4 {
            self.push(b'0');
        }
        for &digit in digits {
            self.push(digit);
        }
    }

    #[inline]
    fn date_time(&mut self, seconds: i64, nanos: u32) {
        self.date(seconds.div_euclid(SECONDS_PER_DAY));
        self.push(b'T');
        self.clock(seconds.rem_euclid(SECONDS_PER_DAY));
        self.fraction(nanos);
    }

    #[inline]
    fn clock(&mut self, seconds: i64) {
        let hours = seconds / 3_600;
        if hours < 100 {
            self.two(hours as u32);
        } else {
            let mut buffer = itoa::Buffer::new();
            for &digit in buffer.format(hours).as_bytes() {
                self.push(digit);
            }
        }
        self.push(b':');
        self.two((seconds / 60 % 60) as u32);
        self.push(b':');
        self.two((seconds % 60) as u32);
    }

    /// Nothing for zero; else as many digits as it takes.
    #[inline]
    fn fraction(&mut self, nanos: u32) {
        if nanos == 0 {
            return;
        }
        self.push(b'.');
        let micros = nanos / 1_000;
        self.two(micros / 10_000);
        self.two(micros / 100 % 100);
        self.two(micros % 100);
        if !nanos.is_multiple_of(1_000) {
            self.push(b'0' + (nanos / 100 % 10) as u8);
            self.two(nanos % 100);
        }
        while self.bytes[self.len - 1] == b'0' {
            self.len -= 1;
        }
    }

    #[inline]
    fn offset(&mut self, minutes: i32) {
        self.push(if minutes < 0 { b'-' } else { b'+' });
        let minutes = minutes.unsigned_abs();
        self.two(minutes / 60);
        self.push(b':');
        self.two(minutes % 60);
    }
}

/// The offsets of one time zone. Looking one up in jiff costs more than writing the rest of the cell, and rows of an
/// export stay within a few years, so the spans between changes are kept once they were met.
#[derive(Clone, Debug)]
pub(in crate::format) struct Offsets {
    zone: TimeZone,
    /// Ordered, not overlapping.
    spans: Vec<Span>,
    last: Span,
}

/// One offset holds from `start` (inclusive) to `end` (exclusive), in Unix seconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: i64,
    end: i64,
    offset_minutes: i32,
}

impl Offsets {
    pub(in crate::format) fn new(zone: TimeZone) -> Self {
        let last = match zone.to_fixed_offset() {
            Ok(offset) => Span {
                start: i64::MIN,
                end: i64::MAX,
                offset_minutes: whole_minutes(offset.seconds()),
            },
            Err(_) => Span {
                start: 0,
                end: 0,
                offset_minutes: 0,
            },
        };
        Self {
            zone,
            spans: Vec::new(),
            last,
        }
    }

    #[inline]
    pub(in crate::format) fn minutes_at(&mut self, seconds: i64) -> i32 {
        if seconds < self.last.start || seconds >= self.last.end {
            self.last = self.find(seconds);
        }
        self.last.offset_minutes
    }

    fn find(&mut self, seconds: i64) -> Span {
        let at = self.spans.partition_point(|span| span.end <= seconds);
        if let Some(span) = self.spans.get(at).filter(|span| span.start <= seconds) {
            return *span;
        }
        let span = self.look_up(seconds);
        if self.spans.len() < SPANS_MAX {
            self.spans.insert(at, span);
        }
        span
    }

    /// Beyond the years that jiff knows (-9999 to 9999), its first or last offset holds.
    fn look_up(&self, seconds: i64) -> Span {
        let instant = |seconds: i64| {
            let known = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
            Timestamp::from_second(known).expect("clamped to the range of Timestamp")
        };
        let here = instant(seconds);
        // `preceding` is exclusive, and offsets change on whole seconds.
        let start = self
            .zone
            .preceding(instant(seconds.saturating_add(1)))
            .next()
            .map_or(i64::MIN, |change| change.timestamp().as_second());
        let end = self
            .zone
            .following(here)
            .next()
            .map_or(i64::MAX, |change| change.timestamp().as_second());
        Span {
            start: start.min(seconds),
            end: end.max(seconds.saturating_add(1)),
            offset_minutes: whole_minutes(self.zone.to_offset(here).seconds()),
        }
    }
}

/// RFC 3339 knows no seconds in offsets (local mean times before about 1900 have them): the offset is cut to minutes
/// and the local time follows it, so that the instant stays exact.
fn whole_minutes(offset_seconds: i32) -> i32 {
    offset_seconds / 60
}
