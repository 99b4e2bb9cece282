//! The queue between two stages: ordered, bounded in bytes and in batches, resizable while it is used.
//!
//! Producers number their items. Consumers get them in that order, whatever the order in which they were pushed:
//! this is how the order of rows survives parallel rendering. Both ends are threads, not tasks; waiting blocks them,
//! and blocked time is what tells the slowest stage.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How soon a waiting producer notices that bounds grew or that another queue gave memory back. Room in its own queue
/// it notices at once.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Bounds of every queue of this process; `SetLimits` changes them while exports run.
#[derive(Debug)]
pub struct Bounds {
    pub queue_bytes: AtomicU64,
    pub queue_batches: AtomicU64,
    budget_bytes: AtomicU64,
    used_bytes: AtomicU64,
}

impl Bounds {
    pub fn new(queue_bytes: u64, queue_batches: u64, budget_bytes: u64) -> Self {
        Self {
            queue_bytes: AtomicU64::new(queue_bytes),
            queue_batches: AtomicU64::new(queue_batches),
            budget_bytes: AtomicU64::new(budget_bytes),
            used_bytes: AtomicU64::new(0),
        }
    }

    pub fn set_budget_bytes(&self, bytes: u64) {
        self.budget_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What waits in all queues of this process, or is being worked on.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let total = used.saturating_add(bytes);
                (total <= self.budget_bytes.load(Ordering::Relaxed)).then_some(total)
            })
            .is_ok()
    }

    fn reserve_anyway(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An item on its way, holding its share of the memory budget until it is dropped.
#[derive(Debug)]
pub struct Held<T> {
    pub value: T,
    /// The producer's number.
    pub sequence: u64,
    _share: Share,
}

#[derive(Debug)]
struct Share {
    bytes: u64,
    bounds: Arc<Bounds>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bounds
            .used_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The queue was closed: the export stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

/// What waits in a queue now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Level {
    pub batches: u64,
    pub bytes: u64,
    pub capacity_bytes: u64,
}

#[derive(Debug)]
pub struct Bounded<T> {
    bounds: Arc<Bounds>,
    state: Mutex<State<T>>,
    /// Something was pushed, finished or closed.
    filled: Condvar,
    /// Something was popped, or closed.
    emptied: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: BTreeMap<u64, Held<T>>,
    /// Number of the item that is popped next.
    next: u64,
    bytes: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Open,
    /// No more pushes; what waits is still served.
    Finished,
    /// Both ends stop at once.
    Closed,
}

impl<T> Bounded<T> {
    pub fn new(bounds: Arc<Bounds>) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                next: 0,
                bytes: 0,
                end: End::Open,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Waits for room. The item that is popped next is always let in: with it outside, a full queue would never empty,
    /// and an item larger than the bounds would never pass. So the bounds are exceeded by one item at most.
    ///
    /// # Errors
    /// [`Closed`] when the queue was closed; the item is dropped.
    pub fn push(&self, sequence: u64, value: T, bytes: u64) -> Result<(), Closed> {
        let mut state = self.lock();
        loop {
            if state.end == End::Closed {
                return Err(Closed);
            }
            if sequence == state.next && state.waiting.is_empty() {
                self.bounds.reserve_anyway(bytes);
                break;
            }
            // A later item leaves one place free, so that the next one in order finds room.
            let is_room = state.bytes + bytes <= self.bounds.queue_bytes.load(Ordering::Relaxed)
                && (state.waiting.len() as u64) < self.bounds.queue_batches.load(Ordering::Relaxed);
            if is_room && self.bounds.try_reserve(bytes) {
                break;
            }
            if sequence == state.next {
                self.bounds.reserve_anyway(bytes);
                break;
            }
            state = self
                .emptied
                .wait_timeout(state, LOOK_AGAIN)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.bytes += bytes;
        state.waiting.insert(
            sequence,
            Held {
                value,
                sequence,
                _share: Share {
                    bytes,
                    bounds: self.bounds.clone(),
                },
            },
        );
        drop(state);
        self.filled.notify_all();
        Ok(())
    }

    /// The next item in order; `None` when the queue was finished and is empty, or was closed.
    pub fn pop(&self) -> Option<Held<T>> {
        let mut state = self.lock();
        loop {
            if state.end == End::Closed {
                return None;
            }
            let next = state.next;
            if let Some(held) = state.waiting.remove(&next) {
                state.next += 1;
                state.bytes -= held._share.bytes;
                drop(state);
                self.emptied.notify_all();
                return Some(held);
            }
            if state.end == End::Finished {
                return None;
            }
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn finish(&self) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = End::Finished;
        }
        drop(state);
        self.filled.notify_all();
    }

    /// Stops both ends and lets go of what waits.
    pub fn close(&self) {
        let mut state = self.lock();
        state.end = End::Closed;
        let waiting = std::mem::take(&mut state.waiting);
        state.bytes = 0;
        drop(state);
        drop(waiting);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    pub fn level(&self) -> Level {
        let state = self.lock();
        Level {
            batches: state.waiting.len() as u64,
            bytes: state.bytes,
            capacity_bytes: self.bounds.queue_bytes.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic of another stage must not hide the first failure: the state is consistent after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn queue(bytes: u64, batches: u64, budget: u64) -> (Arc<Bounds>, Arc<Bounded<u64>>) {
        let bounds = Arc::new(Bounds::new(bytes, batches, budget));
        (bounds.clone(), Arc::new(Bounded::new(bounds)))
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
            Arc::new(Bounded::new(bounds.clone())),
            Arc::new(Bounded::new(bounds.clone())),
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
}
