//! How many may run at once: exact for the cluster, whoever claims.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures::future::join_all;
use rowgate::{
    export::{Caps, State},
    queue::{Cancelled, ClaimRequest, Error, Inserted, NewJob, Settled, Start, Work},
};

use super::rig::*;

/// Eight claimers in two processes run `JOBS` jobs, each holding what it got until it has looked how many run.
async fn run_under(rig: &Rig, caps: Caps, cap: i64, sources: [&str; 2]) {
    const JOBS: usize = 60;
    for i in 0..JOBS {
        rig.submit(new_job("t", sources[i % 2])).await;
    }
    let other = rig.another().await;
    let (running, most, done) = (
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicI64::new(0)),
        Arc::new(AtomicI64::new(0)),
    );
    let claimers = (0..8).map(|i| {
        let store = if i % 2 == 0 {
            rig.store.clone()
        } else {
            other.clone()
        };
        let (running, most, done) = (running.clone(), most.clone(), done.clone());
        let request = ClaimRequest {
            caps: caps.clone(),
            ..claim_request(1 + i % 3)
        };
        tokio::spawn(async move {
            while done.load(Ordering::SeqCst) < JOBS as i64 {
                let jobs = match store.claim(&request).await {
                    Ok(jobs) => jobs,
                    Err(Error::Contended(_)) => continue,
                    Err(e) => panic!("{e}"),
                };
                let count = jobs.len() as i64;
                most.fetch_max(
                    running.fetch_add(count, Ordering::SeqCst) + count,
                    Ordering::SeqCst,
                );
                for job in jobs {
                    running.fetch_sub(1, Ordering::SeqCst);
                    let settled = store
                        .settle(job.id, job.fence, &succeeded(), Work::default())
                        .await
                        .expect("settles");
                    assert!(matches!(settled, Settled::Done(_)));
                    done.fetch_add(1, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    for claimer in join_all(claimers).await {
        claimer.expect("no claimer panics");
    }
    assert!(most.load(Ordering::SeqCst) <= cap, "{most:?} ran at once");
}

pub async fn the_tenant_cap_is_exact_under_concurrent_claimers(rig: &Rig) {
    run_under(rig, tenant_cap("t", 3), 3, ["s", "r"]).await;
}

pub async fn the_source_cap_is_exact_under_concurrent_claimers(rig: &Rig) {
    run_under(rig, source_cap("s", 2), 2, ["s", "s"]).await;
}

pub async fn a_full_source_blocks_only_its_own_jobs(rig: &Rig) {
    let caps = source_cap("full", 1);
    for source in ["full", "full", "full", "free"] {
        rig.submit(new_job("t", source)).await;
    }
    rig.submit(new_job("u", "full")).await;
    rig.submit(new_job("u", "free")).await;
    let claimed = rig.claim_with(10, caps.clone()).await;
    let full = claimed
        .iter()
        .filter(|job| job.spec.source == "full")
        .count();
    assert_eq!((claimed.len(), full), (3, 1));
    assert!(rig.claim_with(10, caps).await.is_empty());
    assert_eq!(rig.claim(10).await.len(), 3);
}

pub async fn a_full_tenant_blocks_only_its_own_jobs(rig: &Rig) {
    let caps = tenant_cap("*", 1);
    for tenant in ["a", "a", "b", "b"] {
        rig.submit(new_job(tenant, "s")).await;
    }
    let claimed = rig.claim_with(10, caps.clone()).await;
    assert_eq!(claimed.len(), 2);
    assert_ne!(claimed[0].tenant, claimed[1].tenant);
    assert!(rig.claim_with(10, caps).await.is_empty());
}

pub async fn inline_runs_count_in_the_caps_of_claims(rig: &Rig) {
    rig.submit(new_job("t", "s")).await;
    let running = rig.submit(inline("t", "s", Caps::default())).await;
    let stream = rig.submit(live("u", "s")).await;
    assert!(rig.claim_with(5, tenant_cap("t", 1)).await.is_empty());
    assert!(rig.claim_with(5, source_cap("s", 2)).await.is_empty());
    rig.settle_done(&stream, succeeded()).await;
    rig.settle_done(&running, succeeded()).await;
    assert_eq!(rig.claim_with(5, source_cap("s", 2)).await.len(), 1);
}

pub async fn a_cap_of_zero_lets_none_run(rig: &Rig) {
    rig.submit(new_job("t", "s")).await;
    assert!(rig.claim_with(5, tenant_cap("*", 0)).await.is_empty());
    assert!(rig.claim_with(5, source_cap("s", 0)).await.is_empty());
    assert_eq!(rig.claim(5).await.len(), 1);
}

pub async fn an_end_frees_the_slots(rig: &Rig) {
    let caps = Caps {
        source_slots: source_cap("s", 1).source_slots,
        ..tenant_cap("t", 1)
    };
    for _ in 0..4 {
        rig.submit(new_job("t", "s")).await;
    }
    for settlement in [
        succeeded(),
        rowgate::queue::Settlement::Failed(failure("X")),
        retry(HOUR),
        rowgate::queue::Settlement::HandBack,
    ] {
        let jobs = rig.claim_with(5, caps.clone()).await;
        assert_eq!(jobs.len(), 1);
        assert!(rig.claim_with(5, caps.clone()).await.is_empty());
        rig.settle_done(&jobs[0], settlement).await;
    }
    assert_eq!(rig.claim_with(5, caps).await.len(), 1);
}

pub async fn a_job_that_is_cancelling_still_holds_its_slots(rig: &Rig) {
    let caps = source_cap("s", 1);
    let job = rig.running().await;
    rig.submit(new_job("t", "s")).await;
    let cancelled = rig.store.cancel(job.id).await.expect("cancels");
    assert!(matches!(cancelled, Cancelled::Accepted(job) if job.state == State::Cancelling));
    assert!(rig.claim_with(5, caps.clone()).await.is_empty());
    rig.settle_done(&job, rowgate::queue::Settlement::Cancelled)
        .await;
    assert_eq!(rig.claim_with(5, caps).await.len(), 1);
}

pub async fn a_full_queue_takes_no_more_of_that_tenant(rig: &Rig) {
    let bounded = |tenant: &str| NewJob {
        start: Start::Queued { ready_max: 2 },
        ..new_job(tenant, "s")
    };
    rig.submit(bounded("t")).await;
    let repeated = bounded("t");
    rig.submit(repeated.clone()).await;
    let full = async |job| {
        let inserted = rig.store.insert(job).await.expect("inserts");
        assert!(matches!(inserted, Inserted::QueueFull), "{inserted:?}");
    };
    full(bounded("t")).await;
    // Not the others, not what starts at once, and not what was accepted before.
    rig.submit(bounded("u")).await;
    let inline = rig.submit(inline("t", "s", Caps::default())).await;
    let again = rig.store.insert(repeated).await.expect("inserts");
    assert!(matches!(again, Inserted::Existing(_)), "{again:?}");
    // A retry always finds its place.
    rig.settle_done(&inline, retry(NO_TIME)).await;
    full(bounded("t")).await;
    assert_eq!(rig.claim_with(2, tenant_cap("u", 0)).await.len(), 2);
    rig.submit(bounded("t")).await;
    full(bounded("t")).await;
}
