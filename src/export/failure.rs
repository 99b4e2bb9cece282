//! How anything fails: one value that a client can act on, kept with a failed export and sent as a gRPC error.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The `google.rpc.Code`s that Rowgate uses, by their numbers on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(i32)]
pub enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// One field of a request that is wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Violation {
    /// Path in the request, as `spec.columns[2].expression`.
    pub field: String,
    pub description: String,
}

/// Why something failed. `message` is the client's text: it holds no address, no secret and no SQL of others.
/// What the operator should read beside it is in `operator`, which is logged and never sent or stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub code: Code,
    /// Stable, in CAPS: what programs match on.
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// For an attempt of a job: another attempt may succeed. Requests say it with `retry_after` instead.
    #[serde(default)]
    pub retryable: bool,
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    #[serde(skip)]
    pub violations: Vec<Violation>,
    #[serde(skip)]
    pub operator: Option<String>,
}

impl Failure {
    pub fn new(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            metadata: BTreeMap::new(),
            retryable: false,
            retry_after: None,
            violations: Vec::new(),
            operator: None,
        }
    }

    /// INVALID_ARGUMENT / INVALID_FIELD for one field.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_fields(vec![Violation {
            field: field.into(),
            description: description.into(),
        }])
    }

    /// INVALID_ARGUMENT / INVALID_FIELD; the message names the first violation and counts the others.
    pub fn invalid_fields(violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is invalid".to_owned(),
            [one] => format!("{}: {}", one.field, one.description),
            [first, rest @ ..] => format!(
                "{}: {} (and {} more)",
                first.field,
                first.description,
                rest.len()
            ),
        };
        Self {
            violations,
            ..Self::new(Code::InvalidArgument, "INVALID_FIELD", message)
        }
    }

    /// INTERNAL: a defect of ours or of the machine. The client learns only that; the operator reads `operator`.
    pub fn internal(operator: impl fmt::Display) -> Self {
        Self::new(
            Code::Internal,
            "INTERNAL",
            "an internal error; the server's log has the details",
        )
        .operator(operator)
    }

    pub fn metadata(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Another attempt of the job may succeed.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The caller may send the same request again after this time.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    pub fn operator(mut self, text: impl fmt::Display) -> Self {
        self.operator = Some(text.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Failure {}
