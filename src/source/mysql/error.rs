//! From the driver's errors and MySQL's error numbers to what a client can act on.

use sqlx::mysql::MySqlDatabaseError;

use super::super::{Error, QueryText, table};

/// No connection, or the session could not be set up: nothing of it is the client's doing.
pub fn connecting(error: &sqlx::Error) -> Error {
    Error::Unavailable {
        operator: format!("connecting to MySQL: {error}"),
    }
}

/// The server did not accept the query itself: in a table read, names are all that the client may have wrong.
pub fn refused(error: &sqlx::Error, text: &QueryText) -> Error {
    let of_server = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    match (text, of_server) {
        (QueryText::Table(_), Some(of_server)) if matches!(of_server.number(), 1049 | 1146) => {
            Error::Invalid(table::no_such_table())
        }
        (QueryText::Table(of), Some(of_server)) if of_server.number() == 1054 => {
            Error::Invalid(table::no_such_column(of, of_server.message()))
        }
        _ => preparing(error),
    }
}

/// The server did not accept the statement.
pub fn preparing(error: &sqlx::Error) -> Error {
    match translate(error) {
        Error::Query {
            sqlstate,
            message,
            retryable: false,
        } => Error::Rejected {
            sqlstate,
            message,
            position: None,
        },
        other => other,
    }
}

/// The statement failed while it ran.
pub fn running(error: &sqlx::Error) -> Error {
    translate(error)
}

fn translate(error: &sqlx::Error) -> Error {
    let Some(of_server) = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
    else {
        return Error::Unavailable {
            operator: format!("the connection to MySQL broke: {error}"),
        };
    };
    let sqlstate = of_server.code().map(str::to_owned);
    let message = of_server.message().to_owned();
    match of_server.number() {
        // Too many connections, shutdown, network trouble, resources of the user, connection killed.
        1040 | 1053 | 1152..=1161 | 1184 | 1203 | 1226 | 1927 | 4031 => Error::Unavailable {
            operator: format!("MySQL: {message}"),
        },
        // Denied; a definer that is gone. The server's own words name its users and our address: they are the log's.
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1449 => {
            tracing::warn!(number = of_server.number(), message, "MySQL denied a query");
            Error::Rejected {
                sqlstate,
                message: "the server's account may not do this at the source".to_owned(),
                position: None,
            }
        }
        // A write in a read-only transaction; a write on a read-only server.
        1290 | 1792 | 1836 => Error::Rejected {
            sqlstate,
            message,
            position: None,
        },
        // Record changed, temporary space full, lock wait, deadlock, table definition changed: another attempt may do.
        1020 | 1021 | 1114 | 1205 | 1213 | 1412 | 1615 => Error::Query {
            sqlstate,
            message,
            retryable: true,
        },
        _ => {
            let retryable = sqlstate
                .as_deref()
                .is_some_and(|state| state.starts_with("40") || state.starts_with("53"));
            Error::Query {
                sqlstate,
                message,
                retryable,
            }
        }
    }
}
