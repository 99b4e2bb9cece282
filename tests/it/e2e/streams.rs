//! Row streams: what a client sees while the source is slow or breaks, and what becomes of a stream whose client is.

use std::time::Duration;

use rowgate::rpc::pb::{self, State, stream_rows_response::Event};
use tonic::Code;

use super::rig::{
    self, Lines, PATIENCE, Source, cancel, events, gated, live, queue, refused, service, spooled,
    sql, status, stream, stream_in_a_free_slot, stuck, until, until_it_stands, within,
};
use crate::support::{rowgate::Rowgate, wait_until};

/// The only export that there is.
async fn the_export(exports: &rig::Exports) -> pb::Export {
    let mut all = rig::list(exports).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Its header waits for the first rows as long as a header does, which is five seconds.
fn patient(spec: pb::ExportSpec) -> pb::StreamRowsRequest {
    pb::StreamRowsRequest {
        heartbeat: Some(rig::seconds(6)),
        ..live(spec)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_source_gives_a_header_and_heartbeats_then_rows_and_a_footer() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = service(&source).await;
    let mut rows = stream(&rowgate.exports, live(gated(250, 1))).await.unwrap();
    let first = rig::header(&mut rows).await;
    let Some(Event::Header(header)) = first.event else {
        panic!("{first:?}");
    };
    assert_eq!(header.guarantee(), pb::Resume::None);
    assert_eq!(header.schema.len(), 3);
    assert!(header.admission.is_some());
    assert!(first.resume_token.is_empty(), "a live stream has no tokens");
    for _ in 0..2 {
        let beat = rows.message().await.unwrap().unwrap();
        let Some(Event::Heartbeat(beat)) = beat.event else {
            panic!("{beat:?}");
        };
        assert_eq!(beat.progress.unwrap().rows_read, 0);
    }
    let running = status(&rowgate.exports, &header.export_id).await;
    assert_eq!((running.state(), running.attempt), (State::Running, 1));
    gate.open().await;
    let (events, end) = events(&mut rows).await;
    end.unwrap();
    let batches = events
        .iter()
        .filter(|event| matches!(event, Event::Batch(_)))
        .count();
    assert!(batches >= 1);
    let Some(Event::Footer(footer)) = events.last() else {
        panic!("{:?}", events.last());
    };
    assert_eq!(footer.rows, 250);
    assert_eq!(footer.sha256.len(), 64);
    // The row said so before the footer did.
    let done = status(&rowgate.exports, &header.export_id).await;
    assert_eq!(done.state(), State::Succeeded);
    refused(
        stream(&rowgate.exports, spooled(&header.export_id)).await,
        Code::FailedPrecondition,
        "NOT_ROWS",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_takes_only_what_reads() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    for text in ["show all", "explain analyze select 1"] {
        let status = match stream(&rowgate.exports, live(sql(text))).await {
            Err(status) => status,
            Ok(mut rows) => events(&mut rows).await.1.unwrap_err(),
        };
        assert_eq!(rig::reason(&status), "SQL_REJECTED", "{text}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_middle_of_a_stream_is_a_status_with_details() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let broken = sql(
        "select 1000 / (3000 - i) as x, repeat('x', 1000) as pad from generate_series(1, 5000) i",
    );
    let mut rows = stream(&rowgate.exports, live(broken)).await.unwrap();
    let (events, end) = events(&mut rows).await;
    assert!(rig::begin_with_a_header(&events));
    assert!(!events.iter().any(|event| matches!(event, Event::Footer(_))));
    let status = end.unwrap_err();
    assert!(!rig::reason(&status).is_empty(), "{status:?}");
    assert!(!rig::is_retryable(&status));
    let export = the_export(&rowgate.exports).await;
    assert_eq!(export.state(), State::Failed);
    assert_eq!(export.error.unwrap().code, status.code() as i32);
    // Before the first row it is the call's own status.
    let never = patient(sql("select 1 / (i - 1) as x from generate_series(1, 9) i"));
    let never = stream(&rowgate.exports, never).await;
    assert_eq!(never.unwrap_err().code(), status.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_takes_its_query_with_it() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    let mut rows = stream(&rowgate.exports, live(gated(10_000, 5_000)))
        .await
        .unwrap();
    let mut lines = Lines::default();
    while lines.rows < 1_000 {
        lines.take(&rows.message().await.unwrap().unwrap());
    }
    look.until_queries(1).await;
    drop(rows);
    look.until_gone().await;
    let id = the_export(&rowgate.exports).await.id;
    until(&rowgate.exports, &id, State::Cancelled).await;

    // The same for one that leaves before the header: the call itself is dropped.
    let exports = rowgate.exports.clone();
    let call = tokio::spawn(async move { stream(&exports, patient(gated(10, 1))).await });
    look.until_queries(1).await;
    call.abort();
    // On a machine that stood still for seconds the header was there already; it goes with the call.
    drop(call.await);
    look.until_gone().await;
    wait_until(PATIENCE, "both are CANCELLED", || async {
        let all = rig::list(&rowgate.exports).await;
        let cancelled = all
            .iter()
            .filter(|export| export.state() == State::Cancelled);
        (cancelled.count() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_stream_that_has_begun() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    let request = within(live(gated(1_000, 500)), Duration::from_secs(8));
    let mut rows = stream(&rowgate.exports, request).await.unwrap();
    let (events, end) = events(&mut rows).await;
    assert!(rig::begin_with_a_header(&events));
    refused(end, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    look.until_gone().await;
    let export = the_export(&rowgate.exports).await;
    let export = until(&rowgate.exports, &export.id, State::Failed).await;
    assert_eq!(export.error.unwrap().reason, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_before_the_first_row_is_one_as_well() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    // The answer comes a little before the deadline. Where a machine stands still for that long the transport's own
    // comes first, without a reason, and the client counts as gone: then once more.
    for _ in 0..3 {
        let request = within(patient(gated(10, 1)), Duration::from_secs(4));
        let status = stream(&rowgate.exports, request).await.unwrap_err();
        look.until_gone().await;
        if rig::reason(&status).is_empty() {
            continue;
        }
        refused(
            Err::<(), _>(status),
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        );
        let newest = rig::list(&rowgate.exports).await.remove(0);
        let export = until(&rowgate.exports, &newest.id, State::Failed).await;
        assert_eq!(export.error.unwrap().reason, "DEADLINE_EXCEEDED");
        return;
    }
    panic!("the transport was faster, three times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_is_cancelled_by_its_id() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    let mut rows = stream(&rowgate.exports, live(gated(1_000, 500)))
        .await
        .unwrap();
    look.until_queries(1).await;
    let id = the_export(&rowgate.exports).await.id;
    cancel(&rowgate.exports, &id).await.unwrap();
    look.until_gone().await;
    let (_, end) = events(&mut rows).await;
    refused(end, Code::Cancelled, "CANCELLED");
    until(&rowgate.exports, &id, State::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_stops_the_reader_and_loses_its_slot_in_time() {
    let source = Source::create().await;
    let look = source.look().await;
    let toml = source
        .toml_with("stream_slots = 1")
        .replace("[server]\n", "[server]\nstream_idle_timeout = \"8s\"\n");
    let rowgate = Rowgate::start(&toml).await;
    let mut rows = stuck(&rowgate.exports, live(gated(300_000, 300_001))).await;
    let id = the_export(&rowgate.exports).await.id;
    let full = stream(&rowgate.exports, live(gated(1, 2))).await;
    let full = refused(full, Code::ResourceExhausted, "STREAM_LIMIT");
    assert!(rig::is_retryable(&full));
    let failed = until(&rowgate.exports, &id, State::Failed).await;
    let error = failed.error.unwrap();
    assert_eq!(error.reason, "SLOW_CLIENT");
    let read: i64 = error.metadata["rows_read"].parse().unwrap();
    assert!(
        read < 100_000,
        "{read} rows were read for a client that took a few"
    );
    look.until_gone().await;
    // Whoever comes next finds the slot free, while the slow one still holds its call.
    let mut next = stream_in_a_free_slot(&rowgate.exports, live(gated(1, 2))).await;
    events(&mut next).await.1.unwrap();
    let (_, end) = events(&mut rows).await;
    refused(end, Code::Aborted, "SLOW_CLIENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_client_does_not_read_is_cancelled_at_once() {
    let source = Source::create().await;
    let look = source.look().await;
    let rowgate = service(&source).await;
    let mut rows = stuck(&rowgate.exports, live(gated(300_000, 300_001))).await;
    let id = the_export(&rowgate.exports).await.id;
    let read = until_it_stands(&rowgate.exports, &id).await;
    assert!(
        read < 100_000,
        "{read} rows were read for a client that took a few"
    );
    cancel(&rowgate.exports, &id).await.unwrap();
    look.until_gone().await;
    // Not after stream_idle_timeout, which is ten minutes.
    until(&rowgate.exports, &id, State::Cancelled).await;
    let (_, end) = events(&mut rows).await;
    refused(end, Code::Cancelled, "CANCELLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_ends_a_stream_whose_client_does_not_read() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    // More than transports hold, less than the queues do: the source stands at the gate, the sink at the client.
    let rowgate = Rowgate::start(&source.toml_with("queue_batches = 100")).await;
    let mut rows = stuck(&rowgate.exports, live(gated(20_000, 8_000))).await;
    let id = the_export(&rowgate.exports).await.id;
    let query = look.until_queries(1).await;
    until_it_stands(&rowgate.exports, &id).await;
    look.kill(&query).await;
    // Not after stream_idle_timeout, which is ten minutes.
    let failed = until(&rowgate.exports, &id, State::Failed).await;
    let reason = failed.error.unwrap().reason;
    assert_ne!(reason, "SLOW_CLIENT");
    let (_, end) = events(&mut rows).await;
    assert_eq!(rig::reason(&end.unwrap_err()), reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_do_not_hold_up_a_shutdown() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, gated(20_000, 20_001)).await;
    until(&rowgate.exports, &id, State::Succeeded).await;
    let mut replay = stuck(&rowgate.exports, spooled(&id)).await;
    let mut rows = stuck(&rowgate.exports, live(gated(300_000, 300_001))).await;
    let stopped = tokio::time::timeout(PATIENCE, rowgate.stop()).await;
    // One second of grace, and five for a transport that can not get rid of its bytes; their idle time is ten minutes.
    stopped.expect("it ends").unwrap();
    for rows in [&mut rows, &mut replay] {
        assert_eq!(events(rows).await.1.unwrap_err().code(), Code::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_of_spooled_rows_is_cut_off_and_resumes() {
    let source = Source::create().await;
    let toml = source
        .toml_with("stream_slots = 1")
        .replace("[server]\n", "[server]\nstream_idle_timeout = \"5s\"\n");
    let rowgate = Rowgate::start(&toml).await;
    let id = queue(&rowgate.exports, gated(20_000, 20_001)).await;
    until(&rowgate.exports, &id, State::Succeeded).await;
    let mut rows = stream(&rowgate.exports, spooled(&id)).await.unwrap();
    let (mut lines, mut token) = (Lines::default(), String::new());
    while lines.rows == 0 {
        let message = rows.message().await.unwrap().unwrap();
        lines.take(&message);
        token = message.resume_token;
    }
    // The slot comes back although the slow client is still there.
    let again = pb::StreamRowsRequest {
        resume_token: token,
        ..spooled(&id)
    };
    let mut again = stream_in_a_free_slot(&rowgate.exports, again).await;
    let mut footer = None;
    while let Some(message) = again.message().await.unwrap() {
        lines.take(&message);
        if let Some(Event::Footer(end)) = message.event {
            footer = Some(end.rows);
        }
    }
    assert_eq!((lines.rows, footer), (20_000, Some(20_000)));
    let (_, end) = events(&mut rows).await;
    refused(end, Code::Aborted, "SLOW_CLIENT");
}
