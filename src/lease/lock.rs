//! Locks for tasks that only one owner at a time may do, in the whole cluster.
//!
//! Owns what a caller sees: how to ask ([`Mode`], [`Length`], [`Wait`]), and what it gets, a [`Guard`]. A lock that
//! can't be had is an error or a wait; a guard tells when it is lost, and [`Guard::run`] stops its task then. What
//! holds a lock is a [`Token`] in the store, taken, kept and given back by compare-and-set ([`LockStore`]); plain and
//! fair locks share it and exclude each other. Locks are for efficiency: what must not happen twice is guarded by a
//! fence in the database, too.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rand::RngExt;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Error, Result, fair_lock, keeper::Keeper};
use crate::task;

/// How locks wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockOptions {
    /// A plain lock that is taken is asked for again after this; it doubles from there, with jitter.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub line: LineOptions,
}

/// How the line before a fair lock is kept. A dead waiter is skipped after `dead_after` + `tick_every` at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineOptions {
    /// How often a process with waiters says that it lives, and looks for locks that nobody holds: one command for all
    /// its waiters.
    pub tick_every: Duration,
    /// A process that was silent for longer is passed over, and keeps its place.
    pub dead_after: Duration,
    /// A process that was silent for longer has left the line. When it comes back, it stands where it stood.
    pub forget_after: Duration,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self {
            tick_every: Duration::from_millis(200),
            dead_after: Duration::from_millis(700),
            forget_after: Duration::from_secs(5),
        }
    }
}

/// Who gets the lock next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Whoever asks at the right moment. Cheapest where nobody else wants it.
    Plain,
    /// First come, first served.
    Fair,
}

/// How long the task takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// The lock is renewed until its guard goes; if the process dies, it is free after `ttl`.
    Unknown { ttl: Duration },
    /// Never renewed: the guard is lost after `at_most`.
    Known { at_most: Duration },
}

/// How long to wait for the lock. Dropping the future ends any wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    No,
    AtMost(Duration),
    Unbounded,
}

/// One ask for a lock, unique among all processes: `<member>:<number>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(Arc<str>);

impl Token {
    pub fn new(member: &str, number: u64) -> Self {
        Self(format!("{member}:{number}").into())
    }

    pub(super) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose it is.
    pub fn member(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a token stands in line: the store's time when it came, in microseconds. Unique in its line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(pub u64);

/// One try to take a lock.
#[derive(Clone, Debug)]
pub struct Try<'a> {
    pub name: &'a str,
    pub token: &'a Token,
    pub ttl: Duration,
    pub order: Order,
    pub line: LineOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Take it if nobody holds it and nobody alive stands in line; else leave no trace.
    Apart,
    /// Stand in line where there is one: at the end, or at the place that was had before.
    InLine(Option<Place>),
}

/// What came of a [`Try`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    Held,
    Taken,
    /// It stands in line and will be woken.
    Waits(Place),
}

/// The lock may be the token's: it has to be taken, which confirms it, within `dead_after`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wake {
    pub name: Arc<str>,
    pub token: Token,
}

/// What a tick found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tick {
    /// The store did not know the member any more: its tokens may be out of their lines.
    pub was_forgotten: bool,
    /// Of each lock that was asked for.
    pub holders: Vec<Option<Token>>,
}

/// Where locks are kept. Every operation may be repeated after its reply was lost.
#[async_trait]
pub trait LockStore: Send + Sync + 'static {
    /// A name for one [`Locks`], unique among all processes.
    fn member(&self) -> String;

    /// Wakes of all members of this store, from now on. Lossy: [`LockStore::tick`] finds what was missed.
    fn wakes(&self) -> broadcast::Receiver<Wake>;

    async fn take(&self, attempt: &Try<'_>) -> Result<Turn>;

    /// Extends locks by their ttl; for each whether it is still the token's.
    async fn keep(&self, held: &[(Arc<str>, Token, Duration)]) -> Result<Vec<bool>>;

    /// Gives up the lock or the place in line, and hands a lock to the next one. Whether the token held it.
    async fn give_back(&self, name: &str, token: &Token, line: LineOptions) -> Result<bool>;

    /// Says that the member lives, and hands those of the locks that nobody holds to the next in line.
    async fn tick(&self, member: &str, names: &[Arc<str>], line: LineOptions) -> Result<Tick>;

    /// Puts tokens where they stood, unless they are there or hold their lock.
    async fn rejoin(&self, places: &[(Arc<str>, Token, Place)]) -> Result<()>;
}

