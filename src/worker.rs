//! Takes ready jobs from the queue for as long as this process has places, and runs each.
//!
//! One claimer for each process takes a batch for all free places: claimers that compete for the same tenant's row
//! would only wait for each other. Wake-ups make it fast, the poll makes it safe: with wake-ups lost, jobs still start
//! within `poll_interval`.

mod leader;
mod reaper;
mod retention;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    export::WorkerId,
    queue::{CLAIM_JOBS_MAX, ClaimRequest, ControlStore, Job},
    run::{Runner, StopReason},
};

pub use leader::leader;
pub use reaper::{abandon_all, reaper};
pub use retention::retention;

/// Pause after an error of the job store, so that a broken one is not hammered.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// The claim loop of one process.
pub struct Worker {
    pub id: WorkerId,
    pub runner: Arc<Runner>,
    pub control: Arc<dyn ControlStore>,
    /// Read anew before each claim.
    pub caps: Arc<dyn Fn() -> crate::export::Caps + Send + Sync>,
    pub poll_interval: Duration,
}

impl Worker {
    /// Runs until `shutdown`, then lets what runs finish within `grace` and hands the rest back.
    pub async fn run(self, shutdown: CancellationToken, grace: Duration) {
        let running = TaskTracker::new();
        while !shutdown.is_cancelled() {
            let jobs_max = self.runner.slots.free_for_claims().min(CLAIM_JOBS_MAX);
            if jobs_max == 0 {
                // Work that nobody here has room for wakes nobody here.
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.runner.slots.freed() => {}
                    () = tokio::time::sleep(self.pause()) => {}
                }
                continue;
            }
            // Not cut off by a shutdown: a claim that was committed has to be run or handed back.
            let claimed = self.claim(jobs_max).await;
            let is_idle = claimed.is_empty();
            for (job, sent_at) in claimed {
                self.start(job, sent_at, &running);
            }
            if is_idle {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.runner.slots.freed() => {}
                    () = self.control.wait_for_work(self.pause()) => {}
                }
            }
        }
        running.close();
        self.drain(&running, grace).await;
    }

    async fn claim(&self, jobs_max: u32) -> Vec<(Job, Instant)> {
        let request = ClaimRequest {
            worker: self.id.clone(),
            jobs_max,
            lease_ttl: self.runner.lease.ttl,
            caps: (self.caps)(),
        };
        let sent_at = Instant::now();
        match self.runner.store.claim(&request).await {
            Ok(jobs) => jobs.into_iter().map(|job| (job, sent_at)).collect(),
            Err(error) => {
                tracing::warn!(%error, "no jobs could be claimed");
                tokio::time::sleep(AFTER_ERROR).await;
                Vec::new()
            }
        }
    }

    fn start(&self, job: Job, sent_at: Instant, running: &TaskTracker) {
        let slot = self.runner.slots.take_for_claim();
        let adopted = self.runner.adopt(&job, sent_at);
        let runner = self.runner.clone();
        runner.news.changed(job.id);
        crate::task::spawn(
            "worker.job",
            running.track_future(async move {
                runner.run_export(job, adopted).await;
                drop(slot);
            }),
        );
    }

    async fn drain(&self, running: &TaskTracker, grace: Duration) {
        if tokio::time::timeout(grace, running.wait()).await.is_ok() {
            return;
        }
        tracing::info!(
            jobs = running.len(),
            "the grace time is over; jobs are handed back"
        );
        self.runner.owned.stop_all(StopReason::Shutdown);
        running.wait().await;
    }

    fn pause(&self) -> Duration {
        self.poll_interval
            .mul_f64(rand::rng().random_range(0.75..1.25))
    }
}
