//! What is wrong with a request before any source is asked: each field by its name.

use prost_types::value::Kind as Value;
use rowgate::rpc::pb::{self, format::Kind};
use tonic::{Code, Request, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    refusal::{bad_field, bad_fields, refused},
    shop::{Shop, column, csv, definition, format, rows, sql, table, with_params},
};

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nothing_has_are_not_found() {
    let mut shop = Shop::sqlite().await;
    let mut nowhere = table("orders");
    nowhere.source = "warehouse".to_owned();
    let refusal = refused(
        shop.submit(nowhere.clone()).await,
        Code::NotFound,
        "SOURCE_NOT_FOUND",
    );
    assert!(refusal.message.contains("warehouse"));
    refused(
        shop.stream_of(rows(nowhere)).await,
        Code::NotFound,
        "SOURCE_NOT_FOUND",
    );
    let refusal = refused(
        shop.submit(definition("nothing")).await,
        Code::NotFound,
        "DEFINITION_NOT_FOUND",
    );
    assert!(refusal.message.contains("nothing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_malformed_is_named() {
    let mut shop = Shop::sqlite().await;
    bad_field(
        shop.submit_as(pb::SubmitExportRequest::default()).await,
        "spec",
    );
    bad_fields(
        shop.submit(pb::ExportSpec::default()).await,
        &["spec.source", "spec.from"],
    );
    bad_field(
        shop.submit_as(pb::SubmitExportRequest {
            spec: Some(table("orders")),
            request_id: "order-17".to_owned(),
            ..Default::default()
        })
        .await,
        "request_id",
    );
    let mut all = table("orders");
    all.priority = 10;
    all.time_zone = "Mars/Olympus".to_owned();
    all.file_name = "../orders".to_owned();
    all.ttl = Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    });
    bad_fields(
        shop.submit(all).await,
        &[
            "spec.priority",
            "spec.time_zone",
            "spec.file_name",
            "spec.ttl",
        ],
    );
    bad_field(
        shop.stream(pb::StreamRowsRequest::default()).await,
        "target",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_take_only_options_that_they_have() {
    let mut shop = Shop::sqlite().await;
    let mut with = async |kind: Kind, field: &str| {
        let mut spec = table("orders");
        spec.format = Some(format(kind));
        bad_field(shop.submit(spec).await, field)
    };
    for delimiter in ["ab", "\"", "\n", "é"] {
        let csv = pb::Csv {
            delimiter: delimiter.to_owned(),
            ..Default::default()
        };
        with(Kind::Csv(csv), "spec.format.csv.delimiter").await;
    }
    let lz4 = pb::Compression::Lz4.into();
    let csv = pb::Csv {
        compression: lz4,
        ..Default::default()
    };
    let said = with(Kind::Csv(csv), "spec.format.csv.compression").await;
    assert!(said.contains("COMPRESSION_GZIP"), "{said}");
    let jsonl = pb::JsonLines { compression: lz4 };
    with(Kind::Jsonl(jsonl), "spec.format.jsonl.compression").await;
    let arrow = pb::ArrowIpc {
        compression: pb::Compression::Gzip.into(),
    };
    with(Kind::Arrow(arrow), "spec.format.arrow.compression").await;
    let parquet = pb::Parquet {
        row_group_rows: -1,
        ..Default::default()
    };
    with(Kind::Parquet(parquet), "spec.format.parquet.row_group_rows").await;
    let plain = pb::Xlsx {
        plain: true,
        ..Default::default()
    };
    with(Kind::Xlsx(plain), "spec.format.xlsx.plain").await;
    let level = pb::Xlsx {
        compression_level: Some(10),
        ..Default::default()
    };
    with(Kind::Xlsx(level), "spec.format.xlsx.compression_level").await;
    let mut none = table("orders");
    none.format = Some(pb::Format { kind: None });
    bad_field(shop.submit(none).await, "spec.format");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_takes_its_own_tokens_and_no_negative_page() {
    let mut shop = Shop::sqlite().await;
    for _ in 0..2 {
        shop.succeed(table("orders")).await;
    }
    let mut list = async |request: pb::ListExportsRequest| {
        let answer = shop.rowgate.exports.list_exports(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let request = |page_size, page_token: &str| pb::ListExportsRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    bad_field(list(request(-1, "")).await, "page_size");
    bad_field(list(request(0, "page 2")).await, "page_token");
    let token = list(request(1, "")).await.unwrap().next_page_token;
    assert_eq!(list(request(1, &token)).await.unwrap().exports.len(), 1);
    let mut other = request(1, &token);
    other.states = vec![pb::State::Failed.into()];
    let said = bad_field(list(other).await, "page_token");
    assert!(said.contains("other filters"), "{said}");
    let mut strange = request(0, "");
    strange.states = vec![17];
    bad_field(list(strange).await, "states[0]");
    let mut cut = token.clone();
    cut.pop();
    bad_field(list(request(1, &cut)).await, "page_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_a_uuid_of_an_export() {
    let mut shop = Shop::sqlite().await;
    for (id, unknown) in [
        ("", false),
        ("17", false),
        ("018f4e3c-0000-7000-8000-00000000zzzz", false),
        ("018f4e3c-0000-7000-8000-000000000000", true),
    ] {
        let export_id = id.to_owned();
        let exports = &mut shop.rowgate.exports;
        let status = exports
            .get_status(pb::GetStatusRequest {
                export_id: export_id.clone(),
                wait: None,
            })
            .await
            .map(|_| ());
        let watch = exports
            .watch_export(pb::WatchExportRequest {
                export_id: export_id.clone(),
                interval: None,
            })
            .await
            .map(|_| ());
        let cancel = exports
            .cancel_export(pb::CancelExportRequest {
                export_id: export_id.clone(),
            })
            .await
            .map(|_| ());
        let delete = exports
            .delete_export(pb::DeleteExportRequest {
                export_id: export_id.clone(),
            })
            .await
            .map(|_| ());
        let download = shop
            .download(pb::DownloadResultRequest {
                export_id: export_id.clone(),
                ..Default::default()
            })
            .await
            .map(|_| ());
        let stream = shop.stream(by_id(&export_id, "")).await.map(|_| ());
        for answer in [status, watch, cancel, delete, download, stream] {
            if unknown {
                refused(answer, Code::NotFound, "EXPORT_NOT_FOUND");
            } else {
                bad_field(answer, "export_id");
            }
        }
    }
}

pub fn by_id(id: &str, resume_token: &str) -> pb::StreamRowsRequest {
    pb::StreamRowsRequest {
        target: Some(pb::stream_rows_request::Target::ExportId(id.to_owned())),
        resume_token: resume_token.to_owned(),
        encoding: pb::RowEncoding::JsonLines.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_only_by_its_own_tokens() {
    let mut shop = Shop::sqlite().await;
    let one = shop.succeed(rows(table("orders"))).await;
    let two = shop.succeed(rows(table("orders"))).await;
    let events = shop.stream(by_id(&one.id, "")).await.unwrap();
    let token = events[1].resume_token.clone();
    assert!(!token.is_empty());
    // The token is good where it belongs.
    shop.stream(by_id(&one.id, &token)).await.unwrap();

    for malformed in ["x", "AAAA", &token[1..], &format!("{token}{token}")] {
        let said = bad_field(shop.stream(by_id(&one.id, malformed)).await, "resume_token");
        assert!(said.contains("not a token of this service"), "{said}");
    }
    let mismatch = "RESUME_TOKEN_MISMATCH";
    let answer = shop.stream(by_id(&two.id, &token)).await;
    let refusal = refused(answer, Code::InvalidArgument, mismatch);
    assert_eq!(refusal.violations[0].0, "resume_token");
    let mut values = by_id(&one.id, &token);
    values.encoding = pb::RowEncoding::Values.into();
    refused(shop.stream(values).await, Code::InvalidArgument, mismatch);
    let mut live = by_id(&one.id, &token);
    let spec = rows(table("orders"));
    live.target = Some(pb::stream_rows_request::Target::Spec(spec));
    refused(shop.stream(live).await, Code::InvalidArgument, mismatch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_no_guarantee_that_cant_be_had() {
    let mut shop = Shop::sqlite().await;
    let spooled = shop.succeed(rows(table("orders"))).await;
    let live = pb::StreamRowsRequest {
        target: Some(pb::stream_rows_request::Target::Spec(rows(table("orders")))),
        ..Default::default()
    };
    for (request, resume) in [
        (by_id(&spooled.id, ""), pb::Resume::Keyset),
        (by_id(&spooled.id, ""), pb::Resume::Snapshot),
        (live.clone(), pb::Resume::Keyset),
        (live.clone(), pb::Resume::Snapshot),
        (live.clone(), pb::Resume::Spooled),
    ] {
        let request = pb::StreamRowsRequest {
            resume: resume.into(),
            ..request
        };
        let refusal = refused(
            shop.stream(request).await,
            Code::FailedPrecondition,
            "RESUME_UNAVAILABLE",
        );
        assert!(refusal.message.contains(resume.as_str_name()));
    }
    let mut with_format = live.clone();
    with_format.target = Some(pb::stream_rows_request::Target::Spec(table("orders")));
    bad_field(shop.stream(with_format).await, "spec.format");
    let odd = pb::StreamRowsRequest {
        max_batch_rows: -1,
        max_batch_bytes: -1,
        heartbeat: Some(prost_types::Duration {
            seconds: 0,
            nanos: 1000,
        }),
        encoding: 9,
        ..live
    };
    bad_fields(
        shop.stream(odd).await,
        &["max_batch_rows", "max_batch_bytes", "heartbeat", "encoding"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_json_may_have_rounded_is_refused() {
    let mut shop = Shop::sqlite().await;
    let beyond = || Value::NumberValue(9_007_199_254_740_994.0);
    let spec = with_params(definition("cheap"), &[("below", beyond())]);
    let said = bad_field(shop.submit(spec).await, "spec.params.below");
    assert!(said.contains("string"), "{said}");
    let spec = with_params(
        sql("select * from orders where amount < :below"),
        &[("below", beyond())],
    );
    bad_field(shop.submit(spec).await, "spec.params.below");
    let text = Value::StringValue("9007199254740994".to_owned());
    let spec = with_params(definition("cheap"), &[("below", text)]);
    shop.succeed(spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_four_mebibytes_is_out_of_range() {
    let mut shop = Shop::sqlite().await;
    let mut spec = sql("select 1");
    spec.filter = "x".repeat(5 << 20);
    refused(
        shop.submit(spec).await,
        Code::OutOfRange,
        "MESSAGE_TOO_LARGE",
    );
    // The connection lives on, and what is merely large is a bad field.
    let mut spec = sql("select 1");
    spec.filter = "x".repeat(100_000);
    bad_field(shop.submit(spec).await, "spec.filter");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_parameter_is_named_at_once() {
    let mut shop = Shop::sqlite().await;
    let spec = with_params(
        definition("cheap"),
        &[
            ("belw", Value::NumberValue(1.0)),
            ("name", Value::BoolValue(true)),
        ],
    );
    let of = |names: [&str; 3]| names.map(|name| format!("spec.params.{name}"));
    let fields = of(["below", "belw", "name"]);
    bad_fields(shop.submit(spec).await, &fields.each_ref().map(|s| &**s));
    let spec = with_params(
        sql("select :a as a, :b as b"),
        &[("c", Value::NumberValue(1.0))],
    );
    let fields = of(["a", "b", "c"]);
    bad_fields(shop.submit(spec).await, &fields.each_ref().map(|s| &**s));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_such_message_have_a_reason() {
    let shop = Shop::sqlite().await;
    let server = format!("http://{}", shop.rowgate.address);
    let channel = Channel::from_shared(server).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    // Its first field is a number, where GetStatus has a text.
    let number = pb::ListExportsRequest {
        page_size: 1,
        ..Default::default()
    };
    let path = PathAndQuery::from_static("/rowgate.v1.ExportService/GetStatus");
    let codec = ProstCodec::<pb::ListExportsRequest, pb::GetStatusResponse>::default();
    let answer = client.unary(Request::new(number), path, codec).await;
    refused(answer, Code::Internal, "MALFORMED_REQUEST");
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_refused_at_submit_with_their_position() {
    let mut shop = Shop::sqlite().await;
    let mut unknown = table("orders");
    unknown.columns = vec![column("nmae", "")];
    let said = bad_field(shop.submit(unknown.clone()).await, "spec.columns[0].name");
    assert!(said.contains("did you mean \"name\""), "{said}");
    // A live stream's first error is a plain one, too.
    bad_field(shop.stream_of(rows(unknown)).await, "spec.columns[0].name");

    let mut filtered = table("orders");
    filtered.filter = "amount < 10 and nmae = 'x'".to_owned();
    let refusal = refused(
        shop.submit(filtered).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    assert_eq!(refusal.violations[0].0, "spec.filter");
    assert_eq!(refusal.metadata["position"], "17", "{refusal:?}");

    for (expression, position) in [
        ("amount +", None),
        ("amount + * 2", Some("10")),
        ("sum(amount)", Some("1")),
        ("nosuch(amount)", Some("1")),
        ("random()", Some("1")),
        ("(select 1)", Some("2")),
    ] {
        let mut spec = table("orders");
        spec.columns = vec![column("x", expression)];
        let refusal = refused(
            shop.submit(spec).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
        );
        assert_eq!(refusal.violations[0].0, "spec.columns[0].expression");
        let told = refusal.metadata.get("position").map(String::as_str);
        assert!(told.is_some(), "{expression}: {refusal:?}");
        if position.is_some() {
            assert_eq!(told, position, "{expression}: {refusal:?}");
        }
    }
    let mut number = table("orders");
    number.filter = "amount + 1".to_owned();
    bad_field(shop.submit(number).await, "spec.filter");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_violations_are_named_and_the_answer_still_fits() {
    let mut shop = Shop::sqlite().await;
    let mut spec = table("orders");
    spec.columns = (0..30)
        .map(|i| column(&format!("no such column {i} {}", "é".repeat(60)), ""))
        .collect();
    let refusal = refused(
        shop.submit(spec).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    assert!((5..=20).contains(&refusal.violations.len()), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_belongs_to_one_spec() {
    let mut shop = Shop::sqlite().await;
    let request = |spec| pb::SubmitExportRequest {
        spec: Some(spec),
        request_id: "018f4e3c-1111-7000-8000-000000000001".to_owned(),
        ..Default::default()
    };
    let first = shop.submit_as(request(table("orders"))).await.unwrap();
    let again = shop.submit_as(request(table("orders"))).await.unwrap();
    assert_eq!(first.id, again.id);
    let answer = shop.submit_as(request(sql("select 1"))).await;
    let refusal = refused(answer, Code::AlreadyExists, "REQUEST_ID_REUSED");
    assert_eq!(refusal.metadata["export_id"], first.id);
    // The same words in another format are another spec.
    let mut other = table("orders");
    other.format = Some(format(Kind::Jsonl(pb::JsonLines::default())));
    refused(
        shop.submit_as(request(other)).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    // The default, spelled out, is not.
    let mut spelled = table("orders");
    spelled.format = Some(csv());
    let comma = pb::Csv {
        delimiter: ",".to_owned(),
        ..Default::default()
    };
    spelled.format = Some(format(Kind::Csv(comma)));
    let same = shop.submit_as(request(spelled)).await.unwrap();
    assert_eq!(same.id, first.id);
}
