//! A live stream: the pipeline's rows go to the client as they are read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    export::{
        Admission, Execution, ExportId, ExportSpec, Failure, Guarantee, ResultKind, State, TenantId,
    },
    pipeline::{Plan, Prepare, StreamOptions, StreamSchema, stream_stages},
    queue::{Inserted, Job, JobKind, NewJob, Start},
    run::{Adopted, Slot, Stop, StopReason, so_far, work},
};

use super::{
    Service,
    admission::{no_room, queue_paused},
    deadline::{Deadline, deadline_exceeded},
    draining, store_failure,
    stream::{Ended, Feed, Header, RowStream, StreamRequest, chunk_channel, row_options},
    submit::cap_full,
};

/// A live stream whose pipeline runs, before its header is known.
struct Opened {
    id: ExportId,
    feed: Feed,
    known: oneshot::Receiver<StreamSchema>,
}

impl Service {
    pub(super) async fn stream_live(
        self: &Arc<Self>,
        tenant: &TenantId,
        spec: ExportSpec,
        request: StreamRequest,
    ) -> Result<RowStream, Failure> {
        if spec.format.is_some() {
            return Err(Failure::invalid_field(
                "spec.format",
                "a row stream has no format; leave it unset, or use SubmitExport for a file",
            ));
        }
        let plan = Plan::new(&self.runner.catalog, spec.clone()).await?;
        let Some(slot) = self.runner.slots.try_stream() else {
            return Err(no_room("STREAM_LIMIT", "as many streams run here as may")
                .metadata("limit", "stream_slots"));
        };
        // In a task of its own: a caller that goes away must not leave a row that is RUNNING and run by nobody. What
        // it returns to nobody is dropped, and that stops the stream.
        let (service, tenant) = (self.clone(), tenant.clone());
        let deadline = request.deadline;
        let opening = async move { service.open_live(&tenant, spec, plan, request, slot).await };
        let opened = crate::task::spawn("service.open", self.running.track_future(opening))
            .await
            .map_err(Failure::internal)??;
        let Opened {
            id,
            mut feed,
            known,
        } = opened;
        let known = feed.begin(known, deadline).await?;
        Ok(RowStream {
            known,
            header: Header {
                export_id: id,
                fields: Vec::new(),
                arrow_schema: bytes::Bytes::new(),
                guarantee: Guarantee::None,
                first_row: 0,
                expires_at: None,
                admission: Some(self.live_admission(deadline)),
            },
            feed,
        })
    }

    async fn open_live(
        self: &Arc<Self>,
        tenant: &TenantId,
        spec: ExportSpec,
        plan: Plan,
        request: StreamRequest,
        slot: Slot,
    ) -> Result<Opened, Failure> {
        let sent_at = Instant::now();
        let job = self.insert_live(tenant, spec).await?;
        let adopted = self.runner.adopt(&job, sent_at);
        let (chunks, received) = chunk_channel();
        let (known_sender, known) = oneshot::channel();
        let (end_sender, end) = oneshot::channel();
        let options = StreamOptions {
            rows: row_options(&request),
            idle_timeout: self.options.stream_idle_timeout,
        };
        let stages = stream_stages(&plan, options, adopted.meter.clone(), chunks, known_sender);
        let feed = Feed {
            chunks: received,
            end,
            meter: adopted.meter.clone(),
            stop: adopted.stop.clone(),
            heartbeat: request.heartbeat,
            tokens: None,
            first: None,
        };
        let (service, deadline, id) = (self.clone(), request.deadline, job.id);
        crate::task::spawn(
            "service.live",
            self.running.track_future(async move {
                let end = service
                    .drive_live(&job, &plan, stages, adopted, deadline, slot)
                    .await;
                // The client may have gone.
                let _ = end_sender.send(end);
            }),
        );
        Ok(Opened { id, feed, known })
    }

