//! PostgreSQL as a source: one connection for each export, one snapshot, the server's binary values into Arrow.
//!
//! | PostgreSQL | Arrow | |
//! |---|---|---|
//! | `boolean` | `bool` | |
//! | `smallint`, `integer`, `bigint` | `int16`, `int32`, `int64` | |
//! | `oid` | `int64` | |
//! | `real`, `double precision` | `float`, `double` | |
//! | `numeric(p, s)` | `decimal128(p, s)`, from 39 digits `decimal256` | of a column of a table or view; NaN fails the read |
//! | other `numeric` | `string` | kind `numeric`: the full text, or `NaN`, `Infinity`, `-Infinity` |
//! | `text`, `varchar`, `char(n)`, `name`, `"char"`, `citext`, enums | `string` | `char(n)` with its blanks |
//! | `bytea` | `binary` | |
//! | `date` | `date32` | ±infinity: the extremes of the integer |
//! | `time` | `time64[us]` | `24:00:00` fails the read |
//! | `timestamp`, `timestamptz` | `timestamp[us]`, `timestamp[us, tz=UTC]` | ±infinity: the extremes of the integer |
//! | `json`, `jsonb` | `string` | kind `json` |
//! | `uuid` | `string` | kind `uuid` |
//! | arrays of these, `oidvector` | `list` | lower bounds are dropped; more dimensions than one fail the read |
//! | domains | as their base type | |
//! | `void` | `string` | empty |
//! | everything else: `interval`, `timetz`, `money`, `inet`, `bit`, `xml`, ranges, composites, geometry, ... | `string` | the server's own text, by `::text` |
//!
//! A multirange is refused: the driver can't describe it; `::text` in the query exports it.
//!
//! A numeric with a scale is known only where the result's column is a table's or a view's: the driver doesn't pass on
//! the scale of an expression, so that `sum(x)` and `x::numeric(12, 2)` are text of the kind `numeric`.
//!
//! Nullable is everything but a NOT NULL column of a table read.
//!
//! Refuses to know about jobs and formats. What a role may read is the database's business: see the role that the
//! documentation tells to create. A read-only transaction is no sandbox for SQL of strangers.

mod bind;
mod columns;
mod decode;
mod failures;
mod numeric;
mod session;
mod statement;

use std::{pin::pin, str::FromStr, sync::Arc, task::Poll, time::Duration};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, future::LocalBoxFuture};
use sqlx::{
    ConnectOptions as _, Row as _, Statement as _,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    columns::{Column, Mapping, Scalar},
    decode::BatchBuilder,
    session::{Patience, Session},
    statement::Prepared,
};
use super::{
    BATCH_AGE_MAX, BatchOut, Description, Error, Estimate, Query, QueryText, ReadOptions,
    ReadSummary, Source,
};

/// Preparing and planning; a server that takes longer for them is in trouble.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(15);
/// Rows that are decoded at once, column by column: as many as stay in the nearest cache.
const CHUNK_ROWS: usize = 128;
const CHUNK_BYTES: usize = 256 << 10;

pub struct PostgresSource {
    options: PgConnectOptions,
}

