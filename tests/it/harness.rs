//! The harness keeps its promises: each test gets a database of its own, and what is waited for is named.

use std::time::Duration;

use sqlx::Row;

use crate::support::{self, mariadb, postgres, wait_until};

#[tokio::test]
async fn postgres_databases_are_separate_and_disappear() {
    let left = postgres::Database::create().await;
    let right = postgres::Database::create().await;
    left.execute("create table t(i int); insert into t values (1)")
        .await;
    right.execute("create table t(i int)").await;
    let row = sqlx::query("select count(*) from t")
        .fetch_one(&mut right.connect().await)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);

    // A connection that is still open doesn't keep the database alive.
    let _open = left.connect().await;
    let name = left.name.clone();
    drop(left);
    let row = sqlx::query("select count(*) from pg_database where datname = $1")
        .bind(name)
        .fetch_one(&mut right.connect().await)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn mariadb_databases_are_separate_and_disappear() {
    let left = mariadb::Database::create().await;
    let right = mariadb::Database::create().await;
    left.execute("create table t(i int); insert into t values (1)")
        .await;
    right.execute("create table t(i int)").await;
    let row = sqlx::query("select count(*) from t")
        .fetch_one(&mut right.connect().await)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);

    let name = left.name.clone();
    drop(left);
    let row = sqlx::query("select count(*) from information_schema.schemata where schema_name = ?")
        .bind(name)
        .fetch_one(&mut right.connect().await)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn redis_answers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let database = support::redis::database();
    let url = url::Url::parse(&database.url).unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[tokio::test]
async fn the_readers_that_are_not_ours_are_there() {
    let code = "import sys, duckdb, grpc, grpc_tools, openpyxl, pyarrow; print(sys.argv[1])";
    assert_eq!(support::python(code, &["ok"]).await.success(), "ok\n");
    let version = support::grpcurl(&["-version"]).await;
    assert!(version.stderr.contains("1.8.6"), "{version:?}");
}

#[tokio::test]
async fn waiting_returns_what_was_found() {
    let mut asked = 0;
    let found = wait_until(Duration::from_secs(30), "three questions", || {
        asked += 1;
        std::future::ready((asked == 3).then_some("found"))
    })
    .await;
    assert_eq!(found, "found");
}

#[tokio::test]
#[should_panic(expected = "in vain (asked")]
async fn waiting_in_vain_says_for_what() {
    wait_until(Duration::from_millis(50), "what never comes", || async {
        None::<()>
    })
    .await;
}
