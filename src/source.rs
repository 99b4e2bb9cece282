//! Where rows come from: one trait, three databases, Arrow batches out.
//!
//! Owns connections to sources, the text and parameters of the queries that run there, and the decoding of what
//! comes back. Refuses to know about jobs, formats and files. No client ever names an address: a [`Catalog`] resolves
//! names from the configuration.
//!
//! To add a source: a folder beside `postgres`, an implementation of [`Source`], a scheme in `catalog.rs`.

pub mod catalog;
mod civil;
pub mod config;
mod decimal;
mod mysql;
mod params;
mod placeholders;
mod postgres;
pub mod sample;
mod sqlite;
mod table;
mod turn;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::export::{Code, Failure};

pub use catalog::{Catalog, Fixed, Listed, Resolved};
pub use config::{DefinitionOptions, ParamOptions, SourceOptions};
pub use params::{ParamType, ParamValue, ScalarType};
pub use turn::Turn;

/// Why a source could not do what it was asked. Adapters translate their driver's codes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unreachable, refused the login, or the connection broke.
    #[error("the source can't be reached")]
    Unavailable { operator: String },
    /// The database refused the query: syntax, rights, a write in a read-only transaction, two statements.
    #[error("{message}")]
    Rejected {
        sqlstate: Option<String>,
        message: String,
        /// 1-based character in the client's SQL text, where the database tells.
        position: Option<u32>,
    },
    /// The query failed while it ran: a division by zero in row 500, an invalid cast.
    #[error("{message}")]
    Query {
        sqlstate: Option<String>,
        message: String,
        /// 40xxx, 53xxx, 57P01 to 57P03 and their like elsewhere.
        retryable: bool,
    },
    /// More time than `statement_timeout` was spent waiting for the source.
    #[error("the source took more than {limit:?} to answer")]
    StatementTimeout { limit: Duration },
    /// A later value of an undeclared SQLite column doesn't fit the type of its first batch.
    #[error("row {row}, column {column}: {found} where the rows before it held {expected}")]
    TypeChanged {
        row: u64,
        column: String,
        expected: String,
        found: String,
    },
    /// A value that the column's Arrow type can't hold (NaN in a numeric(12,2)). `row` counts from 0.
    #[error("row {row}, column {column}: {message}")]
    Value {
        row: u64,
        column: String,
        message: String,
    },
    /// One of the two above in the result of a definition, whose columns are the operator's business.
    #[error(
        "a value in the result of the definition {definition:?} does not fit its column; the server's log has the details"
    )]
    DefinitionValue {
        definition: String,
        reason: &'static str,
    },
    /// The request itself is wrong: parameters, order_by, an unknown column of a table.
    #[error("{0}")]
    Invalid(Failure),
    /// `ReadOptions::cancel` fired; the query is gone from the server.
    #[error("the read was cancelled")]
    Cancelled,
    /// Whoever takes the batches went away.
    #[error("nobody takes the rows any more")]
    Closed,
}

const TYPE_CHANGED: &str = "TYPE_CHANGED";
const VALUE_NOT_REPRESENTABLE: &str = "VALUE_NOT_REPRESENTABLE";

