//! Listing, paging and positions.

use rowgate::{
    export::{ExportId, ExportSpec, State},
    queue::{Job, ListCursor, ListFilter, NewJob, Standing},
};

use super::rig::*;

async fn list(rig: &Rig, filter: &ListFilter) -> Vec<Job> {
    rig.store.list(filter).await.expect("the list reads")
}

fn labelled(labels: &[(&str, &str)]) -> NewJob {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let spec = ExportSpec {
        labels,
        ..spec("s")
    };
    of_spec("t", spec)
}

pub async fn the_list_is_newest_first_and_of_one_tenant(rig: &Rig) {
    let mut mine = Vec::new();
    for _ in 0..3 {
        mine.insert(0, rig.submit(new_job("t", "s")).await.id);
        rig.submit(new_job("u", "s")).await;
    }
    assert_eq!(ids(&list(rig, &everything_of("t")).await), mine);
    assert!(list(rig, &everything_of("nobody")).await.is_empty());
    let two = ListFilter {
        rows_max: 2,
        ..everything_of("t")
    };
    assert_eq!(ids(&list(rig, &two).await), mine[..2]);
}

pub async fn the_list_filters_by_state(rig: &Rig) {
    let done = rig.running().await;
    rig.settle_done(&done, succeeded()).await;
    let running = rig.running().await;
    let queued = rig.submit(new_job("t", "s")).await;
    let of = |states: &[State]| ListFilter {
        states: states.to_vec(),
        ..everything_of("t")
    };
    assert_eq!(ids(&list(rig, &of(&[State::Queued])).await), [queued.id]);
    let two = [State::Succeeded, State::Running];
    assert_eq!(ids(&list(rig, &of(&two)).await), [running.id, done.id]);
    assert!(list(rig, &of(&[State::Failed])).await.is_empty());
}

pub async fn the_list_filters_by_all_labels(rig: &Rig) {
    let both = rig
        .submit(labelled(&[("team", "ops"), ("odd \"key\"", "%_'")]))
        .await
        .id;
    let one = rig.submit(labelled(&[("team", "ops")])).await.id;
    rig.submit(labelled(&[("team", "sales")])).await;
    rig.submit(labelled(&[])).await;
    let of = |labels: &[(&str, &str)]| ListFilter {
        labels: labelled(labels).spec.labels,
        ..everything_of("t")
    };
    assert_eq!(ids(&list(rig, &of(&[("team", "ops")])).await), [one, both]);
    let odd = of(&[("team", "ops"), ("odd \"key\"", "%_'")]);
    assert_eq!(ids(&list(rig, &odd).await), [both]);
    assert!(list(rig, &of(&[("team", "op")])).await.is_empty());
    assert!(list(rig, &of(&[("ops", "team")])).await.is_empty());
}

pub async fn the_list_filters_by_time(rig: &Rig) {
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(rig.submit(new_job("t", "s")).await);
    }
    let after = ListFilter {
        created_after: Some(jobs[0].created_at),
        ..everything_of("t")
    };
    assert_eq!(ids(&list(rig, &after).await), [jobs[2].id, jobs[1].id]);
    let between = ListFilter {
        created_before: Some(jobs[2].created_at),
        ..after
    };
    assert_eq!(ids(&list(rig, &between).await), [jobs[1].id]);
}

pub async fn pages_are_complete_and_stable_under_inserts(rig: &Rig) {
    let mut expected: Vec<ExportId> = Vec::new();
    for _ in 0..10 {
        expected.insert(0, rig.submit(new_job("t", "s")).await.id);
    }
    // Equal times are told apart by the id.
    rig.execute("update jobs set created_at = (select min(created_at) from jobs)")
        .await;
    expected.sort_by(|a, b| b.cmp(a));
    let mut paged = Vec::new();
    let mut filter = ListFilter {
        rows_max: 3,
        ..everything_of("t")
    };
    loop {
        let page = list(rig, &filter).await;
        let Some(last) = page.last() else { break };
        filter.after = Some(ListCursor {
            created_at: last.created_at,
            id: last.id,
        });
        paged.extend(ids(&page));
        rig.submit(new_job("t", "s")).await;
    }
    assert_eq!(paged, expected);
}

pub async fn the_queue_position_counts_who_comes_first(rig: &Rig) {
    let first = rig.submit(with_priority(1)).await;
    let second = rig.submit(with_priority(1)).await;
    let urgent = rig.submit(with_priority(9)).await;
    let last = rig.submit(with_priority(0)).await;
    let elsewhere = ExportSpec {
        priority: 1,
        ..spec("another source")
    };
    let third = rig.submit(of_spec("t", elsewhere)).await;
    rig.submit(new_job("another tenant", "s")).await;
    let position = async |job: &Job| rig.store.queue_position(job.id).await.expect("reads");
    assert_eq!(position(&urgent).await, Some(0));
    assert_eq!(position(&first).await, Some(1));
    assert_eq!(position(&second).await, Some(2));
    assert_eq!(position(&third).await, Some(3));
    assert_eq!(position(&last).await, Some(4));
    rig.store.cancel(urgent.id).await.expect("cancels");
    assert_eq!(position(&first).await, Some(0));
}

pub async fn only_a_queued_job_has_a_position(rig: &Rig) {
    let job = rig.running().await;
    let position = |id| rig.store.queue_position(id);
    assert_eq!(position(job.id).await.expect("reads"), None);
    assert_eq!(position(ExportId::generate()).await.expect("reads"), None);
    rig.settle_done(&job, succeeded()).await;
    assert_eq!(position(job.id).await.expect("reads"), None);
}

pub async fn standings_tell_of_those_that_are_there(rig: &Rig) {
    let done = rig.running().await;
    rig.settle_done(&done, succeeded()).await;
    let running = rig.running().await;
    let queued = rig.submit(new_job("t", "s")).await;
    let unknown = ExportId::generate();
    let ids = [done.id, unknown, running.id, queued.id];
    let standings = rig.store.standings(&ids).await.expect("reads");
    let of = |id| {
        let standing: Option<&Standing> = standings.get(&id);
        standing.map(|s| (s.state, s.fence, s.result_expired))
    };
    assert_eq!(of(done.id), Some((State::Succeeded, done.fence, false)));
    assert_eq!(of(running.id), Some((State::Running, running.fence, false)));
    assert_eq!(of(queued.id), Some((State::Queued, queued.fence, false)));
    assert_eq!(of(unknown), None);
    assert!(rig.store.standings(&[]).await.expect("reads").is_empty());
}
