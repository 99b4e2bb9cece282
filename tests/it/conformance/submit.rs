//! Making jobs: what is stored, what the same request finds, and what has no room.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use rowgate::{
    export::{Caps, ExportId, ExportSpec, Fence, SpecHash, State, TenantId},
    queue::{FullCap, Inserted, NewJob, Paused},
};
use uuid::Uuid;

use super::rig::*;

pub async fn a_new_job_reads_back_as_it_was_given(rig: &Rig) {
    let spec = ExportSpec {
        params: BTreeMap::from([
            (
                "big".to_owned(),
                serde_json::json!(9_007_199_254_740_993_i64),
            ),
            // Without the float_roundtrip of serde_json it is read as the number beside it.
            ("float".to_owned(), serde_json::json!(21.489705265908874)),
            ("text".to_owned(), serde_json::json!("nul \u{0} and 中文")),
        ]),
        labels: BTreeMap::from([("team".to_owned(), "ops".to_owned())]),
        priority: 7,
        ..spec("shop")
    };
    let new = NewJob {
        estimated_rows: Some(123),
        ..of_spec("acme", spec.clone())
    };
    let created = rig.submit(new.clone()).await;
    let read = rig.get(new.id).await;
    for job in [&created, &read] {
        assert_eq!(job.id, new.id);
        assert_eq!(job.tenant, TenantId("acme".to_owned()));
        assert_eq!(job.spec, spec);
        assert_eq!(job.state, State::Queued);
        assert_eq!((job.attempt, job.fence), (0, Fence(0)));
        assert_eq!(job.estimated_rows, Some(123));
        assert_eq!(
            (&job.worker, job.started_at, job.ended_at),
            (&None, None, None)
        );
        assert_eq!(job.ready_at, job.created_at);
        assert!(job.error.is_none() && job.result.is_none() && !job.result_expired);
    }
    assert_eq!(created.created_at, read.created_at);
}

pub async fn an_unknown_id_is_none(rig: &Rig) {
    assert!(
        rig.store
            .get(ExportId::generate())
            .await
            .expect("reads")
            .is_none()
    );
}

fn with_request(job: NewJob, request_id: Uuid) -> NewJob {
    NewJob {
        request_id: Some(request_id),
        ..job
    }
}

pub async fn the_same_request_and_spec_give_the_same_job(rig: &Rig) {
    let request = Uuid::new_v4();
    let first = rig.submit(with_request(new_job("t", "s"), request)).await;
    let again = with_request(new_job("t", "s"), request);
    match rig.store.insert(again).await.expect("inserts") {
        Inserted::Existing(job) => assert_eq!(job.id, first.id),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.claim(10).await.len(), 1);
}

pub async fn a_request_is_found_with_the_hash_that_it_was_stored_with(rig: &Rig) {
    let (tenant, request) = (TenantId("t".to_owned()), Uuid::new_v4());
    let none = rig.store.submitted(&tenant, request).await.expect("reads");
    assert!(none.is_none());
    let hash = SpecHash([7; 32]);
    let job = NewJob {
        spec_hash: hash,
        ..with_request(new_job("t", "s"), request)
    };
    let first = rig.submit(job).await;
    let found = rig.store.submitted(&tenant, request).await.expect("reads");
    assert_eq!(
        found.map(|(job, hash)| (job.id, hash)),
        Some((first.id, hash))
    );
    let other = TenantId("u".to_owned());
    let none = rig.store.submitted(&other, request).await.expect("reads");
    assert!(none.is_none());
}

pub async fn the_same_request_with_another_spec_is_reused(rig: &Rig) {
    let request = Uuid::new_v4();
    let first = rig.submit(with_request(new_job("t", "s"), request)).await;
    let other = with_request(new_job("t", "another"), request);
    match rig.store.insert(other).await.expect("inserts") {
        Inserted::RequestIdReused(id) => assert_eq!(id, first.id),
        other => panic!("{other:?}"),
    }
}

