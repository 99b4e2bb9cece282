//! However a read ends, its query is gone from the server.

use std::time::Duration;

use rowgate::source::Error;

use super::{GONE, Look, PATIENCE, allowed, with_numbers};
use crate::support::{
    mariadb::Database,
    reading::{Collected, blocking, options, read, start},
};

#[tokio::test]
async fn an_error_in_the_middle_ends_the_read_after_the_rows_before_it() {
    let database = with_numbers(5000).await;
    let look = Look::at(&database).await;
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
    look.until_gone().await;
}

#[tokio::test]
async fn a_cancel_before_the_first_row_kills_the_query() {
    let database = Database::create().await;
    let look = Look::at(&database).await;
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
        look.until_it_runs(part).await;
        running.cancel.cancel();
        let (outcome, _) = running.finish(GONE).await;
        assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
        look.until_gone().await;
    }
}

#[tokio::test]
async fn a_cancel_kills_the_query_while_its_receiver_blocks() {
    let database = with_numbers(50_000).await;
    let look = Look::at(&database).await;
    let (out, taken, release) = blocking();
    let resolved = allowed(&database, "select a.* from t a, t b limit 100000000").await;
    let running = start(resolved, options(), out);
    taken.await.expect("a batch is taken");
    look.until_it_runs("from t a, t b").await;
    running.cancel.cancel();
    // The receiver still blocks: the query has to go all the same.
    look.until_gone().await;
    release.send(()).expect("the receiver waits");
    let (outcome, _) = running.finish(GONE).await;
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
    let look = Look::at(&database).await;
    let resolved = allowed(&database, "select a.* from t a, t b").await;
    let (outcome, _) = start(resolved, options(), Gone).finish(PATIENCE).await;
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    look.until_gone().await;
}

#[tokio::test]
async fn the_time_out_counts_waiting_and_not_back_pressure() {
    let database = with_numbers(50_000).await;
    let look = Look::at(&database).await;
    let mut options = options();
    options.statement_timeout = Duration::from_millis(800);
    let slow = allowed(&database, "select sleep(100)").await;
    let running = start(slow, options.clone(), Collected::default());
    let (outcome, _) = running.finish(PATIENCE).await;
    assert!(
        matches!(outcome, Err(Error::StatementTimeout { .. })),
        "{outcome:?}"
    );
    look.until_gone().await;

    // The receiver blocks for longer than the limit; the query itself is quick. It gives more than all buffers between
    // the server and us hold.
    let (out, taken, release) = blocking();
    let resolved = allowed(&database, "select t.* from t, seq_1_to_4 s").await;
    options.statement_timeout = Duration::from_secs(8);
    let running = start(resolved, options, out);
    taken.await.expect("a batch is taken");
    look.until_it_runs_for("seq_1_to_4", 10).await;
    release.send(()).expect("the receiver waits");
    let (outcome, out) = running.finish(PATIENCE).await;
    outcome.expect("back-pressure is nobody's time-out");
    assert_eq!(out.rows, 200_000);
}
