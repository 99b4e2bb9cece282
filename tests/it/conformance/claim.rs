//! Who is served, in which order, and that nobody is overlooked.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use rowgate::{
    export::{Caps, ExportId, Fence, State, TenantId, WorkerId},
    queue::{Abandoned, ClaimRequest, Error, Job, NewJob, Paused, Settled, Work},
};

use super::rig::*;

pub async fn an_empty_queue_gives_nothing(rig: &Rig) {
    assert!(rig.claim(5).await.is_empty());
}

pub async fn a_claim_raises_fence_and_attempt_and_names_the_owner(rig: &Rig) {
    let queued = rig.submit(new_job("t", "s")).await;
    let job = rig.claim_one().await;
    assert_eq!(job.id, queued.id);
    assert_eq!(job.state, State::Running);
    assert_eq!((job.attempt, job.fence), (1, Fence(1)));
    assert_eq!(job.worker, Some(worker()));
    assert!(job.started_at >= Some(queued.created_at));

    rig.settle_done(&job, retry(NO_TIME)).await;
    let again = rig.claim_one().await;
    assert_eq!((again.attempt, again.fence), (2, Fence(2)));
    assert!(again.started_at >= job.started_at);
}

pub async fn priority_comes_first_then_age(rig: &Rig) {
    let mut expected = Vec::new();
    for priority in [0, 5, 9, 5, 0] {
        expected.push((9 - priority, rig.submit(with_priority(priority)).await.id));
    }
    // Stable: equal priorities stay in the order of their age.
    expected.sort_by_key(|(rank, _)| *rank);
    let expected: Vec<ExportId> = expected.into_iter().map(|(_, id)| id).collect();
    let mut claimed = ids(&rig.claim(2).await);
    claimed.extend(ids(&rig.claim(10).await));
    assert_eq!(claimed, expected);
}

pub async fn a_claim_takes_no_more_than_asked(rig: &Rig) {
    for _ in 0..5 {
        rig.submit(new_job("t", "s")).await;
    }
    assert_eq!(rig.claim(0).await.len(), 0);
    assert_eq!(rig.claim(3).await.len(), 3);
    assert_eq!(rig.claim(3).await.len(), 2);
}

fn estimated(tenant: &str, rows: u64) -> NewJob {
    NewJob {
        estimated_rows: Some(rows),
        ..new_job(tenant, "s")
    }
}

fn tenants(jobs: &[Job]) -> String {
    jobs.iter().map(|job| job.tenant.0.as_str()).collect()
}

pub async fn tenants_take_turns_by_work_done(rig: &Rig) {
    // Jobs of a are three times as large as those of b: b gets three for each of a.
    for _ in 0..3 {
        rig.submit(estimated("a", 3000)).await;
    }
    for _ in 0..7 {
        rig.submit(estimated("b", 1000)).await;
    }
    let mut order = String::new();
    for _ in 0..8 {
        order.push_str(&tenants(&rig.claim(1).await));
    }
    assert_eq!(order, "abbbabbb");
}

pub async fn a_batch_is_shared_among_tenants(rig: &Rig) {
    for tenant in ["a", "a", "a", "a", "b", "c", "c"] {
        rig.submit(estimated(tenant, 100)).await;
    }
    assert_eq!(tenants(&rig.claim(5).await), "abcac");
    assert_eq!(tenants(&rig.claim(5).await), "aa");
}

pub async fn the_cost_is_corrected_when_the_job_ends(rig: &Rig) {
    rig.submit(new_job("t", "s")).await;
    let job = rig.claim_one().await;
    let guessed = rig.virtual_time("t").await;
    assert_eq!(guessed, 10_000);
    let work = Work {
        rows_read: 70,
        bytes: 256 * 30,
    };
    // The first attempt counts, and so does the second.
    for expected in [100, 200] {
        let job = if expected == 100 {
            job.clone()
        } else {
            rig.claim_one().await
        };
        let settled = rig
            .store
            .settle(job.id, job.fence, &retry(NO_TIME), work)
            .await
            .expect("settles");
        assert!(matches!(settled, Settled::Done(_)));
        assert_eq!(rig.virtual_time("t").await, expected);
    }
}

pub async fn a_newcomer_starts_at_the_least_active_virtual_time(rig: &Rig) {
    for (tenant, rows) in [("a", 5_000), ("b", 9_000)] {
        for _ in 0..3 {
            rig.submit(estimated(tenant, rows)).await;
        }
    }
    assert_eq!(tenants(&rig.claim(2).await), "ab");
    rig.submit(estimated("new", 1)).await;
    assert_eq!(rig.virtual_time("new").await, 5_000);
    // Once more does not move it: it is active.
    assert_eq!(tenants(&rig.claim(1).await), "a");
    rig.submit(estimated("new", 1)).await;
    assert_eq!(rig.virtual_time("new").await, 5_000);
    // Back after a rest, it keeps what it was served.
    assert_eq!(tenants(&rig.claim(2).await), "newnew");
    assert_eq!(rig.virtual_time("new").await, 5_002);
}

