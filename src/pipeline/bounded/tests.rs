use std::{sync::mpsc, thread};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn queue(bytes: u64, batches: u64, budget: u64) -> (Arc<Bounds>, Arc<Bounded<u64>>) {
    let bounds = Arc::new(Bounds::new(bytes, batches, budget));
    let queue = Bounded::new(bounds.clone(), PastBudget::Alone);
    (bounds, Arc::new(queue))
}

#[test]
fn serves_in_order_whatever_the_order_of_pushes() {
    let (_, queue) = queue(1_000, 10, 1_000);
    for sequence in [2, 0, 1] {
        queue.push(sequence, sequence, 1).unwrap();
    }
    queue.finish();
    let order: Vec<u64> = std::iter::from_fn(|| queue.pop().map(|held| held.value)).collect();
    assert_eq!(order, [0, 1, 2]);
}

/// Pushes on another thread and returns a receiver that hears when the push came through.
fn push_elsewhere(
    queue: &Arc<Bounded<u64>>,
    sequence: u64,
    bytes: u64,
) -> mpsc::Receiver<Result<(), Closed>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let queue = queue.clone();
    thread::spawn(move || sender.send(queue.push(sequence, sequence, bytes)));
    receiver
}

fn is_waiting(receiver: &mpsc::Receiver<Result<(), Closed>>) -> bool {
    receiver.recv_timeout(LOOK_AGAIN * 5) == Err(mpsc::RecvTimeoutError::Timeout)
}

#[test]
fn bytes_hold_a_producer_until_a_pop() {
    let (_, queue) = queue(10, 100, 1_000);
    queue.push(0, 0, 8).unwrap();
    let second = push_elsewhere(&queue, 1, 8);
    assert!(is_waiting(&second));
    assert_eq!(queue.pop().unwrap().value, 0);
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Ok(())));
}

#[test]
fn batches_hold_a_producer_and_a_resize_lets_it_go() {
    let (bounds, queue) = queue(1_000, 1, 1_000);
    queue.push(0, 0, 1).unwrap();
    let second = push_elsewhere(&queue, 1, 1);
    assert!(is_waiting(&second));
    bounds.queue_batches.store(2, Ordering::Relaxed);
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Ok(())));
}

#[test]
fn the_budget_holds_for_all_queues_together() {
    let bounds = Arc::new(Bounds::new(1_000, 100, 10));
    let (one, other) = (
        Arc::new(Bounded::new(bounds.clone(), PastBudget::Alone)),
        Arc::new(Bounded::new(bounds.clone(), PastBudget::Alone)),
    );
    one.push(0, 0, 8).unwrap();
    other.push(0, 0, 1).unwrap();
    let second = push_elsewhere(&other, 1, 8);
    assert!(is_waiting(&second));
    let held = one.pop().unwrap();
    assert!(
        is_waiting(&second),
        "an item that is worked on still counts"
    );
    drop(held);
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Ok(())));
    assert_eq!(bounds.used_bytes(), 9);
    other.close();
    assert_eq!(bounds.used_bytes(), 0);
}

/// A budget that others have used up, and a queue.
fn exhausted(past_budget: PastBudget) -> (Share, Arc<Bounded<u64>>) {
    let bounds = Arc::new(Bounds::new(1_000, 100, 10));
    let others = Share::of_existing(&bounds, 11);
    (others, Arc::new(Bounded::new(bounds, past_budget)))
}

#[test]
fn with_the_budget_used_up_one_item_is_read_and_rendered_at_a_time() {
    let (others, queue) = exhausted(PastBudget::Alone);
    queue.push(0, 0, 5).unwrap();
    let rendering = queue.pop().unwrap();
    let second = push_elsewhere(&queue, 1, 5);
    assert!(is_waiting(&second), "nothing waits, but one is worked on");
    drop(rendering);
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Ok(())));
    let _rendering = queue.pop().unwrap();
    let third = push_elsewhere(&queue, 2, 5);
    assert!(is_waiting(&third));
    drop(others);
    assert_eq!(third.recv_timeout(PATIENCE), Ok(Ok(())));
}

#[test]
fn with_the_budget_used_up_the_item_that_is_written_next_passes() {
    let (_others, queue) = exhausted(PastBudget::Next);
    let later = push_elsewhere(&queue, 1, 5);
    assert!(is_waiting(&later));
    queue.push(0, 0, 5).unwrap();
    let _writing = queue.pop().unwrap();
    assert_eq!(later.recv_timeout(PATIENCE), Ok(Ok(())));
}

#[test]
fn what_waits_before_a_queue_counts() {
    let (bounds, queue) = queue(10, 1, 1_000);
    queue.push(0, 0, 8).unwrap();
    let second = push_elsewhere(&queue, 1, 9);
    while bounds.used_bytes() != 17 {
        thread::yield_now();
    }
    queue.close();
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Err(Closed)));
    assert_eq!(bounds.used_bytes(), 0);
}

#[tokio::test]
async fn with_the_budget_used_up_an_account_has_one_share_at_a_time() {
    let bounds = Arc::new(Bounds::new(0, 0, 10));
    let others = Share::of_existing(&bounds, 8);
    let account = Account::new(bounds.clone());
    let mut first = account.share(50).await;
    assert_eq!(bounds.used_bytes(), 58);
    first.resize(70);
    assert_eq!(bounds.used_bytes(), 78);
    let early = tokio::time::timeout(LOOK_AGAIN * 5, account.share(2)).await;
    assert!(early.is_err());
    drop(first);
    let first = account.share(2).await;
    let early = tokio::time::timeout(LOOK_AGAIN * 5, account.share(2)).await;
    assert!(early.is_err());
    drop(others);
    let _second = account.share(2).await;
    drop(first);
    assert_eq!(bounds.used_bytes(), 2);
}

#[test]
fn an_item_larger_than_every_bound_passes_alone() {
    let (_, queue) = queue(10, 1, 10);
    queue.push(0, 0, 1_000).unwrap();
    assert_eq!(queue.pop().unwrap().value, 0);
}

#[test]
fn the_next_in_order_passes_a_full_queue() {
    let (_, queue) = queue(10, 2, 1_000);
    queue.push(1, 1, 5).unwrap();
    queue.push(2, 2, 5).unwrap();
    queue.push(0, 0, 5).unwrap();
    assert_eq!(queue.pop().unwrap().value, 0);
}

#[test]
fn closing_frees_both_ends() {
    let (_, queue) = queue(10, 1, 1_000);
    queue.push(0, 0, 5).unwrap();
    let second = push_elsewhere(&queue, 1, 8);
    assert!(is_waiting(&second));
    queue.close();
    assert_eq!(second.recv_timeout(PATIENCE), Ok(Err(Closed)));
    assert!(queue.pop().is_none());
}
