//! From SQLite's result codes to what a client can act on.

use rusqlite::ErrorCode;

use super::super::{Error, QueryText, SqlOrigin, placeholders::Rewritten, table};

/// The file can't be opened, or is no database.
pub fn opening(error: &rusqlite::Error) -> Error {
    Error::Unavailable {
        operator: format!("opening the SQLite file: {error}"),
    }
}

/// SQLite did not accept the statement.
pub fn preparing(error: rusqlite::Error, text: &QueryText, rewritten: &Rewritten) -> Error {
    if is_outage(&error) {
        return opening(&error);
    }
    // In a table read, names are all that the client may have wrong. SQLite tells them apart by its text alone.
    if let (
        QueryText::Table(of),
        rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)),
    ) = (text, &error)
    {
        if msg.starts_with("no such table") {
            return Error::Invalid(table::no_such_table());
        }
        if msg.starts_with("no such column") {
            return Error::Invalid(table::no_such_column(of, msg));
        }
    }
    let message = match &error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::MultipleStatement => {
            "the SQL text holds more than one statement".to_owned()
        }
        rusqlite::Error::SqliteFailure(failure, _)
            if failure.code == ErrorCode::AuthorizationForStatementDenied =>
        {
            "only reading is allowed".to_owned()
        }
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    let position = match (&error, text) {
        (
            rusqlite::Error::SqlInputError { offset, .. },
            QueryText::Sql {
                origin: SqlOrigin::AdHoc,
                ..
            },
        ) => usize::try_from(*offset)
            .ok()
            .and_then(|offset| rewritten.sql.get(..offset))
            .and_then(|before| u32::try_from(before.chars().count() + 1).ok())
            .map(|position| rewritten.client_position(position)),
        _ => None,
    };
    Error::Rejected {
        sqlstate: None,
        message,
        position,
    }
}

/// The query failed while it ran. Interruptions are told apart before this.
pub fn running(error: &rusqlite::Error) -> Error {
    if is_outage(error) {
        return opening(error);
    }
    let message = match error {
        rusqlite::Error::SqliteFailure(failure, _)
            if failure.code == ErrorCode::AuthorizationForStatementDenied =>
        {
            return Error::Rejected {
                sqlstate: None,
                message: "only reading is allowed".to_owned(),
                position: None,
            };
        }
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    Error::Query {
        sqlstate: None,
        message,
        retryable: false,
    }
}

pub fn is_interrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

pub fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// The file, not the query: another attempt may find it well.
fn is_outage(error: &rusqlite::Error) -> bool {
    is_busy(error)
        || matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::CannotOpen
                    | ErrorCode::NotADatabase
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::PermissionDenied
                    | ErrorCode::OutOfMemory
            )
        )
}
