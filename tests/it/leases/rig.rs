//! What the cases stand on: a store of either kind, others that share its keys, and short words for what they do.

use std::{ops::AsyncFnOnce, sync::Arc, time::Duration};

use async_trait::async_trait;
use rowgate::{
    export::{ExportId, Fence},
    lease::{
        Error, Guard, LeaseStore, Length, LineOptions, LocalStore, LockOptions, LockStore, Locks,
        Mode, Order, Place, RateStore, RedisOptions, RedisStore, Tick, Token, Try, Turn, Wait,
        Wake,
    },
};
use secrecy::SecretString;
use tokio::sync::{broadcast, mpsc};

use crate::support::redis;

/// So long that no case sees it end, and every command has time.
pub const LONG: Duration = Duration::from_secs(600);
/// Short enough to see it end; the commands have a tenth of it.
pub const SHORT: Duration = Duration::from_secs(3);
/// No wait takes longer, however slow the machine is.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Of commands on which no short ttl hangs.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Nobody seems dead only because the machine is slow.
pub const PATIENT_LINE: LineOptions = LineOptions {
    tick_every: Duration::from_millis(100),
    dead_after: Duration::from_secs(120),
    forget_after: Duration::from_secs(240),
};

pub trait Store: LeaseStore + LockStore + RateStore {}
impl<T: LeaseStore + LockStore + RateStore> Store for T {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Local,
    Redis,
}

/// Keys of its own for one case.
pub struct Rig {
    pub store: Arc<dyn Store>,
    place: Where,
}

enum Where {
    Local(LocalStore),
    Redis(redis::Database),
}

pub async fn run(backend: Backend, case: impl AsyncFnOnce(&Rig)) {
    case(&Rig::new(backend).await).await;
}

impl Where {
    async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Local(store) => Arc::new(store.another()),
            Self::Redis(database) => Arc::new(open(&database.url, &database.queue).await),
        }
    }
}

/// A store that hears what is published.
pub async fn open(url: &str, queue: &str) -> RedisStore {
    let store = RedisStore::open(options(url, queue)).await.unwrap();
    tokio::time::timeout(PATIENCE, store.listens())
        .await
        .expect("it listens");
    store
}

pub fn options(url: &str, queue: &str) -> RedisOptions {
    RedisOptions {
        url: SecretString::from(url),
        ca_file: None,
        queue: queue.to_owned(),
        command_timeout: COMMAND_TIMEOUT,
    }
}

impl Rig {
    pub async fn new(backend: Backend) -> Self {
        let place = match backend {
            Backend::Local => Where::Local(LocalStore::default()),
            Backend::Redis => Where::Redis(redis::database()),
        };
        Self {
            store: place.open().await,
            place,
        }
    }

    /// The same keys as another process sees them.
    pub async fn another(&self) -> Arc<dyn Store> {
        self.place.open().await
    }
}

pub fn job(fence: i64) -> (ExportId, Fence) {
    (ExportId::generate(), Fence(fence))
}

/// Repeats what a slow machine had no time for.
pub async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) if error.retryable() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Asks again and again until it is so.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The value of a future that has to come, or a panic that says what did not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

pub fn lock_options(line: LineOptions) -> LockOptions {
    LockOptions {
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(50),
        line,
    }
}

/// The locks of a process with this store.
pub fn locks(store: &Arc<dyn Store>, line: LineOptions) -> Locks {
    Locks::new(store.clone(), lock_options(line))
}

pub const RENEWED: Length = Length::Unknown { ttl: LONG };

pub async fn held(locks: &Locks, name: &str, mode: Mode) -> Guard {
    soon(
        &format!("the lock {name}"),
        locks.acquire(name, mode, RENEWED, Wait::Unbounded),
    )
    .await
    .unwrap()
}

/// A token of a process that has no tasks: it lives only when it is made to.
pub struct Puppet {
    store: Arc<dyn Store>,
    pub member: String,
    pub token: Token,
    name: Arc<str>,
    line: LineOptions,
}

