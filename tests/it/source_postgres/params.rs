//! Parameters of every type, declared and inferred; what doesn't fit names its field.

use std::{collections::BTreeMap, time::Duration};

use rowgate::{
    export::ReadFrom,
    source::{Catalog, DefinitionOptions, Error, ParamOptions, ParamType, SourceOptions},
};
use serde_json::{Value, json};

use super::rows;
use crate::support::{
    postgres::Database,
    reading::{Collected, options, read, spec, sql_with},
};

async fn read_with(url: &str, text: &str, params: &[(&str, Value)]) -> Collected {
    let resolved = sql_with(url, text, params).await.unwrap();
    let described = resolved.source.describe(&resolved.query).await.unwrap();
    let (outcome, got) = read(resolved, options()).await;
    outcome.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(got.schema, Some(described.schema), "{text}");
    got
}

#[tokio::test]
async fn ad_hoc_values_take_the_type_that_the_server_wants() {
    let db = Database::create().await;
    db.execute("create type mood as enum ('sad', 'ok'); create domain n as int")
        .await;
    for (text, value, shown) in [
        ("select :a::bool::text", json!(true), "true"),
        ("select :a::int2::text", json!(-5.0), "-5"),
        ("select :a::int4::text", json!("7"), "7"),
        (
            "select :a::int8::text",
            json!("9223372036854775807"),
            "9223372036854775807",
        ),
        ("select :a::oid::text", json!(4294967295_u32), "4294967295"),
        ("select :a::real::text", json!(0.5), "0.5"),
        ("select :a::float8::text", json!("1e300"), "1e+300"),
        (
            "select :a::numeric::text",
            json!("-12345678901234567890.0100"),
            "-12345678901234567890.0100",
        ),
        ("select :a::numeric::text", json!(0.1), "0.1"),
        ("select :a::text", json!("it's :b"), "it's :b"),
        ("select :a::text", json!(5), "5"),
        ("select :a || ''", json!("x"), "x"),
        ("select :a::varchar(2)::text", json!("xyz"), "xy"),
        ("select :a::json ->> 'k'", json!("{\"k\": 1}"), "1"),
        ("select :a::jsonb ->> 'k'", json!("{\"k\": 1}"), "1"),
        ("select :a::date::text", json!("0004-02-29"), "0004-02-29"),
        (
            "select :a::time::text",
            json!("23:59:59.999999"),
            "23:59:59.999999",
        ),
        (
            "select :a::timestamp::text",
            json!("1999-12-31T23:59:59.999999"),
            "1999-12-31 23:59:59.999999",
        ),
        (
            "select :a::timestamptz::text",
            json!("2024-01-01T00:00:00+08:00"),
            "2023-12-31 16:00:00+00",
        ),
        (
            "select :a::uuid::text",
            json!("67E5504410B1426F9247BB680E5FE0C8"),
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
        ),
        ("select encode(:a::bytea, 'hex')", json!("\\x00ff"), "00ff"),
        ("select encode(:a::bytea, 'hex')", json!("AP8="), "00ff"),
        ("select :a::mood::text", json!("ok"), "ok"),
        ("select :a::interval::text", json!("1 day"), "1 day"),
        ("select host(:a::inet)", json!("10.0.0.1"), "10.0.0.1"),
        ("select :a::n::text", json!(3), "3"),
        ("select (5 = any(:a))::text", json!([4, 5]), "true"),
        (
            "select :a::text[]::text",
            json!(["a\"b", null, ""]),
            "{\"a\\\"b\",NULL,\"\"}",
        ),
        ("select :a::int[]::text", json!([]), "{}"),
        ("select :a::mood[]::text", json!(["ok", null]), "{ok,NULL}"),
        ("select (:a is null)::text", json!(1), "false"),
        ("select (:a::int is null)::text", json!(null), "true"),
        ("select pg_typeof(:a)::text", json!(1.5), "double precision"),
    ] {
        let got = read_with(&db.url, text, &[("a", value)]).await;
        assert_eq!(rows(&got), [shown], "{text}");
    }
}

#[tokio::test]
async fn a_name_used_twice_is_one_value() {
    let db = Database::create().await;
    let text = "select :a::int + :b::int, :a::int, ':a' -- :c";
    let got = read_with(&db.url, text, &[("a", json!(1)), ("b", json!(2))]).await;
    assert_eq!(rows(&got), ["3|1|:a"]);
}

