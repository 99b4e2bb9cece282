//! grpcurl 1.8.6, which knows nothing but what reflection v1alpha tells it.

use super::bad_input::shop::Shop;
use crate::support::{self, program::Output};

const SERVICE: &str = "rowgate.v1.ExportService";

async fn grpcurl(shop: &Shop, before: &[&str], after: &[&str]) -> Output {
    let mut args = vec!["-plaintext"];
    args.extend(before);
    args.push(&shop.rowgate.address);
    args.extend(after);
    support::grpcurl(&args).await
}

async fn call(shop: &Shop, method: &str, request: &str) -> Output {
    let method = format!("{SERVICE}/{method}");
    grpcurl(shop, &["-d", request], &[&method]).await
}

/// The messages of an answer, in order.
fn messages(output: Output) -> Vec<serde_json::Value> {
    let text = output.success();
    let messages = serde_json::Deserializer::from_str(&text).into_iter();
    messages.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_and_describes_everything() {
    let shop = Shop::sqlite().await;
    let services = grpcurl(&shop, &[], &["list"]).await.success();
    let services: Vec<&str> = services.lines().collect();
    for service in [
        SERVICE,
        "rowgate.v1.AdminService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(services.contains(&service), "{service}: {services:?}");
    }
    let methods = grpcurl(&shop, &[], &["list", SERVICE]).await.success();
    assert_eq!(methods.lines().count(), 9, "{methods}");
    let described = grpcurl(&shop, &[], &["describe", SERVICE]).await.success();
    let stream = "rpc StreamRows ( .rowgate.v1.StreamRowsRequest ) returns ( stream .rowgate.v1.StreamRowsResponse );";
    assert!(described.contains(stream), "{described}");
    let described = grpcurl(&shop, &[], &["describe", "rowgate.v1.ExportSpec"]);
    let described = described.await.success();
    assert!(
        described.contains(".google.protobuf.Value> params = 5;"),
        "{described}"
    );
    let described = grpcurl(&shop, &[], &["describe", "rowgate.v1.RowBatch"]);
    let described = described.await.success();
    assert!(described.contains("string json_lines = 12;"), "{described}");
    // Without these no error shows its details.
    let details = grpcurl(&shop, &[], &["describe", "google.rpc.ErrorInfo"]);
    assert!(details.await.success().contains("string reason = 1;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_submitted_watched_and_downloaded() {
    let shop = Shop::sqlite().await;
    let spec = r#"{"spec": {"source": "open", "table": {"name": "orders", "order_by": ["id desc"]},
                   "filter": "id <= 3", "format": {"csv": {"delimiter": ";"}}}, "execution": "EXECUTION_QUEUED"}"#;
    let submitted = &messages(call(&shop, "SubmitExport", spec).await)[0];
    assert_eq!(
        submitted["export"]["spec"]["format"]["csv"]["delimiter"],
        ";"
    );
    assert_eq!(submitted["admission"]["reason"], "REQUESTED");
    let id = submitted["export"]["id"].as_str().unwrap();
    let request = format!(r#"{{"export_id": "{id}", "wait": "30s"}}"#);
    let status = &messages(call(&shop, "GetStatus", &request).await)[0];
    let export = &status["export"];
    assert_eq!(export["state"], "STATE_SUCCEEDED", "{export}");
    assert_eq!(export["result"]["rows"], "3");
    let request = format!(r#"{{"export_id": "{id}"}}"#);
    let watched = messages(call(&shop, "WatchExport", &request).await);
    assert_eq!(watched.len(), 1);
    let pieces = messages(call(&shop, "DownloadResult", &request).await);
    assert_eq!(pieces[0]["result"]["fileName"], "orders.csv");
    // `id;name;amount` and its rows, as base64.
    assert!(
        pieces[1]["data"]
            .as_str()
            .unwrap()
            .starts_with("aWQ7bmFtZTthbW91bnQK")
    );
    let listed = &messages(call(&shop, "ListExports", "{}").await)[0];
    assert_eq!(listed["exports"][0]["id"], id);
    let sources = &messages(call(&shop, "ListSources", "{}").await)[0];
    assert_eq!(sources["sources"][2]["allowsSql"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stream_as_values_and_as_json_lines() {
    let shop = Shop::sqlite().await;
    let of = |encoding: &str| {
        format!(
            r#"{{"spec": {{"source": "open", "sql": "select * from orders where id <= :last order by id",
                "params": {{"last": 3}}}}, "encoding": "{encoding}"}}"#
        )
    };
    let request = of("ROW_ENCODING_VALUES");
    let events = messages(call(&shop, "StreamRows", &request).await);
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(events[0]["header"]["guarantee"], "RESUME_NONE");
    assert_eq!(events[0]["header"]["schema"][0]["type"], "int64");
    let rows = &events[1]["batch"]["values"]["rows"];
    assert_eq!(rows[2], serde_json::json!(["3", "customer 3", "3"]));
    assert_eq!(events[2]["footer"]["rows"], "3");
    let request = of("ROW_ENCODING_JSON_LINES");
    let events = messages(call(&shop, "StreamRows", &request).await);
    let lines: Vec<serde_json::Value> = events[1]["batch"]["jsonLines"]
        .as_str()
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[0],
        serde_json::json!({"id": 1, "name": "customer 1", "amount": 1})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_shows_its_details() {
    let shop = Shop::sqlite().await;
    let spec =
        r#"{"spec": {"source": "open", "table": {"name": "orders"}, "filter": "amonut > 1"}}"#;
    let refused = call(&shop, "SubmitExport", spec).await;
    assert_ne!(refused.code, 0);
    for told in [
        "Code: InvalidArgument",
        "did you mean \"amount\"",
        "google.rpc.ErrorInfo",
        r#""reason":"INVALID_FIELD""#,
        r#""domain":"rowgate""#,
        r#""position":"1""#,
        "google.rpc.BadRequest",
        r#""field":"spec.filter""#,
    ] {
        let text = &refused.stderr;
        assert!(text.contains(told), "{told} is not in: {text}");
    }
    // In a stream, too.
    let spec = r#"{"spec": {"source": "closed", "definition": "failing"}}"#;
    let refused = call(&shop, "StreamRows", spec).await;
    let text = &refused.stderr;
    assert!(text.contains(r#""reason":"QUERY_FAILED""#), "{text}");
    let pause = ["rowgate.v1.AdminService/PauseQueue"];
    grpcurl(&shop, &[], &pause).await.success();
    let spec = r#"{"spec": {"source": "open", "table": {"name": "orders"}}}"#;
    let refused = call(&shop, "StreamRows", spec).await;
    let text = &refused.stderr;
    assert!(text.contains("Code: Unavailable"), "{text}");
    assert!(text.contains(r#""retryDelay":"30s""#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_for_each_service() {
    let shop = Shop::sqlite().await;
    for service in ["", SERVICE, "rowgate.v1.AdminService"] {
        let request = format!(r#"{{"service": "{service}"}}"#);
        let check = ["grpc.health.v1.Health/Check"];
        let answer = grpcurl(&shop, &["-d", &request], &check).await;
        assert_eq!(messages(answer)[0]["status"], "SERVING", "{service}");
    }
}
