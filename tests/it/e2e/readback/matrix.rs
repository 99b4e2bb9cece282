//! Every type that PostgreSQL's table names, in every format and encoding.

use rowgate::rpc::pb;
use serde_json::json;

use super::{
    Kind, Shop,
    client::{format, orders},
    files::{EXTENSIONS, plain},
    streams::ENCODINGS,
};

const TYPES: &str = "
    create extension citext;
    create type mood as enum ('sad', 'ok', 'happy; :a');
    create type pair as (a int, b text);
    create domain price as numeric(12,2);
    create domain low_price as price check (value < 100);";

/// Name, type, what the checker takes it for, and two values as SQL; a third row is NULL throughout.
const COLUMNS: &[(&str, &str, &str, &str, &str)] = &[
    ("b", "boolean", "bool", "true", "false"),
    ("i2", "smallint", "int", "-32768", "32767"),
    ("i4", "integer", "int", "-2147483648", "2147483647"),
    (
        "i8",
        "bigint",
        "int",
        "-9223372036854775808",
        "999999999999999",
    ),
    ("o", "oid", "int", "4294967295", "0"),
    ("f4", "real", "float4", "'-3.4028235e38'", "0.1"),
    ("f4x", "real", "float4", "'NaN'", "1e-45"),
    (
        "f8",
        "double precision",
        "float",
        "'-5e-324'",
        "'-Infinity'",
    ),
    ("d", "numeric(12,2)", "decimal:2", "-9999999999.99", "0.10"),
    (
        "d38",
        "numeric(38,6)",
        "decimal:6",
        "-12345678901234567890123456789012.000001",
        "1.5",
    ),
    ("odd", "numeric(3,5)", "decimal:5", "0.00999", "-0.00001"),
    ("around", "numeric(4,-2)", "decimal:0", "98765", "-100"),
    (
        "n",
        "numeric",
        "numeric",
        "-123456789012345678901234567890.000123000",
        "'NaN'",
    ),
    ("n2", "numeric", "numeric", "1e-20", "10.500"),
    ("p", "price", "decimal:2", "-0.01", "12.30"),
    ("lp", "low_price", "decimal:2", "99.99", "-1"),
    ("s", "text", "text", "E'Zoë 王 \\\\ \" \\r\\n\\t'", "''"),
    ("v", "varchar(20)", "text", "'it''s'", "'=1'"),
    ("c", "char(5)", "text", "'ab'", "''"),
    ("na", "name", "text", "'name'", "''"),
    ("ch", "\"char\"", "text", "'x'", "''"),
    ("ci", "citext", "text", "'Ci'", "'CI'"),
    ("m", "mood", "text", "'happy; :a'", "'ok'"),
    ("x", "bytea", "bytes", "'\\x00ff0a22'", "''"),
    ("day", "date", "date", "'0044-03-15 BC'", "'infinity'"),
    ("clock", "time", "time", "'23:59:59.999999'", "'00:00'"),
    (
        "at",
        "timestamp",
        "timestamp",
        "'4714-11-24 00:00:00 BC'",
        "'-infinity'",
    ),
    (
        "tz",
        "timestamptz",
        "timestamptz",
        "'1969-12-31 23:59:59.9+00'",
        "'10000-01-01 00:00+00'",
    ),
    (
        "j",
        "json",
        "json",
        "E'{\"b\" : [1, null],\\n\"b\": 1e2, \"a\":\"\\\\u00e9\\\\n\"}'",
        "'3.10'",
    ),
    (
        "jb",
        "jsonb",
        "json",
        "'{\"b\":[1,null],\"a\":{\"k\":12345678901234567890.10}}'",
        "'\"t\"'",
    ),
    (
        "id",
        "uuid",
        "uuid",
        "'67e55044-10b1-426f-9247-bb680e5fe0c8'",
        "'00000000-0000-0000-0000-000000000000'",
    ),
    ("li", "int[]", "list:int", "'{1,null,-3}'", "'{}'"),
    (
        "lb",
        "bigint[]",
        "list:int",
        "'{9007199254740993}'",
        "'[7:8]={1,2}'",
    ),
    (
        "ls",
        "text[]",
        "list:text",
        "'{\"a,b\",NULL,\"\",\"\\\"\",\"王\"}'",
        "'{NULL}'",
    ),
    ("lo", "boolean[]", "list:bool", "'{t,f,NULL}'", "'{}'"),
    (
        "ld",
        "numeric(12,2)[]",
        "list:decimal:2",
        "'{1.5,-2,NULL}'",
        "'{9999999999.99}'",
    ),
    ("lp2", "price[]", "list:decimal:2", "'{0.01}'", "'{}'"),
    (
        "lf",
        "float8[]",
        "list:float",
        "'{0.1,1e300,NULL}'",
        "'{-2.5}'",
    ),
    ("lt", "date[]", "list:date", "'{2024-02-29,NULL}'", "'{}'"),
    (
        "lz",
        "timestamptz[]",
        "list:timestamptz",
        "'{2024-01-01 00:00:00.5+08}'",
        "'{}'",
    ),
    (
        "lu",
        "uuid[]",
        "list:uuid",
        "'{67e55044-10b1-426f-9247-bb680e5fe0c8}'",
        "'{}'",
    ),
    ("lm", "mood[]", "list:text", "'{sad,ok}'", "'{}'"),
    (
        "iv",
        "interval",
        "as text",
        "'1 year -3 days 04:05:06.7'",
        "'0'",
    ),
    ("tt", "timetz", "as text", "'23:59:59.5+08'", "'00:00+00'"),
    ("mo", "money", "as text", "'12.30'", "'-1'"),
    ("ip", "inet", "as text", "'10.0.0.1/8'", "'::1'"),
    ("ne", "cidr", "as text", "'10.0.0.0/8'", "'::/0'"),
    (
        "mac",
        "macaddr",
        "as text",
        "'08:00:2b:01:02:03'",
        "'00:00:00:00:00:00'",
    ),
    ("bi", "bit(3)", "as text", "'101'", "'000'"),
    ("vb", "bit varying", "as text", "'1'", "''"),
    ("xm", "xml", "as text", "'<a>ä</a>'", "'<b/>'"),
    ("ra", "int4range", "as text", "'[1,5]'", "'empty'"),
    ("pa", "pair", "as text", "'(1,\"x y\")'", "'(,)'"),
    ("po", "point", "as text", "'(1.5,-2)'", "'(0,0)'"),
    ("pg", "polygon", "as text", "'((0,0),(1,1))'", "'((0,0))'"),
    ("ts", "tsvector", "as text", "'a:1 b'", "''"),
    ("rc", "regclass", "as text", "'pg_class'", "'pg_type'"),
    ("ls2", "pg_lsn", "as text", "'16/B374D848'", "'0/0'"),
    ("livs", "interval[]", "as text", "'{1 day,NULL}'", "'{}'"),
];

