//! The only way from a [`Failure`] to a [`tonic::Status`].
//!
//! Owns what of a failure travels, and within which size. Refuses to decide what failed or whether to try again.

use std::collections::HashMap;

use tonic::{Code as GrpcCode, Status, codegen::http};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::export::{Code, Failure};

/// `ErrorInfo.domain` of every error of ours.
pub const DOMAIN: &str = "rowgate";

/// Violations that one error names.
pub const VIOLATIONS_MAX: usize = 20;

/// Of the encoded `google.rpc.Status`. It travels as a header in base64, beside the message: grpc C-core (Python, Ruby,
/// PHP) refuses answers whose headers pass 8 KiB.
const DETAILS_BYTES_MAX: usize = 4096 - 1;

/// Of the message as the `grpc-message` header spells it, where each byte beyond printable ASCII takes three.
const MESSAGE_HEADER_BYTES_MAX: usize = 2048;

const VIOLATION_TEXT_BYTES_MAX: usize = 400;
const METADATA_VALUE_BYTES_MAX: usize = 512;

/// Turns a failure into what the client gets, and logs the operator's text, which it does not get.
pub fn from_failure(failure: Failure) -> Status {
    log(&failure);
    let message = cut(&failure.message, MESSAGE_HEADER_BYTES_MAX, header_bytes);
    let mut violations: Vec<FieldViolation> = failure
        .violations
        .iter()
        .take(VIOLATIONS_MAX)
        .map(|violation| {
            FieldViolation::new(
                cut(&violation.field, VIOLATION_TEXT_BYTES_MAX, char::len_utf8),
                cut(
                    &violation.description,
                    VIOLATION_TEXT_BYTES_MAX,
                    char::len_utf8,
                ),
            )
        })
        .collect();
    let mut metadata: Vec<(String, String)> = failure
        .metadata
        .iter()
        .map(|(key, value)| {
            (
                key.clone(),
                cut(value, METADATA_VALUE_BYTES_MAX, char::len_utf8),
            )
        })
        .collect();
    loop {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            failure.reason.clone(),
            DOMAIN,
            metadata.iter().cloned().collect::<HashMap<_, _>>(),
        );
        if !violations.is_empty() {
            details.set_bad_request(violations.clone());
        }
        if let Some(delay) = failure.retry_after {
            details.set_retry_info(Some(delay));
        }
        let status = Status::with_error_details(grpc_code(failure.code), message.clone(), details);
        // The last ones are given up first; the reason always fits.
        let fits = status.details().len() <= DETAILS_BYTES_MAX;
        if fits || (violations.pop().is_none() && metadata.pop().is_none()) {
            return status;
        }
    }
}

/// What tonic refuses by itself, before any handler, gets the ErrorInfo that every error carries.
pub fn with_reason<B>(mut response: http::Response<B>) -> http::Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let reason = match status.code() {
        GrpcCode::OutOfRange => "MESSAGE_TOO_LARGE",
        GrpcCode::Unimplemented => "NOT_IMPLEMENTED",
        // Of ours, each has details.
        GrpcCode::Internal => "MALFORMED_REQUEST",
        _ => return response,
    };
    if !status.details().is_empty() {
        return response;
    }
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    let message = match status.message() {
        "" => "this server has no such method",
        message => message,
    };
    let status = Status::with_error_details(status.code(), message, details);
    let (parts, ()) = status.into_http().into_parts();
    response.headers_mut().extend(parts.headers);
    response
}

fn log(failure: &Failure) {
    let Some(operator) = &failure.operator else {
        return;
    };
    let reason = failure.reason.as_str();
    match failure.code {
        Code::Internal | Code::DataLoss => {
            tracing::error!(error.reason = reason, "request failed: {operator}");
        }
        _ => tracing::warn!(error.reason = reason, "request failed: {operator}"),
    }
}

fn grpc_code(code: Code) -> GrpcCode {
    GrpcCode::from_i32(code as i32)
}

fn header_bytes(c: char) -> usize {
    match c {
        ' '..='~' if c != '%' => 1,
        _ => 3 * c.len_utf8(),
    }
}