impl Error {
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Query { retryable, .. } => *retryable,
            Self::Invalid(failure) => failure.retryable,
            _ => false,
        }
    }

    /// A definition's text is the operator's: what the database has against it goes to the log only. So does where a value
    /// doesn't fit, and what went wrong with one: that quotes the value, which the definition may mask, or the expression
    /// around it.
    fn blamed_on(self, text: &QueryText) -> Self {
        let QueryText::Sql {
            origin: SqlOrigin::Definition(definition),
            ..
        } = text
        else {
            return self;
        };
        match self {
            Self::Rejected {
                sqlstate, message, ..
            } => {
                tracing::warn!(
                    definition,
                    sqlstate,
                    message,
                    "the source refused a definition"
                );
                Self::Rejected {
                    sqlstate,
                    message: format!(
                        "the source refused the definition {definition:?}; the server's log has the details"
                    ),
                    position: None,
                }
            }
            Self::Query {
                sqlstate,
                message,
                retryable,
            } => {
                tracing::warn!(definition, sqlstate, message, "a definition's query failed");
                Self::Query {
                    sqlstate,
                    message: format!(
                        "the query of the definition {definition:?} failed; the server's log has the details"
                    ),
                    retryable,
                }
            }
            Self::Value { .. } | Self::TypeChanged { .. } => {
                tracing::warn!(
                    definition,
                    error = %self,
                    "a value in a definition's result does not fit its column"
                );
                Self::DefinitionValue {
                    definition: definition.clone(),
                    reason: match self {
                        Self::TypeChanged { .. } => TYPE_CHANGED,
                        _ => VALUE_NOT_REPRESENTABLE,
                    },
                }
            }
            other => other,
        }
    }

    /// What the client is told; the operator's text goes along for the log.
    pub fn into_failure(self) -> Failure {
        let retryable = self.retryable();
        let message = self.to_string();
        let mut failure = match self {
            Self::Unavailable { operator } => {
                Failure::new(Code::Unavailable, "SOURCE_UNAVAILABLE", message)
                    .retry_after(Duration::from_secs(5))
                    .operator(operator)
            }
            Self::Rejected {
                sqlstate, position, ..
            } => {
                let mut failure = Failure::new(Code::InvalidArgument, "SQL_REJECTED", message);
                if let Some(state) = sqlstate {
                    failure = failure.metadata("sqlstate", state);
                }
                if let Some(position) = position {
                    failure = failure.metadata("position", position.to_string());
                }
                failure
            }
            Self::Query {
                sqlstate,
                retryable,
                ..
            } => {
                let mut failure = match retryable {
                    // Busy, or in another's way: of a call, the same one may do a moment later.
                    true => Failure::new(Code::Unavailable, "QUERY_FAILED", message)
                        .retry_after(Duration::from_secs(5)),
                    false => Failure::new(Code::FailedPrecondition, "QUERY_FAILED", message),
                };
                if let Some(state) = sqlstate {
                    failure = failure.metadata("sqlstate", state);
                }
                failure
            }
            Self::StatementTimeout { .. } => {
                Failure::new(Code::DeadlineExceeded, "STATEMENT_TIMEOUT", message)
            }
            Self::TypeChanged { row, column, .. } => {
                Failure::new(Code::FailedPrecondition, TYPE_CHANGED, message)
                    .metadata("row", row.to_string())
                    .metadata("column", column)
            }
            Self::Value { row, column, .. } => {
                Failure::new(Code::FailedPrecondition, VALUE_NOT_REPRESENTABLE, message)
                    .metadata("row", row.to_string())
                    .metadata("column", column)
            }
            Self::DefinitionValue { reason, .. } => {
                Failure::new(Code::FailedPrecondition, reason, message)
            }
            Self::Invalid(failure) => failure,
            Self::Cancelled => Failure::new(Code::Cancelled, "CANCELLED", message),
            Self::Closed => Failure::new(Code::Cancelled, "CLOSED", message),
        };
        failure.retryable = retryable;
        failure
    }
}

/// A query that has been resolved against the configuration: what runs at the source. Values are typed and bound,
/// never spliced into the text.
#[derive(Clone, Debug)]
pub struct Query {
    pub text: QueryText,
    /// By name; every name is used by the text.
    pub params: Vec<Param>,
}

#[derive(Clone, Debug)]
pub enum QueryText {
    /// Names are checked against the allow-list and quoted by the source; `order_by` is parsed.
    Table(TableQuery),
    /// One statement with `:name` placeholders.
    Sql { sql: String, origin: SqlOrigin },
}

