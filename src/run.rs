//! One job that this process owns: pipeline, then its end in the job store.
//!
//! Used by the worker (claimed jobs) and by the service (inline exports, live streams); both hand over a job that is
//! RUNNING under their fence. This module owns what may be written at the end and when nothing may be. It refuses to
//! know how a job was found, and who waits for it.

mod news;
mod owned;
mod settle;
mod slots;
mod speed;
mod watchdog;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    export::{ExportId, Failure, ResultInfo, ResultKind},
    lease::{LeaseOptions, LeaseStore, Trust},
    pipeline::{Catalog, Completed, FileTarget, Meter, Pipeline, Plan, Prepare, Sizes},
    queue::{Job, JobStore, Work},
    storage::ResultStore,
};

pub use news::{News, hear_news, send_news};
pub use owned::{Owned, Registration, Stop, StopReason, trust_keeper};
pub use settle::Retries;
pub use slots::{Slot, Slots};
pub use speed::Speeds;
pub use watchdog::{Watchdog, publish_progress};

/// Runs jobs. One for each process, shared.
pub struct Runner {
    pub store: Arc<dyn JobStore>,
    pub catalog: Arc<Catalog>,
    pub results: ResultStore,
    pub sizes: Arc<Sizes>,
    pub slots: Arc<Slots>,
    pub owned: Arc<Owned>,
    pub speeds: Speeds,
    pub leases: Arc<dyn LeaseStore>,
    pub lease: LeaseOptions,
    pub retries: Retries,
    pub result_ttl: Duration,
    /// For encoders that need temporary files.
    pub scratch: PathBuf,
    pub news: News,
}

impl Runner {
    /// Takes over a job that was claimed, or inserted RUNNING, after `sent_at`: from now on the watchdog keeps it.
    pub fn adopt(&self, job: &Job, sent_at: Instant) -> Adopted {
        let meter = Arc::new(Meter::new(job.estimated_rows));
        let trust = Trust::renewed(&self.lease, sent_at);
        let (registration, stop) = self.owned.register(job.id, job.fence, meter.clone(), trust);
        Adopted {
            meter,
            stop,
            registration,
        }
    }

    /// Runs a file or spool export to its end and settles it. Returns the row as it is then, where it can be read.
    pub async fn run_export(&self, job: Job, adopted: Adopted) -> Option<Job> {
        let started = Instant::now();
        tracing::info!(
            job.id = %job.id, fence = %job.fence, attempt = job.attempt, source = %job.spec.source,
            "the export runs"
        );
        let outcome = self.export(&job, &adopted).await;
        self.log_end(&job, &outcome, &adopted, started);
        let work = work(&adopted.meter);
        let ended = self
            .settle(
                &job,
                &adopted.stop,
                outcome.map_err(|failure| so_far(failure, work)),
                work,
            )
            .await;
        self.let_go(&job, adopted).await;
        ended
    }

    /// The job is out of our hands: its lease goes, and whoever waits is told.
    pub async fn let_go(&self, job: &Job, adopted: Adopted) {
        drop(adopted.registration);
        if let Err(error) = self.leases.release(job.id, job.fence).await {
            tracing::debug!(job.id = %job.id, fence = %job.fence, %error, "the lease ends by itself");
        }
        self.news.changed(job.id);
    }

    async fn export(&self, job: &Job, adopted: &Adopted) -> Result<ResultInfo, Failure> {
        let plan = Plan::new(&self.catalog, job.spec.clone()).await?;
        let stages = plan.file_stages(FileTarget {
            results: self.results.clone(),
            id: job.id,
            fence: job.fence,
            meter: adopted.meter.clone(),
            scratch: self.scratch.clone(),
        });
        let completed = self.pipeline(&plan, job.id, stages, adopted).run().await?;
        self.speeds.measured(plan.source_name(), &completed);
        let encoder = plan.encoder(&completed.schema, self.scratch.clone())?;
        let kind = match plan.spec.format {
            Some(_) => ResultKind::File,
            None => ResultKind::Rows,
        };
        let file_name = plan.file_name(encoder.extension());
        let media_type = encoder.media_type().to_owned();
        Ok(self.manifest(&plan, kind, file_name, media_type, completed))
    }

    pub fn pipeline(
        &self,
        plan: &Plan,
        id: ExportId,
        prepare: Prepare,
        adopted: &Adopted,
    ) -> Pipeline {
        Pipeline {
            name: id.to_string(),
            plan: plan.clone(),
            prepare,
            sizes: self.sizes.clone(),
            meter: adopted.meter.clone(),
            cancel: adopted.stop.token(),
        }
    }

    pub fn manifest(
        &self,
        plan: &Plan,
        kind: ResultKind,
        file_name: String,
        media_type: String,
        completed: Completed,
    ) -> ResultInfo {
        let ttl = plan.spec.ttl.unwrap_or(self.result_ttl);
        let expires_at = (kind != ResultKind::Live)
            // It counts from the export's end: writing may go on for long behind the last row.
            .then(|| Timestamp::now().saturating_add(ttl).ok())
            .flatten();
        ResultInfo {
            kind,
            file_name,
            media_type,
            path: completed.written.path,
            size_bytes: completed.written.size_bytes,
            sha256: completed.written.sha256,
            rows_read: completed.rows_read,
            rows_filtered: completed.rows_filtered,
            rows: completed.rows_written,
            schema: completed.fields,
            fidelity: completed.written.fidelity,
            sheets: completed.written.sheets,
            query_hash: plan.query_hash(),
            read_started_at: completed.read_started_at,
            read_ended_at: completed.read_ended_at,
            snapshot: completed.read.snapshot,
            expires_at,
        }
    }

    fn log_end(
        &self,
        job: &Job,
        outcome: &Result<ResultInfo, Failure>,
        adopted: &Adopted,
        started: Instant,
    ) {
        let duration_ms = started.elapsed().as_millis() as u64;
        match outcome {
            Ok(result) => tracing::info!(
                job.id = %job.id, rows = result.rows, bytes = result.size_bytes, duration_ms,
                slowest_stage = adopted.meter.progress().slowest_stage,
                "the export is complete"
            ),
            Err(failure) => tracing::warn!(
                job.id = %job.id, fence = %job.fence, reason = failure.reason, message = failure.message,
                operator = failure.operator, stop = ?adopted.stop.reason(), duration_ms,
                "the export ended early"
            ),
        }
    }
}

/// What goes with a job while it runs here.
#[derive(Debug)]
pub struct Adopted {
    pub meter: Arc<Meter>,
    pub stop: Stop,
    pub registration: Registration,
}

/// Rows and bytes that were read so far: the tenant's share is counted by them.
pub fn work(meter: &Meter) -> Work {
    Work {
        rows_read: meter.rows_read.load(Ordering::Relaxed),
        bytes: meter.bytes_written.load(Ordering::Relaxed),
    }
}

/// A failure in the middle says how far it came.
pub fn so_far(failure: Failure, work: Work) -> Failure {
    failure.metadata("rows_read", work.rows_read.to_string())
}