/// The text, or as much of its beginning as costs at most `cost_max`, with an ellipsis.
fn cut(text: &str, cost_max: usize, cost: fn(char) -> usize) -> String {
    if text.chars().map(cost).sum::<usize>() <= cost_max {
        return text.to_owned();
    }
    let mut left = cost_max.saturating_sub(cost('…'));
    let kept = text.chars().take_while(|c| {
        let affordable = cost(*c) <= left;
        left = left.saturating_sub(cost(*c));
        affordable
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::export::Violation;

    #[test]
    fn carries_reason_domain_and_metadata() {
        let failure = Failure::new(Code::InvalidArgument, "SQL_REJECTED", "syntax error")
            .metadata("sqlstate", "42601");
        let status = from_failure(failure);
        assert_eq!(status.code(), GrpcCode::InvalidArgument);
        assert_eq!(status.message(), "syntax error");
        let details = status.check_error_details().unwrap();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "SQL_REJECTED");
        assert_eq!(info.domain, "rowgate");
        assert_eq!(info.metadata["sqlstate"], "42601");
        assert!(details.bad_request().is_none());
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn retry_info_is_there_exactly_when_a_retry_makes_sense() {
        let failure = Failure::new(Code::Unavailable, "SOURCE_UNAVAILABLE", "down").retryable();
        let with = from_failure(failure.clone().retry_after(Duration::from_millis(2500)));
        let details = with.get_error_details();
        let delay = details.retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_millis(2500)));
        assert!(
            from_failure(failure)
                .get_error_details()
                .retry_info()
                .is_none()
        );
    }

    #[test]
    fn the_operators_text_is_not_sent() {
        let status = from_failure(Failure::internal("password=hunter2 at 10.0.0.7"));
        assert_eq!(status.code(), GrpcCode::Internal);
        let sent = format!(
            "{} {}",
            status.message(),
            String::from_utf8_lossy(status.details())
        );
        assert!(!sent.contains("hunter2") && !sent.contains("10.0.0.7"));
    }

    #[test]
    fn every_code_keeps_its_number() {
        for code in [
            Code::Cancelled,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ] {
            assert_eq!(i32::from(grpc_code(code)), code as i32);
        }
    }

    #[test]
    fn details_and_message_stay_within_what_clients_accept() {
        let violations = (0..50)
            .map(|i| Violation {
                field: format!("spec.columns[{i}].name"),
                description: "名".repeat(1000),
            })
            .collect();
        let mut failure = Failure::invalid_fields(violations);
        for i in 0..40 {
            failure = failure.metadata(&format!("key{i}"), "值".repeat(500));
        }
        failure.message = "错%".repeat(3000);
        let status = from_failure(failure.retry_after(Duration::from_secs(1)));
        assert!(status.details().len() < 4096);
        let header: usize = status.message().chars().map(header_bytes).sum();
        assert!(header <= MESSAGE_HEADER_BYTES_MAX);
        assert!(status.message().ends_with('…'));
        let details = status.check_error_details().unwrap();
        assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELD");
        assert!(details.retry_info().is_some());
    }

    #[test]
    fn twenty_violations_of_usual_length_all_travel() {
        let violations = (0..25)
            .map(|i| Violation {
                field: format!("spec.columns[{i}].name"),
                description: "is empty; every column needs a name".to_owned(),
            })
            .collect();
        let status = from_failure(Failure::invalid_fields(violations));
        let details = status.get_error_details();
        let sent = &details.bad_request().unwrap().field_violations;
        assert_eq!(sent.len(), VIOLATIONS_MAX);
        assert_eq!(sent[19].field, "spec.columns[19].name");
    }

    #[test]
    fn what_tonic_refuses_gets_a_reason_and_keeps_its_code() {
        let answer = |status: Status| with_reason(status.into_http::<()>());
        for (status, reason) in [
            (Status::out_of_range("4194305 bytes"), "MESSAGE_TOO_LARGE"),
            (Status::unimplemented(""), "NOT_IMPLEMENTED"),
            (
                Status::internal("failed to decode Protobuf message"),
                "MALFORMED_REQUEST",
            ),
        ] {
            let code = status.code();
            let told = Status::from_header_map(answer(status).headers()).unwrap();
            assert_eq!(told.code(), code);
            let details = told.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, reason);
            assert_eq!(details.error_info().unwrap().domain, DOMAIN);
        }
        let ours = from_failure(Failure::internal("secret"));
        let told = Status::from_header_map(answer(ours).headers()).unwrap();
        let details = told.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "INTERNAL");
    }

    #[test]
    fn a_short_text_is_not_cut() {
        assert_eq!(cut("abc", 3, char::len_utf8), "abc");
        assert_eq!(cut("abcdef", 5, char::len_utf8), "ab…");
    }
}
