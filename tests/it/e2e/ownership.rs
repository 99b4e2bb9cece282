//! Who owns a job, and what callers are told, when the job store fails in between: replies that are lost, a store that
//! is away, a fence that was passed on, a guard that breaks.

use std::{future::Future, path::Path};

use rowgate::rpc::pb::{self, Execution, State};
use sqlx::{ConnectOptions, Connection, Row};
use tonic::Code;

use super::rig::{
    self, Look, PATIENCE, Source, as_csv, cancel, download, files, gated, queue, refused, status,
    submit_as, until,
};
use crate::support::{faulty::Fault, postgres, rowgate::Rowgate, temp_dir, wait_until};

/// Short enough to outlast, long enough for a machine that is slow.
const LEASE: &str = "[lease]\nttl = \"6s\"\nrenew_every = \"500ms\"\nmargin = \"500ms\"\n";

/// Stands at the gate with several parts of its file on the disk.
async fn held_with_bytes(rowgate: &Rowgate, look: &Look) -> String {
    let id = queue(&rowgate.exports, as_csv(gated(20_001, 20_001))).await;
    look.until_queries(1).await;
    wait_until(PATIENCE, "bytes on the disk", || async {
        let is_written = files(&rowgate.folder.join("results"))
            .iter()
            .any(|file| file.contains("result.csv"));
        is_written.then_some(())
    })
    .await;
    until(&rowgate.exports, &id, State::Running).await;
    id
}

async fn until_no_query(look: &Look) {
    wait_until(PATIENCE, "no query at the source", || async {
        look.queries().await.is_empty().then_some(())
    })
    .await;
}

