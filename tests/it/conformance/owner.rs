//! Owners: how they keep their jobs, and what becomes of the jobs when they are dead.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use rowgate::{
    export::{ExportId, State, WorkerId},
    queue::{Abandoned, ClaimRequest, Job, NewJob, Ownership, Reaped, Settled, WorkerRow},
};

use super::rig::*;

const ATTEMPTS_MAX: u32 = 3;

/// A job whose owner's lease ran out as it began.
async fn abandoned(rig: &Rig) -> Job {
    rig.submit(new_job("t", "s")).await;
    let request = ClaimRequest {
        lease_ttl: NO_TIME,
        ..claim_request(1)
    };
    rig.store.claim(&request).await.expect("claims").remove(0)
}

async fn reap(rig: &Rig, abandoned: Abandoned) -> Vec<Reaped> {
    rig.store
        .reap(&abandoned, ATTEMPTS_MAX, 100)
        .await
        .expect("the sweep works")
}

/// As if every owner whose `lease_until` is past were silent.
async fn reap_overdue(rig: &Rig) -> Vec<Reaped> {
    let overdue = rig.store.overdue(None, 100).await.expect("they are found");
    reap(rig, Abandoned::Silent(overdue)).await
}

pub async fn a_renewal_tells_what_became_of_each_job(rig: &Rig) {
    let (running, cancelling, settled, again) = (
        rig.running().await,
        rig.running().await,
        rig.running().await,
        rig.running().await,
    );
    rig.store.cancel(cancelling.id).await.expect("cancels");
    rig.settle_done(&settled, succeeded()).await;
    rig.settle_done(&again, retry(NO_TIME)).await;
    let newer = rig.claim_one().await;
    assert_eq!(newer.id, again.id);
    let owned = [
        (settled.id, settled.fence),
        (running.id, running.fence),
        (again.id, again.fence),
        (cancelling.id, cancelling.fence),
        (newer.id, newer.fence),
        (ExportId::generate(), running.fence),
    ];
    let answers = rig.store.renew(&owned, HOUR).await.expect("renews");
    use Ownership::{Cancelling, Lost, Running};
    assert_eq!(answers, [Lost, Running, Lost, Cancelling, Running, Lost]);
    assert!(rig.store.renew(&[], HOUR).await.expect("renews").is_empty());
}

pub async fn a_renewal_extends_the_lease(rig: &Rig) {
    let job = abandoned(rig).await;
    let answers = rig
        .store
        .renew(&[(job.id, job.fence)], HOUR)
        .await
        .expect("renews");
    assert_eq!(answers, [Ownership::Running]);
    assert!(reap_overdue(rig).await.is_empty());
    rig.store
        .renew(&[(job.id, job.fence)], NO_TIME)
        .await
        .expect("renews");
    assert_eq!(reap_overdue(rig).await.len(), 1);
}

pub async fn a_sweep_of_all_takes_every_owned_job(rig: &Rig) {
    let mut owned = HashSet::new();
    for _ in 0..3 {
        owned.insert(rig.running().await.id);
    }
    rig.submit(new_job("u", "s")).await;
    let reaped = reap(rig, Abandoned::All).await;
    assert_eq!(reaped.iter().map(|r| r.id).collect::<HashSet<_>>(), owned);
    assert!(reap(rig, Abandoned::All).await.is_empty());
    assert_eq!(rig.claim(10).await.len(), 4);
}

pub async fn a_sweep_leaves_live_leases_alone(rig: &Rig) {
    let held = rig.running().await;
    let dead = abandoned(rig).await;
    let reaped = reap_overdue(rig).await;
    assert_eq!(reaped.iter().map(|r| r.id).collect::<Vec<_>>(), [dead.id]);
    assert_eq!(rig.get(held.id).await.state, State::Running);
    assert!(matches!(
        rig.settle(&dead, succeeded()).await,
        Settled::NotOwner(Some(_))
    ));
}

pub async fn overdue_jobs_come_in_pages(rig: &Rig) {
    let mut expected = Vec::new();
    for _ in 0..5 {
        let job = abandoned(rig).await;
        expected.push((job.id, job.fence));
    }
    let held = rig.running().await;
    rig.store.cancel(expected[2].0).await.expect("cancels");
    expected.sort();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = rig.store.overdue(after, 2).await.expect("they are found");
        assert!(page.len() <= 2);
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        seen.extend(page);
    }
    assert_eq!(seen, expected);
    assert!(!seen.contains(&(held.id, held.fence)));
}

pub async fn a_sweep_of_silent_owners_checks_fence_and_lease_again(rig: &Rig) {
    let (renewed, passed_on, dead) = (
        abandoned(rig).await,
        abandoned(rig).await,
        abandoned(rig).await,
    );
    let overdue = rig.store.overdue(None, 100).await.expect("they are found");
    assert_eq!(overdue.len(), 3);
    // Since they were looked at: one was renewed after all, another has a new owner.
    rig.store
        .renew(&[(renewed.id, renewed.fence)], HOUR)
        .await
        .expect("renews");
    rig.settle_done(&passed_on, retry(NO_TIME)).await;
    assert_eq!(rig.claim_one().await.id, passed_on.id);
    let reaped = reap(rig, Abandoned::Silent(overdue)).await;
    assert_eq!(reaped.iter().map(|r| r.id).collect::<Vec<_>>(), [dead.id]);
    assert!(reap(rig, Abandoned::Silent(Vec::new())).await.is_empty());
}

