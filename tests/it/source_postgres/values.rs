//! Every type, its extremes and NULLs.

use arrow::{
    array::{AsArray, types::TimestampMicrosecondType},
    datatypes::DataType,
};
use rowgate::{export::field::metadata, source::Error};

use super::rows;
use crate::support::{
    postgres::Database,
    reading::{options, read, read_sql, sql, table},
};

const TABLE: &str = "
    create extension citext;
    create type mood as enum ('sad', 'ok', 'happy; :a');
    create domain price as numeric(12,2);
    create domain low_price as price check (value < 100);
    create domain word as text not null default '';
    create type pair as (a int, b text);
    create table t(
        b boolean, i2 smallint, i4 integer, i8 bigint, o oid, f4 real, f8 double precision,
        d numeric(12,2), wide numeric(60,10), odd numeric(3,5), round numeric(4,-2), n numeric,
        p price, lp low_price,
        s text, v varchar(20), c char(5), na name, ch \"char\", ci citext, m mood, w word,
        x bytea, day date, clock time, at timestamp, tz timestamptz,
        j json, jb jsonb, id uuid,
        li int[], ls text[], ld numeric(12,2)[], lp2 price[], lz timestamptz[], lj jsonb[], lm mood[]);
    insert into t values (
        true, -32768, -2147483648, -9223372036854775808, 4294967295, '-3.4028235e38', '5e-324',
        '-9999999999.99', '-12345678901234567890123456789012345678901234567890.0123456789', 0.00999, 98765,
        '-123456789012345678901234567890.000123000', -0.01, 99.99,
        'Zoë 王 \\ \"', 'it''s', 'ab', 'name', 'x', 'Ci', 'happy; :a', 'w',
        '\\x00ff', '0001-01-01', '23:59:59.999999', '9999-12-31 23:59:59.999999', '1969-12-31 23:59:59.9+00',
        '{\"a\" : [1, null]}', '{\"a\" : [1, null]}', '67e55044-10b1-426f-9247-bb680e5fe0c8',
        '{1,null,-3}', '{\"a,b\",NULL,\"\"}', '{1.5,-2}', '{0.01}', '{2024-01-01 00:00+08}', '{\"{\\\"k\\\": 1}\"}',
        '{sad,ok}');
    insert into t(w) values ('');
    insert into t(b, i2, i4, i8, o, f4, f8, d, wide, n, s, c, ch, x, day, clock, at, tz, jb, w, li, ls) values (
        false, 32767, 2147483647, 9223372036854775807, 0, 'NaN', '-Infinity', 0, 0.0000000001, 'NaN',
        '', '', '', '', '2000-01-01', '00:00', '2000-01-01', '2000-01-01+00', '[]', '', '{}', '[7:8]={a,b}');
    ";

