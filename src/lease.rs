//! How long an owner may believe that a job is still its own.
//!
//! The database says who owns a job (its fence); a lease says that the owner is alive. With `lease.url = "local"` one
//! process has the queue to itself (the job store's guard sees to that), so its leases live in the queue's rows:
//! `lease_until`, pushed forward by the watchdog of `run`. This module owns the arithmetic of trust: an owner stops at
//! a local, monotonic deadline, whatever its wall clock or the database say later.

use std::time::{Duration, Instant};

/// `[lease]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseOptions {
    /// Others may take the job over when this has passed without a renewal.
    pub ttl: Duration,
    pub renew_every: Duration,
    /// Trust ends this long before the ttl.
    pub margin: Duration,
}

/// Until when an owner may act. Moves only forward, and only by renewals that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Trust(Instant);

impl Trust {
    /// `sent_at` is the moment *before* the renewal (or claim) was sent: its ttl began at that moment or later.
    pub fn renewed(options: &LeaseOptions, sent_at: Instant) -> Self {
        Self(sent_at + options.ttl.saturating_sub(options.margin))
    }

    pub fn is_over(self, now: Instant) -> bool {
        now >= self.0
    }

    pub fn deadline(self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_a_margin_before_the_ttl_counted_from_the_send() {
        let options = LeaseOptions {
            ttl: Duration::from_secs(30),
            renew_every: Duration::from_secs(10),
            margin: Duration::from_secs(1),
        };
        let sent_at = Instant::now();
        let trust = Trust::renewed(&options, sent_at);
        assert!(!trust.is_over(sent_at + Duration::from_millis(28_999)));
        assert!(trust.is_over(sent_at + Duration::from_secs(29)));
    }
}