impl Puppet {
    pub fn new(store: &Arc<dyn Store>, name: &str, line: LineOptions) -> Self {
        let member = store.member();
        Self {
            store: store.clone(),
            token: Token::new(&member, 0),
            member,
            name: name.into(),
            line,
        }
    }

    pub async fn take(&self, order: Order, ttl: Duration) -> Turn {
        patiently(async || {
            self.store
                .take(&Try {
                    name: &self.name,
                    token: &self.token,
                    ttl,
                    order,
                    line: self.line,
                })
                .await
        })
        .await
    }

    pub async fn stand_in_line(&self) -> Place {
        match self.take(Order::InLine(None), LONG).await {
            Turn::Waits(place) => place,
            other => panic!("it waits, not {other:?}"),
        }
    }

    pub async fn give_back(&self) -> bool {
        patiently(async || {
            self.store
                .give_back(&self.name, &self.token, self.line)
                .await
        })
        .await
    }

    pub async fn tick(&self) -> Tick {
        let names = [self.name.clone()];
        patiently(async || self.store.tick(&self.member, &names, self.line).await).await
    }

    pub async fn rejoin(&self, place: Place) {
        let places = [(self.name.clone(), self.token.clone(), place)];
        patiently(async || self.store.rejoin(&places).await).await;
    }

    /// The same token under other rules.
    pub fn patient(&self, line: LineOptions) -> Self {
        Self {
            store: self.store.clone(),
            member: self.member.clone(),
            token: self.token.clone(),
            name: self.name.clone(),
            line,
        }
    }

    pub async fn keep(&self) -> bool {
        let held = [(self.name.clone(), self.token.clone(), LONG)];
        patiently(async || self.store.keep(&held).await).await[0]
    }
}

/// Tells what came of every try to take a lock.
pub struct Spy {
    store: Arc<dyn Store>,
    turns: mpsc::Sender<(Token, Turn)>,
}

impl Spy {
    pub fn on(store: &Arc<dyn Store>) -> (Arc<Self>, mpsc::Receiver<(Token, Turn)>) {
        let (turns, receiver) = mpsc::channel(100_000);
        (Self::telling(store, turns), receiver)
    }

    pub fn telling(store: &Arc<dyn Store>, turns: mpsc::Sender<(Token, Turn)>) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            turns,
        })
    }
}

#[async_trait]
impl LockStore for Spy {
    fn member(&self) -> String {
        self.store.member()
    }

    fn wakes(&self) -> broadcast::Receiver<Wake> {
        self.store.wakes()
    }

    async fn take(&self, attempt: &Try<'_>) -> Result<Turn, Error> {
        let turn = self.store.take(attempt).await?;
        let _ = self.turns.try_send((attempt.token.clone(), turn));
        Ok(turn)
    }

    async fn keep(&self, held: &[(Arc<str>, Token, Duration)]) -> Result<Vec<bool>, Error> {
        self.store.keep(held).await
    }

    async fn give_back(&self, name: &str, token: &Token, line: LineOptions) -> Result<bool, Error> {
        self.store.give_back(name, token, line).await
    }

    async fn tick(
        &self,
        member: &str,
        names: &[Arc<str>],
        line: LineOptions,
    ) -> Result<Tick, Error> {
        self.store.tick(member, names, line).await
    }

    async fn rejoin(&self, places: &[(Arc<str>, Token, Place)]) -> Result<(), Error> {
        self.store.rejoin(places).await
    }
}

/// Until a token stands in line.
pub async fn next_in_line(turns: &mut mpsc::Receiver<(Token, Turn)>) -> Token {
    loop {
        let (token, turn) = soon("somebody stands in line", turns.recv()).await.unwrap();
        if matches!(turn, Turn::Waits(_)) {
            return token;
        }
    }
}
