//! Leases, locks and rates of one process: the same rules as in Redis, in maps with monotonic deadlines.
//!
//! With `lease.url = "local"` one process has the queue to itself (the job store's guard sees to that), so whoever
//! shares the maps is in this process. They never fail and never lose a key, so the rules are easy to read here.

mod lines;

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::broadcast;

use self::lines::Lines;
use super::{
    Acquired, LeaseStore, RateStore, Renewal, Result, SIGNAL_BACKLOG, Signal, boot_id,
    lock::{LineOptions, LockStore, Place, Tick, Token, Try, Turn, Wake},
    rate::Buckets,
};
use crate::export::{ExportId, Fence, Progress};

/// One owner among those that share the maps.
pub struct LocalStore {
    shared: Arc<Shared>,
    boot: String,
    members: AtomicU64,
}

struct Shared {
    leases: Mutex<Leases>,
    lines: Mutex<Lines>,
    rates: Buckets,
    signals: broadcast::Sender<Signal>,
    wakes: broadcast::Sender<Wake>,
    started_at: Instant,
}

impl Default for LocalStore {
    fn default() -> Self {
        Self::of(Arc::new(Shared {
            leases: Mutex::default(),
            lines: Mutex::default(),
            rates: Buckets::default(),
            signals: broadcast::Sender::new(SIGNAL_BACKLOG),
            wakes: broadcast::Sender::new(SIGNAL_BACKLOG),
            started_at: Instant::now(),
        }))
    }
}

