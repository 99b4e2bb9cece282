//! How results and rows go: by their owner, by time.

use std::collections::HashSet;

use jiff::Timestamp;
use rowgate::{
    export::{ExportId, ResultKind, State},
    queue::{Deleted, Job, Settlement},
};

use super::rig::*;

async fn with_result(rig: &Rig, expires_at: Option<Timestamp>) -> Job {
    let job = rig.running().await;
    rig.settle_done(&job, Settlement::Succeeded(result(expires_at)))
        .await
}

fn long_ago() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a moment")
}

fn far_ahead() -> Timestamp {
    Timestamp::from_second(4_000_000_000).expect("a moment")
}

pub async fn only_an_ended_job_can_be_deleted(rig: &Rig) {
    let queued = rig.submit(new_job("t", "s")).await;
    let delete = async |id: ExportId| rig.store.delete(id).await.expect("the delete works");
    assert!(matches!(
        delete(queued.id).await,
        Deleted::NotTerminal(State::Queued)
    ));
    let job = rig.claim_one().await;
    assert!(matches!(
        delete(job.id).await,
        Deleted::NotTerminal(State::Running)
    ));
    rig.store.cancel(job.id).await.expect("cancels");
    assert!(matches!(
        delete(job.id).await,
        Deleted::NotTerminal(State::Cancelling)
    ));
    rig.settle_done(&job, Settlement::Cancelled).await;
    match delete(job.id).await {
        Deleted::Done(gone) => assert_eq!((gone.id, gone.state), (job.id, State::Cancelled)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(delete(job.id).await, Deleted::NotFound));
    assert!(rig.store.get(job.id).await.expect("reads").is_none());
}

pub async fn a_result_expires_once_after_its_grace(rig: &Rig) {
    let old = with_result(rig, Some(long_ago())).await;
    let new = with_result(rig, Some(far_ahead())).await;
    let kept = with_result(rig, None).await;
    let just_past = with_result(rig, Some(Timestamp::now())).await;
    let expired = rig.store.expire(HOUR, 100).await.expect("expires");
    assert_eq!(ids(&expired), [old.id]);
    assert!(expired[0].result_expired && expired[0].result.is_some());
    assert!(
        rig.store
            .expire(HOUR, 100)
            .await
            .expect("expires")
            .is_empty()
    );
    assert_eq!(
        ids(&rig.store.expire(NO_TIME, 100).await.expect("expires")),
        [just_past.id]
    );
    assert!(rig.get(old.id).await.result_expired);
    assert!(!rig.get(new.id).await.result_expired);
    assert!(!rig.get(kept.id).await.result_expired);
}

pub async fn a_purge_takes_old_ends_whose_result_is_gone(rig: &Rig) {
    let failed = rig.running().await;
    rig.settle_done(&failed, Settlement::Failed(failure("X")))
        .await;
    let expired = with_result(rig, Some(long_ago())).await;
    rig.store.expire(HOUR, 100).await.expect("expires");
    let stored = with_result(rig, Some(far_ahead())).await;
    let streamed = rig.submit(live("t", "s")).await;
    let manifest = rowgate::export::ResultInfo {
        kind: ResultKind::Live,
        ..result(None)
    };
    rig.settle_done(&streamed, Settlement::Succeeded(manifest))
        .await;
    let running = rig.running().await;
    let queued = rig.submit(new_job("t", "s")).await;

    assert!(rig.store.purge(HOUR, 100).await.expect("purges").is_empty());
    let purged = rig.store.purge(NO_TIME, 100).await.expect("purges");
    let gone: HashSet<ExportId> = ids(&purged).into_iter().collect();
    assert_eq!(gone, HashSet::from([failed.id, expired.id, streamed.id]));
    for kept in [stored.id, running.id, queued.id] {
        rig.get(kept).await;
    }
    assert!(rig.store.get(failed.id).await.expect("reads").is_none());
}

pub async fn the_sweeps_of_retention_are_bounded(rig: &Rig) {
    for _ in 0..3 {
        with_result(rig, Some(long_ago())).await;
    }
    let mut sizes = Vec::new();
    for _ in 0..3 {
        sizes.push(rig.store.expire(NO_TIME, 2).await.expect("expires").len());
    }
    for _ in 0..3 {
        sizes.push(rig.store.purge(NO_TIME, 2).await.expect("purges").len());
    }
    assert_eq!(sizes, [2, 1, 0, 2, 1, 0]);
}
