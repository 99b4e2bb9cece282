//! `SubmitExport`: check, decide, insert, and wait for as long as the caller wants to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    export::{Admission, Code, Execution, ExportId, ExportSpec, Failure, TenantId},
    pipeline::{Described, Plan},
    queue::{FullCap, Inserted, Job, JobKind, NewJob, Start},
};

use super::{
    Service,
    admission::{Wish, inline_refused, no_room, queued_because},
    deadline::{Deadline, within},
    query::ExportView,
    store_failure,
};

/// Rows of `validate_only`'s sample.
const SAMPLE_ROWS: u64 = 10;

#[derive(Clone, Debug)]
pub struct SubmitRequest {
    pub spec: ExportSpec,
    pub request_id: Option<Uuid>,
    pub mode: SubmitMode,
    pub execution: Execution,
    pub max_wait: Option<Duration>,
    pub deadline: Option<Deadline>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitMode {
    /// Schema, sample and predicted mode; nothing is left behind.
    ValidateOnly,
    Submit,
}

#[expect(
    clippy::large_enum_variant,
    reason = "one value for each call, moved once"
)]
pub enum Submitted {
    Validated {
        admission: Admission,
        described: Described,
        /// The first rows after transforms: the wire bytes of `ValueRows`.
        sample: Bytes,
    },
    Export {
        view: ExportView,
        admission: Admission,
    },
}

impl Service {
    pub async fn submit(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: SubmitRequest,
    ) -> Result<Submitted, Failure> {
        let _permit = self.enter()?;
        let plan = Plan::new(&self.runner.catalog, request.spec.clone()).await?;
        let turn = plan.turn().await?;
        let described = plan.describe(&turn, self.runner.scratch.clone()).await?;
        let wish = Wish {
            execution: request.execution,
            deadline: request.deadline,
        };
        let admission = self.admit(&plan, &turn, wish).await?;
        if request.mode == SubmitMode::ValidateOnly {
            let admission = self.predicted(tenant, request.execution, admission).await?;
            return Ok(Submitted::Validated {
                admission,
                described,
                sample: plan.sample(turn, SAMPLE_ROWS).await?,
            });
        }
        drop(turn);
        let budget = admission.budget;
        let (job, admission) = match self.submitted_before(tenant, &request).await? {
            Some(job) => (job, admission),
            None => self.place(tenant, &request, admission).await?,
        };
        let wait = match request.execution {
            Execution::Queued => request.max_wait.unwrap_or_default(),
            Execution::Auto | Execution::Inline => request.max_wait.unwrap_or(budget).min(budget),
        };
        let wait = within(wait, request.deadline);
        let view = self.wait_for_placed(tenant, job, wait).await?;
        Ok(Submitted::Export { view, admission })
    }

    /// A repeated request gets its export, whatever would be decided for a new one.
    async fn submitted_before(
        &self,
        tenant: &TenantId,
        request: &SubmitRequest,
    ) -> Result<Option<Job>, Failure> {
        let Some(request_id) = request.request_id else {
            return Ok(None);
        };
        let found = self
            .store
            .submitted(tenant, request_id)
            .await
            .map_err(store_failure)?;
        match found {
            // As it was stored: the spec that is read back may have been written by another version.
            Some((job, hash)) if hash != request.spec.hash() => Err(request_id_reused(job.id)),
            found => Ok(found.map(|(job, _)| job)),
        }
    }

    /// A caller that goes away must not leave a row that is RUNNING and run by nobody.
    async fn place(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: &SubmitRequest,
        admission: Admission,
    ) -> Result<(Job, Admission), Failure> {
        if request.execution == Execution::Inline && admission.mode != Execution::Inline {
            return Err(inline_refused(&admission));
        }
        let (service, tenant, request) = (self.clone(), tenant.clone(), request.clone());
        let placing = async move {
            match admission.mode {
                Execution::Inline => service.start_inline(&tenant, &request, admission).await,
                _ => service.enqueue(&tenant, &request, admission).await,
            }
        };
        self.to_its_end("service.place", placing).await
    }

