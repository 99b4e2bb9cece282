//! How attempts end, and how cancels meet them.

use rowgate::{
    export::{ExportId, State},
    queue::{Cancelled, Deleted, Settled, Settlement, Work},
};

use super::rig::*;

pub async fn success_stores_the_result(rig: &Rig) {
    let job = rig.running().await;
    let done = rig.settle_done(&job, succeeded()).await;
    let read = rig.get(job.id).await;
    for job in [done, read] {
        assert_eq!(job.state, State::Succeeded);
        assert_eq!(job.result, Some(result(None)));
        assert!(job.ended_at >= job.started_at && job.error.is_none());
        assert_eq!(job.worker, Some(worker()));
    }
}

pub async fn failure_stores_the_error(rig: &Rig) {
    let job = rig.running().await;
    let done = rig
        .settle_done(&job, Settlement::Failed(failure("SOURCE_GONE")))
        .await;
    assert_eq!(done.state, State::Failed);
    assert_eq!(done.error, Some(failure("SOURCE_GONE")));
    assert!(done.ended_at.is_some() && done.result.is_none() && done.last_failure.is_none());
    assert!(rig.claim(5).await.is_empty());
}

pub async fn a_retry_waits_its_delay_and_counts_as_an_attempt(rig: &Rig) {
    let job = rig.running().await;
    let queued = rig.settle_done(&job, retry(HOUR)).await;
    assert_eq!((queued.state, queued.attempt), (State::Queued, 1));
    assert_eq!(queued.last_failure, Some(failure("SOURCE_UNAVAILABLE")));
    assert_eq!(
        (&queued.error, queued.ended_at, &queued.worker),
        (&None, None, &None)
    );
    let waits = queued.ready_at.duration_since(job.created_at);
    assert!((3600..3660).contains(&waits.as_secs()), "{waits:?}");
    assert!(rig.claim(5).await.is_empty());
}

pub async fn a_retry_without_delay_is_ready_at_once(rig: &Rig) {
    let job = rig.running().await;
    rig.settle_done(&job, retry(NO_TIME)).await;
    let again = rig.claim_one().await;
    assert_eq!((again.id, again.attempt), (job.id, 2));
    assert_eq!(again.last_failure, Some(failure("SOURCE_UNAVAILABLE")));
}

pub async fn a_hand_back_takes_the_attempt_back_and_keeps_the_age(rig: &Rig) {
    let job = rig.running().await;
    rig.submit(new_job("t", "s")).await;
    let queued = rig.settle_done(&job, Settlement::HandBack).await;
    assert_eq!(
        (queued.state, queued.attempt, queued.fence),
        (State::Queued, 0, job.fence)
    );
    let again = rig.claim_one().await;
    assert_eq!((again.id, again.attempt), (job.id, 1));
    assert!(again.fence > job.fence);
    assert!(again.last_failure.is_none());
}

pub async fn a_live_stream_is_never_queued(rig: &Rig) {
    for (settlement, reason) in [
        (retry(NO_TIME), "SOURCE_UNAVAILABLE"),
        (Settlement::HandBack, "DRAINING"),
    ] {
        let job = rig.submit(live("t", "s")).await;
        let ended = rig.settle_done(&job, settlement).await;
        assert_eq!(ended.state, State::Failed);
        assert_eq!(ended.error.expect("it says why").reason, reason);
        assert!(rig.claim(5).await.is_empty());
    }
}

pub async fn only_a_live_stream_may_end_cancelled_without_a_cancel(rig: &Rig) {
    let stream = rig.submit(live("t", "s")).await;
    let ended = rig.settle_done(&stream, Settlement::Cancelled).await;
    assert_eq!(ended.state, State::Cancelled);

    let job = rig.running().await;
    let work = Work::default();
    let refused = rig
        .store
        .settle(job.id, job.fence, &Settlement::Cancelled, work)
        .await;
    assert!(refused.is_err());
    assert_eq!(rig.get(job.id).await.state, State::Running);
}

pub async fn a_stale_fence_is_not_the_owner(rig: &Rig) {
    let first = rig.running().await;
    rig.settle_done(&first, retry(NO_TIME)).await;
    // Queued: nobody is the owner.
    assert!(matches!(
        rig.settle(&first, succeeded()).await,
        Settled::NotOwner(Some(_))
    ));
    let second = rig.claim_one().await;
    match rig.settle(&first, succeeded()).await {
        Settled::NotOwner(Some(now)) => {
            assert_eq!((now.state, now.fence), (State::Running, second.fence));
        }
        other => panic!("{other:?}"),
    }
    rig.settle_done(&second, succeeded()).await;
}

pub async fn settling_twice_tells_the_first_end(rig: &Rig) {
    let job = rig.running().await;
    rig.settle_done(&job, succeeded()).await;
    // The reply of the first was lost: the row says that it was this fence's own success.
    match rig.settle(&job, Settlement::Failed(failure("LATE"))).await {
        Settled::NotOwner(Some(now)) => {
            assert_eq!((now.state, now.fence), (State::Succeeded, job.fence));
            assert!(now.error.is_none());
        }
        other => panic!("{other:?}"),
    }
}

