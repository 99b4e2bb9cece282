//! Whether the owner of a job is alive, how long an owner may believe that a job is still its own, and locks.
//!
//! The database says who owns a job (its fence); a lease says that the owner is alive. Losing every lease delays work;
//! it can't corrupt it. This module owns the keys that say so, in this process ([`LocalStore`]) or in Redis
//! ([`RedisStore`]), the arithmetic of trust ([`Trust`]), and what grows on the same three operations (acquire, renew,
//! release by compare-and-set): locks, plain and fair ([`Locks`]), and a limit in rows/s for the whole cluster
//! ([`RateLimit`]). Redis is known nowhere else. It refuses to know what a job is, and never decides that an owner is
//! dead: it says only that one is silent.

mod fair_lock;
mod keeper;
mod local;
mod lock;
mod rate;
mod redis;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::export::{ExportId, Fence, Progress};

pub use self::redis::{RedisOptions, RedisStore};
pub use local::LocalStore;
pub use lock::{
    Guard, Length, LineOptions, LockOptions, LockStore, Locks, Mode, Order, Place, Tick, Token,
    Try, Turn, Wait, Wake,
};
pub use rate::{RateLimit, RateStore};

/// What is asked of Redis in one round trip: a script over as many keys takes well under a millisecond there. More jobs
/// are taken in several trips, one after the other; whoever wants to keep the answers of those before one that failed
/// passes no more than this at once.
pub const BATCH_JOBS: usize = 500;

/// `[lease]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseOptions {
    /// Others may take the job over when this has passed without a renewal.
    pub ttl: Duration,
    pub renew_every: Duration,
    /// Trust ends this long before the ttl.
    pub margin: Duration,
}

/// Until when an owner may act. Moves only forward, and only by renewals that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Trust(Instant);

impl Trust {
    /// `sent_at` is the moment *before* the renewal (or claim) was sent: its ttl began at that moment or later.
    pub fn renewed(options: &LeaseOptions, sent_at: Instant) -> Self {
        Self(sent_at + options.ttl.saturating_sub(options.margin))
    }

    pub fn is_over(self, now: Instant) -> bool {
        now >= self.0
    }

    pub fn deadline(self) -> Instant {
        self.0
    }
}

/// Why the leases could not be asked. An answer, even one that nobody likes, is no error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No connection, one that broke, or a server that loads its data or takes no writes. Whether a write happened is
    /// unknown; every operation can be repeated.
    #[error("Redis can't be used: {0}")]
    Unavailable(String),
    /// As [`Error::Unavailable`].
    #[error("Redis did not answer within {0:?}")]
    TimedOut(Duration),
    /// A wrong password, a missing right, a certificate that is not trusted: for an operator to put right.
    #[error("Redis refuses us: {0}")]
    Refused(String),
    /// A reply that this version does not understand, or a defect of ours.
    #[error("Redis failed: {0}")]
    Broken(String),
    /// Somebody else holds the lock, and the wait for it is over.
    #[error("the lock {0} is held by somebody else")]
    Taken(String),
    /// The lock was lost while its task ran; the task was stopped.
    #[error("the lock {0} was lost")]
    Lost(String),
}

impl Error {
    /// Whether the same call may succeed a little later, without anybody's help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Taken(_) | Self::Lost(_) => true,
            Self::Refused(_) | Self::Broken(_) => false,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The signs of life of owners, their progress, and small news for all processes of a queue.
///
/// A key of a job holds `<fence>:<random>`, where the random part is made once for each store, which is once for each
/// boot of a process: so an owner recognises its own value after a reply was lost. Each round trip ends within a tenth of
/// the `ttl` that the call is given, and within the store's own time-out.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Right after a claim, and after a renewal found the key missing and the database said that the job is still
    /// ours. One answer for each job. A higher fence takes the key over; our own value is held.
    async fn acquire(&self, jobs: &[(ExportId, Fence)], ttl: Duration) -> Result<Vec<Acquired>>;

