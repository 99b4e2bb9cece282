//! Locks, plain and fair: one holder at a time, and what ends a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rowgate::lease::{Error, Length, LockStore, Locks, Mode, Order, Turn, Wait};

use super::rig::{
    LONG, PATIENT_LINE, Puppet, RENEWED, Rig, SHORT, Spy, held, lock_options, locks, patiently,
    soon, until,
};

const MODES: [Mode; 2] = [Mode::Plain, Mode::Fair];

pub async fn a_lock_is_had_by_one_at_a_time(rig: &Rig) {
    let here = locks(&rig.store, PATIENT_LINE);
    let there = locks(&rig.another().await, PATIENT_LINE);
    for mode in MODES {
        let guard = here.acquire("a", mode, RENEWED, Wait::No).await.unwrap();
        for other in MODES {
            for locks in [&here, &there] {
                let taken = locks.acquire("a", other, RENEWED, Wait::No).await;
                assert!(matches!(taken, Err(Error::Taken(name)) if name == "a"));
            }
        }
        let another = there.acquire("b", mode, RENEWED, Wait::No).await.unwrap();
        assert!(!guard.lost().is_cancelled());
        assert!(guard.release().await.unwrap());
        assert!(another.release().await.unwrap());
    }
}

pub async fn tasks_never_overlap_whatever_the_mode(rig: &Rig) {
    const TASKS: u32 = 12;
    const ROUNDS: u32 = 8;
    let other = rig.another().await;
    let inside = Arc::new(AtomicU32::new(0));
    let done = Arc::new(AtomicU32::new(0));
    let processes = [locks(&rig.store, PATIENT_LINE), locks(&other, PATIENT_LINE)];
    let tasks = (0..TASKS).map(|task| {
        let locks = processes[task as usize % 2].clone();
        let (inside, done) = (inside.clone(), done.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let mode = MODES[((task + round) / 2) as usize % 2];
                let guard = held(&locks, "shared", mode).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                // Both ways to give it back.
                if round % 2 == 0 {
                    assert!(guard.release().await.unwrap());
                }
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(done.load(Ordering::SeqCst), TASKS * ROUNDS);
}

pub async fn a_guard_that_is_dropped_frees_its_lock(rig: &Rig) {
    let locks = locks(&rig.store, PATIENT_LINE);
    for mode in MODES {
        drop(held(&locks, "a", mode).await);
        held(&locks, "a", mode).await.release().await.unwrap();
    }
    // The last words of a process that ends its locks properly are told, too.
    let guard = held(&locks, "a", Mode::Fair).await;
    drop(locks);
    drop(guard);
    let others = super::rig::locks(&rig.another().await, PATIENT_LINE);
    held(&others, "a", Mode::Plain).await;
}

pub async fn a_lock_of_unknown_length_outlives_its_ttl(rig: &Rig) {
    let ours = locks(&rig.store, PATIENT_LINE);
    let others = locks(&rig.another().await, PATIENT_LINE);
    let renewed = Length::Unknown { ttl: SHORT };
    let guard = soon(
        "the lock",
        ours.acquire("a", Mode::Fair, renewed, Wait::Unbounded),
    )
    .await
    .unwrap();
    let twice_the_ttl = Wait::AtMost(2 * SHORT);
    let waited = others
        .acquire("a", Mode::Plain, RENEWED, twice_the_ttl)
        .await;
    // A machine that stands still may lose it, but then everybody knows.
    if waited.is_ok() {
        assert!(guard.lost().is_cancelled());
    } else {
        assert!(matches!(waited, Err(Error::Taken(_))), "{waited:?}");
        assert!(guard.release().await.unwrap());
    }
}

pub async fn a_lock_of_known_length_ends_and_stops_its_task(rig: &Rig) {
    let ours = locks(&rig.store, PATIENT_LINE);
    let others = locks(&rig.another().await, PATIENT_LINE);
    for mode in MODES {
        let known = Length::Known { at_most: SHORT };
        let guard = soon("the lock", ours.acquire("a", mode, known, Wait::Unbounded))
            .await
            .unwrap();
        let next = tokio::spawn({
            let others = others.clone();
            async move { held(&others, "a", mode).await }
        });
        let endless = guard.run(std::future::pending::<()>());
        let ended = soon("the end of the task", endless).await;
        assert!(matches!(ended, Err(Error::Lost(_))), "{ended:?}");
        let next = next.await.unwrap();
        // What is over can't take the lock from who has it now.
        assert!(!guard.release().await.unwrap());
        assert!(next.release().await.unwrap());
        let in_time = held(&ours, "a", mode).await.run(async { 7 }).await;
        assert_eq!(in_time.unwrap(), 7);
    }
}

pub async fn a_stranger_neither_keeps_nor_gives_back(rig: &Rig) {
    let holder = Puppet::new(&rig.store, "a", PATIENT_LINE);
    let stranger = Puppet::new(&rig.another().await, "a", PATIENT_LINE);
    assert_eq!(holder.take(Order::Apart, LONG).await, Turn::Held);
    assert_eq!(stranger.take(Order::Apart, LONG).await, Turn::Taken);
    assert!(!stranger.keep().await);
    assert!(!stranger.give_back().await);
    assert!(holder.keep().await);
    assert!(holder.give_back().await);
    assert!(!holder.keep().await);
    assert!(!holder.give_back().await);
    assert_eq!(stranger.take(Order::Apart, LONG).await, Turn::Held);
}

pub async fn a_wait_ends_in_time_and_leaves_nothing_behind(rig: &Rig) {
    let locks = locks(&rig.store, PATIENT_LINE);
    let guard = held(&locks, "a", Mode::Plain).await;
    for mode in MODES {
        let wait = Wait::AtMost(Duration::from_millis(200));
        let waited = locks.acquire("a", mode, RENEWED, wait).await;
        assert!(matches!(waited, Err(Error::Taken(_))), "{waited:?}");
    }
    assert!(guard.release().await.unwrap());
    // The one that gave up stands in nobody's way.
    held(&locks, "a", Mode::Fair).await;
}

pub async fn an_answer_that_was_lost_is_recognised(rig: &Rig) {
    let puppet = Puppet::new(&rig.store, "a", PATIENT_LINE);
    for order in [Order::Apart, Order::InLine(None)] {
        for _ in 0..2 {
            assert_eq!(puppet.take(order, LONG).await, Turn::Held);
        }
        assert!(puppet.give_back().await);
    }
    let holder = Puppet::new(&rig.store, "a", PATIENT_LINE);
    assert_eq!(holder.take(Order::Apart, LONG).await, Turn::Held);
    let place = puppet.stand_in_line().await;
    assert_eq!(puppet.stand_in_line().await, place);
    holder.give_back().await;
    assert_eq!(puppet.take(Order::InLine(None), LONG).await, Turn::Held);
    // Dropping the future in the middle of a command leaves no lock behind, even if the command was carried out.
    assert!(puppet.give_back().await);
    let (spy, mut turns) = Spy::on(&rig.store);
    let spied = Locks::new(spy as Arc<dyn LockStore>, lock_options(PATIENT_LINE));
    for _ in 0..20 {
        let acquire = spied.acquire("a", Mode::Plain, RENEWED, Wait::Unbounded);
        tokio::select! {
            biased;
            _ = turns.recv() => {}
            guard = acquire => drop(guard),
        }
    }
    let last = Puppet::new(&rig.store, "a", PATIENT_LINE);
    until("the lock is free", async || {
        patiently(async || Ok(last.take(Order::Apart, LONG).await)).await == Turn::Held
    })
    .await;
}
