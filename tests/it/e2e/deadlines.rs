//! What a call gets before its deadline, from a server or a source that has no answer yet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rowgate::rpc::pb::{self, Execution, State};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Code, Status};

use super::rig::{
    self, PATIENCE, Source, as_csv, gated, is_retryable, queue, refused, service, sql, submit_as,
    within,
};
use crate::support::{rowgate::Rowgate, wait_until};

/// Takes connections and says nothing.
struct Silent {
    port: u16,
    taken: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Silent {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut task, taken) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        let count = taken.clone();
        task.spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            port,
            taken,
            _task: task,
        }
    }

    async fn rowgate(&self, slots: u32) -> Rowgate {
        Rowgate::start(&format!(
            "[sources.shop]\nurl = \"postgres://reader@127.0.0.1:{}/shop\"\nslots = {slots}\nallow_sql = true\n",
            self.port
        ))
        .await
    }
}

/// On a busy machine the client's own clock may be first: then the call is sent again.
async fn in_time<T, F>(what: &str, call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    wait_until(2 * PATIENCE, what, || async {
        match call().await {
            Err(status) if rig::reason(&status).is_empty() => None,
            answer => Some(answer),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_end_before_the_calls_own_deadline() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, as_csv(gated(10, 5))).await;
    let deadline = Duration::from_secs(3);
    let waited = in_time("an answer to GetStatus", || async {
        let request = pb::GetStatusRequest {
            export_id: id.clone(),
            wait: Some(rig::seconds(60)),
        };
        let mut exports = rowgate.exports.clone();
        let answer = exports.get_status(within(request, deadline)).await?;
        Ok(answer.into_inner().export.unwrap())
    })
    .await;
    assert_eq!(waited.unwrap().id, id);
    for execution in [Execution::Queued, Execution::Auto] {
        let answer = in_time("an answer to SubmitExport", || async {
            let request = pb::SubmitExportRequest {
                max_wait: Some(rig::seconds(60)),
                request_id: uuid::Uuid::new_v4().to_string(),
                ..submit_as(as_csv(gated(10, 5)), execution)
            };
            let mut exports = rowgate.exports.clone();
            let answer = exports.submit_export(within(request, deadline)).await?;
            Ok(answer.into_inner().export.unwrap())
        })
        .await
        .unwrap();
        assert!(answer.state() != State::Succeeded, "{answer:?}");
    }
    gate.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_too_short_is_told_with_its_reason() {
    let silent = Silent::listen().await;
    let rowgate = silent.rowgate(4).await;
    let submitted = in_time("a reason", || async {
        let request = submit_as(as_csv(sql("select 1")), Execution::Auto);
        let request = within(request, Duration::from_secs(2));
        rowgate.exports.clone().submit_export(request).await
    })
    .await;
    refused(submitted, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn submits_open_as_many_connections_as_the_source_has_slots() {
    let silent = Silent::listen().await;
    let rowgate = silent.rowgate(2).await;
    let (mut calls, mut refusals) = (JoinSet::new(), 0);
    for _ in 0..6 {
        let mut exports = rowgate.exports.clone();
        let request = submit_as(as_csv(sql("select 1")), Execution::Auto);
        calls.spawn(async move { exports.submit_export(request).await });
    }
    // Two hold their connections until the source's own time is over; the others are sent away before that.
    while refusals < 4 {
        let answer = tokio::time::timeout(PATIENCE, calls.join_next()).await;
        let answer = answer.unwrap().unwrap().unwrap();
        let refusal = refused(answer, Code::ResourceExhausted, "SOURCE_BUSY");
        assert!(is_retryable(&refusal));
        refusals += 1;
    }
    assert_eq!(silent.taken.load(Ordering::SeqCst), 2);
}
