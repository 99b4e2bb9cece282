//! Every type and every value of it arrives exactly, or is an error that names its row.

use rowgate::source::Error;

use super::{PATIENCE, allowed, rows, with_numbers};
use crate::support::{
    mariadb::Database,
    reading::{options, read, read_sql, table, types},
};

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
               (7, st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')), (8, null),
               (9, point(1e14, -1e15)), (10, point(1e16, 123456789012345678)),
               (11, point(1e-14, 1e-15)), (12, point(-1e-16, 1.5e-300)), (13, point(1.5e300, 0.1)),
               (14, point(999999999999999, 1234567890.12345)), (15, point(123456789012345.6, 1e22)),
               (16, st_geomfromtext('POINT(3 4)', 4326))",
        )
        .await;
    let got = read_sql(
        &database.url,
        "select g, st_astext(g) as text from t order by k",
    )
    .await;
    assert_eq!(got.types(), ["g: Utf8", "text: Utf8"]);
    assert_eq!(got.row_count(), 16);
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

    let slow = allowed(
        &database,
        "select sum(amount) as s, max(sleep(60)) as z from o",
    )
    .await;
    let described = slow.source.describe(&slow.query);
    tokio::time::timeout(PATIENCE, described)
        .await
        .expect("describing does not run the query")
        .expect("described");
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