/// Name, type, kind, SQL of the reference.
fn reference(name: &str, kind: &str) -> serde_json::Value {
    match kind {
        "as text" => json!({"name": name, "kind": "text", "sql": format!("{name}::text")}),
        list if list.starts_with("list:") => {
            json!({"name": name, "kind": kind, "sql": format!("to_json({name})::text")})
        }
        _ => json!({"name": name, "kind": kind}),
    }
}

async fn every_type(columns: &[(&str, &str, &str, &str, &str)], readers_without: &[&str]) {
    let mut shop = Shop::open(Kind::Postgres).await;
    let each = |which: fn(&(&str, &str, &str, &str, &str)) -> String| -> String {
        columns.iter().map(which).collect::<Vec<_>>().join(", ")
    };
    let sql = format!(
        "{TYPES} create table t(key int not null, {}); insert into t values (1, {}), (2, {}); insert into t(key) values (3)",
        each(|&(name, r#type, ..)| format!("{name} {}", r#type)),
        each(|&(.., first, _)| first.to_owned()),
        each(|&(.., second)| second.to_owned()),
    );
    shop.execute(&sql).await;
    let spec = |format| {
        let mut spec = orders(format);
        spec.from = Some(pb::export_spec::From::Table(pb::TableRead {
            name: "t".to_owned(),
            order_by: vec!["key".to_owned()],
            limit: 0,
        }));
        spec.time_zone = "America/New_York".to_owned();
        spec
    };
    let mut results = Vec::new();
    for extension in EXTENSIONS {
        results.push(
            shop.file(spec(format(plain(extension))), extension, json!({}))
                .await,
        );
    }
    for encoding in ENCODINGS {
        results.push(shop.live(spec(None), encoding).await);
    }
    for result in &mut results {
        result["without"] = json!(readers_without);
    }
    let mut source = shop.source();
    (source["table"], source["order"]) = (json!("t"), json!("key"));
    let mut kinds = vec![json!({"name": "key", "kind": "int"})];
    kinds.extend(
        columns
            .iter()
            .map(|&(name, _, kind, ..)| reference(name, kind)),
    );
    let job =
        json!({"source": source, "columns": kinds, "zone": "America/New_York", "results": results});
    shop.check(&job, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_postgres_in_every_format() {
    every_type(COLUMNS, &[]).await;
}

/// DuckDB's decimals end at 38 digits.
#[tokio::test(flavor = "multi_thread")]
async fn decimals_beyond_38_digits() {
    let wide = [
        (
            "wide",
            "numeric(60,10)",
            "decimal:10",
            "-12345678901234567890123456789012345678901234567890.0123456789",
            "0.0000000001",
        ),
        ("widest", "numeric(76,0)", "decimal:0", "-1e75", "7"),
        ("beyond", "numeric(90,5)", "numeric", "1e84", "0.00001"),
    ];
    every_type(&wide, &["parquet_duckdb"]).await;
}

/// The driver reads each unknown type's entry in the catalog and fails at theirs; that is no source that is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_multirange_is_refused_unless_it_is_cast() {
    let mut shop = Shop::open(Kind::Postgres).await;
    let spec = |sql: &str| pb::ExportSpec {
        from: Some(pb::export_spec::From::Sql(sql.to_owned())),
        ..orders(format(plain("csv")))
    };
    let refused = shop
        .rowgate
        .exports
        .submit_export(pb::SubmitExportRequest {
            spec: Some(spec("select '{[1,5]}'::int4multirange as m")),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("::text"), "{refused:?}");
    let cast = shop
        .export(spec("select '{[1,5]}'::int4multirange::text as m"))
        .await;
    assert_eq!(cast.result.unwrap().rows, 1);
}