/// The locks of one process. Cheap to clone. However many are held and waited for, it has two tasks.
#[derive(Clone)]
pub struct Locks {
    handle: Arc<Handle>,
}

/// Ends the tasks with the last of [`Locks`], guards and waiters.
pub(super) struct Handle {
    pub keeper: Arc<Keeper>,
    _stop: DropGuard,
}

impl Locks {
    pub fn new(store: Arc<dyn LockStore>, options: LockOptions) -> Self {
        let stop = CancellationToken::new();
        let wakes = store.wakes();
        let keeper = Arc::new(Keeper::new(store, options));
        task::spawn("lock.keeper", keeper.clone().keep(stop.clone()));
        task::spawn("lock.watch", keeper.clone().watch(wakes, stop.clone()));
        Self {
            handle: Arc::new(Handle {
                keeper,
                _stop: stop.drop_guard(),
            }),
        }
    }

    /// # Errors
    /// [`Error::Taken`] when the wait is over. With [`Wait::No`] whatever the store says; else only what is not
    /// retryable: a store that is away for a while is waited for, too.
    pub async fn acquire(
        &self,
        name: &str,
        mode: Mode,
        length: Length,
        wait: Wait,
    ) -> Result<Guard> {
        let attempt = Attempt::new(self.handle.clone(), name, length);
        match (wait, mode) {
            (Wait::No, _) => attempt.once().await,
            (_, Mode::Plain) => attempt.until_free(Patience::new(wait)).await,
            (_, Mode::Fair) => fair_lock::wait_in_line(attempt, Patience::new(wait)).await,
        }
    }
}

/// Until when to wait.
#[derive(Clone, Copy)]
pub(super) struct Patience(Option<tokio::time::Instant>);

impl Patience {
    fn new(wait: Wait) -> Self {
        let now = tokio::time::Instant::now();
        Self(match wait {
            Wait::No => Some(now),
            Wait::AtMost(time) => now.checked_add(time),
            Wait::Unbounded => None,
        })
    }

    /// The future's value, or `None` when the wait is over.
    pub async fn bound<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self.0 {
            Some(until) => tokio::time::timeout_at(until, future).await.ok(),
            None => Some(future.await),
        }
    }
}

/// A token on its way to a lock. What it may have left in the store is given back when it is dropped.
pub(super) struct Attempt {
    pub handle: Arc<Handle>,
    pub name: Arc<str>,
    pub token: Token,
    length: Length,
    /// The store may know the token.
    has_trace: bool,
}

impl Attempt {
    fn new(handle: Arc<Handle>, name: &str, length: Length) -> Self {
        Self {
            token: handle.keeper.token(),
            handle,
            name: name.into(),
            length,
            has_trace: false,
        }
    }

    async fn once(mut self) -> Result<Guard> {
        match self.take(Order::Apart).await? {
            Taken::Guard(guard) => Ok(guard),
            Taken::Not(_) => Err(self.is_taken()),
        }
    }

    async fn until_free(mut self, patience: Patience) -> Result<Guard> {
        let options = self.handle.keeper.options;
        let mut backoff = Backoff::new(options.backoff_min, options.backoff_max);
        loop {
            let last = match self.take(Order::Apart).await {
                Ok(Taken::Guard(guard)) => return Ok(guard),
                Ok(Taken::Not(_)) => self.is_taken(),
                Err(error) if error.retryable() => error,
                Err(error) => return Err(error),
            };
            if patience
                .bound(tokio::time::sleep(backoff.next()))
                .await
                .is_none()
            {
                return Err(last);
            }
        }
    }

