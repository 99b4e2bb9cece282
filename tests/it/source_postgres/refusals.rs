//! What the server refuses, and what fails in the middle.

use rowgate::source::{Error, Resolved};

use crate::support::{
    postgres::Database,
    reading::{catalog, definition, options, read, spec, sql, sql_with, table},
};

async fn refused(resolved: &Resolved) -> (Option<String>, String, Option<u32>) {
    match resolved.source.describe(&resolved.query).await {
        Err(Error::Rejected {
            sqlstate,
            message,
            position,
        }) => (sqlstate, message, position),
        other => panic!("{:?}: {other:?}", resolved.query),
    }
}

#[tokio::test]
async fn bad_sql_is_rejected_with_its_state_and_position() {
    let db = Database::create().await;
    db.execute("create table t(i int)").await;
    for (text, state, position) in [
        ("selec 1", "42601", Some(1)),
        ("select oops from t", "42703", Some(8)),
        ("select i\nfrom nowhere", "42P01", Some(15)),
        ("select :länge, ü from t where i = :i", "42601", Some(8)),
        ("select 'ü', :i::int, oops from t", "42703", Some(22)),
        ("select no_such(1)", "42883", Some(8)),
        ("select interval '1 day', oops from t", "42703", Some(26)),
    ] {
        let params = [("i", serde_json::json!(1)), ("l", serde_json::json!(1))];
        let used: Vec<_> = params
            .into_iter()
            .filter(|(name, _)| text.contains(&format!(":{name}")))
            .collect();
        let resolved = sql_with(&db.url, text, &used).await.unwrap();
        let (got_state, message, got_position) = refused(&resolved).await;
        assert_eq!(got_state.as_deref(), Some(state), "{text}: {message}");
        assert_eq!(got_position, position, "{text}: {message}");
    }
}

#[tokio::test]
async fn two_statements_are_rejected_before_the_server_sees_them() {
    let db = Database::create().await;
    let failure = sql(&db.url, "select 1; drop table t").await.err().unwrap();
    assert_eq!(failure.reason, "SQL_REJECTED");
    let resolved = sql(&db.url, "select 1;").await.unwrap();
    let (outcome, got) = read(resolved, options()).await;
    outcome.unwrap();
    assert_eq!(got.rows(), [["1"]]);
}

