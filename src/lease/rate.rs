//! How fast a source may be read, by the whole cluster together.
//!
//! A bucket of debt for each source: whoever took rows owes the time that they are worth, and waits until the debt,
//! with that of everybody before, is paid. So over any time no more rows pass than the rate allows, and one batch for
//! each reader. Owns the buckets; refuses to know who reads, and to wait.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::Result;

/// No single wait is longer: more is a mistake in the configuration.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(86_400);
/// While the store is away it is asked this often only: each question may take a whole time-out.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// Where the debts are kept.
#[async_trait]
pub trait RateStore: Send + Sync + 'static {
    /// How long to wait after taking so many rows of the source. A repeated call after a lost reply counts twice: that
    /// is slower, never faster.
    async fn take_rows(
        &self,
        source: &str,
        rows: u64,
        rows_per_second: NonZero<u64>,
    ) -> Result<Duration>;
}

/// The limits of all sources. While the store is away each process keeps to the rate by itself.
pub struct RateLimit {
    store: Arc<dyn RateStore>,
    own: Buckets,
    away_until: Mutex<Option<Instant>>,
}

impl RateLimit {
    pub fn new(store: Arc<dyn RateStore>) -> Self {
        Self {
            store,
            own: Buckets::default(),
            away_until: Mutex::default(),
        }
    }

    /// How long to wait before the rows are passed on. `rows_per_second` 0: no limit.
    pub async fn take(&self, source: &str, rows: u64, rows_per_second: u64) -> Duration {
        let Some(rate) = NonZero::new(rows_per_second) else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        if self.away_until().is_none_or(|until| until <= now) {
            match self.store.take_rows(source, rows, rate).await {
                Ok(wait) => return wait,
                Err(error) => {
                    tracing::debug!(source, %error, "the rate is kept by this process alone");
                    self.set_away_until(Instant::now() + AWAY_FOR);
                }
            }
        }
        self.own.take(source, rows, rate, now)
    }

    fn away_until(&self) -> Option<Instant> {
        *self
            .away_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn set_away_until(&self, until: Instant) {
        *self
            .away_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// Debts in this process, by source: as many as the configuration names.
#[derive(Default)]
pub(super) struct Buckets {
    buckets: Mutex<HashMap<String, Bucket>>,
}

struct Bucket {
    debt_rows: f64,
    at: Instant,
}

impl Buckets {
    pub fn take(&self, source: &str, rows: u64, rate: NonZero<u64>, now: Instant) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(source.to_owned()).or_insert(Bucket {
            debt_rows: 0.0,
            at: now,
        });
        let rate = rate.get() as f64;
        let paid = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        bucket.debt_rows = (bucket.debt_rows - paid).max(0.0) + rows as f64;
        bucket.at = bucket.at.max(now);
        Duration::try_from_secs_f64(bucket.debt_rows / rate)
            .unwrap_or(WAIT_MAX)
            .min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Error;

    const RATE: NonZero<u64> = NonZero::new(1000).unwrap();

    #[test]
    fn each_waits_for_those_before() {
        let buckets = Buckets::default();
        let now = Instant::now();
        let take = |rows, after_ms| {
            let at = now + Duration::from_millis(after_ms);
            buckets.take("shop", rows, RATE, at).as_millis()
        };
        assert_eq!(take(500, 0), 500);
        assert_eq!(take(500, 0), 1000);
        assert_eq!(take(0, 400), 600);
        assert_eq!(take(100, 400), 700);
        // Time without readers is not saved up.
        assert_eq!(take(500, 60_000), 500);
        assert_eq!(buckets.take("other", 1, RATE, now).as_millis(), 1);
    }

    struct Away;

    #[async_trait]
    impl RateStore for Away {
        async fn take_rows(&self, _: &str, _: u64, _: NonZero<u64>) -> Result<Duration> {
            Err(Error::Unavailable("for a test".to_owned()))
        }
    }

    #[tokio::test]
    async fn a_rate_holds_in_the_process_while_the_store_is_away() {
        let limit = RateLimit::new(Arc::new(Away));
        let first = limit.take("shop", 5000, 1000).await;
        assert_eq!(first, Duration::from_secs(5));
        assert!(limit.take("shop", 5000, 1000).await > Duration::from_secs(5));
        assert_eq!(limit.take("shop", 5000, 0).await, Duration::ZERO);
    }
}