#[tokio::test]
async fn every_mapped_type_arrives_exactly() {
    let db = Database::create().await;
    db.execute(TABLE).await;
    let (outcome, got) = read(table(&db.url, "t", &["w", "i4"], None).await, options()).await;
    outcome.unwrap();
    let types: Vec<_> = EXPECTED_TYPES.trim().lines().map(str::trim).collect();
    assert_eq!(got.types()[..types.len()], types);
    let schema = got.schema.clone().unwrap();
    let lists = schema.fields()[types.len()..].iter();
    let elements = lists.map(|field| match field.data_type() {
        DataType::List(element) => format!("{}: {}", field.name(), element.data_type()),
        other => panic!("{}: {other}", field.name()),
    });
    let expected: Vec<_> = EXPECTED_ELEMENTS.trim().lines().map(str::trim).collect();
    assert_eq!(elements.collect::<Vec<_>>(), expected);
    let got = rows(&got);
    assert_eq!(got.len(), 3);
    let full = "true|-32768|-2147483648|-9223372036854775808|4294967295|-3.4028235e38|5e-324|\
        -9999999999.99|-12345678901234567890123456789012345678901234567890.0123456789|0.00999|98800|\
        -123456789012345678901234567890.000123000|-0.01|99.99|\
        Zoë 王 \\ \"|it's|ab   |name|x|Ci|happy; :a|w|\
        00ff|0001-01-01|23:59:59.999999|9999-12-31T23:59:59.999999|1969-12-31T23:59:59.900Z|\
        {\"a\" : [1, null]}|{\"a\": [1, null]}|67e55044-10b1-426f-9247-bb680e5fe0c8|\
        [1, NULL, -3]|[a,b, NULL, ]|[1.50, -2.00]|[0.01]|[2023-12-31T16:00:00Z]|[{\"k\": 1}]|[sad, ok]";
    assert_eq!(got[2], full);
    let other = "false|32767|2147483647|9223372036854775807|0|NaN|-inf|0.00|0.0000000001|NULL|NULL|NaN|NULL|NULL|\
        |NULL|     |NULL||NULL|NULL|||2000-01-01|00:00:00|2000-01-01T00:00:00|2000-01-01T00:00:00Z|\
        NULL|[]|NULL|[]|[a, b]|NULL|NULL|NULL|NULL|NULL";
    assert_eq!(got[0], other);
    let nulls = "NULL|".repeat(21) + "|" + &"NULL|".repeat(15);
    assert_eq!(got[1], nulls.trim_end_matches('|'));
}

