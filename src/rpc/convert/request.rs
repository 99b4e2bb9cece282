//! Requests other than the spec and the limits.

use std::{ops::RangeInclusive, time::Duration};

use uuid::Uuid;

use super::{check::Check, spec};
use crate::{
    export::{
        Code, Execution, ExportId, ExportSpec, Failure, Guarantee, RowEncoding, State, TenantId,
    },
    queue::ListFilter,
    rpc::pb,
    service::tokens::{self, ResumePoint, Tokens},
};

pub const PAGE_SIZE_DEFAULT: u32 = 50;
/// A page of exports with their specs has to fit in a message of 4 MiB.
pub const PAGE_SIZE_MAX: u32 = 200;

/// Waits that no proxy would let live have no use.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
const WATCH_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);
const WATCH_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(15);
const STATES_MAX: usize = 16;
const TENANT_BYTES_MAX: usize = 256;

#[derive(Clone, PartialEq, Debug)]
pub struct Submit {
    pub spec: ExportSpec,
    pub request_id: Option<Uuid>,
    pub validate_only: bool,
    pub execution: Execution,
    pub max_wait: Option<Duration>,
}

/// # Errors
/// INVALID_ARGUMENT with every violation, here and below.
pub fn submit_from_proto(request: pb::SubmitExportRequest) -> Result<Submit, Failure> {
    let mut check = Check::default();
    let submit = Submit {
        spec: required_spec(&mut check, request.spec),
        request_id: request_id(&mut check, &request.request_id),
        validate_only: request.validate_only,
        execution: execution(&mut check, request.execution),
        max_wait: check.duration("max_wait", request.max_wait, WAIT),
    };
    check.finish(submit)
}

fn required_spec(check: &mut Check, spec: Option<pb::ExportSpec>) -> ExportSpec {
    if spec.is_none() {
        check.refuse("spec", "is missing; say what to export");
        // Its fields need not be reported as missing, too.
        return spec::checked_spec(&mut Check::default(), pb::ExportSpec::default());
    }
    spec::checked_spec(check, spec.unwrap_or_default())
}

fn request_id(check: &mut Check, text: &str) -> Option<Uuid> {
    if text.is_empty() {
        return None;
    }
    let id = Uuid::try_parse(text).ok();
    if id.is_none() {
        check.refuse(
            "request_id",
            "is no UUID; send one that is made for this export, or leave it unset",
        );
    }
    id
}

