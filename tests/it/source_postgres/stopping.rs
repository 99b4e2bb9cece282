//! A read that is stopped is gone from the server.

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use rowgate::source::{BatchOut, Closed, Error};
use sqlx::{PgConnection, Row};

use super::{PATIENCE, arrives};
use crate::support::{
    postgres::Database,
    reading::{Collected, blocking, options, sql, start},
    wait_until,
};

const ENDLESS_ROWS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select i, repeat('x', 100) from n";
/// Only a defect takes longer, for the read and for its query. A second is promised, and `promises` keeps the time.
const GONE: Duration = Duration::from_secs(10);

/// Sees our sessions at the server; connected before anything has to be gone.
struct Look(tokio::sync::Mutex<PgConnection>);

impl Look {
    async fn at(db: &Database) -> Self {
        Self(tokio::sync::Mutex::new(db.connect().await))
    }

    async fn sessions(&self, condition: &str) -> i64 {
        let sql = format!(
            "select count(*) from pg_stat_activity
             where application_name = 'rowgate' and datname = current_database() and {condition}"
        );
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut *self.0.lock().await)
            .await
            .unwrap()
            .get(0)
    }

    /// Waits until one session of ours is in that state.
    async fn until(&self, what: &str, condition: &str) {
        wait_until(PATIENCE, what, async || {
            (self.sessions(condition).await == 1).then_some(())
        })
        .await;
    }

    async fn until_it_sleeps(&self) {
        self.until("the query runs", "wait_event = 'PgSleep'").await;
    }

    /// Back-pressure has reached the server: it waits for us to read.
    async fn until_blocked_on_client(&self) {
        let condition = "wait_event = 'ClientWrite'";
        self.until("the server waits for us to read", condition)
            .await;
    }

    /// No session of ours, running or idle.
    async fn until_gone(&self) {
        let what = "no session of ours is left on the server";
        wait_until(GONE, what, async || {
            (self.sessions("true").await == 0).then_some(())
        })
        .await;
    }
}

pub async fn until_it_sleeps(db: &Database) {
    Look::at(db).await.until_it_sleeps().await;
}

#[tokio::test]
async fn a_cancel_before_the_first_row_ends_the_query() {
    let db = Database::create().await;
    let look = Look::at(&db).await;
    // A reader needs no rights of its own to stop what it runs.
    let role = &db.name;
    db.execute(&format!("create role {role} login")).await;
    let resolved = sql(&db.url_as(role), "select pg_sleep(600)").await.unwrap();
    let running = start(resolved, options(), Collected::default());
    look.until_it_sleeps().await;
    running.cancel.cancel();
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    look.until_gone().await;
    db.execute(&format!("drop role {role}")).await;
}

#[tokio::test]
async fn a_cancel_while_rows_flow_ends_the_query() {
    let db = Database::create().await;
    let look = Look::at(&db).await;
    struct Counting(Option<tokio::sync::oneshot::Sender<()>>);
    impl BatchOut for Counting {
        fn schema(&mut self, _: SchemaRef) -> Result<(), Closed> {
            Ok(())
        }
        fn batch(&mut self, _: RecordBatch) -> Result<(), Closed> {
            if let Some(signal) = self.0.take() {
                let _ = signal.send(());
            }
            Ok(())
        }
    }
    let (signal, flows) = tokio::sync::oneshot::channel();
    let resolved = sql(&db.url, ENDLESS_ROWS).await.unwrap();
    let running = start(resolved, options(), Counting(Some(signal)));
    arrives(flows).await;
    running.cancel.cancel();
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    look.until_gone().await;
}

#[tokio::test]
async fn a_cancel_while_the_receiver_blocks_ends_the_query() {
    let db = Database::create().await;
    let look = Look::at(&db).await;
    let (out, taken, release) = blocking();
    let running = start(sql(&db.url, ENDLESS_ROWS).await.unwrap(), options(), out);
    arrives(taken).await;
    look.until_blocked_on_client().await;
    running.cancel.cancel();
    // The queue of the pipeline lets go when the export is cancelled.
    drop(release);
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    look.until_gone().await;
}

#[tokio::test]
async fn a_receiver_that_goes_away_ends_the_query() {
    struct Gone;
    impl BatchOut for Gone {
        fn schema(&mut self, _: SchemaRef) -> Result<(), Closed> {
            Ok(())
        }
        fn batch(&mut self, _: RecordBatch) -> Result<(), Closed> {
            Err(Closed)
        }
    }
    let db = Database::create().await;
    let look = Look::at(&db).await;
    let running = start(sql(&db.url, ENDLESS_ROWS).await.unwrap(), options(), Gone);
    let (outcome, _) = running.finish(PATIENCE).await;
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    look.until_gone().await;
}

/// A function that swallows the cancel is terminated.
#[tokio::test]
async fn a_query_that_ignores_the_cancel_is_terminated() {
    let db = Database::create().await;
    let look = Look::at(&db).await;
    db.execute(
        "create function stubborn() returns int language plpgsql as $$
         begin
            loop
                begin
                    perform pg_sleep(600);
                exception when query_canceled then null;
                end;
            end loop;
         end $$",
    )
    .await;
    let running = start(
        sql(&db.url, "select stubborn()").await.unwrap(),
        options(),
        Collected::default(),
    );
    look.until_it_sleeps().await;
    running.cancel.cancel();
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    look.until_gone().await;
}

#[tokio::test]
async fn the_statement_timeout_counts_waiting() {
    let db = Database::create().await;
    let look = Look::at(&db).await;
    let mut options = options();
    options.statement_timeout = Duration::from_millis(300);
    let resolved = sql(&db.url, "select pg_sleep(600)").await.unwrap();
    let (outcome, _) = start(resolved, options, Collected::default())
        .finish(PATIENCE)
        .await;
    assert!(
        matches!(outcome, Err(Error::StatementTimeout { .. })),
        "{outcome:?}"
    );
    look.until_gone().await;
}

#[tokio::test]
async fn the_statement_timeout_does_not_count_back_pressure() {
    let db = Database::create().await;
    let look = Look::at(&db).await;
    let mut options = options();
    options.statement_timeout = Duration::from_secs(8);
    // More than all buffers between us and the server hold.
    let text = "select i, repeat('x', 1000) from generate_series(1, 50000) i";
    let (out, taken, release) = blocking();
    let running = start(sql(&db.url, text).await.unwrap(), options, out);
    arrives(taken).await;
    look.until_blocked_on_client().await;
    // The server's clock tells that it has been held up for longer than the time-out.
    let condition = "now() - query_start > interval '9 s'";
    look.until("the read was held up", condition).await;
    release.send(()).unwrap();
    let (outcome, out) = running.finish(PATIENCE).await;
    outcome.unwrap();
    assert_eq!(out.rows, 50_000);
}
