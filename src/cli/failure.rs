//! What a client command ends with when it does not succeed: an exit code, and a text that says what to do next.

use std::{error::Error as _, fmt, io};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::table::printable;
use crate::rpc::pb;

/// As shells have it: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

#[derive(Debug)]
pub enum Failure {
    Rpc(Box<Status>),
    Unreachable {
        server: String,
        why: String,
    },
    /// The export ended FAILED or CANCELLED.
    Ended(Box<pb::Export>),
    /// The command line, or a file that it names, says something that can't be.
    Usage(String),
    Output {
        what: String,
        error: io::Error,
    },
    /// What arrived is incomplete or fails its checksum.
    Damaged(String),
    Interrupted,
}

impl Failure {
    pub fn unreachable(server: &str, error: &tonic::transport::Error) -> Self {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            why = error.to_string();
            cause = error.source();
        }
        Self::Unreachable {
            server: server.to_owned(),
            why,
        }
    }

    pub fn output(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Output {
            what: what.into(),
            error,
        }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 4,
            Self::Output { .. } => 7,
            Self::Damaged(_) => 8,
            Self::Interrupted => INTERRUPTED,
            Self::Rpc(status) => rpc_exit_code(status),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Rpc(Box::new(status))
    }
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

fn rpc_exit_code(status: &Status) -> u8 {
    let may_retry = status.get_details_retry_info().is_some();
    match (status.code(), reason(status).as_str()) {
        (
            Code::FailedPrecondition,
            "NOT_READY" | "RESULT_EXPIRED" | "EXPORT_ENDED" | "EXPORT_NOT_ENDED" | "NOT_ROWS"
            | "NOT_A_FILE" | "RESUME_UNAVAILABLE",
        ) => 6,
        (Code::FailedPrecondition, "TOO_LARGE_FOR_INLINE") => 2,
        // The export itself: what its query, its columns or its size came to.
        (Code::FailedPrecondition, _) | (Code::Cancelled, "CANCELLED") => 1,
        (Code::ResourceExhausted, _) if !may_retry => 1,
        (
            Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange | Code::Unimplemented,
            _,
        ) => 2,
        (Code::NotFound, _) => 3,
        (
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Cancelled,
            _,
        ) => 4,
        (Code::PermissionDenied | Code::Unauthenticated, _) => 5,
        (Code::DataLoss, _) => 8,
        _ => 9,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc(status) => rpc_text(status, f),
            Self::Unreachable { server, why } => {
                writeln!(f, "error: {server} can't be reached: {}", printable(why))?;
                write!(
                    f,
                    "next: start the server with `rowgate serve`, or name another one with --server"
                )
            }
            Self::Ended(export) => ended_text(export, f),
            Self::Usage(text) => write!(f, "error: {}", printable(text)),
            Self::Output { what, error } => write!(f, "error: {}: {error}", printable(what)),
            Self::Damaged(text) => write!(f, "error: {}", printable(text)),
            Self::Interrupted => write!(
                f,
                "interrupted; an export that was submitted goes on (rowgate list, rowgate cancel ID)"
            ),
        }
    }
}

fn rpc_text(status: &Status, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let reason = reason(status);
    write!(f, "error: {:?}", status.code())?;
    if !reason.is_empty() {
        write!(f, " / {}", printable(&reason))?;
    }
    write!(f, ": {}", printable(status.message()))?;
    let details = status.get_error_details();
    for violation in details
        .bad_request()
        .iter()
        .flat_map(|b| &b.field_violations)
    {
        let field = printable(&violation.field);
        write!(f, "\n  {field}: {}", printable(&violation.description))?;
    }
    if let Some(info) = details.error_info() {
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        for (key, value) in metadata {
            write!(f, "\n  {} = {}", printable(key), printable(value))?;
        }
    }
    let delay = details.retry_info().and_then(|retry| retry.retry_delay);
    match (delay, next(status.code(), &reason)) {
        (Some(delay), _) => {
            let delay = humantime::format_duration(delay);
            write!(f, "\nnext: try again in {delay}")
        }
        (None, Some(next)) => write!(f, "\nnext: {next}"),
        (None, None) => Ok(()),
    }
}

fn next(code: Code, reason: &str) -> Option<&'static str> {
    Some(match (reason, code) {
        ("REQUEST_ID_REUSED", _) => "choose another --request-id for another export",
        ("TOO_LARGE_FOR_INLINE", _) => "leave --execution out, so that it can be queued",
        ("NOT_READY", _) => "follow it with `rowgate watch ID`",
        ("EXPORT_FAILED", _) => "see why with `rowgate status ID`",
        ("RESULT_EXPIRED", _) => "submit the export again",
        ("NOT_ROWS", _) => "it is a file: use `rowgate download ID`",
        ("NOT_A_FILE", _) => "it holds rows: use `rowgate stream ID`",
        ("SQL_NOT_ALLOWED" | "TABLE_NOT_ALLOWED", _) | (_, Code::PermissionDenied) => {
            "see what is offered with `rowgate sources`"
        }
        ("SOURCE_NOT_FOUND" | "DEFINITION_NOT_FOUND", _) => {
            "see what there is with `rowgate sources`"
        }
        (_, Code::NotFound) => "see what there is with `rowgate list` and `rowgate sources`",
        (_, Code::Internal | Code::Unknown) => "the server's log has the details",
        (_, Code::DataLoss) => "submit the export again: its stored result is damaged",
        _ => return None,
    })
}

fn ended_text(export: &pb::Export, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let id = printable(&export.id);
    let Some(error) = &export.error else {
        return write!(f, "error: export {id} was cancelled");
    };
    let reason = printable(&error.reason);
    let message = printable(&error.message);
    write!(f, "error: export {id} failed: {reason}: {message}")?;
    for (key, value) in &error.metadata {
        write!(f, "\n  {} = {}", printable(key), printable(value))?;
    }
    if error.retryable {
        write!(f, "\nnext: the cause may pass; submit the export again")?;
    }
    Ok(())
}
