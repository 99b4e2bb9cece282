//! Values that a format or a message can't hold, and expressions that fail on a value.

use rowgate::rpc::pb::{self, format::Kind};
use tonic::Code;

use super::{
    refusal::refused,
    shop::{Shop, column, format, rows, sql, table},
};

/// One good row, then one that Excel can't hold in any of its columns.
const ODD: &str = "select 1 as digits, 'short' as text, 'plain' as control \
                   union all select 1234567890123456789, printf('%.*c', 40000, 'x'), 'a' || char(1)";

fn xlsx(sql_text: &str, overflow: pb::Overflow) -> pb::ExportSpec {
    let mut spec = sql(sql_text);
    spec.format = Some(format(Kind::Xlsx(pb::Xlsx {
        overflow: overflow.into(),
        ..Default::default()
    })));
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_over_excels_limits_become_text_and_are_counted() {
    let mut shop = Shop::sqlite().await;
    for overflow in [pb::Overflow::Unspecified, pb::Overflow::Text] {
        let export = shop.succeed(xlsx(ODD, overflow)).await;
        let result = export.result.unwrap();
        assert_eq!(result.rows, 2);
        let counted: Vec<(String, String, i64)> = result
            .fidelity
            .iter()
            .flat_map(|of| {
                let counts = of.counts.iter();
                counts.map(|(what, count)| (of.column.clone(), what.clone(), *count))
            })
            .collect();
        let expected = [
            ("digits", "digits_as_text"),
            ("text", "text_cut"),
            ("control", "control_escaped"),
        ]
        .map(|(column, what)| (column.to_owned(), what.to_owned(), 1));
        assert_eq!(counted, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn or_they_fail_the_export_with_row_and_column() {
    let mut shop = Shop::sqlite().await;
    for (chosen, reason) in [
        ("digits", "VALUE_TOO_PRECISE"),
        ("text", "VALUE_TOO_LONG"),
        ("control", "VALUE_CONTROL_CHARACTER"),
    ] {
        let mut spec = xlsx(ODD, pb::Overflow::Error);
        spec.columns = vec![column(chosen, "")];
        let failed = shop.fail(spec).await;
        let error = failed.error.unwrap();
        assert_eq!(error.reason, reason, "{error:?}");
        assert_eq!(error.code, Code::FailedPrecondition as i32);
        assert_eq!(error.metadata["column"], chosen);
        assert_eq!(error.metadata["row"], "1");
        assert!(!error.retryable);
        assert_eq!(failed.attempt, 1);
    }
    assert_eq!(shop.files(), Vec::<String>::new());
    // What fits, fits under either policy.
    let fits = xlsx(
        "select 123456789012345 as digits, 'x' as text",
        pb::Overflow::Error,
    );
    let export = shop.succeed(fits).await;
    assert_eq!(export.result.unwrap().fidelity, Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_over_the_cap_of_a_message_ends_the_stream_with_an_error() {
    let mut shop = Shop::sqlite().await;
    let large = "select id, case when id = 9000 then printf('%.*c', 3500000, 'x') else '' end as blob \
                 from orders order by id";
    for encoding in [
        pb::RowEncoding::Values,
        pb::RowEncoding::JsonLines,
        pb::RowEncoding::ArrowIpc,
    ] {
        let live = pb::StreamRowsRequest {
            target: Some(pb::stream_rows_request::Target::Spec(rows(sql(large)))),
            encoding: encoding.into(),
            ..Default::default()
        };
        let answer = shop.stream(live).await;
        let refusal = refused(answer, Code::ResourceExhausted, "ROW_TOO_LARGE");
        assert_eq!(refusal.metadata["row"], "8999", "{refusal:?}");
    }
    // Spooled rows know no cap; the stream that sends them does.
    let spooled = shop.succeed(rows(sql(large))).await;
    let request = super::fields::by_id(&spooled.id, "");
    let refusal = refused(
        shop.stream(request).await,
        Code::ResourceExhausted,
        "ROW_TOO_LARGE",
    );
    assert_eq!(refusal.metadata["row"], "8999", "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_row_under_the_cap_arrives_whole() {
    let mut shop = Shop::sqlite().await;
    let large = "select id, printf('%.*c', 2900000, 'x') as blob from orders limit 3";
    for encoding in [
        pb::RowEncoding::Values,
        pb::RowEncoding::JsonLines,
        pb::RowEncoding::ArrowIpc,
    ] {
        let live = pb::StreamRowsRequest {
            target: Some(pb::stream_rows_request::Target::Spec(rows(sql(large)))),
            encoding: encoding.into(),
            ..Default::default()
        };
        let events = shop.stream(live).await.unwrap();
        let Some(pb::stream_rows_response::Event::Footer(footer)) = &events[events.len() - 1].event
        else {
            panic!("no footer");
        };
        assert_eq!(footer.rows, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_on_a_value_fails_the_export() {
    let mut shop = Shop::sqlite().await;
    let mut spec = table("orders");
    spec.columns = vec![column("share", "1 / (id - 15000)")];
    let failed = shop.fail(spec.clone()).await;
    let error = failed.error.unwrap();
    assert_eq!(error.reason, "EXPRESSION_FAILED", "{error:?}");
    assert!(error.message.contains("division by zero"), "{error:?}");
    assert!(error.message.starts_with("spec.columns[0].expression"));
    assert!(error.metadata["rows_read"].parse::<i64>().unwrap() > 0);
    assert_eq!(shop.files(), Vec::<String>::new());
    refused(
        shop.stream_of(rows(spec)).await,
        Code::FailedPrecondition,
        "EXPRESSION_FAILED",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_fails_the_export_with_its_row() {
    let mut shop = Shop::sqlite().await;
    let changes =
        "select case when id = 18000 then 'text' else id end as v from orders order by id";
    let failed = shop.fail(sql(changes)).await;
    let error = failed.error.unwrap();
    assert_eq!(error.reason, "TYPE_CHANGED", "{error:?}");
    assert_eq!(error.metadata["row"], "17999");
    assert_eq!(error.metadata["column"], "v");
    assert_eq!(shop.files(), Vec::<String>::new());
}
