//! The line before a fair lock: who gets it next, and what becomes of those who die, give up, or fall asleep.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rowgate::lease::{LineOptions, LockStore, Locks, Mode, Order, Turn, Wait};
use tokio::sync::mpsc;

use super::rig::{
    LONG, PATIENT_LINE, Puppet, RENEWED, Rig, Spy, held, lock_options, locks, next_in_line, soon,
    until,
};

/// As a service has it.
fn line() -> LineOptions {
    LineOptions::default()
}

/// I9.
pub async fn first_come_first_served(rig: &Rig) {
    const WAITERS: usize = 24;
    let other = rig.another().await;
    let (here, mut turns_here) = Spy::on(&rig.store);
    let (there, mut turns_there) = Spy::on(&other);
    let options = lock_options(PATIENT_LINE);
    let here = Locks::new(here as Arc<dyn LockStore>, options);
    let there = Locks::new(there as Arc<dyn LockStore>, options);
    let first = held(&here, "a", Mode::Fair).await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..WAITERS {
        let (locks, turns) = match number % 3 {
            0 => (&here, &mut turns_here),
            _ => (&there, &mut turns_there),
        };
        let (locks, served) = (locks.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            let guard = held(&locks, "a", Mode::Fair).await;
            served.lock().unwrap().push(number);
            guard.release().await.unwrap();
        }));
        next_in_line(turns).await;
    }
    first.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<usize> = (0..WAITERS).collect();
    assert_eq!(*served.lock().unwrap(), expected);
}

pub async fn nobody_passes_the_line(rig: &Rig) {
    let [holder, waiter, plain] =
        std::array::from_fn(|_| Puppet::new(&rig.store, "a", PATIENT_LINE));
    assert_eq!(holder.take(Order::Apart, LONG).await, Turn::Held);
    waiter.stand_in_line().await;
    assert!(holder.give_back().await);
    // It was handed over; only the one in line can have it.
    assert_eq!(plain.take(Order::Apart, LONG).await, Turn::Taken);
    assert_eq!(waiter.take(Order::InLine(None), LONG).await, Turn::Held);
    assert!(waiter.give_back().await);
    assert_eq!(plain.take(Order::Apart, LONG).await, Turn::Held);
}

