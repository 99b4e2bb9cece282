//! Keeps the jobs of this process its own, and finds out when they are not.
//!
//! Leases are renewed in the lease store, all in a few round trips. A key that is missing, or a store that does not
//! answer, is a question to the database, never a loss by itself: it says who owns a job. Beside that the rows are read
//! every `poll_interval`, so that a cancel that was committed elsewhere stops the job here with every signal lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

use super::owned::{Lease, Owned};
use crate::{
    export::{ExportId, Fence, State},
    lease::{Acquired, BATCH_JOBS, LeaseOptions, LeaseStore, Renewal, Trust},
    queue::{JobStore, Ownership},
};

type Job = (ExportId, Fence);

/// One for each process.
pub struct Watchdog {
    pub owned: Arc<Owned>,
    pub store: Arc<dyn JobStore>,
    pub leases: Arc<dyn LeaseStore>,
    pub options: LeaseOptions,
    pub poll_interval: Duration,
}

impl Watchdog {
    /// Runs until `shutdown`. Renews at `renew_every` +- 10 %; acquires what was claimed, and looks at what a signal
    /// told of, at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let renewals = || {
            self.options
                .renew_every
                .mul_f64(rand::rng().random_range(0.9..1.1))
        };
        let mut is_away = false;
        let mut next_renewal = Instant::now() + renewals();
        let mut next_poll = Instant::now() + self.poll_interval;
        loop {
            let next = next_renewal.min(next_poll);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.owned.asked() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            // Before the rows are read: a job that has just been claimed has no other news.
            self.acquire(self.owned.list(Some(Lease::Wanted))).await;
            if Instant::now() >= next_renewal {
                next_renewal = Instant::now() + renewals();
                self.renew().await;
            }
            self.read().await;
            next_poll = Instant::now() + self.poll_interval;
            self.tell_transition(&mut is_away);
        }
    }

    /// Right after a claim, and after a key was missing. While the store does not answer, nothing is lost: the claim set
    /// `lease_until`, and renewals go there.
    async fn acquire(&self, jobs: Vec<Job>) {
        if self.leases.answering_for().is_none() {
            return;
        }
        for some in jobs.chunks(BATCH_JOBS) {
            let sent_at = Instant::now();
            match self.leases.acquire(some, self.options.ttl).await {
                Ok(answers) => {
                    let trust = Trust::renewed(&self.options, sent_at);
                    for (&(id, fence), answer) in some.iter().zip(answers) {
                        match answer {
                            Acquired::Held => {
                                tracing::debug!(job.id = %id, fence = %fence, "leased");
                                self.owned.set_lease(id, fence, Lease::Held);
                                self.owned.vouch(id, fence, trust);
                            }
                            Acquired::NotOwner { fence: other } => {
                                self.owner_is(id, fence, other);
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, jobs = some.len(), "leases could not be acquired");
                    return;
                }
            }
        }
    }

    async fn renew(&self) {
        let mut for_database = self.owned.list(Some(Lease::Wanted));
        let mut missing = Vec::new();
        for some in self.owned.list(Some(Lease::Held)).chunks(BATCH_JOBS) {
            let sent_at = Instant::now();
            match self.leases.renew(some, self.options.ttl).await {
                Ok(answers) => {
                    let trust = Trust::renewed(&self.options, sent_at);
                    for (&(id, fence), answer) in some.iter().zip(answers) {
                        match answer {
                            Renewal::Renewed => self.owned.vouch(id, fence, trust),
                            Renewal::NotOwner { fence: other } => self.owner_is(id, fence, other),
                            Renewal::Missing => missing.push((id, fence)),
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        %error, jobs = some.len(),
                        "leases could not be renewed; they are kept in the database"
                    );
                    for_database.extend_from_slice(some);
                }
            }
        }
        if !missing.is_empty() {
            tracing::warn!(
                jobs = missing.len(),
                "leases are missing; the database is asked whose the jobs are"
            );
            for (id, fence) in &missing {
                self.owned.set_lease(*id, *fence, Lease::Wanted);
            }
            // What the row gives to somebody else is lost by then, and no longer wanted.
            if self.read().await {
                self.acquire(self.owned.list(Some(Lease::Wanted))).await;
            }
        }
        self.renew_in_database(&for_database).await;
    }

    /// `lease_until` instead of a key.
    async fn renew_in_database(&self, jobs: &[Job]) {
        for some in jobs.chunks(BATCH_JOBS) {
            let sent_at = Instant::now();
            let renewal = self.store.renew(some, self.options.ttl);
            match tokio::time::timeout(self.patience(), renewal).await {
                Ok(Ok(answers)) => {
                    let trust = Trust::renewed(&self.options, sent_at);
                    for (&(id, fence), ownership) in some.iter().zip(answers) {
                        if ownership != Ownership::Lost {
                            self.owned.vouch(id, fence, trust);
                        }
                        self.heard(id, fence, ownership);
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, jobs = some.len(), "leases were not renewed");
                    return;
                }
                Err(_) => {
                    tracing::warn!(jobs = some.len(), "the job store did not answer in time");
                    return;
                }
            }
        }
    }

    /// What the rows say. It stops jobs, and vouches for none: a row may be of a moment ago. `false`: the job store did
    /// not answer.
    async fn read(&self) -> bool {
        for some in self.owned.list(None).chunks(BATCH_JOBS) {
            let ids: Vec<ExportId> = some.iter().map(|(id, _)| *id).collect();
            let standings = match tokio::time::timeout(self.patience(), self.store.standings(&ids))
                .await
            {
                Ok(Ok(standings)) => standings,
                Ok(Err(error)) => {
                    tracing::warn!(%error, jobs = some.len(), "states of jobs could not be read");
                    return false;
                }
                Err(_) => {
                    tracing::warn!(jobs = some.len(), "the job store did not answer in time");
                    return false;
                }
            };
            for &(id, fence) in some {
                let ownership = match standings.get(&id) {
                    Some(row) if row.fence != fence => Ownership::Lost,
                    Some(row) if row.state == State::Running => Ownership::Running,
                    Some(row) if row.state == State::Cancelling => Ownership::Cancelling,
                    // Ended by us, a moment ago.
                    Some(row) if row.state == State::Succeeded => Ownership::Running,
                    _ => Ownership::Lost,
                };
                self.heard(id, fence, ownership);
            }
        }
        true
    }

    fn heard(&self, id: ExportId, fence: Fence, ownership: Ownership) {
        match ownership {
            Ownership::Running => {}
            Ownership::Cancelling => self.owned.cancelled(id, fence),
            Ownership::Lost => self.owned.lost(id, fence),
        }
    }

    fn owner_is(&self, id: ExportId, fence: Fence, other: Fence) {
        tracing::warn!(job.id = %id, fence = %fence, owner.fence = %other, "somebody else holds the lease");
        self.owned.lost(id, fence);
    }

    /// A call that hangs must leave time for another within the trust of the last.
    fn patience(&self) -> Duration {
        (self.options.ttl / 10).max(Duration::from_millis(100))
    }

    fn tell_transition(&self, was_away: &mut bool) {
        let is_away = self.leases.answering_for().is_none();
        match (*was_away, is_away) {
            (false, true) => {
                tracing::warn!("the lease store does not answer; leases are kept in the database")
            }
            (true, false) => tracing::info!("the lease store answers again"),
            _ => {}
        }
        *was_away = is_away;
    }
}

/// Tells other processes how far the jobs of this one are, until `shutdown`.
pub async fn publish_progress(
    owned: Arc<Owned>,
    leases: Arc<dyn LeaseStore>,
    every: Duration,
    shutdown: CancellationToken,
) {
    /// Kept for longer than one round that fails.
    const ROUNDS_KEPT: u32 = 5;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        if leases.answering_for().is_none() {
            continue;
        }
        for some in owned.progress_of_all().chunks(BATCH_JOBS) {
            if let Err(error) = leases.publish(some, every * ROUNDS_KEPT).await {
                tracing::debug!(%error, "progress could not be published");
                break;
            }
        }
    }
}