pub async fn a_tenant_that_was_served_alone_does_not_start_behind_those_who_come_later(rig: &Rig) {
    rig.submit(estimated("old", 1_000_000)).await;
    let job = rig.claim_one().await;
    let work = Work {
        rows_read: 1_000_000,
        bytes: 0,
    };
    rig.store
        .settle(job.id, job.fence, &succeeded(), work)
        .await
        .expect("settles");
    // Nobody is active: the clock stands where the last busy time ended.
    rig.submit(estimated("new", 10)).await;
    rig.submit(estimated("new", 10)).await;
    rig.submit(estimated("old", 10)).await;
    rig.submit(estimated("old", 10)).await;
    assert_eq!(tenants(&rig.claim(4).await), "newoldnewold");
}

pub async fn a_paused_tenant_is_passed_over(rig: &Rig) {
    let paused = TenantId("a".to_owned());
    rig.submit(new_job("a", "s")).await;
    rig.submit(new_job("b", "s")).await;
    rig.store
        .set_paused(Some(&paused), Paused::Yes)
        .await
        .expect("pauses");
    assert_eq!(tenants(&rig.claim(5).await), "b");
    assert!(rig.claim(5).await.is_empty());
    rig.store
        .set_paused(Some(&paused), Paused::No)
        .await
        .expect("resumes");
    assert_eq!(tenants(&rig.claim(5).await), "a");
}

pub async fn pausing_everyone_stops_all_claims(rig: &Rig) {
    rig.submit(new_job("a", "s")).await;
    rig.store
        .set_paused(None, Paused::Yes)
        .await
        .expect("pauses");
    assert!(rig.claim(5).await.is_empty());
    rig.submit(new_job("b", "s")).await;
    assert!(rig.claim(5).await.is_empty());
    rig.store
        .set_paused(None, Paused::No)
        .await
        .expect("resumes");
    assert_eq!(rig.claim(5).await.len(), 2);
}

pub async fn two_claimers_never_get_the_same_job(rig: &Rig) {
    const JOBS: usize = 60;
    for i in 0..JOBS {
        rig.submit(new_job(["a", "b", "c"][i % 3], ["s", "r"][i % 2]))
            .await;
    }
    let other = rig.another().await;
    let claimers = (0..8).map(|i| {
        let store = if i % 2 == 0 {
            rig.store.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move {
            let request = ClaimRequest {
                worker: WorkerId(format!("w{i}")),
                ..claim_request(1 + i % 4)
            };
            let mut mine = Vec::new();
            loop {
                match store.claim(&request).await {
                    Ok(jobs) if jobs.is_empty() => return mine,
                    Ok(jobs) => mine.extend(jobs),
                    Err(Error::Contended(_)) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        })
    });
    let claimed: Vec<Job> = join_all(claimers)
        .await
        .into_iter()
        .flat_map(|jobs| jobs.expect("no claimer panics"))
        .collect();
    let distinct: HashSet<ExportId> = claimed.iter().map(|job| job.id).collect();
    assert_eq!((claimed.len(), distinct.len()), (JOBS, JOBS));
}

pub async fn no_claim_is_empty_while_a_job_is_ready(rig: &Rig) {
    // One tenant, one source, eight claimers: each claim meets a locked tenant, and must not take that for the end.
    const JOBS: usize = 200;
    const CLAIMERS: usize = 8;
    for _ in 0..JOBS {
        rig.submit(new_job("t", "s")).await;
    }
    let left = Arc::new(AtomicUsize::new(JOBS));
    let claimers = (0..CLAIMERS).map(|_| {
        let (store, left) = (rig.store.clone(), left.clone());
        tokio::spawn(async move {
            while left.load(Ordering::SeqCst) > 0 {
                let jobs = store
                    .claim(&claim_request(1))
                    .await
                    .expect("never too contended");
                let left = left.fetch_sub(jobs.len(), Ordering::SeqCst) - jobs.len();
                // The other claimers may hold one job each that they have not subtracted yet.
                assert!(
                    !jobs.is_empty() || left < CLAIMERS,
                    "an empty claim with {left} jobs left"
                );
            }
        })
    });
    for claimer in join_all(claimers).await {
        claimer.expect("no empty claim");
    }
}

pub async fn a_backoff_hides_a_job_until_it_is_over(rig: &Rig) {
    let job = rig.running().await;
    let waiting = rig.settle_done(&job, retry(HOUR)).await;
    let younger = rig.submit(new_job("t", "s")).await;
    assert_eq!(ids(&rig.claim(5).await), vec![younger.id]);
    assert!(rig.claim(5).await.is_empty());
    assert!(waiting.ready_at > waiting.created_at);

    rig.execute("update jobs set ready_at = created_at where delayed")
        .await;
    let claimed = rig.claim(5).await;
    assert_eq!(ids(&claimed), vec![job.id]);
    assert_eq!(claimed[0].attempt, 2);
}

pub async fn the_claim_stays_flat_at_a_long_backlog(rig: &Rig) {
    // Before the jobs of c: a backlog at a full source, and another one in backoff.
    const BACKLOG: u32 = 100_000;
    let caps = source_cap("full", 0);
    let before = fastest_claim(rig, &caps).await;
    rig.backlog("a", "full", BACKLOG, Backlog::Ready).await;
    rig.backlog("b", "s", BACKLOG, Backlog::InBackoff).await;
    let after = fastest_claim(rig, &caps).await;
    // A scan of the backlog in each claim takes tens of milliseconds. The fastest of many is hardly slower on a busy
    // machine.
    assert!(
        after < before * 5 + Duration::from_millis(5),
        "{before:?} before, {after:?} after"
    );
}

async fn fastest_claim(rig: &Rig, caps: &Caps) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        rig.submit(new_job("c", "s")).await;
        let began = Instant::now();
        let jobs = rig.claim_with(1, caps.clone()).await;
        fastest = fastest.min(began.elapsed());
        assert_eq!(tenants(&jobs), "c");
    }
    fastest
}

