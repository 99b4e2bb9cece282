//! Runs a query on a connection of its own and fills batches.

use std::{
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use futures::{Stream, StreamExt, future::poll_immediate};
use sqlx::{
    AssertSqlSafe, Column as _, Row,
    mysql::{MySqlConnectOptions, MySqlRow},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{BATCH_AGE_MAX, BatchOut, Error, Query, ReadOptions, ReadSummary},
    bind::bind,
    columns,
    decode::Column,
    error::running,
    plan::{Plan, plan, raw},
    session::{Killer, Session},
};

pub async fn read(
    connect: &MySqlConnectOptions,
    query: &Query,
    options: &ReadOptions,
    out: &mut dyn BatchOut,
) -> Result<ReadSummary, Error> {
    let mut patience = Patience::new(options);
    let mut session = patience.wait(Session::open(connect)).await??;
    let killer = Killer::start(connect, session.id, options.cancel.clone())?;
    match rows(&mut session, query, options, &mut patience, out).await {
        Ok(End::Complete) => {
            killer.stand_down();
            session.close().await;
            Ok(ReadSummary::default())
        }
        Ok(End::Enough) => {
            killer.kill();
            session.close_hard().await;
            Ok(ReadSummary::default())
        }
        Err(error) => {
            killer.kill();
            session.close_hard().await;
            // Whatever the kill looks like from here.
            if options.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            Err(error.blamed_on(&query.text))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// `rows_max` was reached; the server may have more.
    Enough,
}

async fn rows(
    session: &mut Session,
    query: &Query,
    options: &ReadOptions,
    patience: &mut Patience,
    out: &mut dyn BatchOut,
) -> Result<End, Error> {
    let plan = patience.wait(plan(session, query)).await??;
    let arguments = bind(&plan.names, &query.params)?;
    let schema = plan.schema();
    out.schema(Arc::clone(&schema))?;
    let mut batches = Batches {
        columns: plan.columns.iter().map(Column::new).collect(),
        plan: &plan,
        schema,
        rows_before: 0,
        rows: 0,
        bytes: 0,
        started: Instant::now(),
        options,
        out,
    };
    let rows_max = options.rows_max.unwrap_or(u64::MAX);
    let mut stream =
        sqlx::query_with(AssertSqlSafe(plan.sql.clone()), arguments).fetch(&mut session.connection);
    let mut is_first = true;
    loop {
        let row = match patience.next(stream.as_mut(), batches.due()).await? {
            Next::Row(row) => row,
            Next::Due => {
                batches.flush()?;
                continue;
            }
            Next::End => break,
        };
        if batches.total() >= rows_max {
            batches.flush()?;
            return Ok(End::Enough);
        }
        if std::mem::take(&mut is_first) {
            check_types(&plan, &row)?;
        }
        batches.push(&row)?;
    }
    batches.flush()?;
    Ok(End::Complete)
}

/// What was planned must be what came: bytes of another type would be read as other values.
fn check_types(plan: &Plan, row: &MySqlRow) -> Result<(), Error> {
    if row.columns().len() != plan.columns.len() {
        return Err(changed("the number of columns"));
    }
    for (planned, column) in plan.columns.iter().zip(row.columns()) {
        if columns::wire(column.type_info()) != planned.wire {
            return Err(changed(&format!("the type of column {}", planned.name)));
        }
    }
    Ok(())
}

fn changed(what: &str) -> Error {
    Error::Query {
        sqlstate: None,
        message: format!(
            "{what} is not what the prepared statement told; a CAST in the query settles it"
        ),
        retryable: false,
    }
}

/// Waits for the server, at most as long as the statement may take in all, and not beyond a cancel.
struct Patience {
    limit: Duration,
    waited: Duration,
    cancel: CancellationToken,
}

impl Patience {
    fn new(options: &ReadOptions) -> Self {
        Self {
            limit: options.statement_timeout,
            waited: Duration::ZERO,
            cancel: options.cancel.clone(),
        }
    }

    async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        let start = Instant::now();
        let left = self.limit.saturating_sub(self.waited);
        let outcome = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Error::Cancelled),
            outcome = tokio::time::timeout(left, future) => outcome,
        };
        self.waited += start.elapsed();
        outcome.map_err(|_| Error::StatementTimeout { limit: self.limit })
    }

    /// A row that is here already costs no look at the clock; one that isn't is waited for until `due`.
    async fn next(
        &mut self,
        mut rows: Pin<&mut (impl Stream<Item = Result<MySqlRow, sqlx::Error>> + ?Sized)>,
        due: Option<Instant>,
    ) -> Result<Next, Error> {
        let next = match (poll_once(rows.as_mut()).await, due) {
            (Poll::Ready(next), _) => next,
            (Poll::Pending, None) => self.wait(rows.next()).await?,
            (Poll::Pending, Some(due)) => {
                // A row that comes meanwhile isn't lost: the stream keeps it for the next call.
                match self
                    .wait(tokio::time::timeout_at(due.into(), rows.next()))
                    .await?
                {
                    Ok(next) => next,
                    Err(_) => return Ok(Next::Due),
                }
            }
        };
        Ok(match next.transpose().map_err(|error| running(&error))? {
            Some(row) => Next::Row(row),
            None => Next::End,
        })
    }
}

enum Next {
    Row(MySqlRow),
    /// No row came until then.
    Due,
    End,
}

async fn poll_once<T>(rows: Pin<&mut (impl Stream<Item = T> + ?Sized)>) -> Poll<Option<T>> {
    let mut rows = rows;
    match poll_immediate(rows.next()).await {
        Some(next) => Poll::Ready(next),
        None => Poll::Pending,
    }
}

/// Fills batches and hands them over.
struct Batches<'a> {
    columns: Vec<Column>,
    plan: &'a Plan,
    schema: SchemaRef,
    /// In batches that were handed over.
    rows_before: u64,
    rows: usize,
    bytes: usize,
    /// When the first row of the batch came.
    started: Instant,
    options: &'a ReadOptions,
    out: &'a mut dyn BatchOut,
}

impl Batches<'_> {
    fn total(&self) -> u64 {
        self.rows_before + self.rows as u64
    }

    /// When the rows at hand should be passed on even if no more come.
    fn due(&self) -> Option<Instant> {
        (self.rows > 0).then(|| self.started + BATCH_AGE_MAX)
    }

    fn push(&mut self, row: &MySqlRow) -> Result<(), Error> {
        if self.rows == 0 {
            self.started = Instant::now();
        }
        for (index, column) in self.columns.iter_mut().enumerate() {
            self.bytes += column
                .append(raw(row, index))
                .map_err(|misfit| Error::Value {
                    row: self.rows_before + self.rows as u64,
                    column: self.plan.columns[index].name.clone(),
                    message: misfit.0.to_owned(),
                })?;
        }
        self.rows += 1;
        if self.rows >= self.options.batch_rows_now() || self.bytes >= self.options.batch_bytes_max
        {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.options.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if self.rows == 0 {
            return Ok(());
        }
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .expect("arrays have the types of the schema they were made from");
        self.rows_before += self.rows as u64;
        (self.rows, self.bytes) = (0, 0);
        Ok(self.out.batch(batch)?)
    }
}