    async fn insert_live(&self, tenant: &TenantId, spec: ExportSpec) -> Result<Job, Failure> {
        let inserted = self
            .store
            .insert(NewJob {
                id: ExportId::generate(),
                tenant: tenant.clone(),
                spec_hash: spec.hash(),
                spec,
                request_id: None,
                kind: JobKind::Live,
                estimated_rows: None,
                start: Start::Running {
                    worker: self.worker.clone(),
                    lease_ttl: self.runner.lease.ttl,
                    caps: self.limits.caps(),
                },
            })
            .await
            .map_err(store_failure)?;
        match inserted {
            Inserted::Created(job) => Ok(job),
            Inserted::Full(cap) => Err(cap_full(&cap)),
            Inserted::Paused => Err(queue_paused()),
            Inserted::Existing(_) | Inserted::RequestIdReused(_) | Inserted::QueueFull => Err(
                Failure::internal("a live stream has no request id and is not queued"),
            ),
        }
    }

    /// Runs the stream's pipeline to its end, writes that end, and only then tells it: a footer stands for a row that
    /// says SUCCEEDED.
    async fn drive_live(
        &self,
        job: &Job,
        plan: &Plan,
        stages: Prepare,
        adopted: Adopted,
        deadline: Option<Deadline>,
        slot: Slot,
    ) -> Result<Ended, Failure> {
        let pipeline = self.runner.pipeline(plan, job.id, stages, &adopted).run();
        let outcome = until(pipeline, deadline, &adopted.stop).await;
        let work = work(&adopted.meter);
        let outcome = outcome.map(|completed| {
            // Its time is its client's: it says nothing of how fast the source is.
            let ended = Ended {
                rows: completed.rows_written,
                sha256: completed.written.sha256.clone(),
            };
            let kind = ResultKind::Live;
            let manifest =
                self.runner
                    .manifest(plan, kind, String::new(), String::new(), completed);
            (ended, manifest)
        });
        let outcome =
            outcome.map_err(|failure| so_far(told_by_stop(failure, adopted.stop.reason()), work));
        let (told, written) = match outcome {
            Ok((ended, manifest)) => (Ok(ended), Ok(manifest)),
            Err(failure) => (Err(failure.clone()), Err(failure)),
        };
        let row = self.runner.settle(job, &adopted.stop, written, work).await;
        self.runner.let_go(job, adopted).await;
        drop(slot);
        match (told, row) {
            (Ok(ended), Some(row)) if row.state == State::Succeeded => Ok(ended),
            (Ok(_), Some(row)) if row.state == State::Cancelled => Err(cancelled()),
            (Ok(_), _) => Err(Failure::internal("the stream's end could not be recorded")),
            (Err(failure), _) => Err(failure),
        }
    }

    fn live_admission(&self, deadline: Option<Deadline>) -> Admission {
        Admission {
            mode: Execution::Inline,
            reason: "REQUESTED".to_owned(),
            estimated_rows: None,
            estimate_source: String::new(),
            threshold_rows: 0,
            budget: deadline.map_or(Duration::ZERO, |deadline| deadline.budget),
            free_inline_slots: self.runner.slots.free_inline(),
        }
    }
}

/// Runs to the end; a deadline that passes first stops the run, which then ends by itself.
pub(super) async fn until<T>(
    run: impl Future<Output = T>,
    deadline: Option<Deadline>,
    stop: &Stop,
) -> T {
    let mut run = std::pin::pin!(run);
    if let Some(deadline) = deadline {
        tokio::select! {
            done = &mut run => return done,
            () = tokio::time::sleep_until(deadline.at) => stop.now(StopReason::Deadline),
        }
    }
    run.await
}

/// A stop shows itself as a cancelled read; the client is told what stopped it.
pub(super) fn told_by_stop(failure: Failure, reason: Option<StopReason>) -> Failure {
    use crate::export::Code;
    match reason {
        None => failure,
        Some(StopReason::Cancelled) => cancelled(),
        Some(StopReason::ClientGone) => Failure::new(
            Code::Cancelled,
            "CLIENT_GONE",
            "the client of the stream went away",
        ),
        Some(StopReason::Deadline) => deadline_exceeded(),
        Some(StopReason::Shutdown) => {
            draining("the server is shutting down; start the stream again")
        }
        Some(StopReason::Lost) => Failure::new(
            Code::Unavailable,
            "LEASE_LOST",
            "the server lost its hold on the stream; start it again",
        )
        .retry_after(Duration::from_secs(1)),
    }
}

fn cancelled() -> Failure {
    Failure::new(
        crate::export::Code::Cancelled,
        "CANCELLED",
        "the export was cancelled",
    )
}