/// As a later version might write it.
async fn make_unreadable(rig: &Rig, source: &str) {
    let spec = format!("{{\"source\":\"{source}\",\"from\":{{\"stars\":7}}}}");
    rig.execute(&format!(
        "update jobs set spec = '{spec}' where source = '{source}'"
    ))
    .await;
}

pub async fn a_job_that_this_version_can_not_read_fails_and_is_in_nobodys_way(rig: &Rig) {
    let strange = rig.submit(new_job("t", "later")).await;
    make_unreadable(rig, "later").await;
    let good = rig.submit(new_job("t", "s")).await;
    let seen = rig.get(strange.id).await;
    assert_eq!(
        (seen.state, seen.spec.source.as_str()),
        (State::Queued, "later")
    );
    let listed = rig.store.list(&everything_of("t")).await.expect("lists");
    assert_eq!(ids(&listed), [good.id, strange.id]);
    assert_eq!(ids(&rig.claim(5).await), [good.id]);
    let failed = rig.get(strange.id).await;
    assert_eq!(failed.state, State::Failed);
    assert_eq!(failed.error.expect("why").reason, "SPEC_UNREADABLE");
    assert!(failed.ended_at.is_some());
    rig.assert_consistent().await;

    // One that is alone, one that is cancelled, one whose owner died.
    rig.submit(new_job("t", "alone")).await;
    make_unreadable(rig, "alone").await;
    assert!(rig.claim(5).await.is_empty());
    let cancelled = rig.submit(new_job("t", "unwanted")).await;
    make_unreadable(rig, "unwanted").await;
    rig.store.cancel(cancelled.id).await.expect("cancels");
    assert_eq!(rig.get(cancelled.id).await.state, State::Cancelled);
    rig.submit(new_job("t", "orphaned")).await;
    let orphaned = rig.claim_one().await;
    make_unreadable(rig, "orphaned").await;
    let reaped = rig
        .store
        .reap(&Abandoned::All, 3, 10)
        .await
        .expect("the sweep works");
    assert_eq!(reaped.len(), 2);
    let failed = rig.get(orphaned.id).await;
    assert_eq!(failed.error.expect("why").reason, "SPEC_UNREADABLE");
    assert_eq!(rig.get(good.id).await.state, State::Queued);
}

pub async fn a_result_that_this_version_can_not_read_is_as_good_as_none(rig: &Rig) {
    let job = rig.running().await;
    rig.settle_done(&job, succeeded()).await;
    rig.execute("update jobs set result = '{\"kind\":\"hologram\"}'")
        .await;
    let read = rig.get(job.id).await;
    assert_eq!(read.state, State::Succeeded);
    assert!(read.result.is_none());
    let listed = rig.store.list(&everything_of("t")).await.expect("lists");
    assert_eq!(ids(&listed), [job.id]);
}