fn execution(check: &mut Check, number: i32) -> Execution {
    let right = "EXECUTION_AUTO, EXECUTION_INLINE or EXECUTION_QUEUED";
    match check.choice("execution", number, right) {
        Some(pb::Execution::Inline) => Execution::Inline,
        Some(pb::Execution::Queued) => Execution::Queued,
        Some(pb::Execution::Auto | pb::Execution::Unspecified) | None => Execution::Auto,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetStatus {
    pub id: ExportId,
    /// `None`: return at once.
    pub wait: Option<Duration>,
}

pub fn get_status_from_proto(request: pb::GetStatusRequest) -> Result<GetStatus, Failure> {
    let mut check = Check::default();
    let status = GetStatus {
        id: export_id(&mut check, &request.export_id),
        wait: check.duration("wait", request.wait, WAIT),
    };
    check.finish(status)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    pub id: ExportId,
    pub interval: Duration,
}

pub fn watch_from_proto(request: pb::WatchExportRequest) -> Result<Watch, Failure> {
    let mut check = Check::default();
    let watch = Watch {
        id: export_id(&mut check, &request.export_id),
        interval: check
            .duration("interval", request.interval, WATCH_INTERVAL)
            .unwrap_or(WATCH_INTERVAL_DEFAULT),
    };
    check.finish(watch)
}

/// For requests that hold nothing but `export_id`.
pub fn export_id_from_proto(text: &str) -> Result<ExportId, Failure> {
    let mut check = Check::default();
    let id = export_id(&mut check, text);
    check.finish(id)
}

fn export_id(check: &mut Check, text: &str) -> ExportId {
    ExportId::parse(text).unwrap_or_else(|| {
        let right = if text.is_empty() {
            "is missing; send the id that SubmitExport returned"
        } else {
            "is no UUID; send the id that SubmitExport returned"
        };
        check.refuse("export_id", right);
        ExportId(Uuid::nil())
    })
}

/// The listing that is asked for; `rows_max` is the page size. To learn whether another page follows, read one row
/// more; then `Tokens::page` makes `next_page_token` of this filter and the last row shown.
pub fn list_from_proto(
    request: pb::ListExportsRequest,
    tenant: TenantId,
    tokens: &Tokens,
) -> Result<ListFilter, Failure> {
    let mut check = Check::default();
    check.count("states", request.states.len(), STATES_MAX);
    let states = request.states.iter().take(STATES_MAX).enumerate();
    let states = states
        .filter_map(|(i, number)| {
            let state = i16::try_from(*number).ok().and_then(State::from_number);
            if state.is_none() {
                check.refuse(
                    format!("states[{i}]"),
                    format!("{number} is no state; send STATE_QUEUED to STATE_CANCELLED"),
                );
            }
            state
        })
        .collect();
    let page_size = check.not_negative(
        "page_size",
        request.page_size.into(),
        "send 0 for the server's choice, or a positive number",
    );
    let mut filter = ListFilter {
        tenant,
        states,
        labels: spec::labels(&mut check, "labels", request.labels),
        created_after: check.timestamp("created_after", request.created_after),
        created_before: check.timestamp("created_before", request.created_before),
        after: None,
        rows_max: page_size
            .and_then(|size| u32::try_from(size).ok())
            .map_or(PAGE_SIZE_DEFAULT, |size| size.min(PAGE_SIZE_MAX)),
    };
    if !request.page_token.is_empty() {
        match tokens.parse_page(&request.page_token, &filter) {
            Ok(cursor) => filter.after = Some(cursor),
            Err(failure) => check.adopt(failure)?,
        }
    }
    check.finish(filter)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Download {
    pub id: ExportId,
    pub offset_bytes: u64,
    /// `None`: to the end.
    pub limit_bytes: Option<u64>,
}

pub fn download_from_proto(request: pb::DownloadResultRequest) -> Result<Download, Failure> {
    let mut check = Check::default();
    let download = Download {
        id: export_id(&mut check, &request.export_id),
        offset_bytes: check
            .not_negative("offset", request.offset, "offsets count from 0")
            .unwrap_or(0),
        limit_bytes: check.not_negative(
            "limit",
            request.limit,
            "send 0 for all that follows, or a positive number of bytes",
        ),
    };
    check.finish(download)
}

#[derive(Clone, PartialEq, Debug)]
pub struct StreamRows {
    pub target: StreamTarget,
    pub encoding: RowEncoding,
    /// `None`: the server's choice.
    pub batch_rows_max: Option<u32>,
    /// `None`: the server's choice.
    pub batch_bytes_max: Option<u32>,
    pub heartbeat: Duration,
}

#[derive(Clone, PartialEq, Debug)]
pub enum StreamTarget {
    /// A live stream: no guarantee, no tokens.
    Spec(Box<ExportSpec>),
    Export {
        id: ExportId,
        /// What the client wants of the spool: `Guarantee::None` asks for no tokens.
        guarantee: Guarantee,
        /// Authentic and of this export and encoding. Its fence is to be compared with the result's.
        from: Option<ResumePoint>,
    },
}

/// # Errors
/// INVALID_ARGUMENT as above; INVALID_ARGUMENT / RESUME_TOKEN_MISMATCH for a token of something else;
/// FAILED_PRECONDITION / RESUME_UNAVAILABLE for a guarantee that can't be given.
pub fn stream_rows_from_proto(
    request: pb::StreamRowsRequest,
    tokens: &Tokens,
) -> Result<StreamRows, Failure> {
    let mut check = Check::default();
    let encoding = row_encoding(&mut check, request.encoding);
    let right = "RESUME_NONE or RESUME_SPOOLED";
    let resume = check
        .choice("resume", request.resume, right)
        .unwrap_or_default();
    let token = match request.resume_token.as_str() {
        "" => None,
        token => match tokens.parse_resume(token) {
            Ok(point) => Some(point),
            Err(failure) => {
                check.adopt(failure)?;
                None
            }
        },
    };
    let target = stream_target(&mut check, request.target);
    let right = "send 0 for the server's choice, or a positive number";
    let mut batch_max = |field, number: i32| {
        let number = check.not_negative(field, number.into(), right);
        number.and_then(|number| u32::try_from(number).ok())
    };
    let batch_rows_max = batch_max("max_batch_rows", request.max_batch_rows);
    let batch_bytes_max = batch_max("max_batch_bytes", request.max_batch_bytes);
    let heartbeat = check
        .duration("heartbeat", request.heartbeat, HEARTBEAT)
        .unwrap_or(HEARTBEAT_DEFAULT);
    let target = check.finish(target)?;
    Ok(StreamRows {
        target: with_resume(target, resume, token, encoding)?,
        encoding,
        batch_rows_max,
        batch_bytes_max,
        heartbeat,
    })
}

fn row_encoding(check: &mut Check, number: i32) -> RowEncoding {
    let right = "ROW_ENCODING_VALUES, ROW_ENCODING_ARROW_IPC or ROW_ENCODING_JSON_LINES";
    match check.choice("encoding", number, right) {
        Some(pb::RowEncoding::ArrowIpc) => RowEncoding::ArrowIpc,
        Some(pb::RowEncoding::JsonLines) => RowEncoding::JsonLines,
        Some(pb::RowEncoding::Values | pb::RowEncoding::Unspecified) | None => RowEncoding::Values,
    }
}

fn stream_target(
    check: &mut Check,
    target: Option<pb::stream_rows_request::Target>,
) -> StreamTarget {
    use pb::stream_rows_request::Target;
    match target {
        Some(Target::Spec(spec)) => {
            let spec = spec::checked_spec(check, spec);
            if spec.format.is_some() {
                check.refuse(
                    "spec.format",
                    "a row stream has no file format; leave it unset and choose an encoding, or use SubmitExport",
                );
            }
            StreamTarget::Spec(Box::new(spec))
        }
        target => {
            if target.is_none() {
                check.refuse("target", "is missing; set one of spec and export_id");
            }
            let id = match target {
                Some(Target::ExportId(text)) => export_id(check, &text),
                _ => ExportId(Uuid::nil()),
            };
            StreamTarget::Export {
                id,
                guarantee: Guarantee::Spooled,
                from: None,
            }
        }
    }
}

fn with_resume(
    target: StreamTarget,
    resume: pb::Resume,
    token: Option<ResumePoint>,
    encoding: RowEncoding,
) -> Result<StreamTarget, Failure> {
    match (target, resume) {
        (_, pb::Resume::Keyset | pb::Resume::Snapshot) => Err(resume_unavailable(
            resume,
            "this version does not offer it; leave resume unset for the best available",
        )),
        (StreamTarget::Spec(_), pb::Resume::Spooled) => Err(resume_unavailable(
            resume,
            "a live stream stores nothing; submit the spec without a format and stream the export by its id",
        )),
        (StreamTarget::Spec(_), _) if token.is_some() => Err(tokens::mismatch("an export")),
        (target @ StreamTarget::Spec(_), _) => Ok(target),
        (StreamTarget::Export { id, .. }, resume) => {
            if let Some(point) = &token {
                point.check(id, point.fence, encoding)?;
            }
            Ok(StreamTarget::Export {
                id,
                guarantee: match resume {
                    pb::Resume::None => Guarantee::None,
                    _ => Guarantee::Spooled,
                },
                from: token,
            })
        }
    }
}

fn resume_unavailable(resume: pb::Resume, why: &str) -> Failure {
    Failure::new(
        Code::FailedPrecondition,
        "RESUME_UNAVAILABLE",
        format!("{} can't be had: {why}", resume.as_str_name()),
    )
}

/// For `PauseQueue` and `ResumeQueue`; `None`: every tenant.
pub fn pause_tenant_from_proto(tenant: String) -> Result<Option<TenantId>, Failure> {
    let mut check = Check::default();
    let tenant = check.optional("tenant", tenant, TENANT_BYTES_MAX);
    check.finish(tenant.map(TenantId))
}

#[cfg(test)]
mod tests;
