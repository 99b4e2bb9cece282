//! Names of the configuration and of requests, resolved by the catalog.

use std::{collections::BTreeMap, time::Duration};

use rowgate::{
    export::{ReadFrom, TableRead},
    source::{Catalog, DefinitionOptions, SourceOptions},
};
use serde_json::json;

use crate::support::{
    postgres::Database,
    reading::{options, read, spec},
};

fn source(url: &str) -> SourceOptions {
    SourceOptions {
        url: url.to_owned().into(),
        slots: 1,
        expected_rows_per_second: 1,
        statement_timeout: Duration::from_secs(60),
        allow_tables: vec!["public.orders".to_owned(), "mine.*".to_owned()],
        allow_sql: false,
        definitions: BTreeMap::new(),
    }
}

fn catalog(options: SourceOptions) -> Result<Catalog, String> {
    Catalog::new(BTreeMap::from([("shop".to_owned(), options)])).map_err(|invalid| {
        let all: Vec<_> = invalid.iter().map(ToString::to_string).collect();
        all.join("\n")
    })
}

fn table(name: &str) -> ReadFrom {
    ReadFrom::Table(TableRead {
        name: name.to_owned(),
        order_by: Vec::new(),
        limit: None,
    })
}

#[tokio::test]
async fn an_unqualified_table_is_one_of_the_sessions_schema() {
    let db = Database::create().await;
    db.execute(
        "create schema mine; create table mine.orders as select 'mine' as whose;
         create table public.orders as select 'public' as whose;
         create table public.secrets(i int)",
    )
    .await;
    for (name, whose) in [("orders", "public"), ("mine.orders", "mine")] {
        let mut spec = spec(table(name));
        spec.source = "shop".to_owned();
        let resolved = catalog(source(&db.url))
            .unwrap()
            .resolve(&spec)
            .await
            .unwrap();
        let (outcome, got) = read(resolved, options()).await;
        outcome.unwrap();
        assert_eq!(got.rows(), [[whose]]);
    }
    let in_mine = source(&format!("{}?options=-c%20search_path%3Dmine", db.url));
    let mut unqualified = spec(table("orders"));
    unqualified.source = "shop".to_owned();
    let resolved = catalog(in_mine)
        .unwrap()
        .resolve(&unqualified)
        .await
        .unwrap();
    let (outcome, got) = read(resolved, options()).await;
    outcome.unwrap();
    assert_eq!(got.rows(), [["mine"]]);
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let db = Database::create().await;
    let catalog = catalog(source(&db.url)).unwrap();
    let mut with_params = spec(table("orders"));
    with_params.params.insert("a".to_owned(), json!(1));
    let mut unknown = spec(table("orders"));
    unknown.source = "nowhere".to_owned();
    for (mut spec, reason) in [
        (spec(table("secrets")), "TABLE_NOT_ALLOWED"),
        (spec(table("pg_catalog.pg_authid")), "TABLE_NOT_ALLOWED"),
        (spec(table("Orders")), "TABLE_NOT_ALLOWED"),
        (spec(table("a.b.c")), "INVALID_FIELD"),
        (
            spec(ReadFrom::Sql("select 1".to_owned())),
            "SQL_NOT_ALLOWED",
        ),
        (
            spec(ReadFrom::Definition("d".to_owned())),
            "DEFINITION_NOT_FOUND",
        ),
        (with_params, "INVALID_FIELD"),
        (unknown, "SOURCE_NOT_FOUND"),
    ] {
        if spec.source == "s" {
            spec.source = "shop".to_owned();
        }
        let failure = catalog.resolve(&spec).await.err().expect("refused");
        assert_eq!(failure.reason, reason);
    }
}

#[test]
fn a_configuration_that_can_not_work_is_refused_at_the_start() {
    let with = |sql: &str, params: serde_json::Value| {
        let definition = json!({ "sql": sql, "params": params });
        let definition: DefinitionOptions = serde_json::from_value(definition).unwrap();
        let mut options = source("postgres://reader:hunter2@db/shop");
        options.definitions.insert("d".to_owned(), definition);
        catalog(options).err().unwrap_or_default()
    };
    assert_eq!(with("select :a", json!({"a": {"type": "int64"}})), "");
    assert!(with("select :a", json!({})).contains("sources.shop.definitions.d.params"));
    assert!(with("select 1", json!({"a": {"type": "int64"}})).contains("does not use"));
    assert!(with("select 1; select 2", json!({})).contains("definitions.d.sql"));
    let bad = with("select :a", json!({"a": {"type": "int64", "default": "x"}}));
    assert!(bad.contains("params.a.default"), "{bad}");
    for url in ["oracle://x", "", "postgres://u:hunter2@h:port/x"] {
        let message = catalog(source(url)).err().unwrap();
        assert!(message.starts_with("sources.shop.url: "), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