#[tokio::test]
async fn writes_are_rejected_when_they_are_described_and_when_they_run() {
    let db = Database::create().await;
    db.execute("create table t(i int); create sequence s").await;
    for text in [
        "insert into t values (1)",
        "insert into t values (1) returning i",
        "with w as (delete from t returning i) select * from w",
        "create table u(i int)",
        "select 1 as i into u",
        "select i from t for update",
        "copy t to stdout",
        "set timezone = 'UTC'",
        "commit",
        "show timezone",
    ] {
        let resolved = sql(&db.url, text).await.unwrap();
        let (state, ..) = refused(&resolved).await;
        assert_eq!(state.as_deref(), Some("25006"), "{text}");
    }
    // Only running it finds out.
    let resolved = sql(&db.url, "select nextval('s')").await.unwrap();
    resolved.source.describe(&resolved.query).await.unwrap();
    let (outcome, _) = read(resolved, options()).await;
    match outcome {
        Err(Error::Rejected { sqlstate, .. }) => assert_eq!(sqlstate.as_deref(), Some("25006")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_read_is_rejected_also_where_nothing_was_described() {
    let db = Database::create().await;
    db.execute("create procedure p(inout i int) language sql as 'select i'")
        .await;
    for text in [
        "show all",
        "explain select 1",
        "/* select */ explain (analyze) select 1",
        "call p(1)",
        "fetch all from c",
    ] {
        let resolved = sql(&db.url, text).await.unwrap();
        let (outcome, got) = read(resolved, options()).await;
        let failure = outcome.unwrap_err().into_failure();
        assert_eq!(failure.reason, "SQL_REJECTED", "{text}: {failure:?}");
        assert_eq!(got.schema, None, "{text}");
    }
    for text in [
        "-- show\n ( (select 1 as i) )",
        "WITH x as (select 1 as i) table x",
        "/* a /* b */ */ values (1)",
    ] {
        let (outcome, got) = read(sql(&db.url, text).await.unwrap(), options()).await;
        outcome.unwrap();
        assert_eq!(got.rows(), [["1"]], "{text}");
    }
}

#[tokio::test]
async fn a_definitions_columns_and_rows_are_not_told() {
    let db = Database::create().await;
    db.execute("create table t(n numeric(12, 2)); insert into t values (1), ('NaN')")
        .await;
    let text = "select n as hidden_column from t";
    let resolved = definition(&db.url, text, None).await.unwrap();
    let (outcome, _) = read(resolved, options()).await;
    let failure = outcome.unwrap_err().into_failure();
    assert_eq!(failure.reason, "VALUE_NOT_REPRESENTABLE");
    assert!(failure.message.contains("\"report\""), "{failure:?}");
    assert!(failure.metadata.is_empty(), "{failure:?}");
    assert!(!failure.message.contains("hidden"), "{failure:?}");
}

#[tokio::test]
async fn a_failure_in_the_middle_keeps_the_rows_before_it() {
    let db = Database::create().await;
    let text = "select i, 1 / (i - 500) from generate_series(0, 999) i";
    let (outcome, got) = read(sql(&db.url, text).await.unwrap(), options()).await;
    match outcome {
        Err(Error::Query {
            sqlstate,
            retryable,
            message,
        }) => {
            assert_eq!(sqlstate.as_deref(), Some("22012"));
            assert_eq!(message, "division by zero");
            assert!(!retryable);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(got.row_count(), 500);
}

#[tokio::test]
async fn missing_rights_are_found_when_the_query_is_described() {
    let db = Database::create().await;
    let role = &db.name;
    db.execute(&format!("create table t(i int); create role {role} login"))
        .await;
    let url = db.url_as(role);
    for resolved in [
        sql(&url, "select i from t").await.unwrap(),
        table(&url, "t", &[], None).await,
    ] {
        let (state, ..) = refused(&resolved).await;
        assert_eq!(state.as_deref(), Some("42501"));
    }
    db.execute(&format!("drop role {role}")).await;
}

#[tokio::test]
async fn a_table_that_is_not_there_names_the_field() {
    let db = Database::create().await;
    db.execute("create table t(i int)").await;
    for (resolved, field) in [
        (
            table(&db.url, "nowhere", &[], None).await,
            "spec.table.name",
        ),
        (
            table(&db.url, "no.where", &[], None).await,
            "spec.table.name",
        ),
        (
            table(&db.url, "t", &["j"], None).await,
            "spec.table.order_by[0]",
        ),
    ] {
        match resolved.source.describe(&resolved.query).await {
            Err(Error::Invalid(failure)) => assert_eq!(failure.violations[0].field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_source_that_is_down_is_unavailable_and_tells_no_address() {
    let url = "postgres://u:hunter2@127.0.0.1:1/x";
    let catalog = catalog(url);
    let sql = rowgate::export::ReadFrom::Sql("select 1".to_owned());
    let resolved = catalog.resolve(&spec(sql)).await.unwrap();
    let error = resolved.source.describe(&resolved.query).await.unwrap_err();
    assert!(error.retryable());
    let failure = error.into_failure();
    assert_eq!(failure.reason, "SOURCE_UNAVAILABLE");
    assert!(failure.retry_after.is_some());
    let told = serde_json::to_string(&failure).unwrap();
    assert!(
        !told.contains("127.0.0.1") && !told.contains("hunter2"),
        "{told}"
    );
    assert!(!failure.operator.unwrap().contains("hunter2"));
}

#[tokio::test]
async fn a_backend_that_dies_is_unavailable() {
    let db = Database::create().await;
    let resolved = sql(&db.url, "select 1 as i, pg_sleep(60)").await.unwrap();
    let running = crate::support::reading::start(resolved, options(), Default::default());
    super::stopping::until_it_sleeps(&db).await;
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = 'rowgate' and datname = current_database()",
    )
    .await;
    let (outcome, _): (_, crate::support::reading::Collected) =
        running.finish(super::PATIENCE).await;
    assert!(
        matches!(outcome, Err(Error::Unavailable { .. })),
        "{outcome:?}"
    );
}
