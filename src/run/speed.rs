//! How fast each source was lately: a moving average that admission compares estimates with.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::pipeline::Completed;

/// Shorter reads measure the connection, not the source.
const SECONDS_MIN: f64 = 0.05;
const ROWS_MIN: u64 = 1_000;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.3;

#[derive(Debug, Default)]
pub struct Speeds {
    rows_per_second: Mutex<HashMap<String, f64>>,
}

impl Speeds {
    pub fn measured(&self, source: &str, completed: &Completed) {
        let seconds = completed
            .read_ended_at
            .duration_since(completed.read_started_at)
            .as_secs_f64();
        if completed.rows_read >= ROWS_MIN && seconds >= SECONDS_MIN {
            self.add(source, completed.rows_read as f64 / seconds);
        }
    }

    /// The average, or what the configuration expects while nothing was measured.
    pub fn of(&self, source: &str, expected_rows_per_second: u64) -> f64 {
        self.lock()
            .get(source)
            .copied()
            .unwrap_or(expected_rows_per_second as f64)
    }

    fn add(&self, source: &str, rows_per_second: f64) {
        self.lock()
            .entry(source.to_owned())
            .and_modify(|average| *average += NEWEST * (rows_per_second - *average))
            .or_insert(rows_per_second);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, f64>> {
        self.rows_per_second
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_as_configured_and_follows_measurements() {
        let speeds = Speeds::default();
        assert_eq!(speeds.of("shop", 50_000), 50_000.0);
        speeds.add("shop", 100_000.0);
        assert_eq!(speeds.of("shop", 50_000), 100_000.0);
        speeds.add("shop", 200_000.0);
        assert_eq!(speeds.of("shop", 50_000), 130_000.0);
        assert_eq!(speeds.of("other", 7), 7.0);
    }
}
