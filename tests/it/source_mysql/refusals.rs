//! What is refused, and what a client is told of it.

use rowgate::source::Error;

use super::{PATIENCE, allowed, rows};
use crate::support::{
    mariadb::Database,
    reading::{self, options, read, read_sql, sql},
};

#[tokio::test]
async fn only_one_reading_statement_is_let_through() {
    let database = Database::create().await;
    database
        .execute(
            "create table t(i int); insert into t values (1); create table victim(i int);
                  create procedure p() select 1",
        )
        .await;
    let file = format!("/tmp/{}.txt", database.name);
    let outfile = format!("select 1 into outfile '{file}'");
    let hidden = format!("select 1 /*! into outfile '{file}' */");
    for text in [
        "insert into t values (2)",
        "insert into t values (2) returning i",
        "update t set i = 2",
        "delete from t returning i",
        "replace into t values (1)",
        "drop table victim",
        "truncate table t",
        "create table x(i int)",
        "create temporary table x(i int)",
        "alter table t add column j int",
        "set session transaction read write",
        "set global max_connections = 1",
        "commit",
        "start transaction read write",
        "call p()",
        "do sleep(0)",
        "lock tables t write",
        "analyze table t",
        "flush tables",
        "kill 1",
        "load data infile '/etc/passwd' into table t",
        "/*! delete from t */",
        &outfile,
        &hidden,
        "select 1 into @x",
        "select nextval(no_sequence)",
        "select 1; select 2",
        "select i from t; drop table victim",
        "select nothing from t",
        "select * from missing",
        "selec 1",
        "",
        "select ?",
    ] {
        let failure = match sql(&database.url, text).await {
            Err(failure) => failure,
            Ok(resolved) => {
                let (outcome, _) = read(resolved, options()).await;
                outcome.expect_err(text).into_failure()
            }
        };
        assert_eq!(failure.reason, "SQL_REJECTED", "{text}: {failure:?}");
    }
    assert!(!std::path::Path::new(&file).exists());
    let got = read_sql(
        &database.url,
        "select (select group_concat(i) from t) as t, (select count(*) from victim) as v",
    )
    .await;
    assert_eq!(rows(&got), ["1|0"]);
    assert_eq!(read_sql(&database.url, "show tables").await.row_count(), 2);
}

#[tokio::test]
async fn errors_carry_the_sqlstate() {
    let database = Database::create().await;
    let resolved = allowed(&database, "select * from missing").await;
    let failure = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect_err("no table")
        .into_failure();
    assert_eq!(
        (
            failure.reason.as_str(),
            failure.metadata["sqlstate"].as_str()
        ),
        ("SQL_REJECTED", "42S02")
    );
    assert!(!failure.retryable);
}

#[tokio::test]
async fn a_source_that_is_down_or_refuses_is_unavailable_and_says_nothing_of_itself() {
    let database = Database::create().await;
    for url in [
        "mysql://someone:hunter2@127.0.0.1:1/x".to_owned(),
        database.url_as("nobody", "hunter2"),
        format!("{}_missing", database.url),
    ] {
        let resolved = sql(&url, "select 1").await.expect("allowed");
        let error = resolved
            .source
            .describe(&resolved.query)
            .await
            .expect_err("no connection");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        let failure = error.into_failure();
        assert!(failure.retryable);
        for secret in ["127.0.0.1", "hunter2", "nobody", "missing"] {
            assert!(!failure.message.contains(secret), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn a_denial_names_neither_an_account_nor_an_address() {
    let database = Database::create().await;
    let reader = format!("r{}", &database.name[database.name.len() - 12..]);
    database
        .execute(&format!(
            "create table open(i int); create table closed(i int);
             create user '{reader}'@'%' identified by 'hunter2';
             grant select on {0}.open to '{reader}'@'%'",
            database.name
        ))
        .await;
    let url = database.url_as(&reader, "hunter2");
    let resolved = sql(&url, "select * from closed").await.expect("allowed");
    let error = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect_err("no right to it");
    assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
    let failure = error.into_failure();
    for secret in [reader.as_str(), "127.0.0.1", "localhost", "hunter2"] {
        assert!(!failure.message.contains(secret), "{failure:?}");
    }
    database.execute(&format!("drop user '{reader}'@'%'")).await;
}

#[tokio::test]
async fn a_definitions_text_is_not_told() {
    let database = Database::create().await;
    let options = rowgate::source::SourceOptions {
        url: database.url.clone().into(),
        slots: 1,
        expected_rows_per_second: 1,
        statement_timeout: PATIENCE,
        allow_tables: Vec::new(),
        allow_sql: false,
        definitions: [(
            "secret_report".to_owned(),
            rowgate::source::DefinitionOptions {
                title: String::new(),
                sql: "select hidden_column from hidden_table".to_owned(),
                params: Default::default(),
                columns: Vec::new(),
                filter: None,
            },
        )]
        .into(),
    };
    let catalog = rowgate::source::Catalog::new([("s".to_owned(), options)].into()).expect("good");
    let spec = reading::spec(rowgate::export::ReadFrom::Definition(
        "secret_report".to_owned(),
    ));
    let resolved = catalog.resolve(&spec).await.expect("it exists");
    let failure = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect_err("its table is missing")
        .into_failure();
    assert_eq!(failure.reason, "SQL_REJECTED");
    assert!(!failure.message.contains("hidden"), "{}", failure.message);
}

#[tokio::test]
async fn a_definitions_columns_and_rows_are_not_told() {
    let database = Database::create().await;
    database
        .execute(
            "set sql_mode = ''; create table t(id int, d date);
             insert into t values (1, '2024-01-01'), (2, '0000-00-00')",
        )
        .await;
    let text = "select d as hidden_column from t order by id";
    let resolved = reading::definition(&database.url, text, None)
        .await
        .expect("it exists");
    let (outcome, _) = read(resolved, options()).await;
    let failure = outcome.expect_err("a zero date").into_failure();
    assert_eq!(failure.reason, "VALUE_NOT_REPRESENTABLE");
    assert!(failure.message.contains("\"report\""), "{failure:?}");
    assert!(failure.metadata.is_empty(), "{failure:?}");
    assert!(!failure.message.contains("hidden"), "{failure:?}");
}
