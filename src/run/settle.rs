//! The end of an attempt: what is written to the job store, and what happens to the files.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::{
    export::{Failure, ResultInfo, State},
    queue::{Error, Job, JobKind, Result, Settled, Settlement, Work},
};

use super::{Runner, Stop, StopReason};

/// Pause between two tries to write an end while the job store is away.
const SETTLE_AGAIN: Duration = Duration::from_millis(250);

/// `[queue]` max_attempts and backoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retries {
    pub attempts_max: u32,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl Retries {
    /// Exponential, and half of it random: workers that failed together don't come back together.
    fn delay(&self, attempt: u32, dice: f64) -> Duration {
        let doubled = 2u32.saturating_pow(attempt.saturating_sub(1).min(30));
        let full = self
            .backoff_min
            .saturating_mul(doubled)
            .min(self.backoff_max);
        full.mul_f64(0.5 + dice / 2.0)
    }
}

impl Runner {
    /// Writes the end of an attempt by compare-and-set, and cleans up what must not stay. `None`: the row can't be
    /// read, or is not ours to judge.
    pub async fn settle(
        &self,
        job: &Job,
        stop: &Stop,
        outcome: Result<ResultInfo, Failure>,
        work: Work,
    ) -> Option<Job> {
        let is_kept = outcome.is_ok();
        let settlement = match (stop.reason(), outcome) {
            // Complete before anybody's stop took effect; a committed cancel still wins in the job store.
            (Some(StopReason::Lost), Ok(_)) | (Some(StopReason::Lost), Err(_)) => {
                // The new owner's fence is higher: what lies under ours is nobody's.
                self.discard(job).await;
                return self.store.get(job.id).await.ok().flatten();
            }
            (_, Ok(result)) => Settlement::Succeeded(result),
            (Some(StopReason::Cancelled | StopReason::ClientGone), Err(_)) => Settlement::Cancelled,
            // A live stream is not queued again: the job store ends it as DRAINING.
            (Some(StopReason::Shutdown), Err(_)) => Settlement::HandBack,
            (_, Err(failure)) => self.retry_or_fail(job, failure),
        };
        if !is_kept {
            self.discard(job).await;
        }
        match self.write_end(job, &settlement, work).await {
            Ok(Settled::Done(row)) => {
                if is_kept && row.state != State::Succeeded {
                    self.discard(job).await;
                }
                Some(row)
            }
            Ok(Settled::NotOwner(row)) => self.not_owner(job, row.map(|row| *row)).await,
            Err(error) => {
                // Whether it was written is unknown: delete nothing, the collector will.
                tracing::error!(job.id = %job.id, fence = %job.fence, %error, "the end of the export could not be written");
                None
            }
        }
    }

    fn retry_or_fail(&self, job: &Job, failure: Failure) -> Settlement {
        let is_last = job.attempt >= self.retries.attempts_max;
        if failure.retryable && !is_last && job.kind == JobKind::Export {
            let delay = self
                .retries
                .delay(job.attempt, rand::rng().random_range(0.0..1.0));
            Settlement::Retry { failure, delay }
        } else {
            Settlement::Failed(failure)
        }
    }

    /// Tries until the job store answers, for as long as the job is trusted to be ours.
    async fn write_end(&self, job: &Job, settlement: &Settlement, work: Work) -> Result<Settled> {
        loop {
            let error = match self.store.settle(job.id, job.fence, settlement, work).await {
                Err(error) if error.retryable() => error,
                answer => return answer,
            };
            let is_trusted = self
                .owned
                .trust(job.id, job.fence)
                .is_some_and(|trust| !trust.is_over(Instant::now()));
            if !is_trusted {
                return Err(Error::Unavailable(format!("trust ended first: {error}")));
            }
            tracing::warn!(job.id = %job.id, %error, "the end of the export is written again");
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
    }

    async fn not_owner(&self, job: &Job, row: Option<Job>) -> Option<Job> {
        let is_own_commit = row
            .as_ref()
            .is_some_and(|row| row.fence == job.fence && row.state == State::Succeeded);
        if !is_own_commit {
            self.discard(job).await;
        }
        row
    }

    async fn discard(&self, job: &Job) {
        if let Err(error) = self.results.discard(job.id, job.fence).await {
            tracing::warn!(job.id = %job.id, fence = %job.fence, %error, "left-overs stay for the collector");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_within_its_bounds_and_half_of_it_is_random() {
        let retries = Retries {
            attempts_max: 9,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
        };
        let seconds = |attempt, dice| retries.delay(attempt, dice).as_secs_f64();
        assert_eq!(seconds(1, 1.0), 1.0);
        assert_eq!(seconds(1, 0.0), 0.5);
        assert_eq!(seconds(3, 1.0), 4.0);
        assert_eq!(seconds(60, 1.0), 10.0);
    }
}
