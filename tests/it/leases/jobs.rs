//! Leases of jobs, their progress, signals and rates.

use std::{num::NonZero, time::Duration};

use rowgate::{
    export::{ExportId, Fence, Progress, StageProgress},
    lease::{Acquired, BATCH_JOBS, Renewal, Signal},
};

use super::rig::{LONG, PATIENCE, Rig, SHORT, job, patiently, soon, until};

const HELD: Acquired = Acquired::Held;

fn not_owner(fence: i64) -> (Acquired, Renewal) {
    let fence = Fence(fence);
    (Acquired::NotOwner { fence }, Renewal::NotOwner { fence })
}

pub async fn a_free_key_is_taken_and_renewed(rig: &Rig) {
    let job = job(1);
    assert_eq!(rig.store.acquire(&[job], LONG).await.unwrap(), [HELD]);
    for _ in 0..2 {
        let renewed = rig.store.renew(&[job], LONG).await.unwrap();
        assert_eq!(renewed, [Renewal::Renewed]);
    }
    assert_eq!(rig.store.acquire(&[], LONG).await.unwrap(), []);
    assert_eq!(rig.store.renew(&[], LONG).await.unwrap(), []);
}

pub async fn our_own_value_is_accepted_again(rig: &Rig) {
    let job = job(7);
    for _ in 0..3 {
        assert_eq!(rig.store.acquire(&[job], LONG).await.unwrap(), [HELD]);
    }
}

pub async fn a_higher_fence_takes_over_and_a_lower_one_is_refused(rig: &Rig) {
    let old = rig.another().await;
    let (id, _) = job(0);
    // As text, 9 would be higher than 10.
    let (lower, higher) = ((id, Fence(9)), (id, Fence(10)));
    assert_eq!(old.acquire(&[lower], LONG).await.unwrap(), [HELD]);
    assert_eq!(rig.store.acquire(&[higher], LONG).await.unwrap(), [HELD]);
    let (refused, told) = not_owner(10);
    assert_eq!(old.renew(&[lower], LONG).await.unwrap(), [told]);
    assert_eq!(old.acquire(&[lower], LONG).await.unwrap(), [refused]);
    let renewed = rig.store.renew(&[higher], LONG).await.unwrap();
    assert_eq!(renewed, [Renewal::Renewed]);
}

pub async fn the_same_fence_of_another_boot_is_refused(rig: &Rig) {
    let other = rig.another().await;
    let job = job(3);
    assert_eq!(rig.store.acquire(&[job], LONG).await.unwrap(), [HELD]);
    let (refused, told) = not_owner(3);
    assert_eq!(other.acquire(&[job], LONG).await.unwrap(), [refused]);
    assert_eq!(other.renew(&[job], LONG).await.unwrap(), [told]);
}

pub async fn a_missing_key_is_told_and_can_be_set_again(rig: &Rig) {
    let job = job(2);
    let missing = rig.store.renew(&[job], LONG).await.unwrap();
    assert_eq!(missing, [Renewal::Missing]);
    // The renewal did not set it.
    let missing = rig.store.renew(&[job], LONG).await.unwrap();
    assert_eq!(missing, [Renewal::Missing]);
    assert_eq!(rig.store.acquire(&[job], LONG).await.unwrap(), [HELD]);
    let renewed = rig.store.renew(&[job], LONG).await.unwrap();
    assert_eq!(renewed, [Renewal::Renewed]);
}

/// A failover may bring back the value from before our write: that is no newer owner.
pub async fn a_key_of_an_owner_before_us_counts_as_missing(rig: &Rig) {
    let former = rig.another().await;
    let (id, _) = job(0);
    former.acquire(&[(id, Fence(5))], LONG).await.unwrap();
    let ours = (id, Fence(6));
    let missing = rig.store.renew(&[ours], LONG).await.unwrap();
    assert_eq!(missing, [Renewal::Missing]);
    assert_eq!(rig.store.acquire(&[ours], LONG).await.unwrap(), [HELD]);
}

pub async fn a_release_takes_only_our_own_key(rig: &Rig) {
    let other = rig.another().await;
    let job = job(4);
    let (id, fence) = job;
    rig.store.acquire(&[job], LONG).await.unwrap();
    other.release(id, fence).await.unwrap();
    rig.store.release(id, Fence(3)).await.unwrap();
    rig.store.release(id, Fence(5)).await.unwrap();
    let renewed = rig.store.renew(&[job], LONG).await.unwrap();
    assert_eq!(renewed, [Renewal::Renewed]);
    for _ in 0..2 {
        rig.store.release(id, fence).await.unwrap();
        let missing = rig.store.renew(&[job], LONG).await.unwrap();
        assert_eq!(missing, [Renewal::Missing]);
    }
}

pub async fn a_lease_ends_with_its_ttl(rig: &Rig) {
    let (ended, kept) = (job(1), job(1));
    let other = rig.another().await;
    patiently(async || rig.store.acquire(&[ended], SHORT).await).await;
    rig.store.acquire(&[kept], LONG).await.unwrap();
    until("the lease ends", async || {
        let (id, _) = ended;
        let mut leases = other.acquire(&[(id, Fence(0))], LONG).await.unwrap();
        leases.pop() == Some(HELD)
    })
    .await;
    let renewed = rig.store.renew(&[kept], LONG).await.unwrap();
    assert_eq!(renewed, [Renewal::Renewed]);
}

