//! A server that is killed, refused, or told to end, as a process of its own, with both queues.

use std::path::Path;

use rowgate::rpc::pb::{self, State};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::rig::{
    self, Lines, PATIENCE, Source, as_csv, download, files, gated, live, queue, refused, spooled,
    status, until,
};
use crate::support::{postgres, process, process::Process, rowgate::Rowgate, temp_dir, wait_until};

async fn killed_in_the_middle(folder: &Path, toml: &str, source: &Source) {
    let gate = source.close_gate().await;
    let look = source.look().await;
    let first = Process::start(folder, toml).await;
    // 20,000 rows of 1 kB fill several parts of the upload before the gate.
    let id = queue(&first.exports, as_csv(gated(20_001, 20_001))).await;
    let stream = rig::stream(&first.exports, live(gated(10, 1)))
        .await
        .unwrap();
    look.until_queries(2).await;
    wait_until(PATIENCE, "bytes on the disk", || async {
        let is_written = files(&folder.join("results"))
            .iter()
            .any(|file| file.contains("result.csv"));
        is_written.then_some(())
    })
    .await;
    let running = until(&first.exports, &id, State::Running).await;
    assert_eq!((running.attempt, running.fence), (1, 1));
    refused(
        download(&first.exports, &id).await,
        Code::FailedPrecondition,
        "NOT_READY",
    );
    let live_id = rig::list(&first.exports)
        .await
        .into_iter()
        .map(|export| export.id)
        .find(|other| *other != id)
        .unwrap();
    // Of a second service that is killed while it writes a workbook there would be this.
    std::fs::write(folder.join("results.scratch/left-over"), "x").unwrap();
    first.kill().await;
    drop(stream);

    let second = Process::start_after_another(folder, toml).await;
    let again = wait_until(PATIENCE, "the second attempt", || async {
        let export = status(&second.exports, &id).await;
        assert!(
            !files(&folder.join("results"))
                .iter()
                .any(|file| file.ends_with("result.csv"))
        );
        (export.state() == State::Running).then_some(export)
    })
    .await;
    assert_eq!((again.attempt, again.fence), (2, 2));
    assert_eq!(again.last_failure.unwrap().reason, "WORKER_LOST");
    let lost = status(&second.exports, &live_id).await;
    assert_eq!(lost.state(), State::Failed, "{lost:?}");
    assert_eq!(lost.error.unwrap().reason, "WORKER_LOST");

    gate.open().await;
    let done = until(&second.exports, &id, State::Succeeded).await;
    assert_eq!((done.attempt, done.fence), (2, 2));
    let bytes = download(&second.exports, &id).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.lines().count(), 20_002);
    // The gate gives an empty text, which is not NULL.
    assert!(text.ends_with(&format!("\n20001,{},\"\"\n", "x".repeat(1000))));
    assert_eq!(
        files(&folder.join("results")),
        [id.clone(), format!("{id}/2"), format!("{id}/2/result.csv")]
    );
    assert!(files(&folder.join("results.scratch")).is_empty());
    look.until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_runs_the_job_again_with_its_queue_in_sqlite() {
    let (folder, source) = (temp_dir(), Source::create().await);
    killed_in_the_middle(folder.path(), &source.toml(), &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_runs_the_job_again_with_its_queue_in_postgres() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let db = postgres::Database::create().await;
    killed_in_the_middle(folder.path(), &source.toml_in_postgres(&db), &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_queue_refuses_to_start() {
    let source = Source::create().await;
    let db = postgres::Database::create().await;
    for toml in [source.toml(), source.toml_in_postgres(&db)] {
        let folder = temp_dir();
        let first = Process::start(folder.path(), &toml).await;
        let id = queue(&first.exports, as_csv(gated(10, 100))).await;
        let (status, said) = process::refused(folder.path(), &toml).await;
        assert_eq!(status.code(), Some(1));
        assert!(said.contains("lease.url"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        // The first does not notice.
        until(&first.exports, &id, State::Succeeded).await;
        first.kill().await;
        let next = Process::start_after_another(folder.path(), &toml).await;
        next.kill().await;
    }
}

async fn is_serving(health: &HealthClient<Channel>) -> bool {
    let asked = HealthCheckRequest::default();
    let answer = health.clone().check(asked).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

async fn until_not_serving(health: &HealthClient<Channel>) {
    wait_until(PATIENCE, "NOT_SERVING while it drains", || async {
        (!is_serving(health).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_within_the_grace_time_and_hands_the_long_job_back() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let toml = source.toml().replace("grace = \"1s\"", "grace = \"8s\"");
    let (gate, look) = (source.close_gate().await, source.look().await);
    let mut first = Process::start(folder.path(), &toml).await;
    let long = queue(&first.exports, as_csv(gated(1_000, 500))).await;
    let inline = rig::submit_as(as_csv(gated(1_000, 900)), pb::Execution::Inline);
    let inline = pb::SubmitExportRequest {
        max_wait: Some(rig::seconds(0)),
        ..inline
    };
    let inline = rig::submit(&first.exports, inline).await.unwrap();
    let inline = inline.export.unwrap();
    assert_eq!(inline.state(), State::Running);
    look.until_queries(2).await;
    let waits = tokio::spawn({
        let (exports, id) = (first.exports.clone(), long.clone());
        let request = pb::GetStatusRequest {
            export_id: id,
            wait: Some(rig::seconds(60)),
        };
        async move { exports.clone().get_status(request).await }
    });
    let mut live_rows = rig::stream(&first.exports, live(gated(10, 1)))
        .await
        .unwrap();
    let health = HealthClient::new(first.channel.clone());
    assert!(is_serving(&health).await);

    first.terminate();
    until_not_serving(&health).await;
    let late = rig::submit_as(gated(1, 2), pb::Execution::Queued);
    let refusal = refused(
        rig::submit(&first.exports, late).await,
        Code::Unavailable,
        "DRAINING",
    );
    assert!(rig::is_retryable(&refusal));
    // Who waits for an end that will not come here is sent away at once, and told when to ask the next process.
    let waits = refused(waits.await.unwrap(), Code::Unavailable, "DRAINING");
    assert!(rig::is_retryable(&waits));
    let status = first.ended(PATIENCE).await;
    assert!(status.success(), "{status}: {}", first.log());
    // Without tokens a stream runs to the grace time, then ends as UNAVAILABLE.
    let end = loop {
        match live_rows.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream must not end without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (end.code(), rig::reason(&end).as_str()),
        (Code::Unavailable, "DRAINING"),
        "{end:?}"
    );
    look.until_gone().await;
    rig::until_nothing_stored(folder.path()).await;

    gate.open().await;
    let second = Process::start(folder.path(), &toml).await;
    for id in [&long, &inline.id] {
        let done = until(&second.exports, id, State::Succeeded).await;
        assert_eq!((done.attempt, done.fence), (1, 2), "{done:?}");
        assert!(done.last_failure.is_none(), "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_stream_of_spooled_rows_is_resumed_byte_by_byte() {
    use pb::stream_rows_response::Event;
    let (folder, source) = (temp_dir(), Source::create().await);
    let folder = folder.path().to_owned();
    let first = Rowgate::start_in(folder.clone(), &source.toml()).await;
    let id = queue(&first.exports, gated(20_000, 20_001)).await;
    until(&first.exports, &id, State::Succeeded).await;
    let mut whole = Lines::default();
    let mut rows = rig::stream(&first.exports, spooled(&id)).await.unwrap();
    while let Some(message) = rows.message().await.unwrap() {
        whole.take(&message);
    }

    let mut parts = Lines::default();
    let mut rows = rig::stream(&first.exports, spooled(&id)).await.unwrap();
    for _ in 0..3 {
        parts.take(&rows.message().await.unwrap().unwrap());
    }
    let health = first.health();
    let stopping = tokio::spawn(first.stop());
    // Or the whole would be read before the server hears that it is to end.
    until_not_serving(&health).await;
    let mut token = String::new();
    let end = loop {
        match rows.message().await {
            Ok(Some(message)) => {
                parts.take(&message);
                if matches!(message.event, Some(Event::Drain(_))) {
                    token = message.resume_token;
                }
                assert!(
                    !matches!(message.event, Some(Event::Footer(_))),
                    "it was not cut"
                );
            }
            Ok(None) => panic!("a stream must not end without a word"),
            Err(status) => break status,
        }
    };
    assert!(!token.is_empty(), "no drain came before {end:?}");
    assert_eq!(end.code(), Code::Unavailable);
    assert!(rig::is_retryable(&end));
    stopping.await.unwrap().unwrap();

    let second = Rowgate::start_in(folder, &source.toml()).await;
    let request = pb::StreamRowsRequest {
        resume_token: token,
        ..spooled(&id)
    };
    let mut rows = rig::stream(&second.exports, request).await.unwrap();
    let mut footer = None;
    while let Some(message) = rows.message().await.unwrap() {
        parts.take(&message);
        if let Some(Event::Footer(end)) = message.event {
            footer = Some(end);
        }
    }
    assert_eq!(footer.unwrap().rows, 20_000);
    let (parts, whole) = (parts.text, whole.text);
    assert!(
        parts == whole,
        "{} bytes, and {} in one go",
        parts.len(),
        whole.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_cut_off_at_the_end_of_the_grace_time_and_goes_on_elsewhere() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let folder = folder.path().to_owned();
    let first = Rowgate::start_in(folder.clone(), &source.toml()).await;
    // More than waits in the connection for a client that does not read.
    let id = queue(&first.exports, as_csv(gated(20_000, 20_001))).await;
    until(&first.exports, &id, State::Succeeded).await;
    let whole = download(&first.exports, &id).await.unwrap();

    let gate = source.close_gate().await;
    let mut live_rows = rig::stream(&first.exports, live(gated(10, 1)))
        .await
        .unwrap();
    let from = |offset| pb::DownloadResultRequest {
        export_id: id.clone(),
        offset,
        ..Default::default()
    };
    let pieces = first.exports.clone().download_result(from(0)).await;
    let mut pieces = pieces.unwrap().into_inner();
    let mut got = pieces.message().await.unwrap().unwrap().data.to_vec();
    let stopping = tokio::spawn(first.stop());
    // It ends with the grace time: until then the download could have gone on.
    let (_, end) = rig::events(&mut live_rows).await;
    refused(end, Code::Unavailable, "DRAINING");
    let end = loop {
        match pieces.message().await {
            Ok(Some(piece)) => got.extend_from_slice(&piece.data),
            Ok(None) => panic!("a download must not end without a word"),
            Err(status) => break status,
        }
    };
    refused(Err::<(), _>(end.clone()), Code::Unavailable, "DRAINING");
    assert!(rig::is_retryable(&end));
    assert!(got.len() < whole.len());
    stopping.await.unwrap().unwrap();
    gate.open().await;

    let second = Rowgate::start_in(folder, &source.toml()).await;
    let rest = second
        .exports
        .clone()
        .download_result(from(got.len() as i64))
        .await;
    let mut rest = rest.unwrap().into_inner();
    while let Some(piece) = rest.message().await.unwrap() {
        got.extend_from_slice(&piece.data);
    }
    assert!(got == whole);
}
