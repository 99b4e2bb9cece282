//! A read that is stopped is gone from the server within a second.

use std::time::{Duration, Instant};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use rowgate::source::{BatchOut, Closed, Error};
use sqlx::Row;

use super::arrives;
use crate::support::{
    postgres::Database,
    reading::{Collected, blocking, options, sql, start},
    wait_until,
};

const ENDLESS_ROWS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select i, repeat('x', 100) from n";
const SECOND: Duration = Duration::from_secs(1);

async fn sessions(db: &Database) -> i64 {
    sqlx::query(
        "select count(*) from pg_stat_activity
            where application_name = 'rowgate' and datname = current_database() and state = 'active'",
    )
    .fetch_one(&mut db.connect().await)
    .await
    .unwrap()
    .get(0)
}

pub async fn wait_for_query(db: &Database, count: i64) {
    wait_until(Duration::from_secs(10), "the query runs", async || {
        (sessions(db).await == count).then_some(())
    })
    .await;
}

/// No session of ours, running or idle.
async fn gone(db: &Database, since: Instant) {
    let left = SECOND.saturating_sub(since.elapsed());
    wait_until(
        left,
        "no session of ours is left on the server",
        async || {
            let count: i64 = sqlx::query(
                "select count(*) from pg_stat_activity
                where application_name = 'rowgate' and datname = current_database()",
            )
            .fetch_one(&mut db.connect().await)
            .await
            .unwrap()
            .get(0);
            (count == 0).then_some(())
        },
    )
    .await;
}

#[tokio::test]
async fn a_cancel_before_the_first_row_ends_the_query() {
    let db = Database::create().await;
    // A reader needs no rights of its own to stop what it runs.
    let role = &db.name;
    db.execute(&format!("create role {role} login")).await;
    let resolved = sql(&db.url_as(role), "select pg_sleep(600)").await.unwrap();
    let running = start(resolved, options(), Collected::default());
    wait_for_query(&db, 1).await;
    let since = Instant::now();
    running.cancel.cancel();
    let (outcome, _) = running.finish(SECOND).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    gone(&db, since).await;
    db.execute(&format!("drop role {role}")).await;
}

#[tokio::test]
async fn a_cancel_while_rows_flow_ends_the_query() {
    let db = Database::create().await;
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
    let since = Instant::now();
    running.cancel.cancel();
    let (outcome, _) = running.finish(SECOND).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    gone(&db, since).await;
}

#[tokio::test]
async fn a_cancel_while_the_receiver_blocks_ends_the_query() {
    let db = Database::create().await;
    let (out, taken, release) = blocking();
    let running = start(sql(&db.url, ENDLESS_ROWS).await.unwrap(), options(), out);
    arrives(taken).await;
    wait_blocked_on_client(&db).await;
    let since = Instant::now();
    running.cancel.cancel();
    // The queue of the pipeline lets go when the export is cancelled.
    drop(release);
    let (outcome, _) = running.finish(SECOND).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    gone(&db, since).await;
}

/// Back-pressure has reached the server: it waits for us to read.
async fn wait_blocked_on_client(db: &Database) {
    wait_until(
        Duration::from_secs(20),
        "the server waits for us to read",
        async || {
            let row = sqlx::query(
                "select count(*) from pg_stat_activity where application_name = 'rowgate'
                and datname = current_database() and wait_event = 'ClientWrite'",
            )
            .fetch_one(&mut db.connect().await)
            .await
            .unwrap();
            (row.get::<i64, _>(0) == 1).then_some(())
        },
    )
    .await;
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
    let running = start(sql(&db.url, ENDLESS_ROWS).await.unwrap(), options(), Gone);
    let (outcome, _) = running.finish(Duration::from_secs(10)).await;
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    gone(&db, Instant::now()).await;
}

/// A function that swallows the cancel is terminated.
#[tokio::test]
async fn a_query_that_ignores_the_cancel_is_terminated() {
    let db = Database::create().await;
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
    wait_for_query(&db, 1).await;
    let since = Instant::now();
    running.cancel.cancel();
    let (outcome, _) = running.finish(SECOND).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    gone(&db, since).await;
}

#[tokio::test]
async fn the_statement_timeout_counts_waiting() {
    let db = Database::create().await;
    let mut options = options();
    options.statement_timeout = Duration::from_millis(300);
    let resolved = sql(&db.url, "select pg_sleep(600)").await.unwrap();
    let (outcome, _) = start(resolved, options, Collected::default())
        .finish(Duration::from_secs(5))
        .await;
    assert!(
        matches!(outcome, Err(Error::StatementTimeout { .. })),
        "{outcome:?}"
    );
    gone(&db, Instant::now()).await;
}

#[tokio::test]
async fn the_statement_timeout_does_not_count_back_pressure() {
    let db = Database::create().await;
    let mut options = options();
    options.statement_timeout = Duration::from_secs(3);
    // More than all buffers between us and the server hold.
    let text = "select i, repeat('x', 1000) from generate_series(1, 50000) i";
    let (out, taken, release) = blocking();
    let running = start(sql(&db.url, text).await.unwrap(), options, out);
    arrives(taken).await;
    wait_blocked_on_client(&db).await;
    // The server's clock tells that it has been held up for longer than the time-out.
    wait_until(
        Duration::from_secs(20),
        "the read was held up",
        async || {
            let row = sqlx::query(
            "select coalesce(max(now() - query_start) > interval '4 s', false) from pg_stat_activity
                where application_name = 'rowgate' and datname = current_database()",
        )
        .fetch_one(&mut db.connect().await)
        .await
        .unwrap();
            row.get::<bool, _>(0).then_some(())
        },
    )
    .await;
    release.send(()).unwrap();
    let (outcome, out) = running.finish(Duration::from_secs(30)).await;
    outcome.unwrap();
    assert_eq!(out.rows, 50_000);
}