/// The lexer is ours, the grammar is the server's: where they disagree, the count of parameters does.
#[tokio::test]
async fn the_server_agrees_on_what_is_quoted() {
    let db = Database::create().await;
    for (text, shown) in [
        (r"select '\', :a::text", r"\|5"),
        (r"select E'\':a', :a::text", "':a|5"),
        ("select E'x' -- :a\n '\\':a', :a::text", "x':a|5"),
        ("select 'x'\n':a', :a::text", "x:a|5"),
        ("select $$:a$$, :a::text", ":a|5"),
        ("select $t$ :a $$ :a $t$, :a::text", " :a $$ :a |5"),
        ("select 1 /* :a /* :a */ :a */, :a::text", "1|5"),
        ("select 1 as \":a\"\"b\", :a::text", "1|5"),
        ("select 1 as a$$, :a::text as b$$", "1|5"),
        ("select (array[1,2])[1: 2]::text, :a::text", "{1,2}|5"),
        (
            "select U&'\\0061:a', N':a', B'1'::text, :a::text",
            "a:a|:a|1|5",
        ),
        ("select:a::text", "5"),
        ("select 1,:a::text--:a", "1|5"),
    ] {
        let got = read_with(&db.url, text, &[("a", json!("5"))]).await;
        assert_eq!(rows(&got), [shown], "{text}");
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_names_its_field() {
    let db = Database::create().await;
    for (text, value) in [
        ("select :a::int", json!("x")),
        ("select :a::int2", json!(40000)),
        ("select :a::int", json!([1])),
        ("select :a::int[]", json!(1)),
        ("select :a::date", json!("2024-02-30")),
        ("select :a::bool", json!(1)),
    ] {
        let resolved = sql_with(&db.url, text, &[("a", value)]).await.unwrap();
        match resolved.source.describe(&resolved.query).await {
            Err(Error::Invalid(failure)) => {
                assert_eq!(failure.violations[0].field, "spec.params.a", "{text}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    for params in [&[][..], &[("a", json!(1)), ("b", json!(1))][..]] {
        let failure = sql_with(&db.url, "select :a::int", params).await.err();
        assert_eq!(failure.unwrap().reason, "INVALID_FIELD");
    }
}

fn definition(sql: &str, params: &[(&str, &str, bool)]) -> DefinitionOptions {
    let params = params.iter().map(|(name, r#type, required)| {
        let options = ParamOptions {
            r#type: ParamType::parse(r#type).unwrap(),
            required: *required,
            description: String::new(),
            default: None,
        };
        ((*name).to_owned(), options)
    });
    DefinitionOptions {
        title: String::new(),
        sql: sql.to_owned(),
        params: params.collect(),
        columns: Vec::new(),
        filter: None,
    }
}

fn catalog_of(url: &str, definitions: &[(&str, DefinitionOptions)]) -> Catalog {
    let options = SourceOptions {
        url: url.to_owned().into(),
        slots: 1,
        expected_rows_per_second: 1,
        statement_timeout: Duration::from_secs(60),
        allow_tables: Vec::new(),
        allow_sql: false,
        definitions: definitions
            .iter()
            .map(|(name, definition)| ((*name).to_owned(), definition.clone()))
            .collect(),
    };
    Catalog::new(BTreeMap::from([("s".to_owned(), options)])).unwrap()
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
async fn a_definitions_values_keep_their_declared_types_where_the_server_takes_them() {
    let db = Database::create().await;
    db.execute("create type mood as enum ('sad', 'ok')").await;
    let cases = [
        // Declared and taken: a comparison beyond int4 is false, no error.
        (
            "select (1 = :a)::text",
            "int64",
            json!("5000000000"),
            "false",
        ),
        (
            "select pg_typeof(:a)::text",
            "decimal",
            json!("1.50"),
            "numeric",
        ),
        (
            "select pg_typeof(:a)::text",
            "timestamp",
            json!("2024-01-01"),
            "timestamp without time zone",
        ),
        (
            "select pg_typeof(:a)::text",
            "bytes",
            json!("AP8="),
            "bytea",
        ),
        (
            "select pg_typeof(:a)::text",
            "uuid",
            json!("67e55044-10b1-426f-9247-bb680e5fe0c8"),
            "uuid",
        ),
        (
            "select pg_typeof(:a)::text",
            "date[]",
            json!(["2024-01-01"]),
            "date[]",
        ),
        (
            "select pg_typeof(:a)::text",
            "time",
            json!("10:00"),
            "time without time zone",
        ),
        (
            "select pg_typeof(:a)::text",
            "float64",
            json!(1),
            "double precision",
        ),
        ("select pg_typeof(:a)::text", "bool", json!(null), "boolean"),
        // A time stamp without zone is one of UTC.
        (
            "select (timestamptz '2024-01-01 08:00+08' = :a)::text",
            "timestamp",
            json!("2024-01-01T00:00:00"),
            "true",
        ),
        // Not taken as declared: substr wants an int4, the enum no text.
        ("select substr('abcdef', :a)", "int64", json!(3), "cdef"),
        (
            "select ('ok'::mood = :a)::text",
            "text",
            json!("ok"),
            "true",
        ),
        (
            "select ('ok'::mood = any(:a))::text",
            "text[]",
            json!(["sad", "ok"]),
            "true",
        ),
        (
            "select (date '2024-01-01' = :a)::text",
            "text",
            json!("2024-01-01"),
            "true",
        ),
    ];
    for (text, r#type, value, shown) in cases {
        let catalog = catalog_of(&db.url, &[("d", definition(text, &[("a", r#type, false)]))]);
        let mut spec = spec(ReadFrom::Definition("d".to_owned()));
        spec.params.insert("a".to_owned(), value);
        let resolved = catalog.resolve(&spec).await.unwrap();
        assert_eq!(
            resolved.fixed.as_ref().map(|f| f.definition.as_str()),
            Some("d")
        );
        let (outcome, got) = read(resolved, options()).await;
        outcome.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(rows(&got), [shown], "{text}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_definition_stays_with_the_operator() {
    let db = Database::create().await;
    let broken = definition("select secret_column from no_such_table", &[]);
    let catalog = catalog_of(&db.url, &[("broken", broken)]);
    let spec = spec(ReadFrom::Definition("broken".to_owned()));
    let resolved = catalog.resolve(&spec).await.unwrap();
    let error = resolved.source.describe(&resolved.query).await.unwrap_err();
    let failure = error.into_failure();
    assert_eq!(failure.reason, "SQL_REJECTED");
    assert_eq!(failure.metadata["sqlstate"], "42P01");
    let told = serde_json::to_string(&failure).unwrap();
    assert!(
        told.contains("broken") && !told.contains("secret_column") && !told.contains("no_such"),
        "{told}"
    );
}