const EXPECTED_TYPES: &str = "
    b: Boolean
    i2: Int16
    i4: Int32
    i8: Int64
    o: Int64
    f4: Float32
    f8: Float64
    d: Decimal128(12, 2)
    wide: Decimal256(60, 10)
    odd: Decimal128(5, 5)
    round: Decimal128(6, 0)
    n: Utf8 (numeric)
    p: Decimal128(12, 2)
    lp: Decimal128(12, 2)
    s: Utf8
    v: Utf8
    c: Utf8
    na: Utf8
    ch: Utf8
    ci: Utf8
    m: Utf8
    w: Utf8
    x: Binary
    day: Date32
    clock: Time64(µs)
    at: Timestamp(µs)
    tz: Timestamp(µs, \"UTC\")
    j: Utf8 (json)
    jb: Utf8 (json)
    id: Utf8 (uuid)";

const EXPECTED_ELEMENTS: &str = "
    li: Int32
    ls: Utf8
    ld: Decimal128(12, 2)
    lp2: Decimal128(12, 2)
    lz: Timestamp(µs, \"UTC\")
    lj: Utf8
    lm: Utf8";

/// The text that the server writes is what must arrive, for types without a mapping and for numbers that travel as
/// text.
#[tokio::test]
async fn what_travels_as_text_is_the_servers_own_text() {
    let db = Database::create().await;
    db.execute("create type pair as (a int, b text); create type word as enum ('a')")
        .await;
    let values = [
        "interval '1 year -3 days 04:05:06.7'",
        "timetz '23:59:59.5+08'",
        "money '12.30'",
        "inet '10.0.0.1/8'",
        "macaddr '08:00:2b:01:02:03'",
        "bit '101'",
        "'<a>ä</a>'::xml",
        "int4range(1, 5)",
        "row(1, 'x y')::pair",
        "row(1, 2)",
        "point(1.5, -2)",
        "to_tsvector('simple', 'a b')",
        "'pg_class'::regclass",
        "array[interval '1 day', null]",
        "pg_lsn '16/B374D848'",
        "sum(1.50)",
        "1e-20::numeric",
        "10000.0::numeric",
        "'Infinity'::numeric",
        "100000000::numeric",
        "0.00010000::numeric",
        "(2 ^ 1000)::numeric",
        "'-0.5'::numeric",
        "uuid '00000000-0000-0000-0000-00000000000a'",
        "'{\"b\":1,   \"a\":[]}'::jsonb",
        "'x'::name",
        "'ab'::char(4)::bpchar",
    ];
    for value in values {
        // A cast of char(n) to text drops its blanks.
        let text = read_sql(&db.url, &format!("select format('%s', {value}) as a")).await;
        let mine = read_sql(&db.url, &format!("select {value} as a")).await;
        assert_eq!(mine.rows(), text.rows(), "{value}");
    }
}

#[tokio::test]
async fn unmapped_columns_keep_names_duplicates_and_order_of_rows() {
    let db = Database::create().await;
    db.execute(
        "create table t as select i, (i || ' days')::interval as d from generate_series(1, 5000) i",
    )
    .await;
    let text = "select d, i, d, i as \"D\" from t where i > 0 order by i % 10 desc, i -- the end";
    let got = read_sql(&db.url, text).await;
    assert_eq!(got.types(), ["d: Utf8", "i: Int32", "d: Utf8", "D: Int32"]);
    let got = got.rows();
    assert_eq!(got.len(), 5000);
    assert_eq!(got[0], ["9 days", "9", "9 days", "9"]);
    let order: Vec<i32> = got.iter().map(|row| row[1].parse().unwrap()).collect();
    assert!(order.is_sorted_by_key(|i| (9 - i % 10, *i)));
}

#[tokio::test]
async fn infinities_are_the_extremes_of_the_integers() {
    let db = Database::create().await;
    let got = read_sql(
        &db.url,
        "select 'infinity'::timestamptz a, '-infinity'::timestamp b, 'infinity'::date c, '-infinity'::date d",
    )
    .await;
    let batch = &got.batches[0];
    let us = |column: usize| {
        batch
            .column(column)
            .as_primitive::<TimestampMicrosecondType>()
            .value(0)
    };
    let day = |column: usize| {
        batch
            .column(column)
            .as_primitive::<arrow::datatypes::Date32Type>()
            .value(0)
    };
    assert_eq!(us(0), i64::MAX);
    assert_eq!(us(1), i64::MIN);
    assert_eq!(day(2), i32::MAX);
    assert_eq!(day(3), i32::MIN);
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_row_and_column() {
    let db = Database::create().await;
    db.execute(
        "create table t(i int, d numeric(5,1));
         insert into t select i, i from generate_series(0, 999) i;
         update t set d = 'NaN' where i = 500",
    )
    .await;
    for (text, row, column) in [
        ("select i, d from t order by i", 500, "d"),
        ("select array[[1,2],[3,4]] as m", 0, "m"),
        ("select time '24:00' as clock", 0, "clock"),
        ("select timestamp '294276-12-31' as late", 0, "late"),
    ] {
        let (outcome, _) = read(sql(&db.url, text).await.unwrap(), options()).await;
        match outcome {
            Err(Error::Value {
                row: r, column: c, ..
            }) => assert_eq!((r, c.as_str()), (row, column)),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn schemas_tell_source_types_and_nulls() {
    let db = Database::create().await;
    db.execute(
        "create schema other; create type other.mood as enum ('a');
         create table t(id int not null, v varchar(20), m other.mood, l numeric(4,1)[])",
    )
    .await;
    let resolved = table(&db.url, "t", &[], None).await;
    let described = resolved.source.describe(&resolved.query).await.unwrap();
    let fields = described.schema.fields();
    let of = |i: usize| fields[i].metadata()[metadata::SOURCE_TYPE].as_str();
    assert_eq!(
        [of(0), of(1), of(2), of(3)],
        [
            "integer",
            "character varying(20)",
            "other.mood",
            "numeric(4,1)[]"
        ]
    );
    let nullable: Vec<_> = fields.iter().map(|f| f.is_nullable()).collect();
    assert_eq!(nullable, [false, true, true, true]);
    // What was described is what is read, also of an empty table.
    let (outcome, got) = read(resolved, options()).await;
    outcome.unwrap();
    assert_eq!(got.schema, Some(described.schema));
    assert!(got.batches.is_empty());
    // An outer join makes NULLs of a NOT NULL column.
    let joined = sql(
        &db.url,
        "select t.id from (values (1)) v(i) left join t on t.id = v.i",
    );
    let joined = joined.await.unwrap();
    let described = joined.source.describe(&joined.query).await.unwrap();
    assert!(described.schema.field(0).is_nullable());
}
