//! What the service answers.

use std::collections::BTreeMap;

use super::{
    spec::spec_to_proto,
    value::{duration_to_proto, int32, int64, timestamp_to_proto},
};
use crate::{
    export::{
        Admission, ColumnFidelity, Execution, Failure, Field, Progress, ResultInfo, StageProgress,
        State,
    },
    queue::{Job, WorkerRow},
    rpc::pb::{self, EncodedRows},
};

/// `progress` is what its owner last told; without it a finished export tells the numbers of its result.
pub fn export_to_proto(
    job: &Job,
    queue_position: Option<u64>,
    progress: Option<&Progress>,
) -> pb::Export {
    let progress = progress
        .map(progress_to_proto)
        .or_else(|| job.result.as_ref().map(final_progress));
    pb::Export {
        id: job.id.to_string(),
        state: state_to_proto(job.state).into(),
        spec: Some(spec_to_proto(&job.spec)),
        create_time: Some(timestamp_to_proto(job.created_at)),
        start_time: job.started_at.map(timestamp_to_proto),
        end_time: job.ended_at.map(timestamp_to_proto),
        attempt: int32(job.attempt),
        fence: job.fence.0,
        queue_position: queue_position.map(int64),
        progress,
        error: job.error.as_ref().map(failure_to_proto),
        result: job.result.as_ref().map(result_to_proto),
        tenant: job.tenant.to_string(),
        last_failure: job.last_failure.as_ref().map(failure_to_proto),
    }
}

fn state_to_proto(state: State) -> pb::State {
    match state {
        State::Queued => pb::State::Queued,
        State::Running => pb::State::Running,
        State::Cancelling => pb::State::Cancelling,
        State::Succeeded => pb::State::Succeeded,
        State::Failed => pb::State::Failed,
        State::Cancelled => pb::State::Cancelled,
    }
}

fn final_progress(result: &ResultInfo) -> pb::Progress {
    pb::Progress {
        rows_read: int64(result.rows_read),
        rows_written: int64(result.rows),
        bytes_written: int64(result.size_bytes),
        ..Default::default()
    }
}

pub fn progress_to_proto(progress: &Progress) -> pb::Progress {
    pb::Progress {
        rows_read: int64(progress.rows_read),
        rows_written: int64(progress.rows_written),
        bytes_written: int64(progress.bytes_written),
        estimated_rows: progress.estimated_rows.map(int64),
        rows_per_second: progress.rows_per_second,
        eta: progress.eta.map(duration_to_proto),
        stages: progress.stages.iter().map(stage_to_proto).collect(),
        slowest_stage: progress.slowest_stage.clone(),
    }
}

fn stage_to_proto(stage: &StageProgress) -> pb::Stage {
    pb::Stage {
        name: stage.name.clone(),
        busy: Some(duration_to_proto(stage.busy)),
        blocked: Some(duration_to_proto(stage.blocked)),
        queued_batches: int64(stage.queued_batches),
        queued_bytes: int64(stage.queued_bytes),
        capacity_bytes: int64(stage.capacity_bytes),
    }
}

pub fn failure_to_proto(failure: &Failure) -> pb::Failure {
    pb::Failure {
        code: failure.code as i32,
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        metadata: failure.metadata.clone(),
        retryable: failure.retryable,
    }
}

/// `download_url` is empty: files are served by `DownloadResult`.
pub fn result_to_proto(result: &ResultInfo) -> pb::Result {
    pb::Result {
        file_name: result.file_name.clone(),
        media_type: result.media_type.clone(),
        size_bytes: int64(result.size_bytes),
        sha256: result.sha256.clone(),
        rows: int64(result.rows),
        expire_time: result.expires_at.map(timestamp_to_proto),
        download_url: String::new(),
        schema: fields_to_proto(&result.schema),
        fidelity: result.fidelity.iter().map(fidelity_to_proto).collect(),
        sheets: int32(result.sheets),
    }
}

fn fidelity_to_proto(fidelity: &ColumnFidelity) -> pb::ColumnFidelity {
    let counts = fidelity.counts.iter();
    pb::ColumnFidelity {
        column: fidelity.column.clone(),
        counts: counts
            .map(|(treatment, count)| (treatment.clone(), int64(*count)))
            .collect::<BTreeMap<_, _>>(),
    }
}

pub fn fields_to_proto(fields: &[Field]) -> Vec<pb::Field> {
    let field = |field: &Field| pb::Field {
        name: field.name.clone(),
        r#type: field.r#type.clone(),
        nullable: field.nullable,
        source_type: field.source_type.clone(),
    };
    fields.iter().map(field).collect()
}

pub fn admission_to_proto(admission: &Admission) -> pb::Admission {
    pb::Admission {
        mode: match admission.mode {
            Execution::Auto => pb::Execution::Auto,
            Execution::Inline => pb::Execution::Inline,
            Execution::Queued => pb::Execution::Queued,
        }
        .into(),
        reason: admission.reason.clone(),
        estimated_rows: admission.estimated_rows.map(int64),
        estimate_source: admission.estimate_source.clone(),
        threshold_rows: int64(admission.threshold_rows),
        budget: Some(duration_to_proto(admission.budget)),
        free_inline_slots: int32(admission.free_inline_slots),
    }
}

/// `sample` is what the encoding VALUES makes of the first rows.
///
/// # Errors
/// INTERNAL when `sample` is no encoding of `ValueRows`.
pub fn plan_to_proto(
    schema: &[Field],
    sample: &EncodedRows,
    warnings: Vec<String>,
) -> Result<pb::Plan, Failure> {
    Ok(pb::Plan {
        schema: fields_to_proto(schema),
        sample: sample
            .rows()
            .map_err(|error| Failure::internal(format!("the sample's rows: {error}")))?,
        warnings,
    })
}

pub fn worker_to_proto(worker: &WorkerRow) -> pb::Worker {
    pb::Worker {
        id: worker.id.to_string(),
        host: worker.host.clone(),
        start_time: Some(timestamp_to_proto(worker.started_at)),
        running: int32(worker.running),
        slots: int32(worker.slots),
        version: worker.version.clone(),
    }
}
