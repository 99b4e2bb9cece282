//! One connection for one export, and the end of its query.
//!
//! A connection is never pooled and never reused. sqlx sends no cancel of its own and would read every remaining row
//! to make a connection usable again, so a query is stopped from a second connection and its own is dropped.

use std::time::{Duration, Instant};

use sqlx::{
    ConnectOptions, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failures;
use crate::source::Error;

/// A server that doesn't answer for so long is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What stopping a query may take in all: DESIGN promises a second, the rest is for the caller.
const STOP_TIMEOUT: Duration = Duration::from_millis(800);
/// A backend that took the cancel and still runs after this is terminated.
const CANCEL_GRACE: Duration = Duration::from_millis(250);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time-outs and formats are ours, whatever the role's defaults say: the server's `statement_timeout` would count
/// back-pressure. Of the last two settings, one exists since PostgreSQL 14 and lets a backend notice that we are gone, the
/// other since 17.
const BEGIN: &str = "\
    begin transaction isolation level repeatable read, read only;
    set local statement_timeout = 0;
    set local idle_in_transaction_session_timeout = 0;
    set local extra_float_digits = 3;
    set local intervalstyle = 'postgres';
    set local bytea_output = 'hex';
    set local datestyle = 'ISO, MDY';
    set local timezone = 'UTC';
    set local standard_conforming_strings = on;
    select pg_catalog.set_config(name, case name when 'transaction_timeout' then '0' else '500' end, true)
        from pg_catalog.pg_settings
        where name in ('client_connection_check_interval', 'transaction_timeout');
    select pg_catalog.pg_backend_pid(),
        (select backend_start::text from pg_catalog.pg_stat_activity
            where pid = pg_catalog.pg_backend_pid()),
        pg_catalog.txid_current_snapshot()::text,
        pg_catalog.current_schema()::text";

/// A connection inside a read-only transaction with one snapshot.
pub struct Session {
    pub connection: PgConnection,
    pub backend: Backend,
    /// As `xmin:xmax:xip_list`.
    pub snapshot: String,
    pub schema: Option<String>,
}

/// Names one server process; its start guards against a process id that was given to another meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    pub pid: i32,
    started: String,
}

impl Session {
    pub async fn open(options: &PgConnectOptions) -> Result<Self, Error> {
        let mut connection = connect(options).await?;
        let row = begin(&mut connection).await?;
        let text = |index| -> Option<String> { cell(&row, index).map(str::to_owned) };
        let unreadable = || Error::Unavailable {
            operator: "the server did not tell its process id".to_owned(),
        };
        let pid = text(0).and_then(|pid| pid.parse().ok());
        Ok(Self {
            backend: Backend {
                pid: pid.ok_or_else(unreadable)?,
                started: text(1).unwrap_or_default(),
            },
            snapshot: snapshot_of(&row),
            schema: text(3),
            connection,
        })
    }

    /// A new transaction with a new snapshot, after a statement was refused.
    pub async fn restart(&mut self) -> Result<(), Error> {
        sqlx::raw_sql("rollback")
            .execute(&mut self.connection)
            .await
            .map_err(failures::of_connection)?;
        let row = begin(&mut self.connection).await?;
        self.snapshot = snapshot_of(&row);
        Ok(())
    }

    /// After the last row was read, or an error that the server told.
    pub async fn finish(self) {
        // The server forgets the transaction with the connection; nothing hangs on a polite goodbye.
        let _ = timeout(GOODBYE_TIMEOUT, self.connection.close()).await;
    }

    /// Ends a query that runs or may run: cancel from a control connection, then a hard close, then termination
    /// of what did not listen. A backend that is blocked in sending ends with the close, not with the cancel.
    pub async fn stop(self, options: &PgConnectOptions) {
        let Self {
            connection,
            backend,
            ..
        } = self;
        let started = Instant::now();
        let mut own = Some(connection);
        let stopped = timeout(STOP_TIMEOUT, async {
            let mut control = connect(options).await?;
            let sent = backend.signal(&mut control, "pg_cancel_backend").await;
            drop(own.take());
            sent?;
            while backend.is_there(&mut control).await? {
                if started.elapsed() > CANCEL_GRACE {
                    backend.signal(&mut control, "pg_terminate_backend").await?;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = control.close().await;
            Ok::<_, Error>(())
        })
        .await;
        drop(own);
        let problem = match stopped {
            Ok(Ok(())) => return,
            Ok(Err(Error::Unavailable { operator })) => operator,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            backend.pid = backend.pid,
            problem,
            "a source query may not be gone yet; its connection is closed"
        );
    }
}

impl Backend {
    async fn signal(&self, control: &mut PgConnection, function: &str) -> Result<(), Error> {
        let sql = format!("select pg_catalog.{function}(pid) {}", self.row());
        self.ask(control, sql).await.map(drop)
    }

    async fn is_there(&self, control: &mut PgConnection) -> Result<bool, Error> {
        self.ask(control, format!("select pid {}", self.row()))
            .await
            .map(|rows| !rows.is_empty())
    }

    fn row(&self) -> String {
        // Both are the server's own numbers; the time stamp holds no quotes.
        let started = self.started.replace('\'', "");
        format!(
            "from pg_catalog.pg_stat_activity where pid = {} and backend_start::text = '{started}'",
            self.pid
        )
    }

    async fn ask(&self, control: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, Error> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .fetch_all(control)
            .await
            .map_err(failures::of_connection)
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    match timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(connection) => connection.map_err(failures::of_connection),
        Err(_) => Err(Error::Unavailable {
            operator: format!("no connection within {CONNECT_TIMEOUT:?}"),
        }),
    }
}

async fn begin(connection: &mut PgConnection) -> Result<PgRow, Error> {
    let rows = sqlx::raw_sql(BEGIN)
        .fetch_all(connection)
        .await
        .map_err(failures::of_connection)?;
    rows.into_iter()
        .next_back()
        .ok_or_else(|| Error::Unavailable {
            operator: "the server answered the session's setup with nothing".to_owned(),
        })
}

fn snapshot_of(row: &PgRow) -> String {
    cell(row, 2).unwrap_or_default().to_owned()
}

/// A cell of the simple protocol, which is text.
pub fn cell(row: &PgRow, index: usize) -> Option<&str> {
    let value = row.try_get_raw(index).ok()?;
    value.as_str().ok()
}

/// Measures and bounds the time that is spent waiting for the source, and gives up when the export is cancelled.
pub struct Patience<'a> {
    limit: Duration,
    left: Duration,
    cancel: &'a CancellationToken,
}

impl<'a> Patience<'a> {
    pub fn new(limit: Duration, cancel: &'a CancellationToken) -> Self {
        Self {
            limit,
            left: limit,
            cancel,
        }
    }

    /// # Errors
    /// [`Error::Cancelled`], or [`Error::StatementTimeout`] when all waiting together took too long.
    pub async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let started = Instant::now();
        // `work` is dropped by the other arms: its connection is not used again.
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            result = work => Ok(result),
            () = tokio::time::sleep(self.left) => Err(Error::StatementTimeout { limit: self.limit }),
        };
        self.left = self.left.saturating_sub(started.elapsed());
        result
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
