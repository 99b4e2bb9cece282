//! Messages as the JSON that protobuf prescribes, as grpcurl prints it: camelCase, 64-bit integers as strings, nothing for
//! what is unset.

use jiff::Timestamp;
use prost_types::{Value as ProtoValue, value::Kind};
use serde_json::{Map, Value, json};

use crate::rpc::pb;

pub fn export(export: &pb::Export) -> Value {
    object([
        ("id", json!(export.id)),
        ("state", json!(export.state().as_str_name())),
        ("source", json!(export.spec.as_ref().map(|s| &s.source))),
        ("labels", json!(export.spec.as_ref().map(|s| &s.labels))),
        ("createTime", timestamp(export.create_time)),
        ("startTime", timestamp(export.start_time)),
        ("endTime", timestamp(export.end_time)),
        ("attempt", json!(export.attempt)),
        ("fence", int64(export.fence)),
        ("queuePosition", optional_int64(export.queue_position)),
        (
            "progress",
            export.progress.as_ref().map_or(Value::Null, progress),
        ),
        ("error", export.error.as_ref().map_or(Value::Null, failure)),
        ("result", export.result.as_ref().map_or(Value::Null, result)),
        ("tenant", json!(export.tenant)),
        (
            "lastFailure",
            export.last_failure.as_ref().map_or(Value::Null, failure),
        ),
    ])
}

fn progress(progress: &pb::Progress) -> Value {
    let stages = progress.stages.iter().map(|stage| {
        object([
            ("name", json!(stage.name)),
            ("busy", duration(stage.busy)),
            ("blocked", duration(stage.blocked)),
            ("queuedBatches", int64(stage.queued_batches)),
            ("queuedBytes", int64(stage.queued_bytes)),
            ("capacityBytes", int64(stage.capacity_bytes)),
        ])
    });
    object([
        ("rowsRead", int64(progress.rows_read)),
        ("rowsWritten", int64(progress.rows_written)),
        ("bytesWritten", int64(progress.bytes_written)),
        ("estimatedRows", optional_int64(progress.estimated_rows)),
        ("rowsPerSecond", json!(progress.rows_per_second)),
        ("eta", duration(progress.eta)),
        ("stages", stages.collect()),
        ("slowestStage", json!(progress.slowest_stage)),
    ])
}

fn failure(failure: &pb::Failure) -> Value {
    object([
        ("code", json!(failure.code)),
        ("reason", json!(failure.reason)),
        ("message", json!(failure.message)),
        ("metadata", json!(failure.metadata)),
        ("retryable", json!(failure.retryable)),
    ])
}

fn result(result: &pb::Result) -> Value {
    let fidelity = result.fidelity.iter().map(|fidelity| {
        let counts = fidelity.counts.iter();
        let counts: Map<_, _> = counts.map(|(name, n)| (name.clone(), int64(*n))).collect();
        object([
            ("column", json!(fidelity.column)),
            ("counts", counts.into()),
        ])
    });
    object([
        ("fileName", json!(result.file_name)),
        ("mediaType", json!(result.media_type)),
        ("sizeBytes", int64(result.size_bytes)),
        ("sha256", json!(result.sha256)),
        ("rows", int64(result.rows)),
        ("expireTime", timestamp(result.expire_time)),
        ("downloadUrl", json!(result.download_url)),
        ("schema", fields(&result.schema)),
        ("fidelity", fidelity.collect()),
        ("sheets", json!(result.sheets)),
    ])
}

pub fn fields(fields: &[pb::Field]) -> Value {
    let fields = fields.iter().map(|field| {
        object([
            ("name", json!(field.name)),
            ("type", json!(field.r#type)),
            ("nullable", json!(field.nullable)),
            ("sourceType", json!(field.source_type)),
        ])
    });
    fields.collect()
}

pub fn admission(admission: &pb::Admission) -> Value {
    object([
        ("mode", json!(admission.mode().as_str_name())),
        ("reason", json!(admission.reason)),
        ("estimatedRows", optional_int64(admission.estimated_rows)),
        ("estimateSource", json!(admission.estimate_source)),
        ("thresholdRows", int64(admission.threshold_rows)),
        ("budget", duration(admission.budget)),
        ("freeInlineSlots", json!(admission.free_inline_slots)),
    ])
}

pub fn plan(plan: &pb::Plan) -> Value {
    let sample = plan.sample.iter();
    object([
        ("schema", fields(&plan.schema)),
        ("sample", sample.map(|row| list(&row.values)).collect()),
        ("warnings", json!(plan.warnings)),
    ])
}

pub fn source(source: &pb::Source) -> Value {
    let definitions = source.definitions.iter().map(|definition| {
        let params = definition.params.iter().map(|param| {
            object([
                ("name", json!(param.name)),
                ("type", json!(param.r#type)),
                ("required", json!(param.required)),
                ("description", json!(param.description)),
                (
                    "defaultValue",
                    param.default_value.as_ref().map_or(Value::Null, value),
                ),
            ])
        });
        object([
            ("name", json!(definition.name)),
            ("title", json!(definition.title)),
            ("params", params.collect()),
        ])
    });
    object([
        ("name", json!(source.name)),
        ("kind", json!(source.kind)),
        ("definitions", definitions.collect()),
        ("allowsTables", json!(source.allows_tables)),
        ("allowsSql", json!(source.allows_sql)),
    ])
}

pub fn value(value: &ProtoValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::ListValue(entries)) => list(&entries.values),
        Some(Kind::StructValue(fields)) => {
            let fields = fields.fields.iter();
            let fields: Map<_, _> = fields.map(|(k, v)| (k.clone(), self::value(v))).collect();
            fields.into()
        }
    }
}

fn list(values: &[ProtoValue]) -> Value {
    values.iter().map(value).collect()
}

/// Without what protobuf's JSON leaves out: null, "", [], {} and false.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(_) | Value::Bool(true) => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| said(value));
    let fields: Map<_, _> = fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    fields.into()
}

fn int64(number: i64) -> Value {
    number.to_string().into()
}

fn optional_int64(number: Option<i64>) -> Value {
    number.map_or(Value::Null, int64)
}

fn timestamp(moment: Option<prost_types::Timestamp>) -> Value {
    time_text(moment).map_or(Value::Null, Into::into)
}

/// RFC 3339 in UTC.
pub fn time_text(moment: Option<prost_types::Timestamp>) -> Option<String> {
    let moment = moment?;
    let moment = Timestamp::new(moment.seconds, moment.nanos).ok()?;
    Some(moment.to_string())
}

fn duration(duration: Option<prost_types::Duration>) -> Value {
    duration.map_or(Value::Null, |d| {
        let seconds = d.seconds as f64 + f64::from(d.nanos) / 1e9;
        format!("{seconds}s").into()
    })
}
