//! Looks after the locks of one process: who waits, what is held, what has to be given back.
//!
//! Two tasks for all of them. One talks to the store: renewals in batches, a tick while somebody waits, and what was
//! dropped is given back. The other never waits for the store: it passes wakes on, and at its deadline tells a guard
//! that it is lost, however long the store takes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use rand::RngExt;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use super::{
    BATCH_JOBS,
    lock::{Length, LockOptions, LockStore, Place, Token, Wake},
};

/// Lines that one tick looks at.
const TICK_LINES: usize = 100;
const ASK_AT_ONCE: usize = 256;
/// Locks that are given back at once, each with a command of its own.
const GIVE_BACK_AT_ONCE: usize = 32;
/// Places are written anew this often, in case the store lost some without losing all.
const REJOIN_EVERY: Duration = Duration::from_secs(5);
/// Without anything to do, a task looks again after this.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Keeper {
    pub store: Arc<dyn LockStore>,
    pub options: LockOptions,
    member: String,
    numbers: AtomicU64,
    book: Mutex<Book>,
    /// Asks for locks that are under way: more would only wait within their time-outs.
    pub asking: Semaphore,
    /// There is something for the task that talks to the store.
    work: Notify,
    /// A deadline is earlier than the other task expects.
    sooner: Notify,
}

#[derive(Default)]
struct Book {
    waiters: HashMap<Token, Waiter>,
    /// How many wait for each lock.
    lines: HashMap<Arc<str>, usize>,
    held: HashMap<Token, Held>,
    /// Bounded by the guards and waiters that were dropped since the task last looked.
    give_back: Vec<(Arc<str>, Token)>,
    renew_at: Option<Instant>,
    watch_at: Option<Instant>,
}

struct Waiter {
    name: Arc<str>,
    place: Option<Place>,
    wake: Arc<Notify>,
    /// When it was first told that it is its turn.
    woken_at: Option<Instant>,
    /// It did not react: nobody polls it. It lost its turn, and has it again when it reacts.
    is_asleep: bool,
}

struct Held {
    name: Arc<str>,
    ttl: Duration,
    trusted: Duration,
    deadline: Instant,
    /// `None`: never.
    renew_at: Option<Instant>,
    lost: CancellationToken,
}

impl Keeper {
    pub fn new(store: Arc<dyn LockStore>, options: LockOptions) -> Self {
        Self {
            member: store.member(),
            store,
            options,
            numbers: AtomicU64::new(0),
            book: Mutex::default(),
            asking: Semaphore::new(ASK_AT_ONCE),
            work: Notify::new(),
            sooner: Notify::new(),
        }
    }

