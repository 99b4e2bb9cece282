//! Collects what is wrong with a request.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use jiff::Timestamp;

use crate::{
    export::{Failure, Violation},
    rpc::status::VIOLATIONS_MAX,
};

/// 0001-01-01T00:00:00Z, before which google.protobuf.Timestamp has no moments; jiff has.
const YEAR_1: i64 = -62_135_596_800;

/// The violations found so far; those past [`VIOLATIONS_MAX`] are dropped.
#[derive(Debug, Default)]
pub struct Check {
    violations: Vec<Violation>,
}

impl Check {
    pub fn refuse(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation {
                field: field.into(),
                description: description.into(),
            });
        }
    }

    /// Takes over what another check found.
    ///
    /// # Errors
    /// The failure itself when it is not about fields.
    pub fn adopt(&mut self, failure: Failure) -> Result<(), Failure> {
        if failure.violations.is_empty() {
            return Err(failure);
        }
        for violation in failure.violations {
            self.refuse(violation.field, violation.description);
        }
        Ok(())
    }

    /// `value` when nothing was refused.
    pub fn finish<T>(self, value: T) -> Result<T, Failure> {
        if self.violations.is_empty() {
            Ok(value)
        } else {
            Err(Failure::invalid_fields(self.violations))
        }
    }

    /// Text that must not be empty.
    pub fn required(&mut self, field: &str, text: String, bytes_max: usize, right: &str) -> String {
        if text.trim().is_empty() {
            self.refuse(field, format!("is missing; {right}"));
        }
        self.text(field, text, bytes_max)
    }

    /// Text that is `None` when empty.
    pub fn optional(&mut self, field: &str, text: String, bytes_max: usize) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        if text.trim().is_empty() {
            self.refuse(field, "is blank; leave it unset or say something");
        }
        Some(self.text(field, text, bytes_max))
    }

    /// No database takes NUL, and unbounded text has no use.
    pub fn text(&mut self, field: &str, text: String, bytes_max: usize) -> String {
        if text.len() > bytes_max {
            self.refuse(
                field,
                format!("has {} bytes; at most {bytes_max} are accepted", text.len()),
            );
        } else if text.contains('\0') {
            self.refuse(field, "contains a NUL character");
        }
        text
    }

    pub fn count(&mut self, field: &str, count: usize, count_max: usize) {
        if count > count_max {
            self.refuse(
                field,
                format!("has {count} entries; at most {count_max} are accepted"),
            );
        }
    }

    /// A number that is not negative; 0 means none.
    pub fn not_negative(&mut self, field: &str, number: i64, right: &str) -> Option<u64> {
        if number < 0 {
            self.refuse(field, format!("is {number}; {right}"));
        }
        u64::try_from(number).ok().filter(|number| *number > 0)
    }

    pub fn in_range<N: PartialOrd + Display + Copy>(
        &mut self,
        field: &str,
        number: N,
        range: RangeInclusive<N>,
    ) -> bool {
        let inside = range.contains(&number);
        if !inside {
            let (first, last) = range.into_inner();
            self.refuse(
                field,
                format!("is {number}; it must be from {first} to {last}"),
            );
        }
        inside
    }

    pub fn duration(
        &mut self,
        field: &str,
        duration: Option<prost_types::Duration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = duration?;
        let parts = (
            u64::try_from(duration.seconds),
            u32::try_from(duration.nanos),
        );
        let value = match parts {
            (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Duration::new(seconds, nanos),
            _ => {
                self.refuse(field, "is negative or malformed; send a positive duration");
                return None;
            }
        };
        if !range.contains(&value) {
            let (first, last) = range.into_inner();
            self.refuse(
                field,
                format!(
                    "is {}; it must be from {} to {}",
                    humantime::format_duration(value),
                    humantime::format_duration(first),
                    humantime::format_duration(last)
                ),
            );
            return None;
        }
        Some(value)
    }

    pub fn timestamp(
        &mut self,
        field: &str,
        timestamp: Option<prost_types::Timestamp>,
    ) -> Option<Timestamp> {
        let timestamp = timestamp?;
        // Protobuf counts nanoseconds forward, also before 1970.
        let valid = (0..1_000_000_000).contains(&timestamp.nanos) && timestamp.seconds >= YEAR_1;
        let moment = valid
            .then(|| i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos))
            .and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok());
        if moment.is_none() {
            self.refuse(
                field,
                "is no moment between the years 1 and 9999, as google.protobuf.Timestamp has it",
            );
        }
        moment
    }

    /// The enum value of that number; `None` when unspecified.
    pub fn choice<E: TryFrom<i32>>(&mut self, field: &str, number: i32, right: &str) -> Option<E> {
        if number == 0 {
            return None;
        }
        let value = E::try_from(number).ok();
        if value.is_none() {
            self.refuse(field, format!("{number} is not known here; send {right}"));
        }
        value
    }
}
