//! Asking about exports and ending them: status, watch, list, cancel, delete, sources.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

use crate::{
    export::{Code, ExportId, Failure, Progress, State, TenantId},
    queue::{Cancelled, Deleted, Job, ListCursor, ListFilter},
    run::StopReason,
};

use super::{
    Service,
    deadline::{Deadline, within},
    draining, store_failure, unknown_export,
};

/// A row with what is known of it beside the job store.
#[derive(Clone, Debug)]
pub struct ExportView {
    pub job: Job,
    pub progress: Option<Progress>,
    /// How many jobs of the tenant start before it; set while QUEUED.
    pub queue_position: Option<u64>,
}

pub struct Page {
    pub exports: Vec<ExportView>,
    /// Another page follows.
    pub has_more: bool,
}

impl ExportView {
    /// Where a listing goes on behind it.
    pub fn cursor(&self) -> ListCursor {
        ListCursor {
            created_at: self.job.created_at,
            id: self.job.id,
        }
    }
}

/// Tells that one export may have changed, from the moment on at which it was asked for.
pub struct Changes {
    id: ExportId,
    changed: broadcast::Receiver<ExportId>,
}

impl Changes {
    /// Never returns after the channel closed: whoever waits polls besides.
    pub async fn next(&mut self) {
        loop {
            match self.changed.recv().await {
                Ok(other) if other != self.id => {}
                // Lagged: it may have been among what was missed.
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Service {
    /// At once, or at the export's end, after `wait`, or shortly before `deadline`.
    ///
    /// # Errors
    /// UNAVAILABLE / DRAINING instead of a wait that a shutdown ends.
    pub async fn status(
        &self,
        tenant: &TenantId,
        id: ExportId,
        wait: Duration,
        deadline: Option<Deadline>,
    ) -> Result<ExportView, Failure> {
        let mut job = self.job(tenant, id).await?;
        let wait = within(wait, deadline);
        self.wait_until_terminal(tenant, &mut job, wait).await?;
        if !wait.is_zero() && !job.state.is_terminal() && self.draining.is_cancelled() {
            return Err(draining("the server is shutting down; wait again"));
        }
        self.view(job).await
    }

    /// Of an export that was just accepted: neither a shutdown nor a job store that can't be reached by now ends the
    /// call without a word of the export, only the wait.
    pub(super) async fn wait_for_placed(
        &self,
        tenant: &TenantId,
        mut job: Job,
        wait: Duration,
    ) -> Result<ExportView, Failure> {
        let view = match self.wait_until_terminal(tenant, &mut job, wait).await {
            Ok(()) => self.view(job.clone()).await,
            Err(failure) => Err(failure),
        };
        match view {
            Err(failure) if failure.code == Code::Unavailable => Ok(ExportView {
                progress: self.progress(&job),
                job,
                queue_position: None,
            }),
            view => view,
        }
    }

    /// Returns when `job` has ended, or after `wait`, or when the process shuts down; `job` is the last that was read.
    async fn wait_until_terminal(
        &self,
        tenant: &TenantId,
        job: &mut Job,
        wait: Duration,
    ) -> Result<(), Failure> {
        let (id, end) = (job.id, Instant::now() + wait);
        let mut changes = self.changes(id);
        // Subscribed first, read second: an end in between is not missed.
        if !wait.is_zero() && !job.state.is_terminal() {
            *job = self.job(tenant, id).await?;
        }
        while !job.state.is_terminal() && Instant::now() < end {
            let poll = end.min(Instant::now() + self.options.poll_interval);
            tokio::select! {
                () = tokio::time::sleep_until(poll) => {}
                () = changes.next() => {}
                () = self.draining.cancelled() => break,
            }
            *job = self.job(tenant, id).await?;
        }
        Ok(())
    }

    pub fn changes(&self, id: ExportId) -> Changes {
        Changes {
            id,
            changed: self.runner.news.subscribe(),
        }
    }

    pub(super) async fn view(&self, job: Job) -> Result<ExportView, Failure> {
        let queue_position = match job.state {
            State::Queued => self
                .store
                .queue_position(job.id)
                .await
                .map_err(store_failure)?,
            _ => None,
        };
        let progress = match self.progress(&job) {
            None if matches!(job.state, State::Running | State::Cancelling) => {
                self.progress_elsewhere(job.id).await
            }
            progress => progress,
        };
        Ok(ExportView {
            progress,
            job,
            queue_position,
        })
    }

    /// What the process that runs it said last. Not worth an error.
    async fn progress_elsewhere(&self, id: ExportId) -> Option<Progress> {
        match self.runner.leases.progress(id).await {
            Ok(progress) => progress,
            Err(error) => {
                tracing::debug!(job.id = %id, %error, "progress elsewhere is not known");
                None
            }
        }
    }

    /// Live while it runs here; afterwards what the manifest says.
    fn progress(&self, job: &Job) -> Option<Progress> {
        if let Some(result) = &job.result {
            return Some(Progress {
                rows_read: result.rows_read,
                rows_written: result.rows,
                bytes_written: result.size_bytes,
                estimated_rows: job.estimated_rows,
                ..Progress::default()
            });
        }
        match job.state {
            State::Running | State::Cancelling => self.runner.owned.progress(job.id),
            _ => None,
        }
    }

    /// A page of `filter.rows_max` exports.
    pub async fn list(&self, filter: &ListFilter) -> Result<Page, Failure> {
        let mut filter = filter.clone();
        let size = filter.rows_max;
        // One more than a page tells whether there is another.
        filter.rows_max = size + 1;
        let mut jobs = self.store.list(&filter).await.map_err(store_failure)?;
        let has_more = jobs.len() > size as usize;
        jobs.truncate(size as usize);
        let exports = jobs
            .into_iter()
            .map(|job| ExportView {
                progress: self.progress(&job),
                job,
                queue_position: None,
            })
            .collect();
        Ok(Page { exports, has_more })
    }

    pub async fn cancel(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: ExportId,
    ) -> Result<ExportView, Failure> {
        self.job(tenant, id).await?;
        let service = self.clone();
        let cancelling = async move { service.commit_cancel(id).await };
        let job = self.to_its_end("service.cancel", cancelling).await?;
        self.view(job).await
    }

    /// Committed first, stopped second.
    async fn commit_cancel(&self, id: ExportId) -> Result<Job, Failure> {
        match self.store.cancel(id).await.map_err(store_failure)? {
            Cancelled::Accepted(job) => {
                self.runner.owned.stop(id, StopReason::Cancelled);
                self.runner.news.cancelled(id);
                Ok(job)
            }
            Cancelled::TooLate(job) => Err(Failure::new(
                Code::FailedPrecondition,
                "EXPORT_ENDED",
                format!(
                    "the export is {} and can't be cancelled any more",
                    job.state.name()
                ),
            )
            .metadata("state", job.state.name())),
            Cancelled::NotFound => Err(unknown_export(id)),
        }
    }

    pub async fn delete(&self, tenant: &TenantId, id: ExportId) -> Result<(), Failure> {
        self.job(tenant, id).await?;
        match self.store.delete(id).await.map_err(store_failure)? {
            Deleted::Done(_) => {
                // The row is gone: what can't be deleted now is an orphan, and the collector's.
                if let Err(error) = self.runner.results.remove(id).await {
                    tracing::warn!(job.id = %id, %error, "files of a deleted export stay for the collector");
                }
                Ok(())
            }
            Deleted::NotTerminal(state) => Err(Failure::new(
                Code::FailedPrecondition,
                "EXPORT_NOT_ENDED",
                format!("the export is {}; cancel it first", state.name()),
            )
            .metadata("state", state.name())),
            Deleted::NotFound => Err(unknown_export(id)),
        }
    }

    pub fn catalog(&self) -> &Arc<crate::pipeline::Catalog> {
        &self.runner.catalog
    }
}