impl LocalStore {
    /// Another owner over the same maps.
    pub fn another(&self) -> Self {
        Self::of(self.shared.clone())
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            boot: boot_id(),
            members: AtomicU64::new(0),
        }
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        locked(&self.shared.leases)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        locked(&self.shared.lines)
    }

    fn send_wake(&self, wake: Option<Wake>) {
        if let Some(wake) = wake {
            // Whoever waited may have gone.
            let _ = self.shared.wakes.send(wake);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the keys hold.
#[derive(Default)]
struct Leases {
    leases: HashMap<ExportId, Lease>,
    progress: HashMap<ExportId, Published>,
    /// When this many are there, those that are over are removed.
    prune_at: usize,
}

struct Lease {
    fence: Fence,
    boot: String,
    ends_at: Instant,
}

struct Published {
    fence: Fence,
    progress: Progress,
    ends_at: Instant,
}

impl Leases {
    const PRUNE_AT_MIN: usize = 1024;

    fn holder(&self, id: ExportId, now: Instant) -> Option<&Lease> {
        self.leases.get(&id).filter(|lease| lease.ends_at > now)
    }

    /// Leases whose owners forgot them don't pile up.
    fn prune(&mut self, now: Instant) {
        if self.leases.len() + self.progress.len() < self.prune_at.max(Self::PRUNE_AT_MIN) {
            return;
        }
        self.leases.retain(|_, lease| lease.ends_at > now);
        self.progress.retain(|_, published| published.ends_at > now);
        self.prune_at = 2 * (self.leases.len() + self.progress.len());
    }
}

#[async_trait]
impl LeaseStore for LocalStore {
    async fn acquire(&self, jobs: &[(ExportId, Fence)], ttl: Duration) -> Result<Vec<Acquired>> {
        let now = Instant::now();
        let mut leases = self.leases();
        leases.prune(now);
        let answers = jobs.iter().map(|&(id, fence)| {
            if let Some(holder) = leases.holder(id, now)
                && holder.fence >= fence
                && (holder.fence > fence || holder.boot != self.boot)
            {
                return Acquired::NotOwner {
                    fence: holder.fence,
                };
            }
            let lease = Lease {
                fence,
                boot: self.boot.clone(),
                ends_at: now + ttl,
            };
            leases.leases.insert(id, lease);
            Acquired::Held
        });
        Ok(answers.collect())
    }

    async fn renew(&self, jobs: &[(ExportId, Fence)], ttl: Duration) -> Result<Vec<Renewal>> {
        let now = Instant::now();
        let mut leases = self.leases();
        let answers = jobs.iter().map(|(id, fence)| {
            let found = leases.leases.get_mut(id);
            match found.filter(|lease| lease.ends_at > now) {
                Some(lease) if lease.fence == *fence && lease.boot == self.boot => {
                    lease.ends_at = now + ttl;
                    Renewal::Renewed
                }
                Some(lease) if lease.fence >= *fence => Renewal::NotOwner { fence: lease.fence },
                _ => Renewal::Missing,
            }
        });
        Ok(answers.collect())
    }

    async fn release(&self, id: ExportId, fence: Fence) -> Result<()> {
        let mut leases = self.leases();
        let is_ours = leases
            .leases
            .get(&id)
            .is_some_and(|lease| lease.fence == fence && lease.boot == self.boot);
        if is_ours {
            leases.leases.remove(&id);
            leases.progress.remove(&id);
        }
        Ok(())
    }

    async fn alive(&self, ids: &[ExportId], ttl: Duration) -> Result<Vec<bool>> {
        let now = Instant::now();
        let is_new = self.shared.started_at.elapsed() < ttl;
        let leases = self.leases();
        let answers = ids
            .iter()
            .map(|id| is_new || leases.holder(*id, now).is_some());
        Ok(answers.collect())
    }

    fn answering_for(&self) -> Option<Duration> {
        Some(self.shared.started_at.elapsed())
    }

    async fn publish(&self, progress: &[(ExportId, Fence, Progress)], ttl: Duration) -> Result<()> {
        let ends_at = Instant::now() + ttl;
        let mut leases = self.leases();
        for (id, fence, progress) in progress {
            let published = Published {
                fence: *fence,
                progress: progress.clone(),
                ends_at,
            };
            leases.progress.insert(*id, published);
        }
        Ok(())
    }

    async fn progress(&self, id: ExportId) -> Result<Option<Progress>> {
        let now = Instant::now();
        let leases = self.leases();
        let Some(holder) = leases.holder(id, now) else {
            return Ok(None);
        };
        let published = leases.progress.get(&id);
        Ok(published
            .filter(|published| published.fence == holder.fence && published.ends_at > now)
            .map(|published| published.progress.clone()))
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        // Nobody may be listening.
        let _ = self.shared.signals.send(signal);
        Ok(())
    }

    fn signals(&self) -> broadcast::Receiver<Signal> {
        self.shared.signals.subscribe()
    }
}

#[async_trait]
impl LockStore for LocalStore {
    fn member(&self) -> String {
        let number = self.members.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}", self.boot)
    }

    fn wakes(&self) -> broadcast::Receiver<Wake> {
        self.shared.wakes.subscribe()
    }

    async fn take(&self, attempt: &Try<'_>) -> Result<Turn> {
        let (turn, wake) = self.lines().take(attempt, Instant::now());
        self.send_wake(wake);
        Ok(turn)
    }

    async fn keep(&self, held: &[(Arc<str>, Token, Duration)]) -> Result<Vec<bool>> {
        let now = Instant::now();
        let mut lines = self.lines();
        let answers = held
            .iter()
            .map(|(name, token, ttl)| lines.keep(name, token, *ttl, now));
        Ok(answers.collect())
    }

    async fn give_back(&self, name: &str, token: &Token, line: LineOptions) -> Result<bool> {
        let (was_held, wake) = self.lines().give_back(name, token, &line, Instant::now());
        self.send_wake(wake);
        Ok(was_held)
    }

    async fn tick(&self, member: &str, names: &[Arc<str>], line: LineOptions) -> Result<Tick> {
        let now = Instant::now();
        let mut wakes = Vec::new();
        let tick = {
            let mut lines = self.lines();
            Tick {
                was_forgotten: lines.lives(member, &line, now),
                holders: names
                    .iter()
                    .map(|name| {
                        let (holder, wake) = lines.look_after(name, &line, now);
                        wakes.extend(wake);
                        holder
                    })
                    .collect(),
            }
        };
        for wake in wakes {
            self.send_wake(Some(wake));
        }
        Ok(tick)
    }

    async fn rejoin(&self, places: &[(Arc<str>, Token, Place)]) -> Result<()> {
        let mut lines = self.lines();
        let now = Instant::now();
        for (name, token, place) in places {
            lines.rejoin(name, token, *place, now);
        }
        Ok(())
    }
}

#[async_trait]
impl RateStore for LocalStore {
    async fn take_rows(
        &self,
        source: &str,
        rows: u64,
        rows_per_second: NonZero<u64>,
    ) -> Result<Duration> {
        Ok(self
            .shared
            .rates
            .take(source, rows, rows_per_second, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn leases_that_ended_do_not_pile_up() {
        let store = LocalStore::default();
        for _ in 0..10 * Leases::PRUNE_AT_MIN {
            let job = (ExportId::generate(), Fence(1));
            store.acquire(&[job], Duration::ZERO).await.unwrap();
        }
        assert!(store.leases().leases.len() <= 2 * Leases::PRUNE_AT_MIN);
        let job = (ExportId::generate(), Fence(1));
        store.acquire(&[job], TTL).await.unwrap();
        assert!(store.leases().holder(job.0, Instant::now()).is_some());
    }

    #[tokio::test]
    async fn nobody_is_silent_before_a_full_ttl_has_passed() {
        let store = LocalStore::default();
        let unknown = [ExportId::generate()];
        assert_eq!(store.alive(&unknown, TTL).await.unwrap(), [true]);
        let no_time = Duration::ZERO;
        assert_eq!(store.alive(&unknown, no_time).await.unwrap(), [false]);
    }
}
