//! An error as a client sees it, checked against what API.md says of every error: a reason, the domain, details of
//! bounded size, RetryInfo exactly where a retry makes sense, and nothing that only the operator may know.

use std::{collections::HashMap, fmt::Debug};

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// API.md: details stay under this.
const DETAILS_BYTES_MAX: usize = 4096;

/// Marks of what must never reach a client: addresses, passwords, words that only a definition's SQL holds.
const SECRETS: [&str; 8] = [
    "127.0.0.1",
    "localhost",
    "://",
    "hunter2",
    "/tmp/",
    "shop.db",
    "sekrit",
    "SEKRIT",
];

#[derive(Clone, Debug)]
pub struct Refusal {
    pub message: String,
    pub metadata: HashMap<String, String>,
    /// Field and description of each violation.
    pub violations: Vec<(String, String)>,
}

/// What a call answered, where sending it again would not help.
#[track_caller]
pub fn refused<T: Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> Refusal {
    let (refusal, retries) = read(answer, code, reason);
    assert!(!retries, "a retry is offered in vain: {refusal:?}");
    refusal
}

/// What a call answered, where sending it again may help.
#[track_caller]
pub fn refused_for_now<T: Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> Refusal {
    let (refusal, retries) = read(answer, code, reason);
    assert!(retries, "RetryInfo is missing: {refusal:?}");
    refusal
}

/// INVALID_ARGUMENT for this one field; returns what is said about it.
#[track_caller]
pub fn bad_field<T: Debug>(answer: Result<T, Status>, field: &str) -> String {
    let refusal = refused(answer, Code::InvalidArgument, "INVALID_FIELD");
    let [(named, description)] = refusal.violations.as_slice() else {
        panic!("not one violation: {refusal:?}");
    };
    assert_eq!(named, field, "{description}");
    description.clone()
}

/// INVALID_ARGUMENT for these fields, in any order.
#[track_caller]
pub fn bad_fields<T: Debug>(answer: Result<T, Status>, fields: &[&str]) {
    let refusal = refused(answer, Code::InvalidArgument, "INVALID_FIELD");
    let mut named: Vec<&str> = refusal.violations.iter().map(|(f, _)| f.as_str()).collect();
    named.sort_unstable();
    let mut expected = fields.to_vec();
    expected.sort_unstable();
    assert_eq!(named, expected, "{refusal:?}");
}

#[track_caller]
pub fn says_nothing_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "tells {secret:?}: {text}");
    }
}

#[track_caller]
fn read<T: Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> (Refusal, bool) {
    let status = match answer {
        Err(status) => status,
        Ok(answer) => panic!("{code:?} / {reason} expected, but: {answer:?}"),
    };
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty());
    let bytes = status.details();
    assert!(bytes.len() < DETAILS_BYTES_MAX, "{} bytes", bytes.len());
    says_nothing_secret(status.message());
    says_nothing_secret(&String::from_utf8_lossy(bytes).replace("type.googleapis.com/", ""));
    let details = status.check_error_details().expect("details of google.rpc");
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.reason, reason, "{status:?}");
    assert_eq!(info.domain, "rowgate");
    let violations: Vec<_> = details
        .bad_request()
        .map(|bad| bad.field_violations.clone())
        .unwrap_or_default()
        .into_iter()
        .map(|violation| (violation.field, violation.description))
        .collect();
    let names_fields = matches!(reason, "INVALID_FIELD" | "RESUME_TOKEN_MISMATCH");
    assert_eq!(!violations.is_empty(), names_fields, "{status:?}");
    let retry = details.retry_info();
    if let Some(retry) = retry {
        let delay = retry.retry_delay.expect("RetryInfo says when");
        assert!(!delay.is_zero());
    }
    let refusal = Refusal {
        message: status.message().to_owned(),
        metadata: info.metadata.clone(),
        violations,
    };
    (refusal, retry.is_some())
}
