//! The jobs that this process owns now, and until when each may be believed to be its own.
//!
//! A table only: [`super::watchdog`] fills it with what lease store and job store say, and [`trust_keeper`] stops what
//! nobody vouched for in time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    export::{ExportId, Fence, Progress},
    lease::{LeaseOptions, Trust},
    pipeline::Meter,
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
    /// Something needs the watchdog before its next round.
    asked: Notify,
}

#[derive(Debug)]
struct Entry {
    fence: Fence,
    stop: Stop,
    meter: Arc<Meter>,
    trust: Trust,
    lease: Lease,
}

/// What the lease store was last heard to say of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lease {
    /// To be acquired: just claimed, or the key was missing.
    Wanted,
    Held,
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
                lease: Lease::Wanted,
            },
        );
        self.asked.notify_one();
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

    /// With how far each has come.
    pub(super) fn progress_of_all(&self) -> Vec<(ExportId, Fence, Progress)> {
        self.lock()
            .iter()
            .map(|(id, entry)| (*id, entry.fence, entry.meter.progress()))
            .collect()
    }

    /// What a signal told of a job of ours is looked up at once.
    pub fn look_after(&self, id: ExportId) {
        if self.lock().contains_key(&id) {
            self.asked.notify_one();
        }
    }

    /// Signals were missed.
    pub(super) fn look_after_all(&self) {
        self.asked.notify_one();
    }

    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Those that are not lost; of these, those whose lease is in this state.
    pub(super) fn list(&self, lease: Option<Lease>) -> Vec<(ExportId, Fence)> {
        self.lock()
            .iter()
            .filter(|(_, entry)| entry.stop.reason() != Some(StopReason::Lost))
            .filter(|(_, entry)| lease.is_none_or(|lease| entry.lease == lease))
            .map(|(id, entry)| (*id, entry.fence))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExportId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody who decides has said that the job is ours, `trust` long.
    pub(super) fn vouch(&self, id: ExportId, fence: Fence, trust: Trust) {
        self.with(id, fence, |entry| entry.trust = entry.trust.max(trust));
    }

    pub(super) fn set_lease(&self, id: ExportId, fence: Fence, lease: Lease) {
        self.with(id, fence, |entry| entry.lease = lease);
    }

    pub(super) fn cancelled(&self, id: ExportId, fence: Fence) {
        self.with(id, fence, |entry| entry.stop.now(StopReason::Cancelled));
    }

    pub(super) fn lost(&self, id: ExportId, fence: Fence) {
        self.with(id, fence, |entry| {
            if entry.stop.reason() != Some(StopReason::Lost) {
                tracing::warn!(job.id = %id, fence = %fence, "the job is no longer ours; it stops");
            }
            entry.stop.now(StopReason::Lost);
        });
    }

    fn with(&self, id: ExportId, fence: Fence, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(&id)
            && entry.fence == fence
        {
            change(entry);
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
