//! `SetLimits` while exports run and across restarts, and `ListWorkers`.

use std::{collections::BTreeMap, time::Duration};

use rowgate::rpc::pb::{self, State, stream_rows_response::Event};
use tonic::Code;

use super::rig::{
    self, PATIENCE, Source, as_csv, gated, live, queue, refused, service, status, stream, stuck,
    until,
};
use crate::support::{rowgate::Rowgate, temp_dir, wait_until};

async fn set(rowgate: &Rowgate, limits: pb::Limits, reset: &[&str]) -> pb::Limits {
    let request = pb::SetLimitsRequest {
        limits: Some(limits),
        reset: reset.iter().map(|name| (*name).to_owned()).collect(),
    };
    let response = rowgate.admin.clone().set_limits(request).await.unwrap();
    response.into_inner().limits.unwrap()
}

async fn limits(rowgate: &Rowgate) -> pb::Limits {
    let response = rowgate
        .admin
        .clone()
        .get_limits(pb::GetLimitsRequest {})
        .await
        .unwrap();
    response.into_inner().limits.unwrap()
}

/// For what must not happen: the worker has looked for work more than once.
async fn a_few_polls() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_resized_under_a_running_export() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = service(&source).await;
    let id = queue(&rowgate.exports, as_csv(gated(2_000, 1_000))).await;
    let until_capacity = async |bytes: i64| {
        wait_until(PATIENCE, &format!("queues of {bytes} bytes"), || async {
            let stages = status(&rowgate.exports, &id).await.progress?.stages;
            let is_resized = stages.len() == 3
                && stages[1..]
                    .iter()
                    .all(|stage| stage.capacity_bytes == bytes);
            is_resized.then_some(())
        })
        .await;
    };
    until_capacity(16 << 20).await;
    let smaller = pb::Limits {
        queue_bytes: Some(1 << 20),
        queue_batches: Some(1),
        ..Default::default()
    };
    set(&rowgate, smaller, &[]).await;
    until_capacity(1 << 20).await;
    let kept = set(&rowgate, pb::Limits::default(), &["queue_bytes"]).await;
    assert_eq!(
        (kept.queue_bytes, kept.queue_batches),
        (Some(16 << 20), Some(1))
    );
    until_capacity(16 << 20).await;
    gate.open().await;
    let done = until(&rowgate.exports, &id, State::Succeeded).await;
    assert_eq!(done.result.unwrap().rows, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_become_smaller_under_a_running_stream() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = service(&source).await;
    let mut rows = stream(&rowgate.exports, live(gated(2_000, 1_000)))
        .await
        .unwrap();
    let mut sizes = Vec::new();
    while sizes.is_empty() {
        if let Some(Event::Batch(batch)) = rows.message().await.unwrap().unwrap().event {
            sizes.push(batch.row_count);
        }
    }
    assert!(sizes[0] > 7, "{sizes:?}");
    let smaller = pb::Limits {
        batch_rows: Some(7),
        ..Default::default()
    };
    set(&rowgate, smaller, &[]).await;
    gate.open().await;
    let (events, end) = rig::events(&mut rows).await;
    end.unwrap();
    sizes.extend(events.iter().filter_map(|event| match event {
        Event::Batch(batch) => Some(batch.row_count),
        _ => None,
    }));
    assert_eq!(sizes.iter().sum::<i32>(), 2_000);
    // The batch that was being filled keeps its size; those behind it have the new one. A source that stands still for
    // a second makes one end early.
    let behind = &sizes[sizes.len() - 50..];
    assert!(behind.iter().all(|rows| *rows <= 7), "{sizes:?}");
    assert!(behind.contains(&7), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_slots_let_waiting_exports_start() {
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let toml = source.toml_with("worker_slots = 1\ninline_slots = 0\ntenant_slots = 2");
    let rowgate = Rowgate::start(&toml).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(queue(&rowgate.exports, as_csv(gated(10, 5))).await);
    }
    look.until_queries(1).await;
    let more = pb::Limits {
        worker_slots: Some(4),
        ..Default::default()
    };
    set(&rowgate, more, &[]).await;
    look.until_queries(2).await;
    let more = pb::Limits {
        tenant_slots: BTreeMap::from([("default".to_owned(), 3)]),
        ..Default::default()
    };
    set(&rowgate, more, &[]).await;
    look.until_queries(3).await;
    a_few_polls().await;
    let states = status(&rowgate.exports, &ids[3]).await;
    assert_eq!(states.state(), State::Queued, "the tenant's cap holds");
    gate.open().await;
    for id in &ids {
        until(&rowgate.exports, id, State::Succeeded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_slots_of_a_source_let_waiting_exports_start_and_fewer_stop_none() {
    let source = Source::create().await;
    let (gate, look) = (source.close_gate().await, source.look().await);
    let rowgate = service(&source).await;
    let of_shop = |slots| pb::Limits {
        source_slots: BTreeMap::from([("shop".to_owned(), slots)]),
        ..Default::default()
    };
    set(&rowgate, of_shop(1), &[]).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(queue(&rowgate.exports, as_csv(gated(10, 5))).await);
    }
    look.until_queries(1).await;
    set(&rowgate, of_shop(3), &[]).await;
    let running = look.until_queries(3).await;
    set(&rowgate, of_shop(1), &[]).await;
    a_few_polls().await;
    assert_eq!(look.until_queries(3).await, running, "none was stopped");
    let last = status(&rowgate.exports, &ids[3]).await;
    assert_eq!(last.state(), State::Queued, "the source's cap holds");
    gate.open().await;
    for id in &ids {
        let done = until(&rowgate.exports, id, State::Succeeded).await;
        assert_eq!(done.attempt, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_slots_for_streams_let_the_next_one_in_and_fewer_stop_none() {
    let source = Source::create().await;
    let gate = source.close_gate().await;
    let rowgate = Rowgate::start(&source.toml_with("stream_slots = 1")).await;
    let slots = |slots| pb::Limits {
        stream_slots: Some(slots),
        ..Default::default()
    };
    let asked = async || stream(&rowgate.exports, live(gated(10, 1))).await;
    let full = |outcome| refused(outcome, Code::ResourceExhausted, "STREAM_LIMIT");
    let mut first = asked().await.unwrap();
    full(asked().await);
    set(&rowgate, slots(2), &[]).await;
    let mut second = asked().await.unwrap();
    full(asked().await);
    set(&rowgate, slots(0), &[]).await;
    full(asked().await);
    gate.open().await;
    for rows in [&mut first, &mut second] {
        let (events, end) = rig::events(rows).await;
        end.unwrap();
        let Some(Event::Footer(footer)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(footer.rows, 10);
    }
    full(asked().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_memory_budget_lets_a_running_stream_read_further_ahead() {
    let source = Source::create().await;
    // Queues that the budget bounds, and nothing else.
    let toml = source
        .toml_with("queue_bytes = \"64MiB\"\nqueue_batches = 10000\nmemory_budget = \"64MiB\"");
    let rowgate = Rowgate::start(&toml).await;
    let budget = |bytes| pb::Limits {
        memory_budget_bytes: Some(bytes),
        ..Default::default()
    };
    set(&rowgate, budget(16 << 20), &[]).await;
    let _rows = stuck(&rowgate.exports, live(gated(300_000, 300_001))).await;
    let id = rig::list(&rowgate.exports).await.remove(0).id;
    let until_read = async |rows: i64| {
        wait_until(PATIENCE, &format!("{rows} rows are read"), || async {
            (rig::rows_read(&rowgate.exports, &id).await >= rows).then_some(())
        })
        .await;
    };
    // Rows of 1 kB, once as they were read or once as they are sent: a budget of 16 MiB holds 8,000 of them or more.
    until_read(5_000).await;
    let ahead = rig::until_it_stands(&rowgate.exports, &id).await;
    assert!(ahead < 25_000, "{ahead} rows are in 16 MiB");
    set(&rowgate, budget(64 << 20), &[]).await;
    until_read(ahead + 10_000).await;
    rig::cancel(&rowgate.exports, &id).await.unwrap();
    until(&rowgate.exports, &id, State::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_merge_are_reset_and_outlive_a_restart() {
    let (folder, source) = (temp_dir(), Source::create().await);
    let first = Rowgate::start_in(folder.path().to_owned(), &source.toml()).await;
    let before = limits(&first).await;
    assert_eq!(before.tenant_slots["*"], 8);
    assert_eq!(before.automatic, Some(false));
    let tenant = |name: &str, slots| pb::Limits {
        tenant_slots: BTreeMap::from([(name.to_owned(), slots)]),
        worker_slots: Some(7),
        ..Default::default()
    };
    set(&first, tenant("a", 3), &[]).await;
    let merged = set(&first, tenant("b", 5), &[]).await;
    assert_eq!(
        (
            merged.tenant_slots["a"],
            merged.tenant_slots["b"],
            merged.tenant_slots["*"]
        ),
        (3, 5, 8)
    );
    let reset = set(&first, pb::Limits::default(), &["tenant_slots.a"]).await;
    assert!(!reset.tenant_slots.contains_key("a"));
    assert_eq!(reset.batch_rows, before.batch_rows);
    first.stop().await.unwrap();

    let second = Rowgate::start_in(folder.path().to_owned(), &source.toml()).await;
    assert_eq!(limits(&second).await, reset);
    let all = set(
        &second,
        pb::Limits::default(),
        &["tenant_slots", "worker_slots"],
    )
    .await;
    assert_eq!(all, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_is_listed_with_its_slots() {
    let source = Source::create().await;
    let rowgate = service(&source).await;
    let worker = wait_until(PATIENCE, "the worker's row", || async {
        let request = pb::ListWorkersRequest {};
        let response = rowgate.admin.clone().list_workers(request).await.unwrap();
        let mut workers = response.into_inner().workers;
        assert!(workers.len() <= 1, "{workers:?}");
        workers.pop()
    })
    .await;
    assert_eq!((worker.running, worker.slots), (0, 4));
    assert_eq!(worker.version, env!("CARGO_PKG_VERSION"));
    assert!(!worker.host.is_empty() && worker.start_time.is_some());
}
