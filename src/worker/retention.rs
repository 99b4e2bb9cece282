//! Results and rows that have been kept long enough, and files that belong to nobody.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    export::{ExportId, Fence, State},
    queue::{Error, Job, Standing},
    run::Runner,
};

/// A read that has begun finishes: files go this long after they expired.
const READ_GRACE: Duration = Duration::from_secs(3600);
const EVERY: Duration = Duration::from_secs(60);
/// Orphans are looked for every hour.
const COLLECT_ROUNDS: u32 = 60;
const SWEEP_JOBS_MAX: u32 = 200;
/// Exports that the job store is asked for at once.
const STANDINGS_MAX: usize = 500;

/// Expires results and purges rows until `shutdown`.
pub async fn retention(runner: Arc<Runner>, keep_rows: Duration, shutdown: CancellationToken) {
    for round in 0_u32.. {
        if let Err(error) = sweep(&runner, keep_rows).await {
            tracing::warn!(%error, "old results could not be looked for");
        }
        // At once, too: a former process may have left some. Not before serving, there may be many files to look at.
        if round % COLLECT_ROUNDS == 0 {
            match collect_orphans(&runner).await {
                Ok(0) => {}
                Ok(orphans) => tracing::info!(orphans, "removed what belonged to no export"),
                Err(error) => tracing::warn!(%error, "orphans could not be looked for"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn sweep(runner: &Runner, keep_rows: Duration) -> Result<(), Error> {
    loop {
        let expired = runner.store.expire(READ_GRACE, SWEEP_JOBS_MAX).await?;
        remove_files(runner, &expired).await;
        if expired.len() < SWEEP_JOBS_MAX as usize {
            break;
        }
    }
    loop {
        let purged = runner.store.purge(keep_rows, SWEEP_JOBS_MAX).await?;
        remove_files(runner, &purged).await;
        if purged.len() < SWEEP_JOBS_MAX as usize {
            return Ok(());
        }
    }
}

async fn remove_files(runner: &Runner, jobs: &[Job]) {
    for job in jobs {
        if let Err(error) = runner.results.remove(job.id).await {
            tracing::warn!(job.id = %job.id, %error, "files of an old result stay for the collector");
        }
    }
}

/// Deletes what is stored under no job, or under a fence that can't become visible any more: what a killed process
/// left. Never touches the current fence of a job that runs.
///
/// # Errors
/// The job store's; what can't be deleted is logged and left for the next time.
async fn collect_orphans(runner: &Runner) -> Result<usize, Error> {
    let stored = match runner.results.stored().await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(%error, "the result storage could not be listed");
            return Ok(0);
        }
    };
    let mut count = 0;
    for some in stored.chunks(STANDINGS_MAX) {
        let ids: Vec<ExportId> = some.iter().map(|(id, _)| *id).collect();
        // Read after the files were listed; what is an orphan then stays one.
        let standings = runner.store.standings(&ids).await?;
        for (id, fences) in some {
            for fence in fences {
                if is_orphan(standings.get(id), *fence) {
                    count += 1;
                    if let Err(error) = runner.results.discard(*id, *fence).await {
                        tracing::warn!(job.id = %id, fence = %fence, %error, "an orphan stays");
                    }
                }
            }
        }
    }
    Ok(count)
}

fn is_orphan(standing: Option<&Standing>, fence: Fence) -> bool {
    let Some(row) = standing else {
        return true;
    };
    if fence != row.fence {
        // A fence above the row's can't be: the claim is committed before anything is written.
        return fence < row.fence;
    }
    match row.state {
        State::Running | State::Cancelling => false,
        State::Succeeded => row.result_expired,
        State::Queued | State::Failed | State::Cancelled => true,
    }
}