impl PostgresSource {
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn new(url: &str) -> Result<Self, String> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| format!("is no PostgreSQL URL: {error}"))?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("rowgate"),
        };
        // The text of a query belongs to its author, not into our log.
        Ok(Self {
            options: options.disable_statement_logging(),
        })
    }

    /// The connection's end: polite when the server has nothing more to do, else by force.
    async fn close<T>(&self, session: Session, result: &Result<T, Error>) {
        match result {
            Err(
                Error::Cancelled
                | Error::Closed
                | Error::StatementTimeout { .. }
                | Error::Value { .. },
            ) => session.stop(&self.options).await,
            _ => session.finish().await,
        }
    }

    async fn explain(&self, query: &Query, patience: Duration) -> Result<u64, Error> {
        let cancel = CancellationToken::new();
        let mut patience = Patience::new(patience, &cancel);
        let mut session = patience.wait(Session::open(&self.options)).await??;
        let work = async {
            let prepared = Prepared::new(&mut session, query, None).await?;
            prepared.explain(&mut session).await
        };
        let result = patience.wait(work).await.and_then(|rows| rows);
        self.close(session, &result).await;
        result
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn default_schema(&self) -> Result<Option<String>, Error> {
        let cancel = CancellationToken::new();
        let mut patience = Patience::new(DESCRIBE_TIMEOUT, &cancel);
        let mut session = patience.wait(Session::open(&self.options)).await??;
        let schema = session.schema.take();
        session.finish().await;
        Ok(Some(schema.unwrap_or_else(|| "public".to_owned())))
    }

    async fn describe(&self, query: &Query) -> Result<Description, Error> {
        let cancel = CancellationToken::new();
        let mut patience = Patience::new(DESCRIBE_TIMEOUT, &cancel);
        let mut session = patience.wait(Session::open(&self.options)).await??;
        let work = async {
            let prepared = Prepared::new(&mut session, query, None).await?;
            prepared.explain(&mut session).await?;
            Ok(Description {
                schema: columns::schema(&prepared.columns, prepared.not_null()),
                warnings: Vec::new(),
            })
        };
        let result = patience.wait(work).await.and_then(|described| described);
        self.close(session, &result).await;
        result
    }

    async fn estimate(&self, query: &Query, patience: Duration) -> Result<Option<Estimate>, Error> {
        let planned = match self.explain(query, patience).await {
            Ok(rows) => rows,
            Err(Error::StatementTimeout { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let limit = match &query.text {
            QueryText::Table(table) => table.limit,
            QueryText::Sql { .. } => None,
        };
        Ok(Some(match limit {
            Some(limit) if limit <= planned => Estimate {
                rows: limit,
                origin: "limit",
            },
            _ => Estimate {
                rows: planned,
                origin: "planner",
            },
        }))
    }

    fn read<'a>(
        &'a self,
        query: &'a Query,
        options: &'a ReadOptions,
        out: &'a mut dyn BatchOut,
    ) -> LocalBoxFuture<'a, Result<ReadSummary, Error>> {
        Box::pin(async move {
            let mut patience = Patience::new(options.statement_timeout, &options.cancel);
            let mut session = patience.wait(Session::open(&self.options)).await??;
            let result = match read(&mut session, query, options, &mut patience, out).await {
                // The queue behind lets go of a cancelled export.
                Err(Error::Closed) if patience.is_cancelled() => Err(Error::Cancelled),
                result => result,
            };
            let snapshot = Some(session.snapshot.clone()).filter(|s| !s.is_empty());
            self.close(session, &result).await;
            match result {
                Ok(()) => Ok(ReadSummary { snapshot }),
                // What the server said of a definition was hidden where it was read.
                Err(error @ Error::Value { .. }) => Err(error.blamed_on(&query.text)),
                Err(error) => Err(error),
            }
        })
    }
}

async fn read(
    session: &mut Session,
    query: &Query,
    options: &ReadOptions,
    patience: &mut Patience<'_>,
    out: &mut dyn BatchOut,
) -> Result<(), Error> {
    let prepared = patience
        .wait(Prepared::new(session, query, options.rows_max))
        .await??;
    let schema = columns::schema(&prepared.columns, prepared.not_null());
    out.schema(Arc::clone(&schema))?;
    let mut batches = Batches::new(&prepared.columns, schema, options, out);
    let rows = prepared
        .statement()
        .query_with(prepared.arguments()?)
        .fetch(&mut session.connection);
    let mut rows = pin!(rows);
    loop {
        // Most rows are in the buffer already: no clock is looked at for them.
        let next = match futures::poll!(rows.next()) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                let row_or_age = async {
                    tokio::select! {
                        biased;
                        next = rows.next() => Some(next),
                        () = tokio::time::sleep_until(batches.due()) => None,
                    }
                };
                match patience.wait(row_or_age).await? {
                    Some(next) => next,
                    None => {
                        batches.flush()?;
                        continue;
                    }
                }
            }
        };
        match next {
            Some(Ok(row)) => {
                if batches.push(row)? == Pushed::BatchClosed && patience.is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
            // Rows before the failure count.
            Some(Err(error)) => {
                batches.flush()?;
                return Err(prepared.failed(error));
            }
            None => return batches.flush(),
        }
    }
}

