//! The jobs that this process owns now, and the watchdog that keeps them its own.
//!
//! Every `poll_interval` the watchdog extends the leases of all of them in one statement and reads their states back:
//! a cancel committed elsewhere stops the job, and so does a fence that was passed on. While the job store does not
//! answer, a job runs on until its trust ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

use crate::{
    export::{ExportId, Fence, Progress},
    lease::{LeaseOptions, Trust},
    pipeline::Meter,
    queue::{JobStore, Ownership},
};

/// Why a running job is told to stop. The first reason stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// A cancel was committed.
    Cancelled,
    /// Somebody else may own the job now: nothing may be written any more, not even its end.
    Lost,
    /// The process shuts down: hand the job back.
    Shutdown,
    /// The client of a live stream went away.
    ClientGone,
    /// The deadline of a live stream's call.
    Deadline,
}

/// A cancel token with its reason.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl Stop {
    pub fn now(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

#[derive(Debug, Default)]
pub struct Owned {
    jobs: Mutex<HashMap<ExportId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    fence: Fence,
    stop: Stop,
    meter: Arc<Meter>,
    trust: Trust,
}

/// Registered for as long as it lives.
#[derive(Debug)]
pub struct Registration {
    id: ExportId,
    fence: Fence,
    owned: Arc<Owned>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut jobs = self.owned.lock();
        if jobs
            .get(&self.id)
            .is_some_and(|entry| entry.fence == self.fence)
        {
            jobs.remove(&self.id);
        }
    }
}

impl Owned {
    pub fn register(
        self: &Arc<Self>,
        id: ExportId,
        fence: Fence,
        meter: Arc<Meter>,
        trust: Trust,
    ) -> (Registration, Stop) {
        let stop = Stop::default();
        let former = self.lock().insert(
            id,
            Entry {
                fence,
                stop: stop.clone(),
                meter,
                trust,
            },
        );
        if let Some(former) = former {
            // This process lost the job and was given it again: the run under the old fence is over.
            former.stop.now(StopReason::Lost);
        }
        let registration = Registration {
            id,
            fence,
            owned: self.clone(),
        };
        (registration, stop)
    }

    pub fn progress(&self, id: ExportId) -> Option<Progress> {
        self.lock().get(&id).map(|entry| entry.meter.progress())
    }

    pub fn stop(&self, id: ExportId, reason: StopReason) {
        if let Some(entry) = self.lock().get(&id) {
            entry.stop.now(reason);
        }
    }

    pub fn stop_all(&self, reason: StopReason) {
        for entry in self.lock().values() {
            entry.stop.now(reason);
        }
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Until when the caller may still write the end of this job.
    pub fn trust(&self, id: ExportId, fence: Fence) -> Option<Trust> {
        self.lock()
            .get(&id)
            .filter(|entry| entry.fence == fence)
            .map(|entry| entry.trust)
    }

    fn list(&self) -> Vec<(ExportId, Fence)> {
        self.lock()
            .iter()
            .map(|(id, entry)| (*id, entry.fence))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExportId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, id: ExportId, fence: Fence, ownership: Ownership, trust: Trust) {
        let mut jobs = self.lock();
        let Some(entry) = jobs.get_mut(&id).filter(|entry| entry.fence == fence) else {
            return;
        };
        match ownership {
            Ownership::Running => entry.trust = trust,
            Ownership::Cancelling => {
                entry.trust = trust;
                entry.stop.now(StopReason::Cancelled);
            }
            Ownership::Lost => {
                tracing::warn!(job.id = %id, fence = %fence, "the job is no longer ours; it stops");
                entry.stop.now(StopReason::Lost);
            }
        }
    }

    /// Of the jobs that nothing has stopped yet.
    fn earliest_trust(&self) -> Option<Trust> {
        self.lock()
            .values()
            .filter(|entry| entry.stop.reason().is_none())
            .map(|entry| entry.trust)
            .min()
    }

    fn stop_untrusted(&self, now: Instant) {
        for (id, entry) in self.lock().iter() {
            if entry.trust.is_over(now) && entry.stop.reason().is_none() {
                tracing::warn!(job.id = %id, fence = %entry.fence, "no renewal in time; the job stops");
                entry.stop.now(StopReason::Lost);
            }
        }
    }
}

/// Runs until `shutdown`; renews at `renew_every` or `poll_interval`, whichever is shorter, +- 10 %.
pub async fn watchdog(
    owned: Arc<Owned>,
    store: Arc<dyn JobStore>,
    lease: LeaseOptions,
    poll_interval: Duration,
    shutdown: CancellationToken,
) {
    let every = lease.renew_every.min(poll_interval);
    loop {
        let pause = every.mul_f64(rand::rng().random_range(0.9..1.1));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        renew_once(&owned, store.as_ref(), &lease).await;
    }
}

/// Stops each job whose trust is over, at that moment: beside the watchdog, so that a job store that hangs can't delay
/// it. Runs until `shutdown`.
pub async fn trust_keeper(owned: Arc<Owned>, lease: LeaseOptions, shutdown: CancellationToken) {
    /// A trust that begins while this sleeps lasts longer than this.
    const LOOK_AGAIN: Duration = Duration::from_millis(500);
    let look_again = LOOK_AGAIN.min(lease.ttl.saturating_sub(lease.margin) / 2);
    loop {
        let now = Instant::now();
        owned.stop_untrusted(now);
        let until_next = owned.earliest_trust().map_or(look_again, |trust| {
            trust.deadline().saturating_duration_since(now)
        });
        let pause = until_next.min(look_again).max(Duration::from_millis(5));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Extends the leases of all owned jobs, and stops those that are not ours any more. `false`: the store did not answer.
pub async fn renew_once(owned: &Owned, store: &dyn JobStore, lease: &LeaseOptions) -> bool {
    let jobs = owned.list();
    if jobs.is_empty() {
        return true;
    }
    // A call that hangs must leave time for another within the trust of the last.
    let patience = (lease.ttl / 10).max(Duration::from_millis(100));
    let sent_at = Instant::now();
    match tokio::time::timeout(patience, store.renew(&jobs, lease.ttl)).await {
        Ok(Ok(answers)) => {
            let trust = Trust::renewed(lease, sent_at);
            for ((id, fence), ownership) in jobs.into_iter().zip(answers) {
                owned.heard(id, fence, ownership, trust);
            }
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, jobs = jobs.len(), "leases were not renewed");
            false
        }
        Err(_) => {
            tracing::warn!(jobs = jobs.len(), "the job store did not answer in time");
            false
        }
    }
}
