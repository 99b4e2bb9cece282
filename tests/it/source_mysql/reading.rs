//! What a read and its questions give: parameters, lists, one session, one snapshot, estimates.

use rowgate::source::Error;
use serde_json::json;

use super::{Look, PATIENCE, allowed, rows, with_numbers};
use crate::support::{
    mariadb::Database,
    reading::{blocking, definition, options, read, read_sql, sql_with, start, table},
};

#[tokio::test]
async fn parameters_are_bound_with_their_types() {
    let database = Database::create().await;
    let resolved = sql_with(
        &database.url,
        "select :i as i, :f as f, :s as s, :t as t, :n as n, :i + 1 as more, ':i' as quoted, \"a:i\" as q",
        &[
            ("i", json!(41)),
            ("f", json!(0.25)),
            ("s", json!("'; drop table t; -- \\")),
            ("t", json!(true)),
            ("n", json!(null)),
        ],
    )
    .await
    .expect("allowed");
    let described = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect("described");
    let (outcome, got) = read(resolved, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(got.schema, Some(described.schema));
    assert_eq!(
        rows(&got),
        ["41|0.25|'; drop table t; -- \\|1|NULL|42|:i|a:i"]
    );

    let nested = sql_with(&database.url, "select :l", &[("l", json!([[1]]))])
        .await
        .expect("allowed");
    let described = nested.source.describe(&nested.query).await;
    let failure = described.expect_err("a list of lists").into_failure();
    assert_eq!(failure.violations[0].field, "spec.params.l");
}

#[tokio::test]
async fn decimal_parameters_compare_as_decimals() {
    let database = Database::create().await;
    database
        .execute(
            "create table d(n decimal(20,2), tiny decimal(30,28));
             insert into d values (123456789012345678.01, 0.1), (123456789012345678.02, 0.2),
               (123456789012345678.00, 0.3), (5, 0.0000000000000000000000000001)",
        )
        .await;
    let found = async |text: &str, r#type: &str, value: serde_json::Value| {
        let param = Some(("d", r#type, value));
        let resolved = definition(&database.url, text, param).await?;
        let described = resolved.source.describe(&resolved.query).await;
        let described = described.map_err(|error| error.into_failure())?;
        let (outcome, got) = read(resolved, options()).await;
        outcome.map_err(|error| error.into_failure())?;
        assert_eq!(got.schema, Some(described.schema), "{text}");
        Ok::<_, rowgate::export::Failure>(rows(&got))
    };
    let exact = "select n from d where n = :d";
    for (value, expected) in [
        ("123456789012345678.01", "123456789012345678.01"),
        ("12345678901234567801e-2", "123456789012345678.01"),
        ("123456789012345678", "123456789012345678.00"),
        ("5.000", "5.00"),
        ("0.5E1", "5.00"),
    ] {
        let found = found(exact, "decimal", json!(value)).await;
        assert_eq!(found.expect(value), [expected], "{value}");
    }
    let tiny = "select n from d where tiny = :d";
    let smallest = found(tiny, "decimal", json!("1e-28")).await;
    assert_eq!(smallest.expect("it fits"), ["5.00"]);
    let list = "select n from d where n in (:d) order by n";
    let listed = found(
        list,
        "decimal[]",
        json!(["123456789012345678.02", 5, "7.5"]),
    )
    .await;
    assert_eq!(listed.expect("they fit"), ["5.00", "123456789012345678.02"]);
    let itself = found("select :d as d", "decimal", json!("12.50")).await;
    assert_eq!(itself.expect("it fits"), ["12.50"]);
    for value in ["1e400", "1e-400", "1e-31"] {
        let failure = found(exact, "decimal", json!(value))
            .await
            .expect_err(value);
        assert_eq!(failure.violations[0].field, "spec.params.d", "{value}");
    }
}

#[tokio::test]
async fn rows_of_a_slow_query_are_not_held_back() {
    let database = Database::create().await;
    // Large enough for the server to send what it has before it sleeps.
    let text =
        "select repeat('x', 20000) as pad, if(seq > 30, sleep(600), 0) as slept from seq_1_to_31";
    let (out, taken, release) = blocking();
    let running = start(allowed(&database, text).await, options(), out);
    tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("the rows come while the query sleeps")
        .expect("a batch is taken");
    running.cancel.cancel();
    release.send(()).expect("the receiver waits");
    let (outcome, out) = running.finish(PATIENCE).await;
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(out.rows > 0 && out.rows < 31, "{}", out.rows);
}

#[tokio::test]
async fn lists_are_bound_value_by_value() {
    let database = Database::create().await;
    database
        .execute("create table l(n int, s text); insert into l values (1, 'a'), (2, 'b'), (3, 'c')")
        .await;
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
        let resolved = sql_with(&database.url, text, &[("l", list)])
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
async fn batches_keep_their_bounds_and_rows_max_stops_the_query() {
    let database = with_numbers(20_000).await;
    let mut options = options();
    options.rows_max = Some(2500);
    let resolved = allowed(&database, "select a.id from t a, t b").await;
    let (outcome, got) = read(resolved, options.clone()).await;
    outcome.expect("the read succeeds");
    assert_eq!(got.row_count(), 2500);
    assert!(got.batches.iter().all(|batch| batch.num_rows() <= 1000));
    Look::at(&database).await.until_gone().await;

    options.rows_max = None;
    options.batch_bytes_max = 10_000;
    let (outcome, got) = read(
        allowed(&database, "select pad from t limit 1000").await,
        options,
    )
    .await;
    outcome.expect("the read succeeds");
    assert_eq!(got.batches[0].num_rows(), 50);
    assert_eq!(got.row_count(), 1000);
}

#[tokio::test]
async fn the_session_is_the_same_on_every_server() {
    let database = Database::create().await;
    let got = read_sql(
        &database.url,
        "select @@net_write_timeout as w, @@time_zone as z, @@tx_read_only as r, @@character_set_client as c",
    )
    .await;
    assert_eq!(rows(&got), ["21600|+00:00|0|utf8mb4"]);
}

#[tokio::test]
async fn the_read_is_one_snapshot_while_others_write() {
    let database = with_numbers(50_000).await;
    let (out, taken, release) = blocking();
    let running = start(table(&database.url, "t", &[], None).await, options(), out);
    taken.await.expect("a batch is taken");
    database.execute("delete from t where id > 1000").await;
    release.send(()).expect("the receiver waits");
    let (outcome, out) = running.finish(PATIENCE).await;
    outcome.expect("the read succeeds");
    assert_eq!(out.rows, 50_000);
}

#[tokio::test]
async fn the_servers_mode_does_not_change_what_quotes_mean() {
    let database = Database::create().await;
    database
        .execute("create table t(`a:b` int); insert into t values (7)")
        .await;
    let user = database.name.clone();
    database
        .execute(&format!(
            "create user '{user}'@'%' identified by 'x'; grant select on {user}.* to '{user}'@'%'"
        ))
        .await;
    let url = database.url_as(&user, "x");
    let got = read_sql(
        &url,
        r#"select `a:b` as n, "it\"s :x" as s, 'a\':y' as b from t"#,
    )
    .await;
    assert_eq!(rows(&got), ["7|it\"s :x|a':y"]);
    let got = read_sql(&url, "select @@sql_mode as mode").await;
    assert!(!rows(&got)[0].contains("ANSI_QUOTES"));
    database.execute(&format!("drop user '{user}'@'%'")).await;
}

#[tokio::test]
async fn estimates_come_from_the_planner_and_limits() {
    let database = with_numbers(5000).await;
    // The planner samples; what matters is the order of magnitude.
    let near = |rows: u64| (rows / 4)..=(rows * 4);
    for (resolved, rows, origin) in [
        (table(&database.url, "t", &[], None).await, 5000, "planner"),
        (
            table(&database.url, "t", &["id"], Some(10)).await,
            10,
            "limit",
        ),
        (
            sql_with(
                &database.url,
                "select * from t where id > :i",
                &[("i", json!(4000))],
            )
            .await
            .expect("allowed"),
            1000,
            "planner",
        ),
        (
            allowed(&database, "select id from t union all select id from t").await,
            10_000,
            "planner",
        ),
        (allowed(&database, "select 1").await, 1, "planner"),
    ] {
        let estimate = resolved
            .source
            .estimate(&resolved.query, PATIENCE)
            .await
            .expect("no failure")
            .expect("an answer");
        assert_eq!(estimate.origin, origin);
        assert!(
            near(rows).contains(&estimate.rows),
            "{estimate:?}, expected {rows}"
        );
    }
}
