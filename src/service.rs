//! The use cases: what a caller may ask, and what is done for it.
//!
//! Owns admission, waiting, tokens and the rules on what may be read when. Refuses to know gRPC: it takes and gives
//! domain values, and every refusal is a [`Failure`]. It starts exports through `run`, and meets the worker only in the
//! queue.

mod admin;
mod admission;
mod deadline;
mod download;
mod live;
mod query;
mod replay;
mod stream;
mod submit;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    export::{Code, ExportId, Failure, State, TenantId, WorkerId},
    queue::{self, ControlStore, Job, JobStore},
    run::Runner,
};

pub use admin::LiveLimits;
pub use deadline::{Deadline, deadline_exceeded};
pub use download::{Download, DownloadRequest};
pub use query::{Changes, ExportView, Page};
pub use stream::{Event, Header, RowStream, Sent, StreamRequest, StreamTarget};
pub use submit::{SubmitMode, SubmitRequest, Submitted};
pub use tokens::Tokens;

/// Everything a use case needs. One for each process, shared.
pub struct Service {
    pub runner: Arc<Runner>,
    pub store: Arc<dyn JobStore>,
    pub control: Arc<dyn ControlStore>,
    pub limits: Arc<LiveLimits>,
    pub tokens: Tokens,
    pub worker: WorkerId,
    pub options: ServiceOptions,
    /// What a shutdown waits for within its grace time: inline exports, streams, downloads, and calls on their way.
    pub running: TaskTracker,
    /// Fires when the process begins to shut down.
    pub draining: CancellationToken,
    /// Fires when the grace time of a shutdown is over: what still runs for callers ends.
    pub cut_off: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ServiceOptions {
    /// What stands in front of us cuts calls off after this.
    pub gateway_timeout: Duration,
    /// Of the budget: what an inline export may be expected to take.
    pub inline_safety: f64,
    /// Exports of one tenant that may wait in the queue.
    pub tenant_queued: u32,
    /// A caller waits for the estimate of how many rows there will be; later it is none, and AUTO queues.
    pub estimate_patience: Duration,
    pub stream_idle_timeout: Duration,
    pub poll_interval: Duration,
}

impl Service {
    /// The tenant's own export; another's is as unknown as one that never was.
    async fn job(&self, tenant: &TenantId, id: ExportId) -> Result<Job, Failure> {
        let job = self.store.get(id).await.map_err(store_failure)?;
        job.filter(|job| job.tenant == *tenant)
            .ok_or_else(|| unknown_export(id))
    }

    /// Runs `call` in a task of its own: a caller that goes away leaves nothing half done, in the job store or here.
    async fn to_its_end<T: Send + 'static>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        crate::task::spawn(name, self.running.track_future(call))
            .await
            .map_err(Failure::internal)?
    }

    /// While the permit lives, shutdown waits; it is taken before the look at `draining`, so that nothing that was let
    /// in is left behind.
    fn enter(&self) -> Result<TaskTrackerToken, Failure> {
        let permit = self.running.token();
        self.refuse_while_draining()?;
        Ok(permit)
    }

    fn refuse_while_draining(&self) -> Result<(), Failure> {
        if self.draining.is_cancelled() {
            return Err(draining("the server is shutting down; send the call again"));
        }
        Ok(())
    }
}

/// UNAVAILABLE / DRAINING: another process will answer, or the next one.
pub fn draining(message: &str) -> Failure {
    Failure::new(Code::Unavailable, "DRAINING", message).retry_after(Duration::from_secs(1))
}

fn unknown_export(id: ExportId) -> Failure {
    Failure::new(
        Code::NotFound,
        "EXPORT_NOT_FOUND",
        format!("there is no export {id}"),
    )
}

/// The job store's errors as a caller sees them.
pub(crate) fn store_failure(error: queue::Error) -> Failure {
    if error.retryable() {
        Failure::new(
            Code::Unavailable,
            "QUEUE_UNAVAILABLE",
            "the job store can't be reached now",
        )
        .retry_after(Duration::from_secs(1))
        .operator(error)
    } else {
        Failure::internal(error)
    }
}

/// Why a result can't be read: by id, only SUCCEEDED exports are served.
fn readable(job: &Job) -> Result<&crate::export::ResultInfo, Failure> {
    let precondition = |reason, message: String| {
        Err(Failure::new(Code::FailedPrecondition, reason, message)
            .metadata("state", job.state.name()))
    };
    match job.state {
        State::Queued | State::Running | State::Cancelling => precondition(
            "NOT_READY",
            format!("the export is {}; wait for SUCCEEDED", job.state.name()),
        )
        .map_err(|failure| failure.retry_after(Duration::from_secs(1))),
        State::Failed => precondition(
            "EXPORT_FAILED",
            match &job.error {
                Some(error) => format!("the export failed: {error}"),
                None => "the export failed".to_owned(),
            },
        ),
        State::Cancelled => precondition("EXPORT_CANCELLED", "the export was cancelled".to_owned()),
        State::Succeeded => match &job.result {
            Some(result) if !job.result_expired && !is_expired(result) => Ok(result),
            _ => precondition(
                "RESULT_EXPIRED",
                "the result is no longer kept; submit the export again".to_owned(),
            ),
        },
    }
}

fn is_expired(result: &crate::export::ResultInfo) -> bool {
    result
        .expires_at
        .is_some_and(|at| at <= jiff::Timestamp::now())
}
