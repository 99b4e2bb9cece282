//! What a database refuses, and what Rowgate refuses before it: on each kind of database.

use prost_types::value::Kind as Value;
use rowgate::rpc::pb::{self, export_spec::From};
use tonic::Code;

use super::{
    refusal::{bad_field, bad_fields, refused, says_nothing_secret},
    shop::{BREAKS_AT, Shop, definition, rows, spec, sql, table, with_params},
};

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_listed_may_be_read() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        for name in ["salaries", "nothing", "information_schema.tables", "Orders"] {
            let answer = shop.submit(table(name)).await;
            // Whether a table exists is not told.
            let refusal = refused(answer, Code::PermissionDenied, "TABLE_NOT_ALLOWED");
            assert!(refusal.message.contains(name), "{kind}: {refusal:?}");
        }
        let mut closed = table("orders");
        closed.source = "closed".to_owned();
        refused(
            shop.submit(closed).await,
            Code::PermissionDenied,
            "TABLE_NOT_ALLOWED",
        );
        let closed = spec("closed", From::Sql("select 1".to_owned()));
        refused(
            shop.submit(closed.clone()).await,
            Code::PermissionDenied,
            "SQL_NOT_ALLOWED",
        );
        refused(
            shop.stream_of(rows(closed)).await,
            Code::PermissionDenied,
            "SQL_NOT_ALLOWED",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_read_orders_by_columns_that_are_there() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        for order in [
            "nosuch",
            "id; drop table orders",
            "id sideways",
            "1",
            "no\"such`",
        ] {
            let read = pb::TableRead {
                name: "orders".to_owned(),
                order_by: vec!["id".to_owned(), order.to_owned()],
                limit: 0,
            };
            let said = bad_field(
                shop.submit(spec("open", From::Table(read))).await,
                "spec.table.order_by[1]",
            );
            assert!(said.contains("has no column"), "{kind}: {order}: {said}");
        }
        // On the list, but gone.
        let said = bad_field(shop.submit(table("orders_2019")).await, "spec.table.name");
        assert_eq!(said, "there is no such table", "{kind}");
        let read = pb::TableRead {
            name: "orders".to_owned(),
            order_by: Vec::new(),
            limit: -1,
        };
        bad_field(
            shop.submit(spec("open", From::Table(read))).await,
            "spec.table.limit",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_is_one_statement_that_reads() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        for text in [
            "select 1; select 2",
            "select 1; drop table orders",
            "update orders set amount = 0",
            "delete from orders",
            "insert into orders values (0, 'x', 1)",
            "drop table orders",
            "create table x(i int)",
            "selec 1",
            "select nosuch from orders",
            "select * from nosuch",
            "commit",
            "select 'open",
        ] {
            let answer = shop.submit(sql(text)).await;
            let refusal = refused(answer, Code::InvalidArgument, "SQL_REJECTED");
            assert!(!refusal.message.is_empty(), "{kind}: {text}");
            let answer = shop.stream_of(rows(sql(text))).await;
            refused(answer, Code::InvalidArgument, "SQL_REJECTED");
        }
        let whole = shop
            .succeed(sql("select count(*) from orders where amount > 0"))
            .await;
        assert_eq!(whole.result.unwrap().rows, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_syntax_error_tells_sqlstate_and_position() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        let text = "select id, 'é' as e frm orders";
        let answer = shop.submit(sql(text)).await;
        let refusal = refused(answer, Code::InvalidArgument, "SQL_REJECTED");
        let sqlstate = refusal.metadata.get("sqlstate").map(String::as_str);
        let position = refusal.metadata.get("position").map(String::as_str);
        // Each tells what its database tells: SQLite has no SQLSTATE, MySQL no position.
        match kind {
            "postgres" => assert_eq!((sqlstate, position), (Some("42601"), Some("21"))),
            "mysql" => assert_eq!((sqlstate, position), (Some("42000"), None)),
            _ => assert_eq!((sqlstate, position), (None, Some("21"))),
        }
    }
    // Positions are those of the client's text, not of the one with its parameters rewritten.
    for mut shop in [Shop::sqlite().await, Shop::postgres().await] {
        let spec = with_params(
            sql("select * from orders where amount < :a_long_name and nosuch = 1"),
            &[("a_long_name", Value::NumberValue(5.0))],
        );
        let answer = shop.submit(spec).await;
        let refusal = refused(answer, Code::InvalidArgument, "SQL_REJECTED");
        assert_eq!(refusal.metadata["position"], "54", "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_typed_and_complete() {
    for mut shop in Shop::each().await {
        let text = |text: &str| Value::StringValue(text.to_owned());
        bad_field(shop.submit(definition("cheap")).await, "spec.params.below");
        for bad in [
            text("ten"),
            text("1.5"),
            text("9223372036854775808"),
            Value::NumberValue(1.5),
            Value::BoolValue(true),
            Value::ListValue(prost_types::ListValue::default()),
        ] {
            let spec = with_params(definition("cheap"), &[("below", bad)]);
            bad_field(shop.submit(spec).await, "spec.params.below");
        }
        let spec = with_params(definition("cheap"), &[("below", Value::NullValue(0))]);
        bad_field(shop.submit(spec).await, "spec.params.below");
        let spec = with_params(
            definition("cheap"),
            &[("below", text("5")), ("belwo", text("5")), ("x", text("5"))],
        );
        bad_fields(
            shop.submit(spec).await,
            &["spec.params.belwo", "spec.params.x"],
        );
        let spec = with_params(table("orders"), &[("below", text("5"))]);
        bad_field(shop.submit(spec).await, "spec.params.below");
        let by_amount = "select * from orders where amount < :below";
        bad_field(shop.submit(sql(by_amount)).await, "spec.params.below");
        let spec = with_params(sql("select 1"), &[("below", text("5"))]);
        bad_field(shop.submit(spec).await, "spec.params.below");
        // And what is right is right: 5 of each 1000.
        let spec = with_params(definition("cheap"), &[("below", text("5"))]);
        assert_eq!(shop.succeed(spec).await.result.unwrap().rows, 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_is_never_spliced() {
    for mut shop in Shop::each().await {
        let evil = "' or 1=1 --";
        let spec = with_params(
            definition("cheap"),
            &[
                ("below", Value::NumberValue(5.0)),
                ("name", Value::StringValue(evil.to_owned())),
            ],
        );
        assert_eq!(shop.succeed(spec).await.result.unwrap().rows, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_definition_is_the_operators() {
    for mut shop in Shop::each().await {
        let kind = shop.kind();
        let answer = shop.submit(definition("broken")).await;
        let refusal = refused(answer, Code::InvalidArgument, "SQL_REJECTED");
        assert!(refusal.message.contains("broken"), "{kind}: {refusal:?}");
        assert!(!refusal.metadata.contains_key("position"));
        let answer = shop.submit(definition("misfit")).await;
        refused(answer, Code::FailedPrecondition, "DEFINITION_BROKEN");

        // It runs into an overflow in the middle.
        let failed = shop.fail(definition("failing")).await;
        let error = failed.error.unwrap();
        assert_eq!(
            error.code,
            Code::FailedPrecondition as i32,
            "{kind}: {error:?}"
        );
        assert_eq!(error.reason, "QUERY_FAILED", "{kind}: {error:?}");
        assert!(!error.retryable);
        assert_eq!(failed.attempt, 1);
        says_nothing_secret(&error.message);
        let rows_read: i64 = error.metadata["rows_read"].parse().unwrap();
        assert!(rows_read > 0 && rows_read < BREAKS_AT, "{kind}: {error:?}");
        assert_eq!(shop.files(), Vec::<String>::new(), "{kind}");
        assert!(!error.message.contains("case when"), "{kind}: {error:?}");
        let answer = shop.stream_of(rows(definition("failing"))).await;
        refused(answer, Code::FailedPrecondition, "QUERY_FAILED");
    }
}
