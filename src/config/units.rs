//! Durations and sizes as people write them.

use std::time::Duration;

/// `"30s"`, `"1m 30s"`, `"7d"`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration: write \"30s\", \"10m\" or \"7d\""))
}

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// `"256MiB"`, `"1 GB"`, `"4096"`; in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is not a size: write \"256MiB\", \"1GiB\" or a number of bytes");
    let trimmed = text.trim();
    let (digits, unit_bytes) = UNITS
        .iter()
        .find_map(|(unit, bytes)| Some((trimmed.strip_suffix(unit)?, *bytes)))
        .unwrap_or((trimmed, 1));
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(unit_bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("1 GB"), Ok(1_000_000_000));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("17B"), Ok(17));
        for wrong in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "99999999999999999999",
            "18446744073709551615KiB",
            "1mib",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("30").unwrap_err().contains("\"30s\""));
    }
}