    pub async fn take(&mut self, order: Order) -> Result<Taken> {
        let keeper = &self.handle.keeper;
        let ttl = self.length.ttl();
        // Never closed.
        let _permit = keeper.asking.acquire().await;
        let sent_at = Instant::now();
        self.has_trace = true;
        let turn = keeper
            .store
            .take(&Try {
                name: &self.name,
                token: &self.token,
                ttl,
                order,
                line: keeper.options.line,
            })
            .await?;
        match turn {
            Turn::Held => {
                let deadline = sent_at + self.length.trusted();
                if deadline <= Instant::now() {
                    // The process stood still: what the reply says is too old to act on.
                    return Ok(Taken::Not(None));
                }
                self.has_trace = false;
                let lost = keeper.hold(&self.name, &self.token, self.length, deadline);
                Ok(Taken::Guard(Guard {
                    handle: self.handle.clone(),
                    name: self.name.clone(),
                    token: self.token.clone(),
                    lost,
                    is_released: false,
                }))
            }
            Turn::Taken => {
                self.has_trace = false;
                Ok(Taken::Not(None))
            }
            Turn::Waits(place) => Ok(Taken::Not(Some(place))),
        }
    }

    pub fn is_taken(&self) -> Error {
        Error::Taken(self.name.to_string())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.has_trace {
            self.handle.keeper.give_back_later(&self.name, &self.token);
        }
    }
}

pub(super) enum Taken {
    Guard(Guard),
    Not(Option<Place>),
}

impl Length {
    pub(super) fn ttl(self) -> Duration {
        match self {
            Self::Unknown { ttl } => ttl,
            // The task's own time is all trusted.
            Self::Known { at_most } => at_most + margin(at_most),
        }
    }

    /// From the moment before the lock was asked for.
    pub(super) fn trusted(self) -> Duration {
        match self {
            Self::Unknown { ttl } => ttl.saturating_sub(margin(ttl)),
            Self::Known { at_most } => at_most,
        }
    }
}

/// Trust ends this long before the store's ttl: clocks run at different speeds.
fn margin(ttl: Duration) -> Duration {
    (ttl / 10).min(Duration::from_secs(1))
}

/// A lock that is held. Dropping it gives the lock back, a moment later.
pub struct Guard {
    handle: Arc<Handle>,
    name: Arc<str>,
    token: Token,
    lost: CancellationToken,
    is_released: bool,
}

impl Guard {
    /// Fires when the lock may be somebody else's: whatever is done under it stops at once.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Runs a task for as long as the lock is held; when it is lost, the task is dropped where it is.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn run<T>(&self, task: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(Error::Lost(self.name.to_string())),
            value = task => Ok(value),
        }
    }

    /// Gives the lock back, and tells whether it was held until now. `false` may also mean that an earlier reply to
    /// this was lost.
    ///
    /// # Errors
    /// The store's; the lock is then free after its ttl.
    pub async fn release(mut self) -> Result<bool> {
        self.is_released = true;
        let keeper = self.handle.keeper.clone();
        keeper.let_go(&self.token);
        keeper
            .store
            .give_back(&self.name, &self.token, keeper.options.line)
            .await
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let keeper = &self.handle.keeper;
        keeper.let_go(&self.token);
        if !self.is_released {
            keeper.give_back_later(&self.name, &self.token);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("name", &self.name)
            .field("token", &self.token)
            .field("is_lost", &self.lost.is_cancelled())
            .finish()
    }
}

/// Doubles from the first to the last, and takes between half and all of it.
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            next: min.min(max),
            max,
        }
    }

    pub fn next(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_its_bound() {
        let (min, max) = (Duration::from_millis(4), Duration::from_millis(10));
        let mut backoff = Backoff::new(min, max);
        for full in [4, 8, 10, 10] {
            let (pause, full) = (backoff.next(), Duration::from_millis(full));
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
    }

    #[test]
    fn a_lock_is_trusted_for_less_than_it_lasts() {
        let unknown = Length::Unknown {
            ttl: Duration::from_secs(30),
        };
        assert_eq!(unknown.trusted(), Duration::from_secs(29));
        let known = Length::Known {
            at_most: Duration::from_secs(5),
        };
        assert_eq!(known.trusted(), Duration::from_secs(5));
        assert_eq!(known.ttl(), Duration::from_millis(5500));
    }

    #[test]
    fn a_token_names_its_member() {
        let token = Token::new("boot.1", 7);
        assert_eq!(token.as_str(), "boot.1:7");
        assert_eq!(token.member(), "boot.1");
    }
}