    pub fn token(&self) -> Token {
        Token::new(&self.member, self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// The token holds the lock; the returned token fires when it is lost.
    pub fn hold(
        &self,
        name: &Arc<str>,
        token: &Token,
        length: Length,
        deadline: Instant,
    ) -> CancellationToken {
        let lost = CancellationToken::new();
        let renew_at = match length {
            Length::Unknown { ttl } => Some(Instant::now() + renewal_pause(ttl)),
            Length::Known { .. } => None,
        };
        let held = Held {
            name: name.clone(),
            ttl: length.ttl(),
            trusted: length.trusted(),
            deadline,
            renew_at,
            lost: lost.clone(),
        };
        let mut book = self.book();
        book.stand_up(token);
        book.held.insert(token.clone(), held);
        if is_sooner(renew_at, &mut book.renew_at) {
            self.work.notify_one();
        }
        if is_sooner(Some(deadline), &mut book.watch_at) {
            self.sooner.notify_one();
        }
        lost
    }

    /// Its guard is gone, or gives the lock back itself.
    pub fn let_go(&self, token: &Token) {
        self.book().held.remove(token);
    }

    pub fn give_back_later(&self, name: &Arc<str>, token: &Token) {
        self.book().give_back.push((name.clone(), token.clone()));
        self.work.notify_one();
    }

    /// Tells losses and passes wakes on, until `stop`.
    pub async fn watch(
        self: Arc<Self>,
        mut wakes: broadcast::Receiver<Wake>,
        stop: CancellationToken,
    ) {
        let mut look_at = self.tell_losses();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(look_at.into()) => look_at = self.tell_losses(),
                () = self.sooner.notified() => look_at = self.tell_losses(),
                wake = wakes.recv() => match wake {
                    Ok(wake) => self.woken(&wake.name, &wake.token),
                    // The next tick finds what was missed.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    }

    /// Fires what is overdue; returns when to look again.
    fn tell_losses(&self) -> Instant {
        let now = Instant::now();
        let mut book = self.book();
        book.held.retain(|_, held| {
            let is_over = held.deadline <= now;
            if is_over {
                if held.renew_at.is_some() {
                    tracing::warn!(lock = %held.name, "the lock was not renewed in time; it is lost");
                }
                held.lost.cancel();
            }
            !is_over
        });
        book.watch_at = book.held.values().map(|held| held.deadline).min();
        book.watch_at.unwrap_or(now + IDLE)
    }

    /// The store says that it is the token's turn.
    fn woken(&self, name: &Arc<str>, token: &Token) {
        if token.member() != self.member {
            return;
        }
        let asleep_after = self.options.line.dead_after * 2;
        let mut book = self.book();
        let is_declined = match book.waiters.get_mut(token) {
            Some(waiter) => {
                waiter.wake.notify_one();
                let woken_at = *waiter.woken_at.get_or_insert_with(Instant::now);
                waiter.is_asleep = woken_at.elapsed() > asleep_after;
                waiter.is_asleep
            }
            // Nobody waits any more.
            None => !book.held.contains_key(token),
        };
        if is_declined {
            book.give_back.push((name.clone(), token.clone()));
            self.work.notify_one();
        }
    }

    /// Talks to the store until `stop`; what was given back before that is still told.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut tick_at = Instant::now();
        let mut rejoin_at = tick_at + REJOIN_EVERY;
        loop {
            self.give_back().await;
            self.renew_due().await;
            let now = Instant::now();
            let lines = self.lines();
            if !lines.is_empty() && tick_at <= now {
                let was_forgotten = self.tick(&lines).await;
                if was_forgotten || rejoin_at <= now {
                    self.rejoin().await;
                    rejoin_at = Instant::now() + REJOIN_EVERY;
                }
                tick_at = Instant::now() + self.options.line.tick_every;
            }
            let until_tick = (!lines.is_empty()).then_some(tick_at);
            let until = [until_tick, self.book().renew_at]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.work.notified() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
        self.give_back().await;
    }

    async fn give_back(&self) {
        let list = std::mem::take(&mut self.book().give_back);
        stream::iter(list)
            .for_each_concurrent(GIVE_BACK_AT_ONCE, async |(name, token)| {
                let line = self.options.line;
                if let Err(error) = self.store.give_back(&name, &token, line).await {
                    tracing::debug!(lock = %name, %error, "a lock was not given back; it ends with its ttl");
                }
            })
            .await;
    }

    async fn renew_due(&self) {
        let now = Instant::now();
        if self.book().renew_at.is_none_or(|at| at > now) {
            return;
        }
        let due: Vec<_> = self
            .book()
            .held
            .iter()
            .filter(|(_, held)| held.renew_at.is_some_and(|at| at <= now))
            .map(|(token, held)| (held.name.clone(), token.clone(), held.ttl))
            .collect();
        for batch in due.chunks(BATCH_JOBS) {
            let sent_at = Instant::now();
            let answers = self.store.keep(batch).await;
            let mut book = self.book();
            match answers {
                Ok(answers) => {
                    for ((_, token, _), is_ours) in batch.iter().zip(answers) {
                        book.renewed(token, is_ours, sent_at);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, locks = batch.len(), "locks were not renewed");
                    for (_, token, ttl) in batch {
                        book.try_again(token, *ttl);
                    }
                }
            }
        }
        let mut book = self.book();
        book.renew_at = book.held.values().filter_map(|held| held.renew_at).min();
    }

    /// Whether the store had forgotten this process.
    async fn tick(&self, lines: &[Arc<str>]) -> bool {
        let mut was_forgotten = false;
        for names in lines.chunks(TICK_LINES) {
            match self
                .store
                .tick(&self.member, names, self.options.line)
                .await
            {
                Ok(tick) => {
                    was_forgotten |= tick.was_forgotten;
                    for (name, holder) in names.iter().zip(tick.holders) {
                        if let Some(token) = holder {
                            self.woken(name, &token);
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a tick of the locks' lines failed");
                    return false;
                }
            }
        }
        was_forgotten
    }

    async fn rejoin(&self) {
        let places: Vec<_> = self
            .book()
            .waiters
            .iter()
            .filter(|(_, waiter)| !waiter.is_asleep)
            .filter_map(|(token, waiter)| Some((waiter.name.clone(), token.clone(), waiter.place?)))
            .collect();
        for batch in places.chunks(BATCH_JOBS) {
            if let Err(error) = self.store.rejoin(batch).await {
                tracing::debug!(%error, "places in locks' lines were not written anew");
                return;
            }
        }
    }

    fn lines(&self) -> Vec<Arc<str>> {
        self.book().lines.keys().cloned().collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn sit_down(&mut self, name: &Arc<str>, token: &Token, wake: Arc<Notify>) {
        *self.lines.entry(name.clone()).or_default() += 1;
        let waiter = Waiter {
            name: name.clone(),
            place: None,
            wake,
            woken_at: None,
            is_asleep: false,
        };
        self.waiters.insert(token.clone(), waiter);
    }

    fn stand_up(&mut self, token: &Token) {
        let Some(waiter) = self.waiters.remove(token) else {
            return;
        };
        if let Some(count) = self.lines.get_mut(&waiter.name) {
            *count -= 1;
            if *count == 0 {
                self.lines.remove(&waiter.name);
            }
        }
    }

    fn renewed(&mut self, token: &Token, is_ours: bool, sent_at: Instant) {
        let Some(held) = self.held.get_mut(token) else {
            return;
        };
        if is_ours {
            held.deadline = sent_at + held.trusted;
            held.renew_at = Some(Instant::now() + renewal_pause(held.ttl));
        } else {
            tracing::warn!(lock = %held.name, "the lock is no longer ours");
            held.lost.cancel();
            self.held.remove(token);
        }
    }

    fn try_again(&mut self, token: &Token, ttl: Duration) {
        if let Some(held) = self.held.get_mut(token) {
            held.renew_at = Some(Instant::now() + ttl / 20);
        }
    }
}

/// A waiter's entry in the book, for as long as it lives.
pub(super) struct Seat {
    keeper: Arc<Keeper>,
    token: Token,
    wake: Arc<Notify>,
}

impl Seat {
    pub fn take(keeper: Arc<Keeper>, name: &Arc<str>, token: &Token) -> Self {
        let wake = Arc::new(Notify::new());
        let is_first = {
            let mut book = keeper.book();
            let is_first = book.waiters.is_empty();
            book.sit_down(name, token, wake.clone());
            is_first
        };
        if is_first {
            keeper.work.notify_one();
        }
        Self {
            token: token.clone(),
            keeper,
            wake,
        }
    }

    /// It was asked for the lock, and has to wait on.
    pub fn stands_at(&self, place: Option<Place>) {
        if let Some(waiter) = self.keeper.book().waiters.get_mut(&self.token) {
            waiter.place = place;
            waiter.woken_at = None;
            waiter.is_asleep = false;
        }
    }

    /// It may be its turn. A wake that came before the call counts.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.keeper.book().stand_up(&self.token);
    }
}

/// A third of the ttl, +- 10 %.
fn renewal_pause(ttl: Duration) -> Duration {
    (ttl / 3).mul_f64(rand::rng().random_range(0.9..1.1))
}

/// Keeps the earlier one.
fn is_sooner(new: Option<Instant>, known: &mut Option<Instant>) -> bool {
    match (new, *known) {
        (Some(new), Some(old)) if new >= old => false,
        (Some(new), _) => {
            *known = Some(new);
            true
        }
        (None, _) => false,
    }
}
