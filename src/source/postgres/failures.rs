//! SQLSTATE to the errors of a source, and what of the server's text a client may read.

use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use crate::source::{Error, SqlOrigin, placeholders::Rewritten};

/// When an error came: the same SQLSTATE means the text before the first row, and the data after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Prepare,
    Run,
}

/// Whose text runs, and how its positions are found again.
#[derive(Clone, Copy)]
pub struct Blame<'a> {
    /// `None`: our own text for a table read.
    pub origin: Option<&'a SqlOrigin>,
    pub rewritten: Option<&'a Rewritten>,
    /// Characters that we wrote before the rewritten text.
    pub prefix_chars: u32,
}

pub fn of_connection(error: sqlx::Error) -> Error {
    Error::Unavailable {
        operator: error.to_string(),
    }
}

pub fn of_query(error: sqlx::Error, phase: Phase, blame: Blame<'_>) -> Error {
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } if phase == Phase::Prepare => {
            // The driver reads the catalog's entry of each type that it doesn't know by itself.
            return Error::Rejected {
                sqlstate: None,
                message: "a column has a type that can't be described, such as a multirange; \
                          select it as ::text"
                    .to_owned(),
                position: None,
            };
        }
        other => return of_connection(other),
    };
    let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else {
        return of_connection(sqlx::Error::Database(error));
    };
    let state = error.code();
    if state.starts_with("08") || matches!(state, "57P01" | "57P02" | "57P03") {
        return Error::Unavailable {
            operator: format!("{state}: {}", error.message()),
        };
    }
    let retryable = state.starts_with("40") || state.starts_with("53");
    // Syntax and rights belong to the text, whenever they are found; so does a write, found by its first row.
    let is_refused = state == "25006" || state.starts_with("42") || phase == Phase::Prepare;
    let message = client_message(error, blame);
    if is_refused && !retryable {
        Error::Rejected {
            sqlstate: Some(state.to_owned()),
            message,
            position: client_position(error, blame),
        }
    } else {
        Error::Query {
            sqlstate: Some(state.to_owned()),
            message,
            retryable,
        }
    }
}

/// A definition's text is the operator's, and what is wrong with a value quotes the value, which the definition may
/// mask: both go to the log only.
fn client_message(error: &PgDatabaseError, blame: Blame<'_>) -> String {
    let Some(SqlOrigin::Definition(name)) = blame.origin else {
        return error.message().to_owned();
    };
    tracing::warn!(
        definition = name,
        sqlstate = error.code(),
        message = error.message(),
        detail = error.detail(),
        "the source refused a definition, or its query failed"
    );
    if names_parts_of_the_text(error.code()) {
        format!("the source refused the definition {name:?}; the server's log has the details")
    } else {
        format!("the query of the definition {name:?} failed; the server's log has the details")
    }
}

fn names_parts_of_the_text(state: &str) -> bool {
    state.starts_with("42") || state.starts_with("0A") || state.starts_with("25")
}

fn client_position(error: &PgDatabaseError, blame: Blame<'_>) -> Option<u32> {
    if blame.origin != Some(&SqlOrigin::AdHoc) {
        return None;
    }
    let Some(PgErrorPosition::Original(position)) = error.position() else {
        return None;
    };
    let position = u32::try_from(position).ok()?;
    let position = position.checked_sub(blame.prefix_chars)?;
    if position == 0 {
        return None;
    }
    Some(blame.rewritten?.client_position(position))
}

/// The SQLSTATE, when the server told one.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .map(|code| code.into_owned())
}