    /// One answer for each job.
    async fn renew(&self, jobs: &[(ExportId, Fence)], ttl: Duration) -> Result<Vec<Renewal>>;

    /// Compare-and-delete: takes the key away if it is ours under this fence, and else does nothing.
    async fn release(&self, id: ExportId, fence: Fence) -> Result<()>;

    /// Which owners may be alive, one answer for each id. `false` is said only when the key is missing *and* the store
    /// has been answering without a break, and has not lost its keys, for a full `ttl`: every owner has had the time to
    /// set its key again. The other half of "dead", a `lease_until` that is past, is for the database to say.
    async fn alive(&self, ids: &[ExportId], ttl: Duration) -> Result<Vec<bool>>;

    /// For how long the store has been answering without a break and without losing its keys; `None` while it does not
    /// answer. For readiness and logs.
    fn answering_for(&self) -> Option<Duration>;

    /// Tells other processes how far jobs are. Kept for `ttl`.
    async fn publish(&self, progress: &[(ExportId, Fence, Progress)], ttl: Duration) -> Result<()>;

    /// What the job's present owner last published.
    async fn progress(&self, id: ExportId) -> Result<Option<Progress>>;

    /// Tells every process of this queue, this one included. Lossy: whoever listens polls, too, only less often.
    async fn signal(&self, signal: Signal) -> Result<()>;

    /// Signals from now on. A receiver that lagged behind looks at everything that it cares for.
    fn signals(&self) -> broadcast::Receiver<Signal>;
}

/// Of one job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acquired {
    /// The key is ours now, or was already.
    Held,
    /// Somebody owns the job under this fence, which is not lower than ours: stop at once.
    NotOwner { fence: Fence },
}

/// Of one job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    Renewed,
    /// Somebody owns the job under this fence, which is not lower than ours: stop at once.
    NotOwner {
        fence: Fence,
    },
    /// The key is gone, or is that of an owner before us (a failover that lost our write): ask the database, and
    /// acquire again if the job is still ours.
    Missing,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signal {
    /// A cancel of this job was committed.
    Cancelled(ExportId),
    /// The job's row changed.
    Changed(ExportId),
    /// Limits or pauses were set anew.
    Limits,
}

impl Signal {
    /// As it travels through Redis.
    fn to_text(self) -> String {
        match self {
            Self::Cancelled(id) => format!("cancelled {id}"),
            Self::Changed(id) => format!("changed {id}"),
            Self::Limits => "limits".to_owned(),
        }
    }

    /// `None` for what a later version may say.
    fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "cancelled" => ExportId::parse(rest).map(Self::Cancelled),
            "changed" => ExportId::parse(rest).map(Self::Changed),
            "limits" => Some(Self::Limits),
            _ => None,
        }
    }
}

/// Signals that a listener may be behind before it misses some.
const SIGNAL_BACKLOG: usize = 1024;

/// Made once for each store: what tells its values from those of another boot.
fn boot_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_a_margin_before_the_ttl_counted_from_the_send() {
        let options = LeaseOptions {
            ttl: Duration::from_secs(30),
            renew_every: Duration::from_secs(10),
            margin: Duration::from_secs(1),
        };
        let sent_at = Instant::now();
        let trust = Trust::renewed(&options, sent_at);
        assert!(!trust.is_over(sent_at + Duration::from_millis(28_999)));
        assert!(trust.is_over(sent_at + Duration::from_secs(29)));
    }

    #[test]
    fn signals_survive_the_way_as_text_and_unknown_ones_are_passed_over() {
        let id = ExportId::generate();
        for signal in [Signal::Cancelled(id), Signal::Changed(id), Signal::Limits] {
            assert_eq!(Signal::parse(&signal.to_text()), Some(signal));
        }
        for unknown in ["", "drained 1", "cancelled", "changed not-an-id"] {
            assert_eq!(Signal::parse(unknown), None, "{unknown:?}");
        }
    }
}
