//! SQLite as a source, on real files.

mod hidden;
mod slow;

use std::{path::PathBuf, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use rowgate::source::{BatchOut, Closed, Error};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::support::{
    reading::{self, Collected, SILENT_SQLITE, options, read, read_sql, sql, sql_with, table},
    temp_dir,
};

/// Endless: a recursive query that gives no row.
const NO_ROW_EVER: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n where i < 0";
const ENDLESS_ROWS: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n";

/// Only a defect lets it pass.
const PATIENCE: Duration = Duration::from_secs(30);
/// Only a defect takes longer to end a query. A second is promised, and `promises` keeps the time.
const GONE: Duration = Duration::from_secs(10);

struct File {
    _dir: TempDir,
    path: PathBuf,
    url: String,
}

fn file(script: &str) -> File {
    let dir = temp_dir();
    let path = dir.path().join("data.db");
    let connection = rusqlite::Connection::open(&path).expect("a file can be made");
    connection.execute_batch(script).expect("the script runs");
    drop(connection);
    File {
        url: format!("sqlite://{}", path.display()),
        path,
        _dir: dir,
    }
}

fn rows(collected: &Collected) -> Vec<String> {
    collected.rows().iter().map(|row| row.join("|")).collect()
}

#[tokio::test]
async fn every_declared_type_arrives_exactly() {
    let file = file(
        "create table t(
           b boolean, i integer, big bigint, r real, d decimal(12,2), n numeric, s varchar(20), x blob,
           day date, at datetime, tz timestamptz, clock time, id uuid, j json);
         insert into t values
           (1, -1, 9223372036854775807, 0.1, 12.34, 1.5, 'Zoë 王', x'00ff',
            '2024-02-29', '2024-02-29 23:59:59.999999', '2024-02-29T23:59:59+08:00', '23:59:59.5',
            '67e55044-10b1-426f-9247-bb680e5fe0c8', '{\"a\": [1, null]}'),
           (0, 0, -9223372036854775808, -1.7976931348623157e308, '-9999999999.99', 123456789012345678, '', x'',
            '0001-01-01', '9999-12-31T00:00', '1970-01-01 00:00:00Z', '00:00',
            '00000000-0000-0000-0000-000000000000', 17),
           (null, null, null, null, null, null, null, null, null, null, null, null, null, null);",
    );
    let (outcome, got) = read(table(&file.url, "t", &["i desc"], None).await, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(
        got.types(),
        [
            "b: Boolean",
            "i: Int64",
            "big: Int64",
            "r: Float64",
            "d: Decimal128(12, 2)",
            "n: Utf8 (numeric)",
            "s: Utf8",
            "x: Binary",
            "day: Date32",
            "at: Timestamp(µs)",
            "tz: Timestamp(µs, \"UTC\")",
            "clock: Time64(µs)",
            "id: Utf8 (uuid)",
            "j: Utf8 (json)",
        ]
    );
    assert_eq!(
        rows(&got),
        [
            "false|0|-9223372036854775808|-1.7976931348623157e308|-9999999999.99|123456789012345678|||\
             0001-01-01|9999-12-31T00:00:00|1970-01-01T00:00:00Z|00:00:00|\
             00000000-0000-0000-0000-000000000000|17",
            "true|-1|9223372036854775807|0.1|12.34|1.5|Zoë 王|00ff|\
             2024-02-29|2024-02-29T23:59:59.999999|2024-02-29T15:59:59Z|23:59:59.500|\
             67e55044-10b1-426f-9247-bb680e5fe0c8|{\"a\": [1, null]}",
            "NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL",
        ]
    );
}

#[tokio::test]
async fn describing_says_what_reading_gives_and_warns_of_contradictions() {
    let file = file(
        "create table t(a integer, d date);
         insert into t values ('not a number', '29.2.2024'), (2, '2024-03-01');",
    );
    let resolved = table(&file.url, "t", &[], None).await;
    let described = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect("the table can be described");
    assert_eq!(reading::types(&described.schema), ["a: Utf8", "d: Utf8"]);
    assert_eq!(described.warnings.len(), 2, "{:?}", described.warnings);
    let (outcome, got) = read(resolved, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(got.schema, Some(described.schema));
    assert_eq!(rows(&got), ["not a number|29.2.2024", "2|2024-03-01"]);
}

#[tokio::test]
async fn expressions_are_typed_by_their_values_and_a_change_is_named() {
    let file = file("create table t(i integer)");
    let got = read_sql(
        &file.url,
        "select 1 as i, 0.5 as r, 'x' as s, x'01' as b, null as n, count(*) as c from t",
    )
    .await;
    assert_eq!(
        got.types(),
        [
            "i: Int64",
            "r: Float64",
            "s: Utf8",
            "b: Binary",
            "n: Utf8",
            "c: Int64"
        ]
    );
    assert_eq!(rows(&got), ["1|0.5|x|01|NULL|0"]);

    let changing = "with recursive n(i) as (select 0 union all select i + 1 from n where i < 9999)
                    select case when i < 5000 then i else 'text' end as v from n";
    let resolved = sql(&file.url, changing).await.expect("allowed");
    let (outcome, got) = read(resolved, options()).await;
    let Err(Error::TypeChanged {
        row,
        column,
        expected,
        found,
    }) = outcome
    else {
        panic!("expected a type change: {outcome:?}");
    };
    assert_eq!((row, column.as_str()), (5000, "v"));
    assert!(
        expected.contains("Int64") && found.contains("text"),
        "{expected} {found}"
    );
    assert_eq!(got.row_count(), 5000, "the rows before it were handed over");
}

#[tokio::test]
async fn text_that_is_no_utf8_is_bytes_or_an_error_but_no_panic() {
    let file = file("create table t(s text)");
    let got = read_sql(
        &file.url,
        "select cast(x'ff41' as text) as s union all select 'A'",
    )
    .await;
    assert_eq!(got.types(), ["s: Binary"]);
    assert_eq!(rows(&got), ["ff41", "41"]);

    let late = "with recursive n(i) as (select 0 union all select i + 1 from n where i < 4999)
                select case when i < 4999 then 'x' else cast(x'ff' as text) end as v from n";
    let (outcome, _) = read(sql(&file.url, late).await.expect("allowed"), options()).await;
    assert!(
        matches!(outcome, Err(Error::TypeChanged { row: 4999, .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn parameters_are_bound_with_their_types() {
    let file = file("create table t(id integer, name text, at datetime)");
    let resolved = sql_with(
        &file.url,
        "select :i as i, :f as f, :s as s, :t as t, :n as n, :i + 1 as twice, ':i' as quoted",
        &[
            ("i", json!(41)),
            ("f", json!(0.25)),
            ("s", json!("'; drop table t; --")),
            ("t", json!(true)),
            ("n", json!(null)),
        ],
    )
    .await
    .expect("allowed");
    let (outcome, got) = read(resolved, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(rows(&got), ["41|0.25|'; drop table t; --|1|NULL|42|:i"]);

    let nested = sql_with(&file.url, "select :l", &[("l", json!([[1]]))])
        .await
        .expect("allowed");
    let described = nested.source.describe(&nested.query).await;
    let failure = described.expect_err("a list of lists").into_failure();
    assert_eq!(failure.violations[0].field, "spec.params.l");
}

#[tokio::test]
async fn lists_are_bound_value_by_value() {
    let file = file(
        "create table l(n integer, s text); insert into l values (1, 'a'), (2, 'b'), (3, 'c')",
    );
    for (text, list, expected) in [
        (
            "select n from l where n in (:l) order by n",
            json!([1, 3, 99]),
            vec!["1", "3"],
        ),
        ("select n from l where n in (:l)", json!([]), vec![]),
        (
            "select n from l where n not in (:l) order by n",
            json!([]),
            vec!["1", "2", "3"],
        ),
        (
            "select n from l where s in (:l) and n < 9",
            json!(["b' or 1 = 1 --", "c"]),
            vec!["3"],
        ),
    ] {
        let resolved = sql_with(&file.url, text, &[("l", list)])
            .await
            .expect("allowed");
        let described = resolved.source.describe(&resolved.query).await.expect(text);
        let (outcome, got) = read(resolved, options()).await;
        outcome.expect(text);
        assert_eq!(got.schema, Some(described.schema));
        assert_eq!(rows(&got), expected, "{text}");
    }
}

#[tokio::test]
async fn only_one_reading_statement_is_let_through() {
    let file = file("create table t(i integer); insert into t values (1); create table victim(i)");
    let dir = file.path.parent().expect("in a folder");
    let (other, copy) = (dir.join("other.db"), dir.join("copy.db"));
    let attach = format!("attach '{}' as other", other.display());
    let vacuum = format!("vacuum into '{}'", copy.display());
    for text in [
        "insert into t values (2)",
        "update t set i = 2 returning i",
        "delete from t",
        "drop table victim",
        "create table x(i)",
        "create temp table x(i)",
        "create temp view x as select 1",
        &attach,
        &vacuum,
        "vacuum",
        "pragma query_only = off",
        "pragma journal_mode = wal",
        "pragma writable_schema",
        "begin",
        "commit",
        "select load_extension('x')",
        "select * from pragma_table_info('t')",
        "reindex",
        "analyze",
        "select 1; select 2",
        "select i from t; drop table victim",
        "select nothing from t",
        "select \"misspelt\" from t",
        "selec 1",
        "",
        "select ?1",
    ] {
        let reason = match sql(&file.url, text).await {
            Err(failure) => failure.reason,
            Ok(resolved) => {
                let described = resolved.source.describe(&resolved.query).await;
                assert!(
                    matches!(described, Err(Error::Rejected { .. })),
                    "{text}: {described:?}"
                );
                let (outcome, _) = read(resolved, options()).await;
                outcome.expect_err(text).into_failure().reason
            }
        };
        assert_eq!(reason, "SQL_REJECTED", "{text}");
    }
    assert!(!other.exists() && !copy.exists(), "no file was created");
    let got = read_sql(
        &file.url,
        "select (select count(*) from t) || '/' || count(*) from victim",
    )
    .await;
    assert_eq!(rows(&got), ["1/0"]);
}

#[tokio::test]
async fn a_syntax_error_tells_its_position_in_the_clients_text() {
    let file = file("create table t(i integer)");
    let text = "select 'Zoë', :long_parameter_name, oops(1)";
    let resolved = sql_with(&file.url, text, &[("long_parameter_name", json!(1))])
        .await
        .expect("allowed");
    let Err(Error::Rejected {
        position, message, ..
    }) = resolved.source.describe(&resolved.query).await
    else {
        panic!("expected a refusal");
    };
    assert!(message.contains("oops"), "{message}");
    assert_eq!(position, text.chars().position(|c| c == 'o').and(Some(37)));
}

#[tokio::test]
async fn an_order_by_an_unknown_column_is_refused() {
    let file = file("create table t(i integer)");
    let resolved = table(&file.url, "main.t", &["nowhere"], None).await;
    match resolved.source.describe(&resolved.query).await {
        Err(Error::Invalid(failure)) => {
            assert_eq!(failure.violations[0].field, "spec.table.order_by[0]");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_read_after_the_rows_before_it() {
    let file = file("create table t(i integer)");
    let text = "with recursive n(i) as (select 0 union all select i + 1 from n where i < 9999)
                select i, case when i = 6000 then json('{') else i end as v from n";
    let (outcome, got) = read(sql(&file.url, text).await.expect("allowed"), options()).await;
    let Err(Error::Query {
        message, retryable, ..
    }) = outcome
    else {
        panic!("expected a failure: {outcome:?}");
    };
    assert!(message.contains("JSON") && !retryable, "{message}");
    assert_eq!(got.row_count(), 6000);
}

#[tokio::test]
async fn batches_keep_their_bounds_and_rows_max_stops_the_read() {
    let file = file("create table t(i integer)");
    let mut options = options();
    options.rows_max = Some(12_345);
    let (outcome, got) = read(
        sql(&file.url, ENDLESS_ROWS).await.expect("allowed"),
        options.clone(),
    )
    .await;
    outcome.expect("the read succeeds");
    assert_eq!(got.row_count(), 12_345);
    assert!(got.batches.iter().all(|batch| batch.num_rows() <= 1000));

    options.batch_bytes_max = 10_000;
    options.rows_max = Some(100);
    let wide = "with recursive n(i) as (select 1 union all select i + 1 from n) select hex(zeroblob(500)) from n";
    let (outcome, got) = read(sql(&file.url, wide).await.expect("allowed"), options).await;
    outcome.expect("the read succeeds");
    assert_eq!(got.batches[0].num_rows(), 10);
}

#[tokio::test]
async fn a_cancel_ends_a_query_without_rows() {
    /// Says when it has so many rows that the next batch is never full.
    struct Until {
        rows: usize,
        said: Option<oneshot::Sender<()>>,
    }
    impl BatchOut for Until {
        fn schema(&mut self, _: SchemaRef) -> Result<(), Closed> {
            Ok(())
        }
        fn batch(&mut self, batch: RecordBatch) -> Result<(), Closed> {
            self.rows += batch.num_rows();
            if self.rows > 4500
                && let Some(said) = self.said.take()
            {
                let _ = said.send(());
            }
            Ok(())
        }
    }
    let file = file("create table t(i integer)");
    // Before it began, and while it runs without a row.
    let resolved = sql(&file.url, NO_ROW_EVER).await.expect("allowed");
    let running = reading::start(resolved, options(), Collected::default());
    running.cancel.cancel();
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");

    let (said, is_said) = oneshot::channel();
    let out = Until {
        rows: 0,
        said: Some(said),
    };
    let resolved = sql(&file.url, SILENT_SQLITE).await.expect("allowed");
    let running = reading::start(resolved, options(), out);
    tokio::time::timeout(PATIENCE, is_said)
        .await
        .expect("the rows come")
        .expect("the read goes on");
    // Into the silence: too soon would only be the case above once more.
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.cancel.cancel();
    let (outcome, out) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(out.rows > 4500, "{} rows", out.rows);
}

#[tokio::test]
async fn a_cancel_ends_a_query_whose_receiver_blocks() {
    let file = file("create table t(i integer)");
    let (out, taken, release) = reading::blocking();
    let resolved = sql(&file.url, ENDLESS_ROWS).await.expect("allowed");
    let running = reading::start(resolved, options(), out);
    taken.await.expect("a batch is taken");
    running.cancel.cancel();
    release.send(()).expect("the receiver waits");
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
}

#[tokio::test]
async fn the_time_out_counts_waiting_and_not_back_pressure() {
    let file = file("create table t(i integer)");
    let mut options = options();
    options.statement_timeout = Duration::from_millis(300);
    let resolved = sql(&file.url, NO_ROW_EVER).await.expect("allowed");
    let running = reading::start(resolved, options.clone(), Collected::default());
    let (outcome, _) = running.finish(PATIENCE).await;
    assert!(
        matches!(outcome, Err(Error::StatementTimeout { .. })),
        "{outcome:?}"
    );

    // The receiver blocks for longer than the limit; the query itself is quick.
    let (out, taken, release) = reading::blocking();
    options.rows_max = Some(3000);
    options.statement_timeout = Duration::from_secs(3);
    let running = reading::start(
        sql(&file.url, ENDLESS_ROWS).await.expect("allowed"),
        options,
        out,
    );
    taken.await.expect("a batch is taken");
    tokio::time::sleep(Duration::from_secs(4)).await;
    release.send(()).expect("the receiver waits");
    let (outcome, out) = running.finish(PATIENCE).await;
    outcome.expect("back-pressure is nobody's time-out");
    assert_eq!(out.rows, 3000);
}

#[tokio::test]
async fn a_describe_that_nobody_waits_for_ends() {
    let file = file("create table t(i integer)");
    let resolved = sql(&file.url, NO_ROW_EVER).await.expect("allowed");
    let described = tokio::time::timeout(
        Duration::from_millis(100),
        resolved.source.describe(&resolved.query),
    );
    described.await.expect_err("it would never end");
    // The runtime waits for its blocking threads when the test ends: one that runs on would hang here.
}

#[tokio::test]
async fn the_read_is_one_snapshot_while_others_write() {
    let file = file(
        "pragma journal_mode = wal; create table t(i integer);
         insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select i from n",
    );
    let (out, taken, release) = reading::blocking();
    let running = reading::start(table(&file.url, "t", &[], None).await, options(), out);
    taken.await.expect("a batch is taken");
    let writer = rusqlite::Connection::open(&file.path).expect("the file opens");
    writer
        .execute("delete from t where i > 10000", [])
        .expect("a reader stops no writer");
    release.send(()).expect("the receiver waits");
    let (outcome, out) = running.finish(PATIENCE).await;
    outcome.expect("the read succeeds");
    assert_eq!(out.rows, 20_000);
}

#[tokio::test]
async fn estimates_come_from_counts_and_limits() {
    let file = file(
        "create table t(i integer);
         insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) select i from n",
    );
    for (resolved, rows, origin) in [
        (table(&file.url, "t", &[], None).await, 5000, "count"),
        (
            table(&file.url, "t", &["i desc"], Some(10)).await,
            10,
            "limit",
        ),
        (table(&file.url, "t", &[], Some(9999)).await, 5000, "count"),
        (
            sql_with(
                &file.url,
                "select * from t where i > :i; ",
                &[("i", json!(4000))],
            )
            .await
            .expect("allowed"),
            1000,
            "count",
        ),
    ] {
        let estimate = resolved
            .source
            .estimate(&resolved.query, PATIENCE)
            .await
            .expect("no failure")
            .expect("an answer");
        assert_eq!((estimate.rows, estimate.origin), (rows, origin));
    }
    let endless = sql(&file.url, NO_ROW_EVER).await.expect("allowed");
    let hasty = Duration::from_millis(500);
    let estimate = endless.source.estimate(&endless.query, hasty);
    let estimate = tokio::time::timeout(PATIENCE, estimate).await;
    assert_eq!(estimate.expect("it ends").expect("no failure"), None);
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_database_is_unavailable() {
    let dir = temp_dir();
    let missing = format!("sqlite://{}", dir.path().join("missing.db").display());
    std::fs::write(dir.path().join("text.db"), "x".repeat(5000)).expect("a file can be written");
    let text = format!("sqlite://{}", dir.path().join("text.db").display());
    for url in [missing, text] {
        let resolved = sql(&url, "select 1").await.expect("allowed");
        let described = resolved.source.describe(&resolved.query).await;
        let Err(error @ Error::Unavailable { .. }) = described else {
            panic!("{url}: {described:?}");
        };
        let failure = error.into_failure();
        assert!(
            failure.retryable && !failure.message.contains("db"),
            "{failure:?}"
        );
    }
    assert!(!dir.path().join("missing.db").exists());
}

#[tokio::test]
async fn a_file_under_an_exclusive_lock_is_unavailable_and_a_cancel_ends_the_wait() {
    let file = file("create table t(i integer)");
    let writer = rusqlite::Connection::open(&file.path).expect("the file opens");
    writer
        .execute_batch("begin exclusive")
        .expect("nobody else has it");
    let running = reading::start(
        table(&file.url, "t", &[], None).await,
        options(),
        Collected::default(),
    );
    // Into the wait: too soon would be cancelled as well, and show less.
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.cancel.cancel();
    let (outcome, _) = running.finish(GONE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    let running = reading::start(
        table(&file.url, "t", &[], None).await,
        options(),
        Collected::default(),
    );
    let (outcome, _) = running.finish(PATIENCE).await;
    assert!(outcome.expect_err("it is locked").retryable());
}