pub async fn settling_a_deleted_job_finds_nothing(rig: &Rig) {
    let job = rig.running().await;
    rig.settle_done(&job, succeeded()).await;
    assert!(matches!(
        rig.store.delete(job.id).await,
        Ok(Deleted::Done(_))
    ));
    assert!(matches!(
        rig.settle(&job, succeeded()).await,
        Settled::NotOwner(None)
    ));
}

async fn cancel(rig: &Rig, id: ExportId) -> Cancelled {
    rig.store.cancel(id).await.expect("the cancel works")
}

pub async fn a_cancel_of_a_queued_job_ends_it(rig: &Rig) {
    let job = rig.submit(new_job("t", "s")).await;
    match cancel(rig, job.id).await {
        Cancelled::Accepted(job) => {
            assert_eq!(job.state, State::Cancelled);
            assert!(job.ended_at.is_some());
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.claim(5).await.is_empty());
    assert!(matches!(
        cancel(rig, ExportId::generate()).await,
        Cancelled::NotFound
    ));
}

pub async fn a_cancel_of_a_running_job_is_committed_before_it_stops(rig: &Rig) {
    let job = rig.running().await;
    assert!(matches!(cancel(rig, job.id).await, Cancelled::Accepted(_)));
    let now = rig.get(job.id).await;
    assert_eq!(
        (now.state, now.fence, now.ended_at),
        (State::Cancelling, job.fence, None)
    );
    assert_eq!(now.worker, job.worker);
    let ended = rig.settle_done(&job, Settlement::Cancelled).await;
    assert_eq!(ended.state, State::Cancelled);
    assert!(ended.ended_at.is_some());
}

pub async fn whatever_is_settled_after_a_cancel_is_cancelled(rig: &Rig) {
    for settlement in [
        succeeded(),
        Settlement::Failed(failure("X")),
        retry(HOUR),
        Settlement::HandBack,
        Settlement::Cancelled,
    ] {
        let job = rig.running().await;
        cancel(rig, job.id).await;
        let ended = rig.settle_done(&job, settlement).await;
        assert_eq!(ended.state, State::Cancelled);
        assert!(ended.result.is_none() && ended.error.is_none());
    }
    assert!(rig.claim(5).await.is_empty());
}

pub async fn cancelling_twice_is_accepted(rig: &Rig) {
    let job = rig.running().await;
    for expected in [State::Cancelling, State::Cancelling] {
        let answer = cancel(rig, job.id).await;
        assert!(matches!(answer, Cancelled::Accepted(job) if job.state == expected));
    }
    rig.settle_done(&job, Settlement::Cancelled).await;
    let answer = cancel(rig, job.id).await;
    assert!(matches!(answer, Cancelled::Accepted(job) if job.state == State::Cancelled));
}

pub async fn a_cancel_after_the_end_is_too_late(rig: &Rig) {
    for settlement in [succeeded(), Settlement::Failed(failure("X"))] {
        let job = rig.running().await;
        let ended = rig.settle_done(&job, settlement).await;
        let answer = cancel(rig, job.id).await;
        assert!(matches!(answer, Cancelled::TooLate(job) if job.state == ended.state));
        assert_eq!(rig.get(job.id).await.state, ended.state);
    }
}

pub async fn a_cancel_races_a_settle_and_one_wins(rig: &Rig) {
    let other = rig.another().await;
    for _ in 0..20 {
        let job = rig.running().await;
        let (cancelled, settled) = tokio::join!(
            other.cancel(job.id),
            rig.store
                .settle(job.id, job.fence, &Settlement::HandBack, Work::default()),
        );
        let Settled::Done(settled) = settled.expect("settles") else {
            panic!("a cancel takes no job from its owner")
        };
        let Cancelled::Accepted(cancelled) = cancelled.expect("cancels") else {
            panic!("neither end is too late for a cancel")
        };
        let now = rig.get(job.id).await;
        // Cancel first: CANCELLING, then CANCELLED by the settle. Settle first: QUEUED, then CANCELLED by the cancel.
        let order = (cancelled.state, settled.state);
        assert!(
            order == (State::Cancelling, State::Cancelled)
                || order == (State::Cancelled, State::Queued),
            "{order:?}"
        );
        assert_eq!(now.state, State::Cancelled);
    }
}

pub async fn a_delayed_job_can_be_cancelled(rig: &Rig) {
    let job = rig.running().await;
    rig.settle_done(&job, retry(HOUR)).await;
    let answer = cancel(rig, job.id).await;
    assert!(matches!(answer, Cancelled::Accepted(job) if job.state == State::Cancelled));
    rig.assert_consistent().await;
    rig.execute("update jobs set ready_at = created_at").await;
    assert!(rig.claim(5).await.is_empty());
}