/// Whose text it is: the operator's may be named to a client only by its definition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SqlOrigin {
    Definition(String),
    AdHoc,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableQuery {
    /// `None`: the source's default schema (already resolved for the allow-list).
    pub schema: Option<String>,
    pub table: String,
    pub order_by: Vec<OrderBy>,
    pub limit: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderBy {
    pub column: String,
    pub direction: Direction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Ascending,
    Descending,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    pub name: String,
    pub value: ParamValue,
}

/// What a query will return, learned without running it (SQLite runs it up to the first batch for undeclared columns).
#[derive(Clone, Debug)]
pub struct Description {
    /// Fields carry [`crate::export::field::metadata`]: source type and kind.
    pub schema: SchemaRef,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Estimate {
    pub rows: u64,
    /// `planner`, `count` or `limit`.
    pub origin: &'static str,
}

/// What one read is told.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Read before each batch: `SetLimits` changes it while an export runs.
    pub batch_rows: Arc<AtomicU32>,
    /// A batch is closed early when its values pass this many bytes.
    pub batch_bytes_max: usize,
    /// Counts only time spent waiting for the source.
    pub statement_timeout: Duration,
    /// Stop after this many rows (samples).
    pub rows_max: Option<u64>,
    /// Fires on cancel, lost lease, deadline: the query is killed at the source within a second.
    pub cancel: CancellationToken,
}

impl ReadOptions {
    pub fn batch_rows_now(&self) -> usize {
        self.batch_rows.load(Ordering::Relaxed).max(1) as usize
    }
}

/// A slow query's rows are passed on at least so often.
const BATCH_AGE_MAX: Duration = Duration::from_secs(1);

/// Takes what a read produces: first the schema, once, then batches in order. Calls block their thread while the queue
/// behind is full; that time is back-pressure, not the source's. A call that blocks returns when the read's
/// `ReadOptions::cancel` fires: the thread of the read does nothing else meanwhile, so it can't stop the query itself.
pub trait BatchOut {
    /// # Errors
    /// The receiver is gone or refused the schema: the read stops with [`Error::Closed`].
    fn schema(&mut self, schema: SchemaRef) -> Result<(), Closed>;
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Closed>;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

impl From<Closed> for Error {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// Facts about a finished read, for the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadSummary {
    pub snapshot: Option<String>,
}

/// A database that rows can be read from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// `postgres`, `mysql` or `sqlite`.
    fn kind(&self) -> &'static str;

    /// The schema that an unqualified table name means, before `allow_tables` is matched; `None` where the database
    /// has no schemas.
    async fn default_schema(&self) -> Result<Option<String>, Error>;

    /// Prepares the query on a fresh connection: checks text, parameters and rights.
    async fn describe(&self, query: &Query) -> Result<Description, Error>;

    /// How many rows to expect, from the planner or a bounded count; `None` when there is no answer within `patience`.
    async fn estimate(&self, query: &Query, patience: Duration) -> Result<Option<Estimate>, Error>;

    /// Runs the query on a dedicated connection in a read-only transaction, decodes it into batches, and returns when
    /// the last one was taken. Call it from a thread of its own: see [`read_on_this_thread`].
    fn read<'a>(
        &'a self,
        query: &'a Query,
        options: &'a ReadOptions,
        out: &'a mut dyn BatchOut,
    ) -> futures::future::LocalBoxFuture<'a, Result<ReadSummary, Error>>;
}

/// Drives [`Source::read`] on a single-threaded runtime of its own: a multi-threaded one costs up to 30 % here, and a
/// read may block its thread for back-pressure.
pub fn read_on_this_thread(
    source: &dyn Source,
    query: &Query,
    options: &ReadOptions,
    out: &mut dyn BatchOut,
) -> Result<ReadSummary, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Unavailable {
            operator: format!("no runtime for the read: {error}"),
        })?;
    runtime.block_on(source.read(query, options, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_another_attempt_tells_a_caller_when() {
        let query = |retryable| Error::Query {
            sqlstate: Some("40001".to_owned()),
            message: "could not serialize access".to_owned(),
            retryable,
        };
        let timeout = Error::StatementTimeout {
            limit: Duration::from_secs(1),
        };
        for (error, code, retries) in [
            (query(true), Code::Unavailable, true),
            (query(false), Code::FailedPrecondition, false),
            (timeout, Code::DeadlineExceeded, false),
            (
                Error::Unavailable {
                    operator: String::new(),
                },
                Code::Unavailable,
                true,
            ),
        ] {
            let failure = error.into_failure();
            assert_eq!(failure.code, code, "{failure}");
            assert_eq!(failure.retryable, retries, "{failure}");
            assert_eq!(failure.retry_after.is_some(), retries, "{failure}");
        }
    }
}