/// Gathers rows into chunks and chunks into batches.
struct Batches<'a> {
    options: &'a ReadOptions,
    out: &'a mut dyn BatchOut,
    builder: BatchBuilder,
    chunk: Vec<PgRow>,
    chunk_bytes: usize,
    batch_bytes: usize,
    batch_rows_max: usize,
    batch_started: Instant,
    /// Places of the columns whose values differ in length.
    variable: Vec<usize>,
    fixed_row_bytes: usize,
    rows_before: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushed {
    Kept,
    BatchClosed,
}

impl<'a> Batches<'a> {
    fn new(
        columns: &[Column],
        schema: SchemaRef,
        options: &'a ReadOptions,
        out: &'a mut dyn BatchOut,
    ) -> Self {
        let is_variable = |column: &Column| match column.mapping {
            Mapping::Scalar(scalar) => matches!(
                scalar,
                Scalar::Numeric | Scalar::Text | Scalar::Json | Scalar::Jsonb | Scalar::Bytea
            ),
            Mapping::List(_) | Mapping::AsText => true,
        };
        let variable = columns.iter().enumerate();
        let variable: Vec<_> = variable
            .filter(|(_, column)| is_variable(column))
            .map(|(index, _)| index)
            .collect();
        Self {
            options,
            out,
            builder: BatchBuilder::new(columns, schema),
            chunk: Vec::with_capacity(CHUNK_ROWS),
            chunk_bytes: 0,
            batch_bytes: 0,
            batch_rows_max: options.batch_rows_now(),
            batch_started: Instant::now(),
            // An offset or a value: eight bytes are near enough.
            fixed_row_bytes: 8 * columns.len(),
            variable,
            rows_before: 0,
        }
    }

    fn push(&mut self, row: PgRow) -> Result<Pushed, Error> {
        let values = self.variable.iter().map(|index| {
            let value = row.try_get_raw(*index).ok();
            value.and_then(|v| v.as_bytes().ok()).map_or(0, <[u8]>::len)
        });
        let bytes = self.fixed_row_bytes + values.sum::<usize>();
        if self.chunk.is_empty() && self.builder.rows() == 0 {
            self.batch_started = Instant::now();
        }
        self.chunk.push(row);
        self.chunk_bytes += bytes;
        self.batch_bytes += bytes;
        let is_batch_full = self.builder.rows() + self.chunk.len() >= self.batch_rows_max
            || self.batch_bytes >= self.options.batch_bytes_max;
        if is_batch_full {
            self.flush()?;
            return Ok(Pushed::BatchClosed);
        }
        if self.chunk.len() >= CHUNK_ROWS || self.chunk_bytes >= CHUNK_BYTES {
            self.decode()?;
        }
        Ok(Pushed::Kept)
    }

    fn decode(&mut self) -> Result<(), Error> {
        self.builder.append(&self.chunk, self.rows_before)?;
        self.chunk.clear();
        self.chunk_bytes = 0;
        Ok(())
    }

    /// Passes on what there is.
    fn flush(&mut self) -> Result<(), Error> {
        self.decode()?;
        let rows = self.builder.rows();
        if rows > 0 {
            self.out.batch(self.builder.finish()?)?;
            self.rows_before += rows as u64;
        }
        self.batch_bytes = 0;
        self.batch_rows_max = self.options.batch_rows_now();
        Ok(())
    }

    /// When the rows at hand should be passed on even if no more come.
    fn due(&self) -> Instant {
        if self.chunk.is_empty() && self.builder.rows() == 0 {
            Instant::now() + Duration::from_secs(3600)
        } else {
            self.batch_started + BATCH_AGE_MAX
        }
    }
}