pub async fn a_request_id_belongs_to_its_tenant(rig: &Rig) {
    let request = Uuid::new_v4();
    let first = rig.submit(with_request(new_job("a", "s"), request)).await;
    let second = rig.submit(with_request(new_job("b", "s"), request)).await;
    assert_ne!(first.id, second.id);
}

pub async fn one_of_many_concurrent_submits_of_a_request_creates_the_job(rig: &Rig) {
    let request = Uuid::new_v4();
    let other = rig.another().await;
    let inserts = (0..12).map(|i| {
        let store = if i % 2 == 0 { &rig.store } else { &other };
        store.insert(with_request(new_job("t", "s"), request))
    });
    let mut created = 0;
    let mut seen = HashSet::new();
    for inserted in join_all(inserts).await {
        match inserted.expect("inserts") {
            Inserted::Created(job) => {
                created += 1;
                seen.insert(job.id);
            }
            Inserted::Existing(job) => {
                seen.insert(job.id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((created, seen.len()), (1, 1));
}

pub async fn the_same_id_twice_is_the_same_job(rig: &Rig) {
    // An insert whose reply was lost is sent again.
    let job = new_job("t", "s");
    rig.submit(job.clone()).await;
    let again = rig.store.insert(job.clone()).await.expect("inserts");
    assert!(matches!(again, Inserted::Existing(existing) if existing.id == job.id));
}

pub async fn a_running_start_is_owned_at_once(rig: &Rig) {
    let job = rig.submit(inline("t", "s", Caps::default())).await;
    assert_eq!(job.state, State::Running);
    assert_eq!((job.attempt, job.fence), (1, Fence(1)));
    assert_eq!(job.worker, Some(worker()));
    assert_eq!(job.started_at, Some(job.created_at));
    assert!(rig.claim(10).await.is_empty());
    rig.settle_done(&job, succeeded()).await;
}

pub async fn a_running_start_respects_the_caps(rig: &Rig) {
    let caps = Caps {
        tenant_slots: BTreeMap::from([("*".to_owned(), 2), ("small".to_owned(), 1)]),
        source_slots: BTreeMap::from([("*".to_owned(), 3)]),
    };
    let start = |tenant: &str| rig.store.insert(inline(tenant, "s", caps.clone()));
    assert!(matches!(
        start("small").await.expect("ok"),
        Inserted::Created(_)
    ));
    let full = start("small").await.expect("ok");
    assert!(matches!(full, Inserted::Full(FullCap::Tenant)), "{full:?}");
    assert!(matches!(
        start("a").await.expect("ok"),
        Inserted::Created(_)
    ));
    let last = match start("a").await.expect("ok") {
        Inserted::Created(job) => job,
        other => panic!("{other:?}"),
    };
    match start("b").await.expect("ok") {
        Inserted::Full(FullCap::Source(name)) => assert_eq!(name, "s"),
        other => panic!("{other:?}"),
    }
    rig.settle_done(&last, succeeded()).await;
    assert!(matches!(
        start("b").await.expect("ok"),
        Inserted::Created(_)
    ));
}

pub async fn a_running_start_is_refused_while_paused(rig: &Rig) {
    let tenant = TenantId("t".to_owned());
    let start = || rig.store.insert(inline("t", "s", Caps::default()));
    rig.store
        .set_paused(Some(&tenant), Paused::Yes)
        .await
        .expect("pauses");
    assert!(matches!(start().await.expect("ok"), Inserted::Paused));
    rig.store
        .set_paused(Some(&tenant), Paused::No)
        .await
        .expect("resumes");
    rig.store
        .set_paused(None, Paused::Yes)
        .await
        .expect("pauses");
    assert!(matches!(start().await.expect("ok"), Inserted::Paused));
    rig.store
        .set_paused(None, Paused::No)
        .await
        .expect("resumes");
    assert!(matches!(start().await.expect("ok"), Inserted::Created(_)));
}
