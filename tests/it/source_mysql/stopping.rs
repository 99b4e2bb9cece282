//! However a read ends, its query is gone from the server within a second.

use std::time::{Duration, Instant};

use rowgate::source::Error;

use super::{A_SECOND, allowed, assert_gone_within_a_second, wait_for_query, with_numbers};
use crate::support::{
    mariadb::Database,
    reading::{Collected, blocking, options, read, start, table},
};

#[tokio::test]
async fn an_error_in_the_middle_ends_the_read_after_the_rows_before_it() {
    let database = with_numbers(5000).await;
    let text = "select id, if(id = 4000, (select 1 union select 2), id) as v from t order by id";
    let (outcome, got) = read(allowed(&database, text).await, options()).await;
    let Err(Error::Query {
        sqlstate,
        retryable,
        ..
    }) = outcome
    else {
        panic!("expected a failure: {outcome:?}");
    };
    assert_eq!(sqlstate.as_deref(), Some("21000"));
    assert!(!retryable);
    assert!(
        got.row_count() <= 3999 && got.row_count() >= 3000,
        "{}",
        got.row_count()
    );
    assert_gone_within_a_second(&database).await;
}

#[tokio::test]
async fn a_cancel_before_the_first_row_kills_the_query_within_a_second() {
    let database = Database::create().await;
    for (text, part) in [
        ("select sleep(100) as s", "sleep(100)"),
        (
            "select benchmark(1000000000000, md5('x')) as b",
            "benchmark",
        ),
    ] {
        let running = start(
            allowed(&database, text).await,
            options(),
            Collected::default(),
        );
        wait_for_query(&database, part).await;
        let cancelled = Instant::now();
        running.cancel.cancel();
        let (outcome, _) = running.finish(A_SECOND).await;
        assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
        assert_gone_within_a_second(&database).await;
        assert!(cancelled.elapsed() < A_SECOND, "{:?}", cancelled.elapsed());
    }
}

#[tokio::test]
async fn a_cancel_kills_the_query_while_its_receiver_blocks() {
    let database = with_numbers(50_000).await;
    let (out, taken, release) = blocking();
    let resolved = allowed(&database, "select a.* from t a, t b limit 100000000").await;
    let running = start(resolved, options(), out);
    taken.await.expect("a batch is taken");
    wait_for_query(&database, "from t a, t b").await;
    running.cancel.cancel();
    // The receiver still blocks: the query has to go all the same.
    assert_gone_within_a_second(&database).await;
    release.send(()).expect("the receiver waits");
    let (outcome, _) = running.finish(A_SECOND).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
}

#[tokio::test]
async fn a_receiver_that_goes_away_ends_the_query() {
    struct Gone;
    impl rowgate::source::BatchOut for Gone {
        fn schema(
            &mut self,
            _schema: arrow::datatypes::SchemaRef,
        ) -> Result<(), rowgate::source::Closed> {
            Ok(())
        }
        fn batch(
            &mut self,
            _batch: arrow::array::RecordBatch,
        ) -> Result<(), rowgate::source::Closed> {
            Err(rowgate::source::Closed)
        }
    }
    let database = with_numbers(5000).await;
    let resolved = allowed(&database, "select a.* from t a, t b").await;
    let (outcome, _) = start(resolved, options(), Gone)
        .finish(Duration::from_secs(10))
        .await;
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    assert_gone_within_a_second(&database).await;
}

#[tokio::test]
async fn the_time_out_counts_waiting_and_not_back_pressure() {
    let database = with_numbers(50_000).await;
    let mut options = options();
    options.statement_timeout = Duration::from_millis(800);
    let started = Instant::now();
    let (outcome, _) = read(
        allowed(&database, "select sleep(100)").await,
        options.clone(),
    )
    .await;
    assert!(
        matches!(outcome, Err(Error::StatementTimeout { .. })),
        "{outcome:?}"
    );
    assert!(
        started.elapsed() < Duration::from_millis(2500),
        "{:?}",
        started.elapsed()
    );
    assert_gone_within_a_second(&database).await;

    // The receiver blocks for longer than the limit; the query itself is quick.
    let (out, taken, release) = blocking();
    let resolved = table(&database.url, "t", &[], None).await;
    options.statement_timeout = Duration::from_secs(5);
    let running = start(resolved, options, out);
    taken.await.expect("a batch is taken");
    tokio::time::sleep(Duration::from_millis(5500)).await;
    release.send(()).expect("the receiver waits");
    let (outcome, out) = running.finish(Duration::from_secs(10)).await;
    outcome.expect("back-pressure is nobody's time-out");
    assert_eq!(out.rows, 50_000);
}
