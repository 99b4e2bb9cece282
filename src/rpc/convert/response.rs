//! What the service answers.

use std::collections::BTreeMap;

use super::{
    spec::spec_to_proto,
    value::{duration_to_proto, int32, int64, json_to_value, timestamp_to_proto},
};
use crate::{
    export::{
        Admission, ColumnFidelity, Execution, Failure, Field, Progress, ResultInfo, StageProgress,
        State,
    },
    queue::{Job, WorkerRow},
    rpc::pb::{self, EncodedRows},
    source::{DefinitionOptions, ParamOptions, catalog::Listed},
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

/// Neither addresses nor the SQL of definitions are told.
pub fn source_to_proto(source: &Listed<'_>) -> pb::Source {
    let definitions = source.options.definitions.iter();
    pb::Source {
        name: source.name.to_owned(),
        kind: source.kind.to_owned(),
        definitions: definitions
            .map(|(name, definition)| definition_to_proto(name, definition))
            .collect(),
        allows_tables: !source.options.allow_tables.is_empty(),
        allows_sql: source.options.allow_sql,
    }
}

fn definition_to_proto(name: &str, definition: &DefinitionOptions) -> pb::Definition {
    let param = |(name, param): (&String, &ParamOptions)| pb::Param {
        name: name.clone(),
        r#type: param.r#type.to_string(),
        required: param.required,
        description: param.description.clone(),
        default_value: param.default.as_ref().map(json_to_value),
    };
    pb::Definition {
        name: name.to_owned(),
        title: definition.title.clone(),
        params: definition.params.iter().map(param).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        export::{Code, ExportId, ExportSpec, Fence, ReadFrom, ResultKind, TenantId},
        queue::JobKind,
        source::{ParamType, SourceOptions},
    };

    fn moment() -> Timestamp {
        "2026-11-21T22:55:57.25Z".parse().unwrap()
    }

    fn result() -> ResultInfo {
        ResultInfo {
            kind: ResultKind::File,
            file_name: "orders.csv".to_owned(),
            media_type: "text/csv; charset=utf-8".to_owned(),
            path: "01/secret/place".to_owned(),
            size_bytes: 99,
            sha256: "ab".repeat(32),
            rows_read: 12,
            rows_filtered: 2,
            rows: 10,
            schema: vec![Field {
                name: "id".to_owned(),
                r#type: "int64".to_owned(),
                nullable: false,
                source_type: "int8".to_owned(),
            }],
            fidelity: vec![ColumnFidelity {
                column: "id".to_owned(),
                counts: BTreeMap::from([("digits_as_text".to_owned(), 3)]),
            }],
            sheets: 1,
            query_hash: String::new(),
            read_started_at: moment(),
            read_ended_at: moment(),
            snapshot: None,
            expires_at: Some(moment()),
        }
    }

    fn job() -> Job {
        Job {
            id: ExportId::generate(),
            tenant: TenantId::default(),
            spec: ExportSpec {
                source: "shop".to_owned(),
                from: ReadFrom::Definition("orders".to_owned()),
                params: BTreeMap::new(),
                columns: vec![],
                filter: None,
                format: None,
                file_name: None,
                time_zone: None,
                ttl: None,
                labels: BTreeMap::new(),
                priority: 3,
            },
            kind: JobKind::Export,
            state: State::Succeeded,
            attempt: 2,
            fence: Fence(4),
            worker: None,
            created_at: moment(),
            started_at: Some(moment()),
            ended_at: None,
            ready_at: moment(),
            estimated_rows: None,
            error: None,
            last_failure: Some(
                Failure::new(Code::Unavailable, "SOURCE_UNAVAILABLE", "down")
                    .metadata("k", "v")
                    .retryable()
                    .operator("at 10.0.0.7"),
            ),
            result: Some(result()),
            result_expired: false,
        }
    }

    #[test]
    fn an_export_tells_what_its_job_is() {
        let job = job();
        let export = export_to_proto(&job, Some(7), None);
        assert_eq!(export.id, job.id.to_string());
        assert_eq!(export.state(), pb::State::Succeeded);
        assert_eq!(export.spec.unwrap().priority, 3);
        let created = export.create_time.unwrap();
        assert_eq!(created.seconds, moment().as_second());
        assert_eq!(created.nanos, 250_000_000);
        assert!(export.start_time.is_some() && export.end_time.is_none());
        assert_eq!((export.attempt, export.fence), (2, 4));
        assert_eq!(export.queue_position, Some(7));
        assert_eq!(export.tenant, "default");
        assert!(export.error.is_none());
        let failure = export.last_failure.unwrap();
        assert_eq!(failure.code, 14);
        assert_eq!(failure.metadata["k"], "v");
        assert!(failure.retryable);
        let progress = export.progress.unwrap();
        assert_eq!((progress.rows_read, progress.rows_written), (12, 10));
        let result = export.result.unwrap();
        assert_eq!((result.rows, result.size_bytes), (10, 99));
        assert_eq!(result.fidelity[0].counts["digits_as_text"], 3);
        assert_eq!(result.schema[0].source_type, "int8");
    }

    #[test]
    fn neither_places_nor_the_operators_text_are_told() {
        let told = format!("{:?}", export_to_proto(&job(), None, None));
        assert!(!told.contains("secret/place") && !told.contains("10.0.0.7"));
    }

    #[test]
    fn progress_of_the_owner_comes_first() {
        let progress = Progress {
            rows_read: 5,
            eta: Some(Duration::from_millis(1500)),
            stages: vec![StageProgress {
                name: "sink".to_owned(),
                busy: Duration::from_secs(u64::MAX),
                capacity_bytes: u64::MAX,
                ..Default::default()
            }],
            slowest_stage: "client".to_owned(),
            ..Default::default()
        };
        let told = export_to_proto(&job(), None, Some(&progress))
            .progress
            .unwrap();
        assert_eq!(told.rows_read, 5);
        assert_eq!(told.eta.unwrap().nanos, 500_000_000);
        assert_eq!(told.slowest_stage, "client");
        assert_eq!(told.stages[0].capacity_bytes, i64::MAX);
        assert_eq!(told.stages[0].busy.unwrap().seconds, 315_576_000_000);
    }

    #[test]
    fn states_and_executions_keep_their_numbers() {
        for state in State::ALL {
            assert_eq!(i32::from(state_to_proto(state)), i32::from(state as i16));
        }
        let admission = Admission {
            mode: Execution::Queued,
            reason: "TOO_LARGE".to_owned(),
            estimated_rows: Some(0),
            estimate_source: "planner".to_owned(),
            threshold_rows: 10,
            budget: Duration::from_secs(30),
            free_inline_slots: 4,
        };
        let told = admission_to_proto(&admission);
        assert_eq!(told.mode(), pb::Execution::Queued);
        assert_eq!(told.estimated_rows, Some(0));
        assert_eq!(told.budget.unwrap().seconds, 30);
    }

    #[test]
    fn moments_before_1970_count_forward() {
        let told = timestamp_to_proto("1969-12-31T23:59:59.25Z".parse().unwrap());
        assert_eq!((told.seconds, told.nanos), (-1, 250_000_000));
    }

    #[test]
    fn sources_tell_what_can_be_asked_and_nothing_else() {
        let param = ParamOptions {
            r#type: ParamType::parse("int64[]").unwrap(),
            required: false,
            description: "which".to_owned(),
            default: Some(serde_json::json!([1, 2])),
        };
        let definition = DefinitionOptions {
            title: "Paid orders".to_owned(),
            sql: "select secret_column from orders".to_owned(),
            params: BTreeMap::from([("ids".to_owned(), param)]),
            columns: vec![],
            filter: None,
        };
        let options = SourceOptions {
            url: "postgres://reader:hunter2@db/shop".into(),
            slots: 4,
            expected_rows_per_second: 1,
            statement_timeout: Duration::from_secs(1),
            allow_tables: vec!["private_schema.*".to_owned()],
            allow_sql: false,
            definitions: BTreeMap::from([("paid".to_owned(), definition)]),
        };
        let source = source_to_proto(&Listed {
            name: "shop",
            kind: "postgres",
            options: &options,
        });
        assert_eq!((&source.name[..], &source.kind[..]), ("shop", "postgres"));
        assert!(source.allows_tables && !source.allows_sql);
        let param = &source.definitions[0].params[0];
        assert_eq!((&param.name[..], &param.r#type[..]), ("ids", "int64[]"));
        assert!(param.default_value.is_some());
        let told = format!("{source:?}");
        for secret in ["hunter2", "secret_column", "private_schema"] {
            assert!(!told.contains(secret), "{secret}");
        }
    }
}
