//! MySQL as a source, on a real MariaDB.

use std::time::{Duration, Instant};

use rowgate::source::{Error, Resolved};
use serde_json::json;
use sqlx::Row;

use crate::support::{
    mariadb::Database,
    reading::{
        self, Collected, blocking, options, read, read_sql, sql, sql_with, start, table, types,
    },
    wait_until,
};

const A_SECOND: Duration = Duration::from_secs(1);

fn rows(collected: &Collected) -> Vec<String> {
    collected.rows().iter().map(|row| row.join("|")).collect()
}

/// What else runs in this database: the sources' sessions, by what they run.
async fn running(database: &Database, connection: &mut sqlx::MySqlConnection) -> Vec<String> {
    let rows = sqlx::query(
        "select cast(coalesce(info, command) as char) from information_schema.processlist \
         where db = ? and id <> connection_id()",
    )
    .bind(&database.name)
    .fetch_all(connection)
    .await
    .expect("the process list can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn wait_for_query(database: &Database, part: &str) {
    let mut connection = database.connect().await;
    let started = Instant::now();
    loop {
        let found = running(database, &mut connection).await;
        if found.iter().any(|query| query.contains(part)) {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "never saw {part}: {found:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// Fails unless every other session of the database is gone within a second.
async fn assert_gone_within_a_second(database: &Database) {
    let connection = tokio::sync::Mutex::new(database.connect().await);
    wait_until(A_SECOND, "the query is gone from the server", || async {
        let left = running(database, &mut *connection.lock().await).await;
        left.is_empty().then_some(())
    })
    .await;
}

async fn allowed(database: &Database, text: &str) -> Resolved {
    sql(&database.url, text)
        .await
        .expect("the source takes SQL")
}

async fn with_numbers(count: u32) -> Database {
    let database = Database::create().await;
    database
        .execute(&format!(
            "create table t(id int primary key, pad varchar(200) not null);
             insert into t select seq, repeat('x', 200) from seq_1_to_{count}; analyze table t"
        ))
        .await;
    database
}

#[tokio::test]
async fn every_number_arrives_exactly() {
    let database = Database::create().await;
    database
        .execute(
            "create table t(
               k int, b boolean, ti tinyint, tu tinyint unsigned, si smallint, su smallint unsigned,
               mi mediumint, mu mediumint unsigned, i int, iu int unsigned, l bigint, lu bigint unsigned,
               z int(5) unsigned zerofill, bi bit(1), bits bit(64), y year, f float, d double,
               n decimal(12,2), nu decimal(5,5) unsigned, wide decimal(38,10), wider decimal(65,30));
             insert into t values
               (1, 0, -128, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, 0,
                7, b'0', 0, 1901, -0.1, -1.7976931348623157e308, -9999999999.99, 0, -1234567890123456789012345678.0123456789,
                -99999999999999999999999999999999999.999999999999999999999999999999),
               (2, 1, 127, 255, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295,
                9223372036854775807, 18446744073709551615,
                12345, b'1', 0xffffffffffffffff, 2155, 16777216, 5e-324, 0.01, 0.99999, 0, 0.000000000000000000000000000001),
               (3, null, null, null, null, null, null, null, null, null, null, null,
                null, null, null, null, null, null, null, null, null, null)",
        )
        .await;
    let resolved = table(&database.url, "t", &["k"], None).await;
    let described = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect("described");
    let (outcome, got) = read(resolved, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(got.schema, Some(described.schema));
    assert_eq!(
        got.types(),
        [
            "k: Int32",
            "b: Boolean",
            "ti: Int8",
            "tu: UInt8",
            "si: Int16",
            "su: UInt16",
            "mi: Int32",
            "mu: UInt32",
            "i: Int32",
            "iu: UInt32",
            "l: Int64",
            "lu: UInt64",
            "z: UInt32",
            "bi: Boolean",
            "bits: UInt64",
            "y: UInt16",
            "f: Float32",
            "d: Float64",
            "n: Decimal128(12, 2)",
            "nu: Decimal128(5, 5)",
            "wide: Decimal128(38, 10)",
            "wider: Decimal256(65, 30)",
        ]
    );
    assert_eq!(
        rows(&got),
        [
            "1|false|-128|0|-32768|0|-8388608|0|-2147483648|0|-9223372036854775808|0|7|false|0|1901|-0.1|\
             -1.7976931348623157e308|-9999999999.99|0.00000|-1234567890123456789012345678.0123456789|\
             -99999999999999999999999999999999999.999999999999999999999999999999",
            "2|true|127|255|32767|65535|8388607|16777215|2147483647|4294967295|9223372036854775807|\
             18446744073709551615|12345|true|18446744073709551615|2155|16777216.0|5e-324|0.01|0.99999|\
             0.0000000000|0.000000000000000000000000000001",
            "3|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|\
             NULL|NULL|NULL",
        ]
    );
}

#[tokio::test]
async fn every_text_and_time_arrives_exactly() {
    let database = Database::create().await;
    database
        .execute(
            "set time_zone = '+00:00';
             create table t(
               k int, c char(10), v varchar(50), vb varchar(50) collate utf8mb4_bin, latin varchar(20) character set latin1,
               tt tinytext, lt longtext, e enum('small','large'), s set('a','b','c'),
               bin binary(4), vbin varbinary(10), bl blob, j json, u uuid, ip4 inet4, ip6 inet6,
               d date, dt datetime, dt6 datetime(6), ts timestamp(6) null, tm time, tm6 time(6));
             insert into t values
               (1, 'abc', 'Zoë 王 😀', 'Bin', 'José', '', 'line\\nnext', 'large', 'a,c',
                x'00ff', x'', x'deadbeef', '{\"a\": [1, null]}', '67e55044-10b1-426f-9247-bb680e5fe0c8',
                '192.168.0.1', '2001:db8::ff00:42:8329',
                '1000-01-01', '1000-01-01', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999999',
                '-838:59:59', '838:59:59.000001'),
               (2, '', '', '', '', '', '', 'small', '', x'', x'', x'', '17', '00000000-0000-0000-0000-000000000000',
                '0.0.0.0', '::', '9999-12-31', '2024-02-29 12:00:00', '2024-02-29 00:00:00.000001',
                '1970-01-01 00:00:01', '00:00:00', '-00:00:00.5'),
               (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
                null, null, null, null, null, null)",
        )
        .await;
    let resolved = table(&database.url, "t", &["k desc"], None).await;
    let (outcome, got) = read(resolved, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(
        got.types(),
        [
            "k: Int32",
            "c: Utf8",
            "v: Utf8",
            "vb: Utf8",
            "latin: Utf8",
            "tt: Utf8",
            "lt: Utf8",
            "e: Utf8",
            "s: Utf8",
            "bin: Binary",
            "vbin: Binary",
            "bl: Binary",
            "j: Utf8 (json)",
            "u: Utf8 (uuid)",
            "ip4: Utf8",
            "ip6: Utf8",
            "d: Date32",
            "dt: Timestamp(µs)",
            "dt6: Timestamp(µs)",
            "ts: Timestamp(µs, \"UTC\")",
            "tm: Utf8",
            "tm6: Utf8",
        ]
    );
    let got = rows(&got);
    assert_eq!(
        got[0],
        "3|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL"
    );
    assert_eq!(
        got[1],
        "2|||||||small||00000000|||17|00000000-0000-0000-0000-000000000000|0.0.0.0|::|9999-12-31|\
         2024-02-29T12:00:00|2024-02-29T00:00:00.000001|1970-01-01T00:00:01Z|00:00:00|-00:00:00.5"
    );
    assert_eq!(
        got[2],
        "1|abc|Zoë 王 😀|Bin|José||line\nnext|large|a,c|00ff0000||deadbeef|{\"a\": [1, null]}|\
         67e55044-10b1-426f-9247-bb680e5fe0c8|192.168.0.1|2001:db8::ff00:42:8329|1000-01-01|\
         1000-01-01T00:00:00|9999-12-31T23:59:59.999999|2038-01-19T03:14:07.999999Z|-838:59:59|838:59:59.000001"
    );
}

#[tokio::test]
async fn geometries_are_the_servers_own_text() {
    let database = Database::create().await;
    database
        .execute(
            "create table t(k int, g geometry);
             insert into t values (1, st_geomfromtext('POINT(1 -2.5)')),
               (2, st_geomfromtext('LINESTRING(0 0,1 1,2.25 0.1)')),
               (3, st_geomfromtext('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))')),
               (4, st_geomfromtext('MULTIPOINT(1 1,2 2)')),
               (5, st_geomfromtext('MULTILINESTRING((0 0,1 1),(2 2,3 3))')),
               (6, st_geomfromtext('MULTIPOLYGON(((0 0,4 0,4 4,0 0)),((5 5,6 5,6 6,5 5)))')),
               (7, st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')), (8, null)",
        )
        .await;
    let got = read_sql(
        &database.url,
        "select g, st_astext(g) as text from t order by k",
    )
    .await;
    assert_eq!(got.types(), ["g: Utf8", "text: Utf8"]);
    assert_eq!(got.row_count(), 8);
    for row in got.rows() {
        assert_eq!(row[0], row[1]);
    }
}

#[tokio::test]
async fn expressions_have_types_without_running_the_query() {
    let database = with_numbers(100).await;
    database
        .execute("create table o(amount decimal(12,2)); insert into o values (1.25), (2.5)")
        .await;
    let text =
        "select sum(amount) as total, avg(amount) as mean, amount * 1.5 as more, count(*) as n,
                       max(sleep(0)) as zero, 1 / 3 as third, null as nothing, 'x' as x,
                       amount is null as unknown, now() as at, cast('a' as binary) as bytes
                from o group by amount with rollup";
    let resolved = allowed(&database, text).await;
    let described = resolved
        .source
        .describe(&resolved.query)
        .await
        .expect("described");
    assert_eq!(
        types(&described.schema),
        [
            "total: Decimal128(34, 2)",
            "mean: Decimal128(16, 6)",
            "more: Decimal128(14, 3)",
            "n: Int64",
            "zero: Int64",
            "third: Decimal128(5, 4)",
            "nothing: Utf8",
            "x: Utf8",
            "unknown: Int32",
            "at: Timestamp(µs)",
            "bytes: Binary",
        ]
    );
    let (outcome, got) = read(resolved, options()).await;
    outcome.expect("the read succeeds");
    assert_eq!(got.schema, Some(described.schema));
    let got = got.rows();
    assert_eq!(got[2][..4], ["3.75", "1.875000", "NULL", "2"]);
    assert_eq!(
        got[0][..6],
        ["1.25", "1.250000", "1.875", "1", "0", "0.3333"]
    );

    // Two columns of one name can't be probed: the decimal travels as its text.
    let got = read_sql(&database.url, "select sum(amount) as a, 1 as a from o").await;
    assert_eq!(got.types(), ["a: Utf8 (numeric)", "a: Int32"]);
    assert_eq!(rows(&got), ["3.75|1"]);

    let started = Instant::now();
    let slow = allowed(
        &database,
        "select sum(amount) as s, max(sleep(3)) as z from o",
    )
    .await;
    slow.source.describe(&slow.query).await.expect("described");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "describing ran the query"
    );
}

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
async fn values_that_their_type_cannot_hold_name_their_row() {
    let database = Database::create().await;
    database
        .execute(
            "set sql_mode = ''; create table t(id int, b tinyint(1), d date, dt datetime);
             insert into t values (1, 1, '2024-01-01', '2024-01-01'), (2, 2, '0000-00-00', '2024-00-10')",
        )
        .await;
    for (text, column) in [
        ("select b from t order by id", "b"),
        ("select d from t order by id", "d"),
        ("select dt from t order by id", "dt"),
    ] {
        let (outcome, _) = read(allowed(&database, text).await, options()).await;
        let Err(Error::Value {
            row,
            column: found,
            message,
        }) = outcome
        else {
            panic!("expected a misfit: {outcome:?}");
        };
        assert_eq!((row, found.as_str()), (1, column));
        assert!(message.contains("CAST"), "{message}");
    }
    let got = read_sql(
        &database.url,
        "select cast(b as signed) as b, cast(d as char) as d, nullif(dt, '2024-00-10') as dt from t order by id",
    )
    .await;
    assert_eq!(rows(&got)[1], "2|0000-00-00|NULL");
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
    assert_gone_within_a_second(&database).await;

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
    let (outcome, out) = running.finish(Duration::from_secs(20)).await;
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
    let patience = Duration::from_millis(500);
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
            .estimate(&resolved.query, patience)
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

#[tokio::test]
async fn a_definitions_text_is_not_told() {
    let database = Database::create().await;
    let options = rowgate::source::SourceOptions {
        url: database.url.clone().into(),
        slots: 1,
        expected_rows_per_second: 1,
        statement_timeout: A_SECOND,
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
