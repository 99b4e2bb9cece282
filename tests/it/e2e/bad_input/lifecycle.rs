//! Asking of an export what its state does not allow.

use rowgate::rpc::pb;
use tonic::Code;

use super::{
    fields::by_id,
    refusal::{bad_field, refused, refused_for_now},
    shop::{Shop, definition, rows, sql, table},
};

fn download(id: &str) -> pb::DownloadResultRequest {
    pb::DownloadResultRequest {
        export_id: id.to_owned(),
        ..Default::default()
    }
}

async fn cancel(shop: &mut Shop, id: &str) -> Result<pb::Export, tonic::Status> {
    let request = pb::CancelExportRequest {
        export_id: id.to_owned(),
    };
    let answer = shop.rowgate.exports.cancel_export(request).await?;
    Ok(answer.into_inner().export.unwrap())
}

async fn delete(shop: &mut Shop, id: &str) -> Result<(), tonic::Status> {
    let request = pb::DeleteExportRequest {
        export_id: id.to_owned(),
    };
    shop.rowgate.exports.delete_export(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_read_when_it_is_there() {
    let mut shop = Shop::sqlite().await;
    let pause = pb::PauseQueueRequest::default();
    shop.rowgate.admin.pause_queue(pause).await.unwrap();
    // It can't run, and nobody waits for it.
    let at_once = pb::SubmitExportRequest {
        spec: Some(table("orders")),
        max_wait: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let queued = shop.submit_as(at_once).await.unwrap();
    assert_eq!(queued.state(), pb::State::Queued);
    let precondition = Code::FailedPrecondition;
    let refusal = refused_for_now(
        shop.download(download(&queued.id)).await,
        precondition,
        "NOT_READY",
    );
    assert_eq!(refusal.metadata["state"], "QUEUED");
    refused_for_now(
        shop.stream(by_id(&queued.id, "")).await,
        precondition,
        "NOT_READY",
    );
    refused(
        delete(&mut shop, &queued.id).await,
        precondition,
        "EXPORT_NOT_ENDED",
    );
    // While paused, nothing runs inline and no stream begins.
    let inline = pb::SubmitExportRequest {
        spec: Some(table("orders")),
        execution: pb::Execution::Inline.into(),
        ..Default::default()
    };
    refused_for_now(
        shop.submit_as(inline).await,
        Code::Unavailable,
        "QUEUE_PAUSED",
    );
    refused_for_now(
        shop.stream_of(rows(table("orders"))).await,
        Code::Unavailable,
        "QUEUE_PAUSED",
    );

    let cancelled = cancel(&mut shop, &queued.id).await.unwrap();
    assert_eq!(cancelled.state(), pb::State::Cancelled);
    refused(
        shop.download(download(&queued.id)).await,
        precondition,
        "EXPORT_CANCELLED",
    );
    refused(
        shop.stream(by_id(&queued.id, "")).await,
        precondition,
        "EXPORT_CANCELLED",
    );
    // Twice is as good as once.
    cancel(&mut shop, &queued.id).await.unwrap();
    delete(&mut shop, &queued.id).await.unwrap();
    refused(
        delete(&mut shop, &queued.id).await,
        Code::NotFound,
        "EXPORT_NOT_FOUND",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_no_rows_and_rows_are_no_file() {
    let mut shop = Shop::sqlite().await;
    let file = shop.succeed(table("orders")).await;
    let spool = shop.succeed(rows(table("orders"))).await;
    let precondition = Code::FailedPrecondition;
    refused(
        shop.stream(by_id(&file.id, "")).await,
        precondition,
        "NOT_ROWS",
    );
    refused(
        shop.download(download(&spool.id)).await,
        precondition,
        "NOT_A_FILE",
    );
    let events = shop.stream_of(rows(table("orders"))).await.unwrap();
    let Some(pb::stream_rows_response::Event::Header(header)) = &events[0].event else {
        panic!("{:?}", events[0]);
    };
    refused(
        shop.stream(by_id(&header.export_id, "")).await,
        precondition,
        "NOT_ROWS",
    );
    refused(
        shop.download(download(&header.export_id)).await,
        precondition,
        "NOT_A_FILE",
    );
    let refusal = refused(
        cancel(&mut shop, &file.id).await,
        precondition,
        "EXPORT_ENDED",
    );
    assert_eq!(refusal.metadata["state"], "SUCCEEDED");

    let size = file.result.unwrap().size_bytes;
    let at = |offset, limit| pb::DownloadResultRequest {
        offset,
        limit,
        ..download(&file.id)
    };
    assert_eq!(shop.download(at(size, 0)).await.unwrap(), b"");
    assert_eq!(shop.download(at(size - 1, 0)).await.unwrap(), b"\n");
    let refusal = refused(
        shop.download(at(size + 1, 0)).await,
        Code::OutOfRange,
        "OFFSET_PAST_END",
    );
    assert_eq!(refusal.metadata["size_bytes"], size.to_string());
    bad_field(shop.download(at(-1, 0)).await, "offset");
    bad_field(shop.download(at(0, -1)).await, "limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_export_says_why_to_whoever_wants_its_result() {
    let mut shop = Shop::sqlite().await;
    let failed = shop.fail(definition("failing")).await;
    let precondition = Code::FailedPrecondition;
    let answer = shop.download(download(&failed.id)).await;
    let refusal = refused(answer, precondition, "EXPORT_FAILED");
    assert!(refusal.message.contains("QUERY_FAILED"), "{refusal:?}");
    let answer = shop.stream(by_id(&failed.id, "")).await;
    refused(answer, precondition, "EXPORT_FAILED");
    let answer = cancel(&mut shop, &failed.id).await;
    refused(answer, precondition, "EXPORT_ENDED");
    let failed = shop.fail(rows(definition("failing"))).await;
    assert!(failed.result.is_none());
    assert_eq!(shop.files(), Vec::<String>::new());
    delete(&mut shop, &failed.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_is_refused_for_what_does_not_fit() {
    let mut shop = Shop::sqlite_with("[server]\ngateway_timeout = \"10ms\"").await;
    let inline = |spec| pb::SubmitExportRequest {
        spec: Some(spec),
        execution: pb::Execution::Inline.into(),
        ..Default::default()
    };
    let answer = shop.submit_as(inline(table("orders"))).await;
    let refusal = refused(answer, Code::FailedPrecondition, "TOO_LARGE_FOR_INLINE");
    assert_eq!(refusal.metadata["estimated_rows"], "20000");
    assert_eq!(refusal.metadata["threshold_rows"], "250");
    // What is refused leaves nothing behind.
    let list = pb::ListExportsRequest::default();
    let listed = shop.rowgate.exports.list_exports(list).await.unwrap();
    assert_eq!(listed.into_inner().exports, Vec::new());
    shop.submit_as(inline(sql("select 1 as one")))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_refuses_as_submitting_does_and_leaves_nothing() {
    let mut shop = Shop::sqlite().await;
    let validate = |spec| pb::SubmitExportRequest {
        spec: Some(spec),
        validate_only: true,
        ..Default::default()
    };
    let mut odd = table("orders");
    odd.filter = "nosuch > 1".to_owned();
    bad_field(shop.submit_as(validate(odd)).await, "spec.filter");
    refused(
        shop.submit_as(validate(sql("select nosuch"))).await,
        Code::InvalidArgument,
        "SQL_REJECTED",
    );
    let request = validate(table("orders"));
    let good = shop.rowgate.exports.submit_export(request).await.unwrap();
    let good = good.into_inner();
    assert!(good.export.is_none());
    assert_eq!(good.plan.unwrap().schema.len(), 3);
    let list = pb::ListExportsRequest::default();
    let listed = shop.rowgate.exports.list_exports(list).await.unwrap();
    assert_eq!(listed.into_inner().exports, Vec::new());
}
