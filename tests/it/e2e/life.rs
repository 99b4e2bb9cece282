//! Cancels, retries, waits, lists and the end of results.

use std::{collections::BTreeMap, time::Duration};

use rowgate::rpc::pb::{self, State};
use sqlx::Row;
use tonic::Code;

use super::rig::{
    self, GONE, PATIENCE, Source, as_csv, cancel, files, gated, live, queue, refused, service, sql,
    status, until,
};
use crate::support::{mariadb, rowgate::Rowgate, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_export_is_cancelled_at_once_and_again() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let pause = pb::PauseQueueRequest::default();
    rowgate.admin.clone().pause_queue(pause).await.unwrap();
    let id = queue(&rowgate.exports, as_csv(gated(10, 11))).await;
    let next = queue(&rowgate.exports, as_csv(gated(10, 11))).await;
    assert_eq!(status(&rowgate.exports, &id).await.queue_position, Some(0));
    assert_eq!(
        status(&rowgate.exports, &next).await.queue_position,
        Some(1)
    );
    for _ in 0..2 {
        let export = cancel(&rowgate.exports, &id).await.unwrap();
        assert_eq!(export.state(), State::Cancelled);
        assert!(export.end_time.is_some());
        assert_eq!(export.attempt, 0);
    }
    assert_eq!(
        status(&rowgate.exports, &next).await.queue_position,
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_export_is_cancelled_and_its_query_is_gone() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, as_csv(gated(10_000, 9_000))).await;
    look.until_queries(1).await;
    let export = cancel(&rowgate.exports, &id).await.unwrap();
    assert!(matches!(
        export.state(),
        State::Cancelling | State::Cancelled
    ));
    let twice = cancel(&rowgate.exports, &id).await.unwrap();
    assert!(matches!(
        twice.state(),
        State::Cancelling | State::Cancelled
    ));
    look.until_gone().await;
    let export = rig::at_end(&rowgate.exports, &id).await;
    assert_eq!(export.state(), State::Cancelled);
    let after = cancel(&rowgate.exports, &id).await.unwrap();
    assert_eq!(after.state(), State::Cancelled);
    rig::until_nothing_stored(&rowgate.folder).await;
    let why = rig::download(&rowgate.exports, &id).await;
    refused(why, Code::FailedPrecondition, "EXPORT_CANCELLED");
    // Its places are free again.
    let next = queue(&rowgate.exports, as_csv(gated(10, 11))).await;
    until(&rowgate.exports, &next, State::Succeeded).await;
    let late = cancel(&rowgate.exports, &next).await;
    refused(late, Code::FailedPrecondition, "EXPORT_ENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_mariadb_are_gone_too() {
    let db = mariadb::Database::create().await;
    let toml = format!("[sources.shop]\nurl = \"{}\"\nallow_sql = true\n", db.url);
    let rowgate = Rowgate::start(&toml).await;
    let look = tokio::sync::Mutex::new(db.connect().await);
    let queries = async || {
        let found = sqlx::query(
            "select count(*) from information_schema.processlist where db = ? and info like 'select%sleep%' \
             and id <> connection_id()",
        )
        .bind(&db.name);
        let row = found.fetch_one(&mut *look.lock().await).await.unwrap();
        row.get::<i64, _>(0)
    };
    let until_count = async |count: i64, patience: Duration| {
        wait_until(patience, &format!("{count} queries at MariaDB"), || async {
            (queries().await == count).then_some(())
        })
        .await;
    };
    let slow = || sql("select seq as id, sleep(60) as nap from seq_1_to_1000");

    let id = queue(&rowgate.exports, as_csv(slow())).await;
    until_count(1, PATIENCE).await;
    cancel(&rowgate.exports, &id).await.unwrap();
    until_count(0, GONE).await;
    until(&rowgate.exports, &id, State::Cancelled).await;

    let rows = rig::stream(&rowgate.exports, live(slow())).await.unwrap();
    until_count(1, PATIENCE).await;
    drop(rows);
    until_count(0, GONE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_killed_in_the_middle_is_tried_again() {
    let source = Source::create().await;
    let look = source.look().await;
    let gate = source.close_gate().await;
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, as_csv(gated(5_000, 4_000))).await;
    let stored = queue(&rowgate.exports, gated(5_000, 4_000)).await;
    let queries = look.until_queries(2).await;
    look.kill(&queries).await;
    for id in [&id, &stored] {
        let again = wait_until(PATIENCE, "the second attempt", || async {
            let export = status(&rowgate.exports, id).await;
            (export.attempt == 2).then_some(export)
        })
        .await;
        let why = again.last_failure.unwrap();
        assert_eq!(why.code, Code::Unavailable as i32, "{why:?}");
        assert!(why.retryable, "{why:?}");
        assert!(!why.message.contains("127.0.0.1"), "{why:?}");
    }
    gate.open().await;
    for id in [&id, &stored] {
        let done = until(&rowgate.exports, id, State::Succeeded).await;
        assert_eq!((done.attempt, done.fence), (2, 2));
        assert_eq!(done.result.unwrap().rows, 5_000);
        assert!(done.error.is_none());
        assert_eq!(files(&rowgate.folder.join("results").join(id))[0], "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_are_used_up_end_as_failed() {
    let source = Source::create().await;
    let look = source.look().await;
    let _gate = source.close_gate().await;
    let toml = source
        .toml()
        .replace("[queue]\n", "[queue]\nmax_attempts = 2\n");
    let rowgate = Rowgate::start(&toml).await;
    let id = queue(&rowgate.exports, as_csv(gated(5_000, 4_000))).await;
    let first = look.until_queries(1).await;
    look.kill(&first).await;
    let second = wait_until(PATIENCE, "the second attempt", || async {
        // What was killed may still be listed for a moment.
        let queries = look.until_queries(1).await;
        (queries != first).then_some(queries)
    })
    .await;
    look.kill(&second).await;
    let failed = rig::at_end(&rowgate.exports, &id).await;
    assert_eq!((failed.state(), failed.attempt), (State::Failed, 2));
    let error = failed.error.unwrap();
    assert_eq!(error.code, Code::Unavailable as i32);
    assert!(error.metadata.contains_key("rows_read"), "{error:?}");
    rig::until_nothing_stored(&rowgate.folder).await;
    let why = rig::download(&rowgate.exports, &id).await;
    refused(why, Code::FailedPrecondition, "EXPORT_FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_in_its_middle_is_not_tried_again_and_says_how_far_it_came() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let broken = sql(
        "select 1000 / (3000 - i) as x, repeat('x', 1000) as pad from generate_series(1, 5000) i",
    );
    let id = queue(&rowgate.exports, as_csv(broken)).await;
    let failed = rig::at_end(&rowgate.exports, &id).await;
    assert_eq!((failed.state(), failed.attempt), (State::Failed, 1));
    let error = failed.error.unwrap();
    assert!(!error.retryable);
    let rows: i64 = error.metadata["rows_read"].parse().unwrap();
    assert!((2_000..3_000).contains(&rows), "{error:?}");
    assert_eq!(error.metadata["sqlstate"], "22012");
    rig::until_nothing_stored(&rowgate.folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_waits_for_the_end_and_watch_shows_every_stage_on_the_way() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, as_csv(gated(2_000, 1_500))).await;
    // A wait that ends before the export tells how it stands.
    let request = pb::GetStatusRequest {
        export_id: id.clone(),
        wait: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
    };
    let early = rowgate.exports.clone().get_status(request).await.unwrap();
    let state = early.into_inner().export.unwrap().state();
    assert!(matches!(state, State::Queued | State::Running), "{state:?}");

    let request = pb::WatchExportRequest {
        export_id: id.clone(),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
    };
    let watch = rowgate.exports.clone().watch_export(request).await.unwrap();
    let mut watch = watch.into_inner();
    let mut gate = Some(gate);
    let mut last = None;
    while let Some(seen) = tokio::time::timeout(PATIENCE, watch.message())
        .await
        .unwrap()
        .unwrap()
    {
        let export = seen.export.unwrap();
        let progress = export.progress.clone().unwrap_or_default();
        if export.state() == State::Running && progress.rows_read >= 1_000 && gate.is_some() {
            let stages: Vec<_> = progress
                .stages
                .iter()
                .map(|stage| stage.name.as_str())
                .collect();
            assert_eq!(stages, ["source", "transform", "sink"]);
            assert_eq!(progress.estimated_rows, Some(2_000));
            gate.take().unwrap().open().await;
        }
        last = Some(export);
    }
    let last = last.unwrap();
    assert_eq!(last.state(), State::Succeeded);
    assert_eq!(last.progress.unwrap().rows_written, 2_000);
    let ended = rig::at_end(&rowgate.exports, &id).await;
    assert_eq!(ended.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_listed_by_page_state_and_label() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let mut spec = as_csv(gated(1, 2));
        let team = if number % 2 == 0 { "even" } else { "odd" };
        spec.labels = BTreeMap::from([("team".to_owned(), team.to_owned())]);
        let id = queue(&rowgate.exports, spec).await;
        until(&rowgate.exports, &id, State::Succeeded).await;
        ids.push(id);
    }
    ids.reverse();
    let page = async |request: pb::ListExportsRequest| {
        let response = rowgate.exports.clone().list_exports(request).await;
        response.map(tonic::Response::into_inner)
    };
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListExportsRequest {
            page_size: 3,
            page_token: token,
            ..Default::default()
        };
        let answer = page(request).await.unwrap();
        assert!(answer.exports.len() <= 3);
        seen.extend(answer.exports.into_iter().map(|export| export.id));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ids, "newest first, each once");
    let odd = pb::ListExportsRequest {
        labels: BTreeMap::from([("team".to_owned(), "odd".to_owned())]),
        ..Default::default()
    };
    assert_eq!(page(odd).await.unwrap().exports.len(), 3);
    let failed = pb::ListExportsRequest {
        states: vec![State::Failed.into(), State::Cancelled.into()],
        ..Default::default()
    };
    assert!(page(failed).await.unwrap().exports.is_empty());
    let newer = pb::ListExportsRequest {
        created_after: status(&rowgate.exports, &ids[2]).await.create_time,
        ..Default::default()
    };
    let newer: Vec<_> = page(newer)
        .await
        .unwrap()
        .exports
        .into_iter()
        .map(|e| e.id)
        .collect();
    assert_eq!(newer, ids[..2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_takes_row_and_files_but_not_of_what_runs() {
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, as_csv(gated(10, 5))).await;
    look.until_queries(1).await;
    let delete = async || {
        let request = pb::DeleteExportRequest {
            export_id: id.clone(),
        };
        rowgate.exports.clone().delete_export(request).await
    };
    refused(delete().await, Code::FailedPrecondition, "EXPORT_NOT_ENDED");
    gate.open().await;
    until(&rowgate.exports, &id, State::Succeeded).await;
    delete().await.unwrap();
    rig::until_nothing_stored(&rowgate.folder).await;
    refused(delete().await, Code::NotFound, "EXPORT_NOT_FOUND");
    refused(
        rig::download(&rowgate.exports, &id).await,
        Code::NotFound,
        "EXPORT_NOT_FOUND",
    );
    assert!(rig::list(&rowgate.exports).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_expires_after_its_ttl() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let short = |spec| pb::ExportSpec {
        ttl: Some(rig::seconds(1)),
        ..spec
    };
    let file = queue(&rowgate.exports, short(as_csv(gated(10, 11)))).await;
    let rows = queue(&rowgate.exports, short(gated(10, 11))).await;
    let done = until(&rowgate.exports, &file, State::Succeeded).await;
    assert!(done.result.unwrap().expire_time.is_some());
    until(&rowgate.exports, &rows, State::Succeeded).await;
    let why = wait_until(PATIENCE, "the file expires", || async {
        rig::download(&rowgate.exports, &file).await.err()
    })
    .await;
    refused(
        Err::<(), _>(why),
        Code::FailedPrecondition,
        "RESULT_EXPIRED",
    );
    let why = wait_until(PATIENCE, "the rows expire", || async {
        rig::stream(&rowgate.exports, rig::spooled(&rows))
            .await
            .err()
    })
    .await;
    refused(
        Err::<(), _>(why),
        Code::FailedPrecondition,
        "RESULT_EXPIRED",
    );
    assert_eq!(
        status(&rowgate.exports, &file).await.state(),
        State::Succeeded
    );
}
