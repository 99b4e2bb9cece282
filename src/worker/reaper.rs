//! Puts the jobs of dead owners back, or ends them.
//!
//! Dead means three things at once: `lease_until` is past, the lease store has been answering for a full ttl, and it has
//! no key of the owner. While the lease store does not answer, nobody is declared dead.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    export::{ExportId, Fence},
    queue::{Abandoned, ControlStore, Error},
    run::Runner,
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
        let reaped = reap(runner, &Abandoned::All).await?;
        if reaped == 0 {
            return Ok(count);
        }
        count += reaped;
    }
}

/// Looks for dead owners a few times within each ttl, until `shutdown`.
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
        match sweep(&runner).await {
            Ok(0) => {}
            Ok(_) => control.announce_work().await,
            Err(error) => tracing::warn!(%error, "dead owners could not be looked for"),
        }
    }
}

/// Every overdue job, a page at a time: those with live owners stand between the others.
async fn sweep(runner: &Runner) -> Result<usize, Error> {
    let (mut after, mut count) = (None, 0);
    loop {
        let overdue = runner.store.overdue(after, SWEEP_JOBS_MAX).await?;
        let Some((last, _)) = overdue.last() else {
            return Ok(count);
        };
        after = Some(*last);
        let is_last = overdue.len() < SWEEP_JOBS_MAX as usize;
        match silent(runner, overdue).await {
            Some(silent) if !silent.is_empty() => {
                count += reap(runner, &Abandoned::Silent(silent)).await?;
            }
            Some(_) => {}
            None => return Ok(count),
        }
        if is_last {
            return Ok(count);
        }
    }
}

/// Those of whose owners there is no sign of life; `None`: there is no telling.
async fn silent(
    runner: &Runner,
    overdue: Vec<(ExportId, Fence)>,
) -> Option<Vec<(ExportId, Fence)>> {
    let ids: Vec<ExportId> = overdue.iter().map(|(id, _)| *id).collect();
    match runner.leases.alive(&ids, runner.lease.ttl).await {
        Ok(alive) => Some(
            overdue
                .into_iter()
                .zip(alive)
                .filter_map(|(job, is_alive)| (!is_alive).then_some(job))
                .collect(),
        ),
        Err(error) => {
            tracing::debug!(%error, "the lease store does not answer: nobody is declared dead");
            None
        }
    }
}

async fn reap(runner: &Runner, abandoned: &Abandoned) -> Result<usize, Error> {
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
        runner.news.changed(job.id);
    }
    Ok(reaped.len())
}