/// I9 again, with those who were served coming back at once.
pub async fn contenders_that_never_stop_are_served_in_the_order_of_their_places(rig: &Rig) {
    const CONTENDERS: usize = 8;
    const WINS: u32 = 30;
    let other = rig.another().await;
    let (tell, mut turns) = mpsc::channel(100_000);
    let processes = [&rig.store, &other].map(|store| {
        let spy = Spy::telling(store, tell.clone());
        Locks::new(spy as Arc<dyn LockStore>, lock_options(PATIENT_LINE))
    });
    let tasks = (0..CONTENDERS).map(|contender| {
        let locks = processes[contender % 2].clone();
        tokio::spawn(async move {
            for _ in 0..WINS {
                let guard = held(&locks, "a", Mode::Fair).await;
                guard.release().await.unwrap();
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    // A turn is told before its guard goes, so they are told in the order in which they came.
    let (mut places, mut served) = (HashMap::new(), Vec::new());
    while let Ok((token, turn)) = turns.try_recv() {
        match turn {
            Turn::Waits(place) => drop(places.insert(token, place)),
            Turn::Held => served.push(token),
            Turn::Taken => panic!("they stand in line"),
        }
    }
    assert_eq!(served.len(), CONTENDERS * WINS as usize);
    let served: Vec<_> = served
        .iter()
        .filter_map(|token| places.get(token))
        .collect();
    assert!(served.len() > CONTENDERS, "most had to wait");
    assert!(served.is_sorted(), "{served:?}");
}

pub async fn a_dead_waiter_is_skipped(rig: &Rig) {
    let locks = locks(&rig.store, line());
    let guard = held(&locks, "a", Mode::Plain).await;
    let dead = Puppet::new(&rig.another().await, "a", line());
    dead.stand_in_line().await;
    let (next, mut turns) = waiter(rig, line());
    next_in_line(&mut turns).await;
    tokio::time::sleep(line().dead_after).await;
    guard.release().await.unwrap();
    next.guard().await.release().await.unwrap();
}

pub async fn a_dead_waiter_that_was_handed_the_lock_is_skipped(rig: &Rig) {
    let holder = Puppet::new(&rig.store, "a", line());
    assert_eq!(holder.take(Order::Apart, LONG).await, Turn::Held);
    let dead = Puppet::new(&rig.another().await, "a", line());
    dead.stand_in_line().await;
    let (next, mut turns) = waiter(rig, line());
    next_in_line(&mut turns).await;
    // Its last sign of life counts still, as far as a slow machine allows.
    dead.tick().await;
    assert!(holder.give_back().await);
    next.guard().await.release().await.unwrap();
}

pub async fn a_waiter_that_was_forgotten_stands_where_it_stood(rig: &Rig) {
    let short = LineOptions {
        dead_after: Duration::from_millis(50),
        forget_after: Duration::from_millis(100),
        ..PATIENT_LINE
    };
    let holder = Puppet::new(&rig.store, "a", short);
    assert_eq!(holder.take(Order::Apart, LONG).await, Turn::Held);
    let [first, second] = std::array::from_fn(|_| Puppet::new(&rig.store, "a", short));
    let place = first.stand_in_line().await;
    tokio::time::sleep(3 * short.forget_after).await;
    // Whoever looks along the line finds it gone.
    let probe = Puppet::new(&rig.store, "b", short);
    probe.tick().await;
    let later = second.stand_in_line().await;
    assert!(later > place, "{later:?} after {place:?}");
    assert!(first.tick().await.was_forgotten);
    first.rejoin(place).await;
    first.rejoin(place).await;
    // Both live for long again, and the first is served first.
    let [first, second] = [&first, &second].map(|puppet| puppet.patient(PATIENT_LINE));
    first.tick().await;
    second.tick().await;
    assert!(holder.patient(PATIENT_LINE).give_back().await);
    let waits = second.take(Order::InLine(None), LONG).await;
    assert_eq!(waits, Turn::Waits(later));
    assert_eq!(first.take(Order::InLine(None), LONG).await, Turn::Held);
    assert!(first.give_back().await);
    assert_eq!(second.take(Order::InLine(None), LONG).await, Turn::Held);
}

pub async fn a_waiter_that_gives_up_leaves_the_line(rig: &Rig) {
    let locks = locks(&rig.store, PATIENT_LINE);
    let guard = held(&locks, "a", Mode::Fair).await;
    let (gone, mut turns) = waiter(rig, PATIENT_LINE);
    next_in_line(&mut turns).await;
    gone.task.abort();
    let _ = gone.task.await;
    guard.release().await.unwrap();
    held(&locks, "a", Mode::Fair).await;
}

pub async fn a_waiter_that_nobody_polls_does_not_hold_up_the_others(rig: &Rig) {
    let locks = locks(&rig.store, line());
    let guard = held(&locks, "a", Mode::Fair).await;
    let (spy, mut turns) = Spy::on(&rig.another().await);
    let others = Locks::new(spy as Arc<dyn LockStore>, lock_options(line()));
    let mut asleep = Box::pin(others.acquire("a", Mode::Fair, RENEWED, Wait::Unbounded));
    tokio::select! {
        biased;
        _ = next_in_line(&mut turns) => {}
        _ = &mut asleep => panic!("somebody holds it"),
    }
    let awake = tokio::spawn({
        let others = others.clone();
        async move { held(&others, "a", Mode::Fair).await }
    });
    next_in_line(&mut turns).await;
    guard.release().await.unwrap();
    let next = soon("the one behind", awake).await.unwrap();
    assert!(next.release().await.unwrap());
    let at_last = soon("the one that slept", asleep).await.unwrap();
    assert!(at_last.release().await.unwrap());
}

pub async fn the_lock_of_a_dead_holder_goes_to_the_first_in_line(rig: &Rig) {
    let dead = Puppet::new(&rig.another().await, "a", PATIENT_LINE);
    assert_eq!(
        dead.take(Order::Apart, Duration::from_secs(1)).await,
        Turn::Held
    );
    let (next, _turns) = waiter(rig, PATIENT_LINE);
    next.guard().await.release().await.unwrap();
}

pub async fn many_waiters_cost_no_more_than_their_places(rig: &Rig) {
    const WAITERS: usize = 500;
    let (spy, mut turns) = Spy::on(&rig.store);
    let many = Locks::new(spy as Arc<dyn LockStore>, lock_options(PATIENT_LINE));
    let guard = held(&many, "a", Mode::Fair).await;
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| {
            let many = many.clone();
            tokio::spawn(async move {
                let guard = held(&many, "a", Mode::Fair).await;
                guard.release().await.unwrap()
            })
        })
        .collect();
    for _ in 0..WAITERS {
        next_in_line(&mut turns).await;
    }
    guard.release().await.unwrap();
    for waiter in waiters {
        assert!(soon("each has its turn", waiter).await.unwrap());
    }
    // Each asked once to stand in line, and once when it was woken.
    let mut asked = 0;
    until("all tries are counted", async || {
        while turns.try_recv().is_ok() {
            asked += 1;
        }
        asked >= WAITERS
    })
    .await;
    assert!(
        asked <= WAITERS + WAITERS / 10,
        "{asked} tries for {WAITERS}"
    );
}

/// A process of its own that waits for the lock `a`.
struct Waiting {
    task: tokio::task::JoinHandle<rowgate::lease::Guard>,
}

impl Waiting {
    async fn guard(self) -> rowgate::lease::Guard {
        soon("the next in line has the lock", self.task)
            .await
            .unwrap()
    }
}

type Turns = tokio::sync::mpsc::Receiver<(rowgate::lease::Token, Turn)>;

fn waiter(rig: &Rig, line: LineOptions) -> (Waiting, Turns) {
    let (spy, turns) = Spy::on(&rig.store);
    let locks = Locks::new(spy as Arc<dyn LockStore>, lock_options(line));
    let task = tokio::spawn(async move { held(&locks, "a", Mode::Fair).await });
    (Waiting { task }, turns)
}