    /// Inserts the export RUNNING and runs it here, whatever becomes of the caller; or queues it when there is no room.
    async fn start_inline(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: &SubmitRequest,
        admission: Admission,
    ) -> Result<(Job, Admission), Failure> {
        let Some(slot) = self.runner.slots.try_inline() else {
            return self
                .queue_instead(tenant, request, admission, "NO_PERMIT")
                .await;
        };
        let start = Start::Running {
            worker: self.worker.clone(),
            lease_ttl: self.runner.lease.ttl,
            caps: self.limits.caps(),
        };
        let sent_at = Instant::now();
        match self
            .insert(tenant, request, JobKind::Export, &admission, start)
            .await?
        {
            Inserted::Created(job) => {
                let adopted = self.runner.adopt(&job, sent_at);
                let (runner, row) = (self.runner.clone(), job.clone());
                crate::task::spawn(
                    "service.inline",
                    self.running.track_future(async move {
                        runner.run_export(row, adopted).await;
                        drop(slot);
                    }),
                );
                Ok((job, admission))
            }
            Inserted::Existing(job) => Ok((job, admission)),
            Inserted::RequestIdReused(id) => Err(request_id_reused(id)),
            Inserted::Full(_) | Inserted::QueueFull => {
                drop(slot);
                self.queue_instead(tenant, request, admission, "CAP").await
            }
            Inserted::Paused => {
                drop(slot);
                self.queue_instead(tenant, request, admission, "PAUSED")
                    .await
            }
        }
    }

    async fn queue_instead(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: &SubmitRequest,
        admission: Admission,
        reason: &str,
    ) -> Result<(Job, Admission), Failure> {
        let admission = queued_because(admission, reason);
        if request.execution == Execution::Inline {
            return Err(inline_refused(&admission));
        }
        self.enqueue(tenant, request, admission).await
    }

    async fn enqueue(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: &SubmitRequest,
        admission: Admission,
    ) -> Result<(Job, Admission), Failure> {
        let start = Start::Queued {
            ready_max: self.options.tenant_queued,
        };
        match self
            .insert(tenant, request, JobKind::Export, &admission, start)
            .await?
        {
            Inserted::Created(job) => {
                self.control.announce_work().await;
                Ok((job, admission))
            }
            Inserted::Existing(job) => Ok((job, admission)),
            Inserted::RequestIdReused(id) => Err(request_id_reused(id)),
            Inserted::QueueFull => Err(queue_full()),
            Inserted::Full(_) | Inserted::Paused => Err(Failure::internal(
                "a queued export was refused: caps and pauses are for what runs",
            )),
        }
    }

    async fn insert(
        &self,
        tenant: &TenantId,
        request: &SubmitRequest,
        kind: JobKind,
        admission: &Admission,
        start: Start,
    ) -> Result<Inserted, Failure> {
        let job = NewJob {
            id: ExportId::generate(),
            tenant: tenant.clone(),
            spec_hash: request.spec.hash(),
            spec: request.spec.clone(),
            request_id: request.request_id,
            kind,
            estimated_rows: admission.estimated_rows,
            start,
        };
        self.store.insert(job).await.map_err(store_failure)
    }
}

fn request_id_reused(id: ExportId) -> Failure {
    Failure::new(
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
        format!(
            "this request_id belongs to the export {id}, which has another spec; use a new UUID"
        ),
    )
    .metadata("export_id", id.to_string())
}

fn queue_full() -> Failure {
    no_room(
        "TENANT_QUEUE_FULL",
        "as many exports of this tenant wait as may; send the call again later",
    )
    .metadata("limit", "tenant_queued")
}

pub(super) fn cap_full(cap: &FullCap) -> Failure {
    match cap {
        FullCap::Tenant => no_room("CAP", "as many exports of this tenant run as may")
            .metadata("limit", "tenant_slots"),
        FullCap::Source(name) => no_room(
            "CAP",
            &format!("as many exports read the source {name} as may"),
        )
        .metadata("limit", format!("source_slots.{name}")),
    }
}
