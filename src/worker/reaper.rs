//! Puts the jobs of dead owners back, or ends them.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    queue::{Abandoned, ControlStore, Error, Reaped},
    run::{Runner, renew_once},
};

/// Rows of one sweep's transaction.
const SWEEP_JOBS_MAX: u32 = 200;

/// At start, when this process is the only one of its queue: every RUNNING row is abandoned.
///
/// # Errors
/// The job store's.
pub async fn abandon_all(runner: &Runner) -> Result<usize, Error> {
    let mut count = 0;
    loop {
        let reaped = sweep(runner, Abandoned::All).await?;
        if reaped.is_empty() {
            return Ok(count);
        }
        count += reaped.len();
    }
}

/// Looks for expired leases a few times within each ttl, until `shutdown`.
pub async fn reaper(
    runner: Arc<Runner>,
    control: Arc<dyn ControlStore>,
    shutdown: CancellationToken,
) {
    let every = (runner.lease.ttl / 4).max(Duration::from_millis(250));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        // `lease_until` is a wall clock's: one that jumped must not take this process's own jobs from it.
        if !renew_once(&runner.owned, runner.store.as_ref(), &runner.lease).await {
            continue;
        }
        match sweep(&runner, Abandoned::LeaseExpired).await {
            Ok(reaped) if reaped.is_empty() => {}
            Ok(_) => control.announce_work().await,
            Err(error) => tracing::warn!(%error, "dead owners could not be looked for"),
        }
    }
}

async fn sweep(runner: &Runner, abandoned: Abandoned) -> Result<Vec<Reaped>, Error> {
    let reaped = runner
        .store
        .reap(abandoned, runner.retries.attempts_max, SWEEP_JOBS_MAX)
        .await?;
    for job in &reaped {
        tracing::warn!(
            job.id = %job.id, fence = %job.fence, state = job.state.name(),
            "the job's owner is dead"
        );
        if let Err(error) = runner.results.discard(job.id, job.fence).await {
            tracing::warn!(job.id = %job.id, %error, "left-overs stay for the collector");
        }
        let _ = runner.changed.send(job.id);
    }
    Ok(reaped)
}