pub async fn more_jobs_than_one_trip_takes_are_answered_one_by_one(rig: &Rig) {
    let other = rig.another().await;
    let jobs: Vec<_> = (0..2 * BATCH_JOBS + 7).map(|_| job(1)).collect();
    let taken = 2 * BATCH_JOBS + 3;
    let (id, _) = jobs[taken];
    other.acquire(&[(id, Fence(2))], LONG).await.unwrap();
    let acquired = rig.store.acquire(&jobs, LONG).await.unwrap();
    let renewed = rig.store.renew(&jobs, LONG).await.unwrap();
    assert_eq!((acquired.len(), renewed.len()), (jobs.len(), jobs.len()));
    let (refused, told) = not_owner(2);
    for index in 0..jobs.len() {
        let expected = if index == taken {
            (refused, told)
        } else {
            (HELD, Renewal::Renewed)
        };
        assert_eq!((acquired[index], renewed[index]), expected, "{index}");
    }
    let ids: Vec<_> = jobs.iter().map(|(id, _)| *id).collect();
    let alive = rig.store.alive(&ids, LONG).await.unwrap();
    assert_eq!(alive, vec![true; jobs.len()]);
}

pub async fn of_many_owners_the_highest_fence_wins(rig: &Rig) {
    let (id, _) = job(0);
    let mut tasks = Vec::new();
    for fence in 1..=20 {
        let store = rig.another().await;
        tasks.push(tokio::spawn(async move {
            let job = (id, Fence(fence));
            store.acquire(&[job], LONG).await.unwrap();
            (store, job)
        }));
    }
    let mut owners = Vec::new();
    for task in tasks {
        let (store, job) = task.await.unwrap();
        if store.renew(&[job], LONG).await.unwrap() == [Renewal::Renewed] {
            owners.push(job.1);
        }
    }
    assert_eq!(owners, [Fence(20)]);
}

pub async fn an_owner_is_silent_when_its_key_was_missing_for_a_steady_ttl(rig: &Rig) {
    let (held, unknown) = (job(1), ExportId::generate());
    rig.store.acquire(&[held], LONG).await.unwrap();
    let ids = [held.0, unknown];
    // Not for as long as a ttl yet: whoever lost a key had no time to set it again.
    assert_eq!(rig.store.alive(&ids, LONG).await.unwrap(), [true, true]);
    until("the store has been steady for a ttl", async || {
        let answering_for = rig.store.answering_for().expect("it answers");
        let alive = patiently(async || rig.store.alive(&ids, SHORT).await).await;
        assert!(alive[0]);
        assert!(alive[1] || answering_for + PATIENCE > SHORT);
        !alive[1]
    })
    .await;
    assert!(rig.store.answering_for().expect("it answers") >= SHORT);
}

pub async fn progress_is_that_of_the_present_owner(rig: &Rig) {
    let reader = rig.another().await;
    let (id, fence) = job(5);
    let progress = Progress {
        rows_read: 12,
        rows_per_second: 0.25,
        estimated_rows: Some(99),
        eta: Some(Duration::from_millis(1500)),
        stages: vec![StageProgress {
            name: "source".to_owned(),
            busy: Duration::from_micros(7),
            ..StageProgress::default()
        }],
        slowest_stage: "source".to_owned(),
        ..Progress::default()
    };
    let published = [(id, fence, progress.clone())];
    rig.store.publish(&published, LONG).await.unwrap();
    // Without a lease there is no owner.
    assert_eq!(reader.progress(id).await.unwrap(), None);
    rig.store.acquire(&[(id, fence)], LONG).await.unwrap();
    assert_eq!(reader.progress(id).await.unwrap(), Some(progress));
    let next = rig.another().await;
    next.acquire(&[(id, Fence(6))], LONG).await.unwrap();
    assert_eq!(reader.progress(id).await.unwrap(), None, "a new attempt");
    let begun = Progress::default();
    let published = [(id, Fence(6), begun.clone())];
    next.publish(&published, LONG).await.unwrap();
    assert_eq!(reader.progress(id).await.unwrap(), Some(begun));
    assert_eq!(reader.progress(ExportId::generate()).await.unwrap(), None);
}

pub async fn signals_reach_every_process(rig: &Rig) {
    let other = rig.another().await;
    let (mut here, mut there) = (rig.store.signals(), other.signals());
    let id = ExportId::generate();
    for signal in [Signal::Cancelled(id), Signal::Changed(id), Signal::Limits] {
        rig.store.signal(signal).await.unwrap();
        assert_eq!(soon("the signal, here", here.recv()).await, Ok(signal));
        assert_eq!(soon("the signal, there", there.recv()).await, Ok(signal));
    }
}

pub async fn readers_of_a_source_share_its_rate(rig: &Rig) {
    let other = rig.another().await;
    let slow = NonZero::new(1).unwrap();
    // So slow that the case itself takes no time beside it.
    let slack = Duration::from_secs(100);
    for (store, expected) in [(&rig.store, 10_000), (&other, 20_000), (&rig.store, 30_000)] {
        let wait = store.take_rows("shop", 10_000, slow).await.unwrap();
        let expected = Duration::from_secs(expected);
        assert!(wait <= expected && wait + slack > expected, "{wait:?}");
    }
    let wait = other.take_rows("erp", 10_000, slow).await.unwrap();
    assert!(wait <= Duration::from_secs(10_000), "{wait:?}");
    // A debt is in rows: a faster rate pays it sooner.
    let fast = NonZero::new(1_000_000).unwrap();
    let wait = other.take_rows("shop", 0, fast).await.unwrap();
    assert!(wait <= Duration::from_millis(30), "{wait:?}");
    let wait = other.take_rows("endless", u64::MAX, slow).await.unwrap();
    assert_eq!(wait, Duration::from_secs(86_400));
}
