//! The queue between two stages: ordered, bounded in bytes and in batches, resizable while it is used.
//!
//! Producers number their items. Consumers get them in that order, whatever the order in which they were pushed:
//! this is how the order of rows survives parallel rendering. Both ends are threads, not tasks; waiting blocks them,
//! and blocked time is what tells the slowest stage.
//!
//! All queues share one budget. Whatever others take of it, an export goes on, one batch at a time ([`PastBudget`]):
//! read -> render lets an item in when nothing that came through it is alive; render -> write lets in the item that is
//! written next. So nobody waits for ever. Of the items that came through read -> render and are alive, the one with
//! the lowest number is either first in the queue, and then a renderer takes it, since renderers wait nowhere but in
//! render -> write; or a renderer has it, and then it is the next to be written (all before it are, or they would be
//! alive) and gets in. Either way it ends, until none is alive and the reader's next item gets in.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How soon whoever waits notices that bounds grew or that another queue gave memory back. Room in its own queue a
/// producer notices at once.
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

    /// What waits in all queues of this process or before them, or is being worked on.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn is_overdrawn(&self) -> bool {
        self.used_bytes() > self.budget_bytes.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    bytes: u64,
    bounds: Arc<Bounds>,
    /// Set once it was let in.
    alive: Option<Arc<Alive>>,
}

/// How many shares that were let in by one queue (or [`Account`]) are alive, and who waits for fewer.
#[derive(Debug, Default)]
struct Alive {
    shares: AtomicU64,
    fewer: Condvar,
}

impl Alive {
    fn is_none(&self) -> bool {
        self.shares.load(Ordering::Relaxed) == 0
    }
}

impl Share {
    /// For what exists already: it counts, whether there is room or not.
    fn of_existing(bounds: &Arc<Bounds>, bytes: u64) -> Self {
        bounds.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self {
            bytes,
            bounds: bounds.clone(),
            alive: None,
        }
    }

    /// For what is to be made, if there is room.
    fn of_planned(bounds: &Arc<Bounds>, bytes: u64) -> Option<Self> {
        let has_room = |used: u64| {
            let total = used.saturating_add(bytes);
            (total <= bounds.budget_bytes.load(Ordering::Relaxed)).then_some(total)
        };
        bounds
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room)
            .ok()?;
        Some(Self {
            bytes,
            bounds: bounds.clone(),
            alive: None,
        })
    }

    fn let_in(mut self, alive: &Arc<Alive>) -> Self {
        alive.shares.fetch_add(1, Ordering::Relaxed);
        self.alive = Some(alive.clone());
        self
    }

    /// What it stands for has become something else.
    pub fn resize(&mut self, bytes: u64) {
        let used = &self.bounds.used_bytes;
        used.fetch_add(bytes, Ordering::Relaxed);
        used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bounds
            .used_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(alive) = &self.alive {
            alive.shares.fetch_sub(1, Ordering::Relaxed);
            // Without the lock of the queue: who looked just before and is about to wait looks again soon.
            alive.fewer.notify_all();
        }
    }
}

/// Shares of the budget for what goes through no queue, one after the other.
#[derive(Debug)]
pub struct Account {
    bounds: Arc<Bounds>,
    alive: Arc<Alive>,
}

impl Account {
    pub fn new(bounds: Arc<Bounds>) -> Self {
        Self {
            bounds,
            alive: Arc::default(),
        }
    }

    /// Waits until the budget has room. When none of this account's shares is alive it has: one at a time goes on,
    /// whatever others take.
    pub async fn share(&self, bytes: u64) -> Share {
        loop {
            let share = match self.alive.is_none() {
                true => Some(Share::of_existing(&self.bounds, bytes)),
                false => Share::of_planned(&self.bounds, bytes),
            };
            if let Some(share) = share {
                return share.let_in(&self.alive);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// An item on its way, holding its share of the memory budget until it is dropped.
#[derive(Debug)]
pub struct Held<T> {
    pub value: T,
    /// The producer's number.
    pub sequence: u64,
    share: Share,
}

/// Which item a queue lets in although the budget is used up. See the module for why one must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PastBudget {
    /// One that would be the only one of this queue that waits or is worked on.
    Alone,
    /// The one that is popped next.
    Next,
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
    past_budget: PastBudget,
    state: Mutex<State<T>>,
    /// Something was pushed, finished or closed.
    filled: Condvar,
    /// Its condition hears when something was popped, dropped or closed.
    alive: Arc<Alive>,
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
    pub fn new(bounds: Arc<Bounds>, past_budget: PastBudget) -> Self {
        Self {
            bounds,
            past_budget,
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                next: 0,
                bytes: 0,
                end: End::Open,
            }),
            filled: Condvar::new(),
            alive: Arc::default(),
        }
    }

    /// Waits for room, in this queue and in the budget; the item counts from the call on, since it exists. The item that
    /// is popped next always finds room in the queue: with it outside, a full queue would never empty, and an item
    /// larger than the bounds would never pass. So a queue's bounds are exceeded by one item at most.
    ///
    /// # Errors
    /// [`Closed`] when the queue was closed; the item is dropped.
    pub fn push(&self, sequence: u64, value: T, bytes: u64) -> Result<(), Closed> {
        let share = Share::of_existing(&self.bounds, bytes);
        let mut state = self.lock();
        loop {
            if state.end == End::Closed {
                return Err(Closed);
            }
            if self.lets_in(&state, sequence, bytes) {
                break;
            }
            state = self
                .alive
                .fewer
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
                share: share.let_in(&self.alive),
            },
        );
        drop(state);
        self.filled.notify_all();
        Ok(())
    }

    fn lets_in(&self, state: &State<T>, sequence: u64, bytes: u64) -> bool {
        let is_next = sequence == state.next;
        let queue_bytes = self.bounds.queue_bytes.load(Ordering::Relaxed);
        let queue_batches = self.bounds.queue_batches.load(Ordering::Relaxed);
        let fits =
            state.bytes + bytes <= queue_bytes && (state.waiting.len() as u64) < queue_batches;
        let passes = match self.past_budget {
            PastBudget::Alone => self.alive.is_none(),
            PastBudget::Next => is_next,
        };
        (is_next || fits) && (passes || !self.bounds.is_overdrawn())
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
                state.bytes -= held.share.bytes;
                drop(state);
                self.alive.fewer.notify_all();
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
        self.alive.fewer.notify_all();
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
