//! Several processes share one PostgreSQL queue and one Redis: each is a whole service of its own here.

use std::collections::BTreeMap;

use rowgate::rpc::pb::{self, Execution, State};
use tempfile::TempDir;
use tokio_stream::StreamExt;
use tonic::Code;

use super::rig::{
    self, PATIENCE, Source, as_csv, cancel, gated, queue, status, submit, submit_as, until,
};
use crate::support::{postgres::Database, redis, rowgate::Rowgate, temp_dir, wait_until};

/// What they share: a queue, results, a source.
struct Shared {
    source: Source,
    queue: Database,
    folder: TempDir,
}

impl Shared {
    async fn create() -> Self {
        Self {
            source: Source::create().await,
            queue: Database::create().await,
            folder: temp_dir(),
        }
    }

    /// One more, with these roles.
    async fn replica(&self, roles: &str) -> Rowgate {
        let toml = format!(
            "{}\n[lease]\nurl = \"{}\"\nttl = \"6s\"\nrenew_every = \"1s\"\nmargin = \"500ms\"\n\
             [storage]\nurl = \"file://{}/results\"\n",
            self.source
                .toml()
                .replace(
                    "[queue]\n",
                    &format!("[queue]\nurl = \"{}\"\n", self.queue.url)
                )
                .replace("[server]\n", &format!("[server]\nroles = {roles}\n")),
            redis::database().url,
            self.folder.path().display(),
        );
        Rowgate::start(&toml).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_at_one_stops_the_query_that_runs_at_another() {
    let shared = Shared::create().await;
    let (_gate, look) = (shared.source.close_gate().await, shared.source.look().await);
    let api = shared.replica(r#"["api"]"#).await;
    let _worker = shared.replica(r#"["worker"]"#).await;
    let id = queue(&api.exports, as_csv(gated(10_000, 9_000))).await;
    look.until_queries(1).await;
    let export = cancel(&api.exports, &id).await.unwrap();
    assert!(matches!(
        export.state(),
        State::Cancelling | State::Cancelled
    ));
    look.until_gone().await;
    until(&api.exports, &id, State::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_from_everywhere_and_results_too() {
    let shared = Shared::create().await;
    let gate = shared.source.close_gate().await;
    let api = shared.replica(r#"["api"]"#).await;
    let _worker = shared.replica(r#"["worker"]"#).await;
    let id = queue(&api.exports, as_csv(gated(1_000, 950))).await;
    let watch = pb::WatchExportRequest {
        export_id: id.clone(),
        interval: Some(rig::seconds(1)),
    };
    let mut events = api
        .exports
        .clone()
        .watch_export(watch)
        .await
        .unwrap()
        .into_inner();
    let seen = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            let export = event.unwrap().export.unwrap();
            let rows = export.progress.map_or(0, |progress| progress.rows_read);
            if export.state == i32::from(State::Running) && rows > 0 {
                return rows;
            }
        }
        0
    });
    assert!(seen.await.expect("progress comes") > 0);
    gate.open().await;
    until(&api.exports, &id, State::Succeeded).await;
    let file = rig::download(&api.exports, &id).await.unwrap();
    assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), 1_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_set_at_one_hold_at_all_and_for_those_that_come_later() {
    let shared = Shared::create().await;
    let both = r#"["api", "worker"]"#;
    let (one, other) = (shared.replica(both).await, shared.replica(both).await);
    let limits = pb::Limits {
        tenant_slots: BTreeMap::from([("default".to_owned(), 3)]),
        batch_rows: Some(77),
        ..Default::default()
    };
    let request = pb::SetLimitsRequest {
        limits: Some(limits),
        reset: Vec::new(),
    };
    one.admin.clone().set_limits(request).await.unwrap();
    let until_set = async |rowgate: &Rowgate| {
        wait_until(PATIENCE, "the limits hold", || async {
            let request = pb::GetLimitsRequest {};
            let answer = rowgate.admin.clone().get_limits(request).await.unwrap();
            let limits = answer.into_inner().effective.unwrap();
            (limits.batch_rows == Some(77) && limits.tenant_slots.get("default") == Some(&3))
                .then_some(())
        })
        .await;
    };
    until_set(&other).await;
    let later = shared.replica(both).await;
    until_set(&later).await;

    let pause = pb::PauseQueueRequest::default();
    other.admin.clone().pause_queue(pause).await.unwrap();
    let id = queue(&one.exports, as_csv(gated(10, 11))).await;
    let inline = submit(
        &later.exports,
        submit_as(as_csv(gated(10, 11)), Execution::Inline),
    )
    .await;
    rig::refused(inline, Code::Unavailable, "QUEUE_PAUSED");
    assert_eq!(status(&later.exports, &id).await.state(), State::Queued);
    let resume = pb::ResumeQueueRequest::default();
    later.admin.clone().resume_queue(resume).await.unwrap();
    until(&other.exports, &id, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_say_who_serves_and_who_works() {
    let shared = Shared::create().await;
    let api = shared.replica(r#"["api"]"#).await;
    let id = queue(&api.exports, as_csv(gated(10, 11))).await;
    let worker = shared.replica(r#"["worker"]"#).await;
    until(&api.exports, &id, State::Succeeded).await;
    let refused = worker
        .exports
        .clone()
        .list_exports(pb::ListExportsRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    // Inline exports run where they are asked for.
    let inline = submit_as(as_csv(gated(10, 11)), Execution::Inline);
    let done = submit(&api.exports, inline).await.unwrap().export.unwrap();
    assert_eq!(done.state(), State::Succeeded);
    worker.stop().await.unwrap();
    let id = queue(&api.exports, as_csv(gated(10, 11))).await;
    assert_eq!(status(&api.exports, &id).await.state(), State::Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_gone_is_followed_by_another() {
    let shared = Shared::create().await;
    let (gate, look) = (shared.source.close_gate().await, shared.source.look().await);
    let api = shared.replica(r#"["api"]"#).await;
    let first = shared.replica(r#"["worker"]"#).await;
    let id = queue(&api.exports, as_csv(gated(1_000, 950))).await;
    look.until_queries(1).await;
    // Handed back with its attempt, and taken up by the next.
    let _second = shared.replica(r#"["worker"]"#).await;
    first.stop().await.unwrap();
    look.until_queries(1).await;
    gate.open().await;
    let done = until(&api.exports, &id, State::Succeeded).await;
    assert_eq!((done.attempt, done.fence), (1, 2));
}