/// Changes the queue behind the service's back.
async fn execute(folder: &Path, sql: &str) {
    let mut db = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.join("queue.db"))
        .busy_timeout(PATIENCE)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut db)
        .await
        .unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_whose_reply_was_lost_keeps_its_file() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let (first, faults) = Rowgate::start_faulty(folder.path().to_owned(), &source.toml()).await;
    faults.set("settle", Fault::LoseReply);
    let id = queue(&first.exports, as_csv(gated(10, 11))).await;
    until(&first.exports, &id, State::Succeeded).await;
    wait_until(PATIENCE, "the end is written again", || async {
        (faults.calls("settle") == 2).then_some(())
    })
    .await;
    // Waits for what follows the second try.
    first.stop().await.unwrap();
    assert_eq!(
        files(&folder.path().join("results")),
        [id.clone(), format!("{id}/1"), format!("{id}/1/result.csv")]
    );
    let second = Rowgate::start_in(folder.path().to_owned(), &source.toml()).await;
    let done = status(&second.exports, &id).await;
    assert_eq!(
        (done.state(), done.attempt, done.fence),
        (State::Succeeded, 1, 1)
    );
    let text = String::from_utf8(download(&second.exports, &id).await.unwrap()).unwrap();
    assert_eq!(text.lines().count(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_stops_nothing_that_only_this_process_can_own() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let (gate, look) = (source.close_gate().await, source.look().await);
    let toml = source.toml() + LEASE;
    let (rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &toml).await;
    let id = held_with_bytes(&rowgate, &look).await;
    let tried = faults.calls("standings");
    faults.set_all(Fault::Refuse);
    // For longer than the ttl: forty polls are eight seconds.
    wait_until(PATIENCE, "many polls in vain", || async {
        (faults.calls("standings") >= tried + 40).then_some(())
    })
    .await;
    look.until_queries(1).await;
    gate.open().await;
    wait_until(PATIENCE, "its end can't be written", || async {
        (faults.calls("settle") >= 2).then_some(())
    })
    .await;
    faults.clear();
    let done = until(&rowgate.exports, &id, State::Succeeded).await;
    assert_eq!((done.attempt, done.fence), (1, 1), "{done:?}");
    let text = String::from_utf8(download(&rowgate.exports, &id).await.unwrap()).unwrap();
    assert_eq!(text.lines().count(), 20_002);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_leases_nor_store_for_longer_than_trust_stop_the_job_and_nothing_is_written() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let (_gate, look) = (source.close_gate().await, source.look().await);
    // Nobody listens there: leases are kept in the database from the start.
    let away = LEASE.replace("[lease]\n", "[lease]\nurl = \"redis://127.0.0.1:1\"\n");
    let toml = source.toml() + &away;
    let (rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &toml).await;
    let id = held_with_bytes(&rowgate, &look).await;
    let renewed = faults.calls("renew");
    wait_until(PATIENCE, "it lives by the database", || async {
        (faults.calls("renew") >= renewed + 3).then_some(())
    })
    .await;
    look.until_queries(1).await;
    let settles = faults.calls("settle");

    faults.set_all(Fault::Refuse);
    until_no_query(&look).await;
    wait_until(PATIENCE, "no file", || async {
        files(&folder.path().join("results"))
            .is_empty()
            .then_some(())
    })
    .await;
    assert_eq!(faults.calls("settle"), settles, "nothing may be written");
    faults.clear();
    // While Redis does not answer, nobody is declared dead.
    assert_eq!(status(&rowgate.exports, &id).await.state(), State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_was_passed_on_stops_the_job_and_only_its_own_files_go() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = rig::service(&source).await;
    let id = held_with_bytes(&rowgate, &look).await;
    // As a process does that took the job over, and writes.
    let of_export = rowgate.folder.join("results").join(&id);
    std::fs::create_dir(of_export.join("2")).unwrap();
    std::fs::write(of_export.join("2/result.csv"), "of another").unwrap();
    execute(
        &rowgate.folder,
        "update jobs set fence = fence + 1, worker = 'another', lease_until = 4102444800000000",
    )
    .await;

    until_no_query(&look).await;
    wait_until(PATIENCE, "the old fence's files are gone", || async {
        (!of_export.join("1").exists()).then_some(())
    })
    .await;
    // The service goes on with what is its own.
    let next = queue(&rowgate.exports, as_csv(gated(10, 11))).await;
    until(&rowgate.exports, &next, State::Succeeded).await;
    let other = status(&rowgate.exports, &id).await;
    assert_eq!(
        (other.state(), other.attempt, other.fence),
        (State::Running, 1, 2),
        "{other:?}"
    );
    assert_eq!(
        std::fs::read_to_string(of_export.join("2/result.csv")).unwrap(),
        "of another"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_may_be_another_processs_by_now_ends_the_service_with_an_error() {
    let (source, db) = (Source::create().await, postgres::Database::create().await);
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let toml = source
        .toml()
        .replace("[queue]\n", &format!("[queue]\nurl = \"{}\"\n", db.url));
    let mut rowgate = Rowgate::start(&toml).await;
    queue(&rowgate.exports, as_csv(gated(100, 50))).await;
    look.until_queries(1).await;
    db.execute(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted \
         and database = (select oid from pg_database where datname = current_database())",
    )
    .await;
    let ended = tokio::time::timeout(PATIENCE, rowgate.ended())
        .await
        .expect("it ends");
    let error = ended.expect_err("another process may use the queue now");
    assert!(error.to_string().contains("lock on the queue"), "{error:#}");
    until_no_query(&look).await;
    // Whoever has the queue now finds the job as it was: RUNNING under its fence.
    let row = sqlx::query("select state, fence, attempt from jobs")
        .fetch_one(&mut db.connect().await)
        .await
        .unwrap();
    let row: (i16, i64, i32) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(row, (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_takes_no_job_from_this_process() {
    // Nobody renews by themselves before the reaper has looked.
    const SLOW: &str = "[lease]\nttl = \"20s\"\nrenew_every = \"15s\"\nmargin = \"1s\"\n";
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let toml = source.toml().replace("\"200ms\"", "\"15s\"") + SLOW;
    let folder = temp_dir();
    let (rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &toml).await;
    let id = queue(&rowgate.exports, as_csv(gated(100, 50))).await;
    look.until_queries(1).await;
    // To the reaper, all leases ran out long ago.
    let sweeps = faults.calls("overdue");
    execute(folder.path(), "update jobs set lease_until = 1").await;
    // The first may have begun before.
    wait_until(PATIENCE, "two sweeps", || async {
        (faults.calls("overdue") >= sweeps + 2).then_some(())
    })
    .await;
    gate.open().await;
    let done = until(&rowgate.exports, &id, State::Succeeded).await;
    assert_eq!((done.attempt, done.fence), (1, 1), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_panics_ends_the_service_with_an_error_after_a_drain() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let toml = source.toml() + LEASE;
    let broken = async |call: &'static str, says: &str| {
        let folder = temp_dir();
        let (mut rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &toml).await;
        let id = queue(&rowgate.exports, as_csv(gated(100, 50))).await;
        look.until_queries(1).await;
        faults.set(call, Fault::Panic);
        let ended = tokio::time::timeout(PATIENCE, rowgate.ended())
            .await
            .expect("it ends");
        let error = ended.expect_err("nobody would do it any more").to_string();
        assert!(error.contains(says), "{error}");
        (folder, id)
    };
    for (call, says) in [
        ("overdue", "the reaper ended"),
        ("standings", "the watchdog ended"),
    ] {
        let (folder, id) = broken(call, says).await;
        until_no_query(&look).await;
        // Handed back, as at every end.
        let next = Rowgate::start_in(folder.path().to_owned(), &toml).await;
        let export = until(&next.exports, &id, State::Running).await;
        assert_eq!((export.attempt, export.fence), (1, 2), "{export:?}");
        next.stop().await.unwrap();
        until_no_query(&look).await;
    }
    broken("claim", "the worker ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_export_is_collected_after_a_start() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let first = Rowgate::start_in(folder.path().to_owned(), &source.toml()).await;
    let id = queue(&first.exports, as_csv(gated(10, 11))).await;
    until(&first.exports, &id, State::Succeeded).await;
    first.stop().await.unwrap();
    let results = folder.path().join("results");
    let unknown = uuid::Uuid::now_v7().to_string();
    for left in [format!("{id}/0"), format!("{unknown}/1")] {
        std::fs::create_dir_all(results.join(&left)).unwrap();
        std::fs::write(results.join(left).join("result.csv"), "x").unwrap();
    }
    let second = Rowgate::start_in(folder.path().to_owned(), &source.toml()).await;
    wait_until(PATIENCE, "only what belongs to the export", || async {
        let kept = [id.clone(), format!("{id}/1"), format!("{id}/1/result.csv")];
        (files(&results) == kept).then_some(())
    })
    .await;
    let text = String::from_utf8(download(&second.exports, &id).await.unwrap()).unwrap();
    assert_eq!(text.lines().count(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_was_accepted_is_told_although_the_store_fails_while_its_caller_waits() {
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let folder = temp_dir();
    let (rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &source.toml()).await;
    let submitting = tokio::spawn({
        let exports = rowgate.exports.clone();
        let request = pb::SubmitExportRequest {
            max_wait: Some(rig::seconds(600)),
            ..submit_as(as_csv(gated(100, 50)), Execution::Queued)
        };
        async move { rig::submit(&exports, request).await }
    });
    look.until_queries(1).await;
    for call in ["get", "queue_position"] {
        faults.set(call, Fault::Refuse);
    }
    let submitted = tokio::time::timeout(PATIENCE, submitting)
        .await
        .expect("the wait is over")
        .unwrap();
    let export = submitted.unwrap().export.unwrap();
    assert!(matches!(export.state(), State::Queued | State::Running));
    assert_eq!(export.queue_position, None);
    let asked = pb::GetStatusRequest {
        export_id: export.id.clone(),
        wait: None,
    };
    let refusal = refused(
        rowgate.exports.clone().get_status(asked).await,
        Code::Unavailable,
        "QUEUE_UNAVAILABLE",
    );
    assert!(rig::is_retryable(&refusal));
    faults.clear();
    gate.open().await;
    until(&rowgate.exports, &export.id, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_carried_out_although_its_caller_goes_away() {
    let source = Source::create().await;
    let (_gate, look) = (source.close_gate().await, source.look().await);
    let folder = temp_dir();
    let (rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &source.toml()).await;
    let id = queue(&rowgate.exports, as_csv(gated(100, 50))).await;
    look.until_queries(1).await;
    faults.set("cancel", Fault::Hang);
    let call = {
        let (exports, id) = (rowgate.exports.clone(), id.clone());
        async move { cancel(&exports, &id).await }
    };
    leave(call, &rowgate, || faults.until_hanging("cancel")).await;
    faults.clear();
    until(&rowgate.exports, &id, State::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_stored_are_in_force_although_their_caller_goes_away() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let (rowgate, faults) = Rowgate::start_faulty(folder.path().to_owned(), &source.toml()).await;
    faults.set("update_limits", Fault::HangReply);
    let call = {
        let mut admin = rowgate.admin.clone();
        let limits = pb::Limits {
            worker_slots: Some(7),
            ..Default::default()
        };
        let request = pb::SetLimitsRequest {
            limits: Some(limits),
            reset: Vec::new(),
        };
        async move { admin.set_limits(request).await }
    };
    leave(call, &rowgate, || faults.until_hanging("update_limits")).await;
    faults.clear();
    wait_until(PATIENCE, "the limit is in force", || async {
        let request = pb::GetLimitsRequest::default();
        let response = rowgate.admin.clone().get_limits(request).await.unwrap();
        let limits = response.into_inner().limits.unwrap();
        (limits.worker_slots == Some(7)).then_some(())
    })
    .await;
}

/// Makes a call, and goes away once it hangs.
async fn leave<T: Send + 'static, Hang: Future<Output = ()>>(
    call: impl Future<Output = T> + Send + 'static,
    rowgate: &Rowgate,
    hangs: impl FnOnce() -> Hang,
) {
    let call = tokio::spawn(call);
    tokio::time::timeout(PATIENCE, hangs())
        .await
        .expect("the call arrives");
    call.abort();
    assert!(call.await.is_err(), "it was still waiting");
    // What follows on the connection is read after it.
    for _ in 0..20 {
        rig::list(&rowgate.exports).await;
    }
}
