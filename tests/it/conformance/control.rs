//! Limits, pauses, the token key, migrations, wake-ups, and the guard against a second process.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rowgate::{
    export::{LimitOverrides, TenantId},
    queue::{Error, LimitChange, Paused, PausedTenants},
};
use tokio::time::timeout;

use super::rig::*;

/// For what should happen at once; only a defect lets it pass.
const SOON: Duration = Duration::from_secs(30);

fn set(set: LimitOverrides) -> LimitChange {
    LimitChange {
        set,
        reset: Vec::new(),
    }
}

fn slots(of: &[(&str, u32)]) -> BTreeMap<String, u32> {
    of.iter()
        .map(|(name, slots)| ((*name).to_owned(), *slots))
        .collect()
}

pub async fn limits_are_set_merged_and_reset(rig: &Rig) {
    assert_eq!(
        rig.store.limits().await.expect("reads"),
        LimitOverrides::default()
    );
    let first = LimitOverrides {
        queue_bytes: Some(1 << 40),
        worker_slots: Some(2),
        source_slots: slots(&[("*", 4), ("shop", 1)]),
        ..LimitOverrides::default()
    };
    let stored = rig
        .store
        .update_limits(&set(first.clone()))
        .await
        .expect("sets");
    assert_eq!(stored, first);
    let second = LimitOverrides {
        worker_slots: Some(0),
        source_slots: slots(&[("shop", 2)]),
        ..LimitOverrides::default()
    };
    rig.store.update_limits(&set(second)).await.expect("sets");
    let change = LimitChange {
        set: LimitOverrides {
            tenant_slots: slots(&[("acme", 3)]),
            ..LimitOverrides::default()
        },
        reset: vec!["queue_bytes".to_owned(), "source_slots.*".to_owned()],
    };
    let stored = rig.store.update_limits(&change).await.expect("resets");
    let expected = LimitOverrides {
        worker_slots: Some(0),
        source_slots: slots(&[("shop", 2)]),
        tenant_slots: slots(&[("acme", 3)]),
        ..LimitOverrides::default()
    };
    assert_eq!(stored, expected);
    assert_eq!(rig.another().await.limits().await.expect("reads"), expected);
}

pub async fn an_unknown_limit_changes_nothing(rig: &Rig) {
    let change = LimitChange {
        set: LimitOverrides {
            worker_slots: Some(9),
            ..LimitOverrides::default()
        },
        reset: vec!["worker_slot".to_owned()],
    };
    assert!(rig.store.update_limits(&change).await.is_err());
    assert_eq!(
        rig.store.limits().await.expect("reads"),
        LimitOverrides::default()
    );
}

pub async fn pauses_are_listed(rig: &Rig) {
    let (a, b) = (TenantId("a".to_owned()), TenantId("b".to_owned()));
    assert_eq!(
        rig.store.paused().await.expect("reads"),
        PausedTenants::default()
    );
    // A tenant may be paused before it was ever seen, and twice.
    for tenant in [&b, &a, &b] {
        rig.store
            .set_paused(Some(tenant), Paused::Yes)
            .await
            .expect("pauses");
    }
    rig.store
        .set_paused(None, Paused::Yes)
        .await
        .expect("pauses");
    let expected = PausedTenants {
        everyone: true,
        tenants: vec![a.clone(), b.clone()],
    };
    assert_eq!(rig.another().await.paused().await.expect("reads"), expected);
    rig.store
        .set_paused(None, Paused::No)
        .await
        .expect("resumes");
    rig.store
        .set_paused(Some(&a), Paused::No)
        .await
        .expect("resumes");
    let expected = PausedTenants {
        everyone: false,
        tenants: vec![b],
    };
    assert_eq!(rig.store.paused().await.expect("reads"), expected);
}

pub async fn the_token_key_is_made_once(rig: &Rig) {
    let key = rig.store.token_key().await.expect("reads");
    assert_ne!(key, [0; 32]);
    assert_eq!(rig.another().await.token_key().await.expect("reads"), key);
    rig.migrate().await;
    assert_eq!(rig.store.token_key().await.expect("reads"), key);
}

pub async fn migrating_again_changes_nothing(rig: &Rig) {
    let job = rig.submit(new_job("t", "s")).await;
    rig.migrate().await;
    rig.migrate().await;
    assert_eq!(rig.get(job.id).await.created_at, job.created_at);
    rig.execute("insert into rowgate_migrations (number, name, applied_at) select 999, 'of a later release', applied_at \
                 from rowgate_migrations where number = 1")
        .await;
    rig.migrate().await;
}

pub async fn many_processes_may_open_a_new_queue_at_once(rig: &Rig) {
    rig.open_at_once(6).await;
}

pub async fn an_insert_wakes_an_idle_claimer(rig: &Rig) {
    // SQLite has one process, which wakes itself; PostgreSQL is told of by others.
    let inserter = match rig.backend() {
        Backend::Sqlite => rig.store.clone(),
        Backend::Postgres => rig.another().await,
    };
    // No wake-up of a listener that has just connected is on its way: only the insert's is left.
    wait_idle(rig, Duration::from_millis(200)).await;
    let (_, inserted) = tokio::join!(
        async {
            timeout(SOON, rig.store.wait_for_work(HOUR))
                .await
                .expect("it is woken");
        },
        inserter.insert(new_job("t", "s")),
    );
    inserted.expect("inserts");
}

pub async fn a_freed_slot_wakes_an_idle_claimer(rig: &Rig) {
    let job = rig.running().await;
    rig.submit(new_job("t", "s")).await;
    assert!(rig.claim_with(1, tenant_cap("t", 1)).await.is_empty());
    let store = rig.store.clone();
    let waiter = tokio::spawn(async move {
        timeout(SOON, store.wait_for_work(HOUR))
            .await
            .expect("it is woken");
    });
    rig.settle_done(&job, succeeded()).await;
    waiter.await.expect("it is woken");
    assert_eq!(rig.claim_with(1, tenant_cap("t", 1)).await.len(), 1);
}

pub async fn an_announcement_before_the_wait_is_not_lost(rig: &Rig) {
    assert!(rig.claim(1).await.is_empty());
    rig.store.announce_work().await;
    timeout(SOON, rig.store.wait_for_work(HOUR))
        .await
        .expect("it returns");
}

pub async fn waiting_ends_with_its_timeout(rig: &Rig) {
    wait_idle(rig, Duration::from_millis(30)).await;
}

/// Waits until a wait for work ends by its time. A listener that has just connected wakes its process once; false
/// wake-ups are allowed, endless ones are not.
async fn wait_idle(rig: &Rig, time: Duration) {
    for _ in 0..20 {
        assert!(rig.claim(1).await.is_empty());
        let began = Instant::now();
        timeout(SOON, rig.store.wait_for_work(time))
            .await
            .expect("it returns");
        if began.elapsed() >= time {
            return;
        }
    }
    panic!("woken again and again for nothing");
}

pub async fn a_second_process_is_told_about_lease_url(rig: &Rig) {
    let first = rig.guard().await.expect("the first one has it");
    match rig.guard().await {
        Err(Error::InUse(text)) => assert!(text.contains("lease.url"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(!first.lost().is_cancelled());
}

pub async fn a_guard_that_is_dropped_lets_the_next_one_in(rig: &Rig) {
    drop(rig.guard().await.expect("the first one has it"));
    // PostgreSQL frees a session's locks when it notices the end of the session.
    crate::support::wait_until(SOON, "the queue is free", async || rig.guard().await.ok()).await;
}
