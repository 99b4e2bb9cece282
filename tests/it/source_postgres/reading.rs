//! Batches, samples, estimates and snapshots.

use std::{sync::atomic::Ordering, time::Duration};

use rowgate::source::Estimate;

use super::{PATIENCE, arrives, rows};
use crate::support::{
    postgres::Database,
    reading::{blocking, options, read, read_sql, sql, start, table},
};

#[tokio::test]
async fn batches_end_by_rows_and_by_bytes() {
    let db = Database::create().await;
    let text = "select i, repeat('x', 1000) from generate_series(1, 2500) i";
    let mut by_rows = options();
    by_rows.batch_bytes_max = 100 << 20;
    let (outcome, got) = read(sql(&db.url, text).await.unwrap(), by_rows).await;
    outcome.unwrap();
    let sizes: Vec<_> = got.batches.iter().map(|b| b.num_rows()).collect();
    // A server that stands still for a second makes a batch end early.
    assert!(sizes.iter().all(|rows| *rows <= 1000), "{sizes:?}");
    assert!(sizes.contains(&1000), "{sizes:?}");
    assert_eq!(got.row_count(), 2500);
    let mut by_bytes = options();
    by_bytes.batch_bytes_max = 100_000;
    let (outcome, got) = read(sql(&db.url, text).await.unwrap(), by_bytes).await;
    outcome.unwrap();
    assert_eq!(got.row_count(), 2500);
    assert!(got.batches.iter().all(|b| b.num_rows() <= 100));
    let numbers: Vec<_> = got.rows().iter().map(|row| row[0].clone()).collect();
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(i, n)| *n == (i + 1).to_string())
    );
}

#[tokio::test]
async fn the_size_of_batches_changes_while_a_read_runs() {
    let db = Database::create().await;
    let resolved = sql(&db.url, "select i from generate_series(1, 3000) i")
        .await
        .unwrap();
    let (out, taken, release) = blocking();
    let options = options();
    let batch_rows = options.batch_rows.clone();
    let running = start(resolved, options, out);
    arrives(taken).await;
    batch_rows.store(50, Ordering::Relaxed);
    release.send(()).unwrap();
    let (outcome, out) = running.finish(PATIENCE).await;
    outcome.unwrap();
    assert_eq!(out.rows, 3000);
    // The batch that was being filled keeps its size; those behind it have the new one, and a server that stands still
    // for a second makes one end early.
    assert!(out.sizes[0] > 50, "{:?}", out.sizes);
    let behind = &out.sizes[out.sizes.len() - 20..];
    assert!(behind.iter().all(|rows| *rows <= 50), "{:?}", out.sizes);
    assert!(behind.contains(&50), "{:?}", out.sizes);
}

#[tokio::test]
async fn rows_of_a_slow_query_do_not_wait_for_a_full_batch() {
    let db = Database::create().await;
    // Row 3 comes after ten minutes. Row 1 must be here long before; row 2 is half in the server's buffer.
    let text = "select i, case when i > 2 then pg_sleep(600)::text end, repeat('x', 10000) from generate_series(1, 9) i";
    let (out, taken, release) = blocking();
    let running = start(sql(&db.url, text).await.unwrap(), options(), out);
    arrives(taken).await;
    running.cancel.cancel();
    drop(release);
    let (outcome, out) = running.finish(PATIENCE).await;
    assert!(outcome.is_err());
    assert_eq!(out.rows, 1);
}

#[tokio::test]
async fn a_sample_ends_early_on_the_server() {
    let db = Database::create().await;
    let mut sample = options();
    sample.rows_max = Some(10);
    // The whole would never end.
    let text = "with recursive n(i) as (select 1 union all select i + 1 from n) select i, i from n";
    let (outcome, got) = read(sql(&db.url, text).await.unwrap(), sample.clone()).await;
    outcome.unwrap();
    assert_eq!(got.row_count(), 10);
    db.execute("create table t as select i from generate_series(1, 100) i")
        .await;
    let (outcome, got) = read(table(&db.url, "t", &["i desc"], Some(5)).await, sample).await;
    outcome.unwrap();
    assert_eq!(rows(&got), ["100", "99", "98", "97", "96"]);
}

#[tokio::test]
async fn a_read_sees_one_snapshot_and_names_it() {
    let db = Database::create().await;
    let resolved = sql(&db.url, "select 1").await.unwrap();
    let (outcome, _) = read(resolved, options()).await;
    let snapshot = outcome.unwrap().snapshot.expect("a snapshot");
    assert_eq!(snapshot.split(':').count(), 3, "{snapshot}");
    let got = read_sql(
        &db.url,
        "select current_setting('transaction_isolation'), current_setting('transaction_read_only'),
            current_setting('TimeZone'), current_setting('application_name'),
            current_setting('client_connection_check_interval')",
    )
    .await;
    assert_eq!(rows(&got), ["repeatable read|on|UTC|rowgate|500ms"]);
}

#[tokio::test]
async fn no_time_out_of_the_server_ends_a_read() {
    let db = Database::create().await;
    // The last one exists since PostgreSQL 17.
    db.execute(
        "do $$ declare setting text; begin
           for setting in select name from pg_settings where name in
             ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
           loop
             execute format('alter database %I set %I = ''1h''', current_database(), setting);
           end loop; end $$",
    )
    .await;
    let got = read_sql(
        &db.url,
        "select current_setting('statement_timeout'),
            current_setting('idle_in_transaction_session_timeout'),
            coalesce(current_setting('transaction_timeout', true), '0')",
    )
    .await;
    assert_eq!(rows(&got), ["0|0|0"]);
}

#[tokio::test]
async fn estimates_come_from_the_planner() {
    let db = Database::create().await;
    db.execute("create table t as select i from generate_series(1, 10000) i; analyze t")
        .await;
    let patience = PATIENCE;
    let all = table(&db.url, "t", &[], None).await;
    let estimate = all.source.estimate(&all.query, patience).await.unwrap();
    let planner = "planner";
    assert_eq!(
        estimate,
        Some(Estimate {
            rows: 10_000,
            origin: planner
        })
    );
    let some = table(&db.url, "t", &[], Some(7)).await;
    let estimate = some.source.estimate(&some.query, patience).await.unwrap();
    assert_eq!(
        estimate,
        Some(Estimate {
            rows: 7,
            origin: "limit"
        })
    );
    let none = all
        .source
        .estimate(&all.query, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(none, None);
}
