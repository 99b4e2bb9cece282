//! Inline or queued: every reason, with its numbers, and what a caller may rely on either way.

use std::time::Duration;

use rowgate::rpc::pb::{self, Execution, State};
use tonic::Code;

use super::rig::{
    self, PATIENCE, Source, as_csv, cancel, gated, is_retryable, list, live, queue, refused,
    stream, submit, submit_as, until, within,
};
use crate::support::{reading::SILENT_SQLITE, rowgate::Rowgate, wait_until};

/// A budget of 30 s and 100 rows/s: 3,000 rows fit, and what fits has a long time to end.
fn small(source: &Source, limits: &str) -> String {
    let section = source.section("shop");
    source
        .toml_with(&format!("inline_safety = 0.5\n{limits}"))
        .replace("[server]\n", "[server]\ngateway_timeout = \"60s\"\n")
        .replace(
            &section,
            &format!("{section}expected_rows_per_second = 100\n"),
        )
}

/// Does not wait for its end.
fn at_once(spec: pb::ExportSpec, execution: Execution) -> pb::SubmitExportRequest {
    pb::SubmitExportRequest {
        max_wait: Some(rig::seconds(0)),
        ..submit_as(spec, execution)
    }
}

fn said(response: &pb::SubmitExportResponse) -> (Execution, &str) {
    let admission = response.admission.as_ref().unwrap();
    (admission.mode(), &admission.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_decides_and_is_told_with_its_numbers() {
    let source = Source::create().await;
    let rowgate = Rowgate::start(&small(&source, "inline_slots = 2")).await;
    let fits = submit_as(as_csv(gated(100, 101)), Execution::Auto);
    let fits = submit(&rowgate.exports, fits).await.unwrap();
    assert_eq!(said(&fits), (Execution::Inline, "FITS"));
    let numbers = fits.admission.unwrap();
    assert_eq!(numbers.estimated_rows, Some(100));
    assert_eq!(numbers.estimate_source, "planner");
    assert_eq!(numbers.threshold_rows, 3_000);
    assert_eq!(numbers.budget, Some(rig::seconds(30)));
    assert_eq!(numbers.free_inline_slots, 2);
    assert_eq!(fits.export.unwrap().state(), State::Succeeded);

    let gate = source.close_gate().await;
    let large = || as_csv(gated(6_000, 1));
    let queued = submit(&rowgate.exports, at_once(large(), Execution::Auto))
        .await
        .unwrap();
    assert_eq!(said(&queued), (Execution::Queued, "TOO_LARGE"));
    assert_eq!(queued.admission.unwrap().estimated_rows, Some(6_000));
    let refusal = submit(&rowgate.exports, submit_as(large(), Execution::Inline)).await;
    let refusal = refused(refusal, Code::FailedPrecondition, "TOO_LARGE_FOR_INLINE");
    assert!(!is_retryable(&refusal));
    // The caller's own deadline makes the budget smaller.
    let hurried = at_once(as_csv(gated(1_500, 1)), Execution::Auto);
    let request = within(hurried, Duration::from_secs(10));
    let hurried = rowgate
        .exports
        .clone()
        .submit_export(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(said(&hurried), (Execution::Queued, "TOO_LARGE"));
    assert!(hurried.admission.unwrap().threshold_rows <= 500);

    let asked = submit(
        &rowgate.exports,
        submit_as(as_csv(gated(9, 10)), Execution::Queued),
    )
    .await;
    assert_eq!(said(&asked.unwrap()), (Execution::Queued, "REQUESTED"));
    let asked = submit(
        &rowgate.exports,
        submit_as(as_csv(gated(9, 10)), Execution::Inline),
    )
    .await;
    let asked = asked.unwrap();
    assert_eq!(said(&asked), (Execution::Inline, "REQUESTED"));
    assert_eq!(asked.export.unwrap().state(), State::Succeeded);
    gate.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_estimate_in_time_auto_queues_and_inline_runs() {
    let (rowgate, _folder) = rig::service_over_sqlite().await;
    for (asked, told) in [
        (Execution::Auto, (Execution::Queued, "NO_ESTIMATE")),
        (Execution::Inline, (Execution::Inline, "REQUESTED")),
    ] {
        let request = at_once(as_csv(rig::sql(SILENT_SQLITE)), asked);
        let response = submit(&rowgate.exports, request).await.unwrap();
        assert_eq!(said(&response), told);
        let numbers = response.admission.unwrap();
        assert_eq!(numbers.estimated_rows, None);
        assert_eq!(numbers.estimate_source, "");
        let id = response.export.unwrap().id;
        until(&rowgate.exports, &id, State::Running).await;
        rig::cancel(&rowgate.exports, &id).await.unwrap();
        until(&rowgate.exports, &id, State::Cancelled).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_permit_auto_queues_and_inline_is_refused() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = Rowgate::start(&small(&source, "inline_slots = 1")).await;
    let held = submit(
        &rowgate.exports,
        at_once(as_csv(gated(100, 50)), Execution::Inline),
    )
    .await;
    assert_eq!(held.unwrap().export.unwrap().state(), State::Running);
    let next = submit(
        &rowgate.exports,
        at_once(as_csv(gated(100, 50)), Execution::Auto),
    )
    .await;
    let next = next.unwrap();
    assert_eq!(said(&next), (Execution::Queued, "NO_PERMIT"));
    assert_eq!(next.admission.unwrap().free_inline_slots, 0);
    let refusal = submit(
        &rowgate.exports,
        at_once(as_csv(gated(9, 10)), Execution::Inline),
    )
    .await;
    assert!(is_retryable(&refused(
        refusal,
        Code::ResourceExhausted,
        "NO_PERMIT"
    )));
    gate.open().await;
    until(&rowgate.exports, &next.export.unwrap().id, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_full_queue_refuses_until_something_left_it() {
    let source = Source::create().await;
    let rowgate = Rowgate::start(&small(&source, "tenant_queued = 2")).await;
    let pause = pb::PauseQueueRequest::default();
    rowgate.admin.clone().pause_queue(pause).await.unwrap();
    let submit_one = async |execution| {
        let request = at_once(as_csv(gated(9, 10)), execution);
        submit(&rowgate.exports, request).await
    };
    let repeated = pb::SubmitExportRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        ..at_once(as_csv(gated(9, 10)), Execution::Queued)
    };
    let first = submit(&rowgate.exports, repeated.clone()).await.unwrap();
    let first = first.export.unwrap().id;
    submit_one(Execution::Queued).await.unwrap();
    for execution in [Execution::Queued, Execution::Auto] {
        let refusal = refused(
            submit_one(execution).await,
            Code::ResourceExhausted,
            "TENANT_QUEUE_FULL",
        );
        assert!(is_retryable(&refusal));
    }
    let again = submit(&rowgate.exports, repeated).await.unwrap();
    assert_eq!(again.export.unwrap().id, first);
    cancel(&rowgate.exports, &first).await.unwrap();
    submit_one(Execution::Auto).await.unwrap();
    refused(
        submit_one(Execution::Queued).await,
        Code::ResourceExhausted,
        "TENANT_QUEUE_FULL",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_cap_auto_queues_and_inline_and_streams_are_refused() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = Rowgate::start(&small(&source, "tenant_slots = 1")).await;
    let held = submit(
        &rowgate.exports,
        at_once(as_csv(gated(100, 50)), Execution::Inline),
    )
    .await;
    assert_eq!(held.unwrap().export.unwrap().state(), State::Running);
    let next = submit(
        &rowgate.exports,
        at_once(as_csv(gated(9, 10)), Execution::Auto),
    )
    .await;
    let next = next.unwrap();
    assert_eq!(said(&next), (Execution::Queued, "CAP"));
    let refusal = submit(
        &rowgate.exports,
        at_once(as_csv(gated(9, 10)), Execution::Inline),
    )
    .await;
    assert!(is_retryable(&refused(
        refusal,
        Code::ResourceExhausted,
        "CAP"
    )));
    let refusal = stream(&rowgate.exports, live(gated(9, 10))).await;
    assert!(is_retryable(&refused(
        refusal,
        Code::ResourceExhausted,
        "CAP"
    )));
    gate.open().await;
    until(&rowgate.exports, &next.export.unwrap().id, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_leaves_nothing_behind() {
    let source = Source::create().await;
    let look = source.look().await;
    let rowgate = rig::service(&source).await;
    for spec in [
        as_csv(gated(1_000, 1_001)),
        rig::as_xlsx(gated(1_000, 1_001)),
        gated(1_000, 1_001),
    ] {
        let request = pb::SubmitExportRequest {
            validate_only: true,
            request_id: uuid::Uuid::new_v4().to_string(),
            ..submit_as(spec, Execution::Auto)
        };
        let response = submit(&rowgate.exports, request).await.unwrap();
        assert_eq!(said(&response), (Execution::Inline, "FITS"));
        assert!(response.export.is_none());
        let plan = response.plan.unwrap();
        let names: Vec<_> = plan
            .schema
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        assert_eq!(names, ["id", "pad", "gate"]);
        assert_eq!(plan.sample.len(), 10);
    }
    assert!(list(&rowgate.exports).await.is_empty());
    look.until_gone().await;
    rig::until_nothing_stored(&rowgate.folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_predicts_what_submitting_would_say_now() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = Rowgate::start(&small(&source, "inline_slots = 1")).await;
    let validate = async |spec, execution| {
        let request = pb::SubmitExportRequest {
            validate_only: true,
            ..submit_as(spec, execution)
        };
        submit(&rowgate.exports, request).await
    };
    let little = || as_csv(gated(100, 101));
    let large = validate(as_csv(gated(6_000, 6_001)), Execution::Inline).await;
    refused(large, Code::FailedPrecondition, "TOO_LARGE_FOR_INLINE");
    let free = validate(little(), Execution::Inline).await.unwrap();
    assert_eq!(said(&free), (Execution::Inline, "REQUESTED"));

    let pause = pb::PauseQueueRequest::default();
    rowgate.admin.clone().pause_queue(pause).await.unwrap();
    let paused = validate(little(), Execution::Auto).await.unwrap();
    assert_eq!(said(&paused), (Execution::Queued, "PAUSED"));
    let refusal = validate(little(), Execution::Inline).await;
    let refusal = refused(refusal, Code::Unavailable, "QUEUE_PAUSED");
    assert!(is_retryable(&refusal));
    let resume = pb::ResumeQueueRequest::default();
    rowgate.admin.clone().resume_queue(resume).await.unwrap();

    let held = at_once(as_csv(gated(100, 50)), Execution::Inline);
    let held = submit(&rowgate.exports, held).await.unwrap();
    assert_eq!(held.export.unwrap().state(), State::Running);
    let full = validate(little(), Execution::Auto).await.unwrap();
    assert_eq!(said(&full), (Execution::Queued, "NO_PERMIT"));
    let refusal = validate(little(), Execution::Inline).await;
    let refusal = refused(refusal, Code::ResourceExhausted, "NO_PERMIT");
    assert!(is_retryable(&refusal));
    gate.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_export_that_overruns_its_budget_goes_on_in_place() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let toml = source
        .toml()
        .replace("[server]\n", "[server]\ngateway_timeout = \"2s\"\n");
    let rowgate = Rowgate::start(&toml).await;
    let request = submit_as(as_csv(gated(100, 50)), Execution::Auto);
    let response = submit(&rowgate.exports, request).await.unwrap();
    assert_eq!(said(&response), (Execution::Inline, "FITS"));
    let export = response.export.unwrap();
    assert_eq!(export.state(), State::Running);
    gate.open().await;
    let done = until(&rowgate.exports, &export.id, State::Succeeded).await;
    assert_eq!((done.attempt, done.fence), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_export_does_not_need_its_caller() {
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = rig::service(&source).await;
    let exports = rowgate.exports.clone();
    let request = submit_as(as_csv(gated(100, 50)), Execution::Inline);
    let call = tokio::spawn(async move { submit(&exports, request).await });
    look.until_queries(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    gate.open().await;
    let id = list(&rowgate.exports).await.remove(0).id;
    let done = until(&rowgate.exports, &id, State::Succeeded).await;
    assert_eq!((done.attempt, done.result.unwrap().rows), (1, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_is_one_export_however_often_it_is_sent() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    // One permit: the first call holds it, and its repetitions must not be refused for want of another.
    let rowgate = Rowgate::start(&small(&source, "inline_slots = 1")).await;
    let request = pb::SubmitExportRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        ..at_once(as_csv(gated(100, 50)), Execution::Inline)
    };
    let first = submit(&rowgate.exports, request.clone())
        .await
        .unwrap()
        .export
        .unwrap();
    let again = submit(&rowgate.exports, request.clone())
        .await
        .unwrap()
        .export
        .unwrap();
    assert_eq!(again.id, first.id);

    let shared = pb::SubmitExportRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        ..at_once(as_csv(gated(100, 50)), Execution::Auto)
    };
    let calls = (0..8).map(|_| submit(&rowgate.exports, shared.clone()));
    let ids: std::collections::BTreeSet<_> = futures::future::join_all(calls)
        .await
        .into_iter()
        .map(|response| response.unwrap().export.unwrap().id)
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(list(&rowgate.exports).await.len(), 2);

    let other = pb::SubmitExportRequest {
        spec: Some(as_csv(gated(101, 50))),
        ..request.clone()
    };
    refused(
        submit(&rowgate.exports, other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    gate.open().await;
    until(&rowgate.exports, &first.id, State::Succeeded).await;
    let late = submit(&rowgate.exports, request)
        .await
        .unwrap()
        .export
        .unwrap();
    assert_eq!((late.id, late.state), (first.id, State::Succeeded.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_submit_waits_as_long_as_it_is_told_to() {
    let source = Source::create().await;
    let rowgate = rig::service(&source).await;
    let waiting = pb::SubmitExportRequest {
        max_wait: Some(rig::seconds(PATIENCE.as_secs() as i64)),
        ..submit_as(as_csv(gated(10, 11)), Execution::Queued)
    };
    let done = submit(&rowgate.exports, waiting)
        .await
        .unwrap()
        .export
        .unwrap();
    assert_eq!(done.state(), State::Succeeded);
    let gate = source.close_gate().await;
    let brief = pb::SubmitExportRequest {
        max_wait: Some(prost_types::Duration {
            seconds: 0,
            nanos: 200_000_000,
        }),
        ..submit_as(as_csv(gated(10, 5)), Execution::Queued)
    };
    let early = submit(&rowgate.exports, brief)
        .await
        .unwrap()
        .export
        .unwrap();
    assert!(matches!(early.state(), State::Queued | State::Running));
    gate.open().await;
    until(&rowgate.exports, &early.id, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_takes_submits_and_lets_what_runs_go_on() {
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = rig::service(&source).await;
    let running = queue(&rowgate.exports, as_csv(gated(100, 50))).await;
    look.until_queries(1).await;
    for tenant in ["", "default"] {
        let pause = pb::PauseQueueRequest {
            tenant: tenant.to_owned(),
        };
        rowgate.admin.clone().pause_queue(pause).await.unwrap();
        let auto = submit(
            &rowgate.exports,
            at_once(as_csv(gated(9, 10)), Execution::Auto),
        )
        .await;
        let auto = auto.unwrap();
        assert_eq!(said(&auto), (Execution::Queued, "PAUSED"));
        let inline = submit(
            &rowgate.exports,
            at_once(as_csv(gated(9, 10)), Execution::Inline),
        )
        .await;
        assert!(is_retryable(&refused(
            inline,
            Code::Unavailable,
            "QUEUE_PAUSED"
        )));
        let rows = stream(&rowgate.exports, live(gated(9, 10))).await;
        assert!(is_retryable(&refused(
            rows,
            Code::Unavailable,
            "QUEUE_PAUSED"
        )));
        let id = auto.export.unwrap().id;
        assert_eq!(
            rig::status(&rowgate.exports, &id).await.state(),
            State::Queued
        );
        assert_eq!(
            rig::status(&rowgate.exports, &running).await.state(),
            State::Running
        );
        let resume = pb::ResumeQueueRequest {
            tenant: tenant.to_owned(),
        };
        rowgate.admin.clone().resume_queue(resume).await.unwrap();
        until(&rowgate.exports, &id, State::Succeeded).await;
    }
    // Another tenant's pause is not ours.
    let pause = pb::PauseQueueRequest {
        tenant: "other".to_owned(),
    };
    rowgate.admin.clone().pause_queue(pause).await.unwrap();
    let auto = submit(
        &rowgate.exports,
        submit_as(as_csv(gated(9, 10)), Execution::Auto),
    )
    .await;
    assert_eq!(said(&auto.unwrap()), (Execution::Inline, "FITS"));
    // Paused while it runs, an export goes on to its end.
    let pause = pb::PauseQueueRequest::default();
    rowgate.admin.clone().pause_queue(pause).await.unwrap();
    gate.open().await;
    until(&rowgate.exports, &running, State::Succeeded).await;
    wait_until(PATIENCE, "nothing runs", || async {
        look.queries().await.is_empty().then_some(())
    })
    .await;
}
