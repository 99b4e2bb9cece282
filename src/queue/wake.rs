//! Wakes idle claimers of this process. Remembers announcements that nobody was waiting for, so that a job inserted
//! between an empty claim and the wait is not slept over.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::watch;

#[derive(Debug)]
pub(super) struct Wake {
    /// Counts announcements.
    announced: watch::Sender<u64>,
    /// The count when the last claim began: what came later has not been looked at.
    looked_at: AtomicU64,
}

impl Wake {
    pub fn new() -> Self {
        Self {
            announced: watch::Sender::new(0),
            looked_at: AtomicU64::new(0),
        }
    }

    pub fn announce(&self) {
        self.announced.send_modify(|count| *count += 1);
    }

    /// A claim begins: it will see whatever was announced before.
    pub fn looking(&self) {
        self.looked_at
            .fetch_max(*self.announced.borrow(), Ordering::AcqRel);
    }

    /// Returns when something was announced that no claim has looked at, or after `timeout`.
    pub async fn wait(&self, timeout: Duration) {
        let mut announced = self.announced.subscribe();
        let news = announced.wait_for(|count| *count > self.looked_at.load(Ordering::Acquire));
        // The sender lives in self: only the time-out ends this early.
        let _ = tokio::time::timeout(timeout, news).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn an_announcement_before_the_wait_is_not_lost() {
        let wake = Wake::new();
        wake.looking();
        wake.announce();
        tokio::time::timeout(Duration::from_secs(10), wake.wait(LONG))
            .await
            .expect("it returns at once");
    }

    #[tokio::test]
    async fn what_a_claim_has_looked_at_wakes_nobody() {
        let short = Duration::from_millis(20);
        let wake = Wake::new();
        wake.announce();
        wake.looking();
        let began = std::time::Instant::now();
        wake.wait(short).await;
        assert!(began.elapsed() >= short);
    }
}