pub async fn a_swept_job_waits_no_backoff(rig: &Rig) {
    let dead = abandoned(rig).await;
    let reaped = reap_overdue(rig).await;
    assert_eq!(
        (reaped[0].fence, reaped[0].state),
        (dead.fence, State::Queued)
    );
    let again = rig.claim_one().await;
    assert_eq!((again.id, again.attempt), (dead.id, 2));
    assert!(again.fence > dead.fence);
    assert_eq!(
        again.last_failure.expect("it says why").reason,
        "WORKER_LOST"
    );
}

pub async fn a_job_without_attempts_left_fails(rig: &Rig) {
    let mut job = abandoned(rig).await;
    for attempt in 1..ATTEMPTS_MAX {
        assert_eq!(job.attempt, attempt);
        assert_eq!(reap(rig, Abandoned::All).await[0].state, State::Queued);
        job = rig.claim_one().await;
    }
    assert_eq!(reap(rig, Abandoned::All).await[0].state, State::Failed);
    let ended = rig.get(job.id).await;
    assert_eq!(ended.error.expect("it says why").reason, "WORKER_LOST");
    assert!(ended.ended_at.is_some());
    assert!(rig.claim(5).await.is_empty());
}

pub async fn a_swept_attempt_is_not_charged_as_a_whole_export(rig: &Rig) {
    let job = NewJob {
        estimated_rows: Some(1_000_000),
        ..new_job("t", "s")
    };
    rig.submit(job).await;
    rig.claim_one().await;
    assert_eq!(rig.virtual_time("t").await, 1_000_000);
    reap(rig, Abandoned::All).await;
    // As for a job whose size nobody knows.
    assert_eq!(rig.virtual_time("t").await, 10_000);
    rig.claim_one().await;
    rig.assert_consistent().await;
    let small = NewJob {
        estimated_rows: Some(5),
        ..new_job("u", "s")
    };
    rig.submit(small).await;
    let before = rig.virtual_time("u").await;
    rig.claim_one().await;
    reap(rig, Abandoned::All).await;
    assert_eq!(rig.virtual_time("u").await, before + 5);
}

pub async fn a_live_stream_fails_with_its_owner(rig: &Rig) {
    let stream = rig.submit(live("t", "s")).await;
    assert_eq!(reap(rig, Abandoned::All).await[0].state, State::Failed);
    let ended = rig.get(stream.id).await;
    assert_eq!(ended.error.expect("it says why").reason, "WORKER_LOST");
}

pub async fn a_job_that_was_cancelling_ends_cancelled(rig: &Rig) {
    let job = abandoned(rig).await;
    rig.store.cancel(job.id).await.expect("cancels");
    assert_eq!(reap_overdue(rig).await[0].state, State::Cancelled);
    assert_eq!(rig.get(job.id).await.state, State::Cancelled);
}

pub async fn a_sweep_is_bounded(rig: &Rig) {
    for _ in 0..5 {
        rig.running().await;
    }
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(
            rig.store
                .reap(&Abandoned::All, ATTEMPTS_MAX, 2)
                .await
                .expect("sweeps")
                .len(),
        );
    }
    assert_eq!(sizes, [2, 2, 1, 0]);
}

pub async fn many_sweepers_take_each_job_once(rig: &Rig) {
    const JOBS: usize = 24;
    for i in 0..JOBS {
        rig.submit(new_job(["a", "b", "c"][i % 3], ["s", "r"][i % 2]))
            .await;
    }
    assert_eq!(rig.claim(32).await.len(), JOBS);
    let other = rig.another().await;
    let sweeps = (0..6).map(|i| {
        let store = if i % 2 == 0 { &rig.store } else { &other };
        store.reap(&Abandoned::All, ATTEMPTS_MAX, 100)
    });
    let reaped: Vec<Reaped> = join_all(sweeps)
        .await
        .into_iter()
        .flat_map(|reaped| reaped.expect("sweeps"))
        .collect();
    let distinct: HashSet<ExportId> = reaped.iter().map(|r| r.id).collect();
    assert_eq!((reaped.len(), distinct.len()), (JOBS, JOBS));
}

pub async fn heartbeats_list_the_live_workers(rig: &Rig) {
    let row = |name: &str, running| WorkerRow {
        id: WorkerId(name.to_owned()),
        host: "host".to_owned(),
        started_at: Timestamp::from_second(1_700_000_000).expect("a moment"),
        running,
        slots: 4,
        version: "0.1.0".to_owned(),
    };
    rig.store
        .heartbeat(&row("a", 1), HOUR)
        .await
        .expect("beats");
    rig.store
        .heartbeat(&row("b", 0), HOUR)
        .await
        .expect("beats");
    rig.store
        .heartbeat(&row("a", 2), HOUR)
        .await
        .expect("beats");
    assert_eq!(
        rig.store.workers().await.expect("lists"),
        [row("a", 2), row("b", 0)]
    );
    // A beat with a ttl that b's last one has outlived.
    rig.execute("update workers set seen_at = started_at where id = 'b'")
        .await;
    rig.store
        .heartbeat(&row("a", 3), Duration::from_secs(600))
        .await
        .expect("beats");
    assert_eq!(rig.store.workers().await.expect("lists"), [row("a", 3)]);
}
