//! One connection for one read, and the thread that can end it from outside.
//!
//! The session is made the same on every server: UTC, utf8mb4, a read-only transaction with one snapshot, and an
//! `sql_mode` without what changes how text is quoted, since placeholders are found by reading the text.

use std::{thread, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, Row,
    mysql::{MySqlConnectOptions, MySqlConnection},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    super::Error,
    error::{connecting, preparing},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A receiver may stall for long; the server's default of one minute would break the connection. Hours, not for ever:
/// a machine that vanished must not hold its snapshot for good.
const STALL_SECONDS_MAX: u32 = 6 * 3600;
/// For an ALTER TABLE to end; the server's default is a year or a day.
const LOCK_WAIT_SECONDS: u32 = 30;
const KILL_ATTEMPTS: u32 = 3;
const KILL_TIMEOUT: Duration = Duration::from_secs(3);

pub struct Session {
    pub connection: MySqlConnection,
    /// As the server's process list shows it.
    pub id: u64,
    pub is_mariadb: bool,
}

impl Session {
    pub async fn open(options: &MySqlConnectOptions) -> Result<Self, Error> {
        let mut connection = connect(options).await?;
        let row = sqlx::raw_sql("select connection_id(), version()")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| connecting(&error))?;
        let id: u64 = row.try_get(0).map_err(|error| connecting(&error))?;
        let version: String = row.try_get(1).map_err(|error| connecting(&error))?;
        let mut session = Self {
            connection,
            id,
            is_mariadb: version.to_ascii_lowercase().contains("mariadb"),
        };
        // The time-out is ours and leaves out back-pressure; the server's would count it.
        let no_time_out = session.statement_limit(Duration::ZERO);
        for statement in [
            format!(
                "set session time_zone = '+00:00', net_write_timeout = {STALL_SECONDS_MAX}, \
                 lock_wait_timeout = {LOCK_WAIT_SECONDS}, sql_select_limit = default, sql_mode = \
                 concat('STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
                 if(find_in_set('ONLY_FULL_GROUP_BY', @@sql_mode), ',ONLY_FULL_GROUP_BY', ''))"
            ),
            no_time_out,
            "set session transaction isolation level repeatable read".to_owned(),
            "start transaction with consistent snapshot, read only".to_owned(),
        ] {
            session
                .execute(statement)
                .await
                .map_err(|error| connecting(&error))?;
        }
        Ok(session)
    }

    /// Lets the server itself end every later statement of this session: for short questions, whose asker may go away.
    pub async fn limit_statements(&mut self, limit: Duration) -> Result<(), Error> {
        let statement = self.statement_limit(limit.max(Duration::from_millis(1)));
        self.execute(statement)
            .await
            .map_err(|error| preparing(&error))
    }

    pub async fn close(self) {
        // The rows are here: a connection that fails to say goodbye changes nothing.
        let _ = tokio::time::timeout(KILL_TIMEOUT, self.connection.close()).await;
    }

    pub async fn close_hard(self) {
        let _ = tokio::time::timeout(KILL_TIMEOUT, self.connection.close_hard()).await;
    }

    fn statement_limit(&self, limit: Duration) -> String {
        if self.is_mariadb {
            let seconds = limit.as_secs_f64();
            format!("set session max_statement_time = {seconds:.6}")
        } else {
            format!("set session max_execution_time = {}", limit.as_millis())
        }
    }

    async fn execute(&mut self, sql: String) -> Result<(), sqlx::Error> {
        self.connection
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .map(drop)
    }
}

async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, Error> {
    tokio::time::timeout(CONNECT_TIMEOUT, options.connect())
        .await
        .map_err(|_| Error::Unavailable {
            operator: format!("MySQL did not answer within {CONNECT_TIMEOUT:?}"),
        })?
        .map_err(|error| connecting(&error))
}

/// Kills the session's connection on the server when the token fires, or when it is told to. A thread of its own: the
/// read's may be blocked by its receiver for hours.
///
/// `KILL` of the connection, not of the query: a server thread that is blocked in writing to us heeds only the former.
pub struct Killer {
    tell: Option<oneshot::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
}

enum Order {
    Kill,
    StandDown,
}

impl Killer {
    pub fn start(
        options: &MySqlConnectOptions,
        id: u64,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        let unavailable = |error: std::io::Error| Error::Unavailable {
            operator: format!("no thread to watch a MySQL query: {error}"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(unavailable)?;
        let options = options.clone();
        let (tell, told) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("mysql-killer".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let order = tokio::select! {
                        () = cancel.cancelled() => Order::Kill,
                        order = told => order.unwrap_or(Order::Kill),
                    };
                    if let Order::Kill = order {
                        kill(&options, id).await;
                    }
                });
            })
            .map_err(unavailable)?;
        Ok(Self {
            tell: Some(tell),
            thread: Some(thread),
        })
    }

    /// The query is over: nothing to kill, unless the token fired before.
    pub fn stand_down(mut self) {
        self.end(Order::StandDown);
    }

    /// Returns when the connection is gone from the server, or nothing more can be done about it.
    pub fn kill(mut self) {
        self.end(Order::Kill);
    }

    fn end(&mut self, order: Order) {
        if let Some(tell) = self.tell.take() {
            // The thread may have acted on the token already.
            let _ = tell.send(order);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.end(Order::Kill);
    }
}

async fn kill(options: &MySqlConnectOptions, id: u64) {
    for attempt in 1..=KILL_ATTEMPTS {
        let killed = tokio::time::timeout(KILL_TIMEOUT, async {
            let mut control = options.connect().await?;
            let sql = format!("kill connection {id}");
            let outcome = control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
            let _ = control.close().await;
            outcome
        });
        let error = match killed.await {
            Ok(Ok(_)) => return,
            // No such thread: it has ended by itself.
            Ok(Err(error)) if number(&error) == Some(1094) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {KILL_TIMEOUT:?}"),
        };
        if attempt == KILL_ATTEMPTS {
            tracing::warn!(mysql.thread = id, error, "a query could not be killed");
        }
    }
}

fn number(error: &sqlx::Error) -> Option<u16> {
    error
        .as_database_error()?
        .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
        .map(sqlx::mysql::MySqlDatabaseError::number)
}
