//! The job store: which exports exist, in which state, who owns them. The database says who owns a job.
//!
//! Owns the claim, the caps and the state machine's transactions. Refuses to know how an export runs, what its
//! rows look like, or who is allowed to ask. Two backends stand behind [`JobStore`] and pass one conformance suite
//! (`tests/it/conformance/`): SQLite for one machine, PostgreSQL for a cluster.

mod guard;
mod migrations;
mod postgres;
mod row;
mod rules;
mod sqlite;
mod trouble;
mod wake;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::export::{
    Caps, ExportId, ExportSpec, Failure, Fence, LimitOverrides, ResultInfo, SpecHash, State,
    TenantId, WorkerId,
};

pub use guard::Guard;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// How a store uses its database.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Of the pool that serves every call; a listener and a guard have one of their own each.
    pub connections_max: u32,
    /// How long a transaction waits for another one's lock before it is tried again.
    pub lock_timeout: Duration,
    /// At most one NOTIFY in this time from each process.
    pub announce_every: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            lock_timeout: Duration::from_secs(3),
            announce_every: Duration::from_millis(50),
        }
    }
}

/// Why the job store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or one that broke in the middle: whether a write happened is unknown, reading tells.
    #[error("the job store can't be reached: {0}")]
    Unavailable(String),
    /// Serialization failures, deadlocks and lock time-outs: nothing happened, trying again is right.
    #[error("the job store asks to try again: {0}")]
    Contended(String),
    /// The stored data or the schema is not what this version knows, or a defect of ours.
    #[error("the job store failed: {0}")]
    Broken(String),
    /// Another process uses the same queue while `lease.url` is `local`.
    #[error("{0}")]
    InUse(String),
}

impl Error {
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Contended(_))
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One row of the queue.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: ExportId,
    pub tenant: TenantId,
    pub spec: ExportSpec,
    pub kind: JobKind,
    pub state: State,
    pub attempt: u32,
    pub fence: Fence,
    pub worker: Option<WorkerId>,
    pub created_at: Timestamp,
    /// Of the current or last attempt.
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Not claimable before this moment (backoff).
    pub ready_at: Timestamp,
    pub estimated_rows: Option<u64>,
    /// Set with FAILED.
    pub error: Option<Failure>,
    /// Why the attempt before this one ended.
    pub last_failure: Option<Failure>,
    /// Set with SUCCEEDED.
    pub result: Option<ResultInfo>,
    /// The result's files are gone (its ttl passed); the row is still kept.
    pub result_expired: bool,
}

/// How a job runs. The number is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i16)]
pub enum JobKind {
    /// Waits in the queue, or ran inline and may be queued again: can be retried.
    Export = 1,
    /// A live row stream: RUNNING from the start, never queued, never retried.
    Live = 2,
}

#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: ExportId,
    pub tenant: TenantId,
    pub spec: ExportSpec,
    pub spec_hash: SpecHash,
    /// Unique for a tenant.
    pub request_id: Option<Uuid>,
    pub kind: JobKind,
    pub estimated_rows: Option<u64>,
    pub start: Start,
}

#[derive(Clone, Debug)]
pub enum Start {
    /// QUEUED, fence 0, attempt 0; refused when so many jobs of the tenant are ready already (those in a backoff, which
    /// have run before, don't count).
    Queued { ready_max: u32 },
    /// RUNNING at once (inline, live): fence 1, attempt 1, counted in the caps, owned by `worker`.
    Running {
        worker: WorkerId,
        lease_ttl: Duration,
        caps: Caps,
    },
}

#[derive(Clone, Debug)]
pub enum Inserted {
    Created(Job),
    /// The same `request_id` and spec came before: this is that job.
    Existing(Job),
    /// The same `request_id` came before with another spec.
    RequestIdReused(ExportId),
    /// `Start::Running` had no room; nothing was inserted. Says which cap was full.
    Full(FullCap),
    /// `Start::Queued` while as many jobs of the tenant wait as may; nothing was inserted.
    QueueFull,
    /// `Start::Running` while the queue of the tenant, or of all, is paused; nothing was inserted.
    Paused,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FullCap {
    Tenant,
    Source(String),
}

#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub worker: WorkerId,
    /// At most this many jobs.
    pub jobs_max: u32,
    pub lease_ttl: Duration,
    pub caps: Caps,
}

/// What became of a job that this worker owned.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// RUNNING -> SUCCEEDED.
    Succeeded(ResultInfo),
    /// RUNNING -> FAILED.
    Failed(Failure),
    /// RUNNING -> QUEUED after `delay`; counts as an attempt.
    Retry { failure: Failure, delay: Duration },
    /// RUNNING -> QUEUED at once; the attempt is taken back (shutdown). A live stream: FAILED (DRAINING).
    HandBack,
    /// CANCELLING -> CANCELLED; or RUNNING -> CANCELLED for a live stream whose client went away.
    Cancelled,
}

/// Rows and bytes that an attempt consumed: they correct the tenant's virtual time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    pub rows_read: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value for each end of an export, moved once"
)]
pub enum Settled {
    Done(Job),
    /// The row was not RUNNING (or CANCELLING) under this fence. `job` is what it is now, `None` when deleted.
    /// The caller compares: SUCCEEDED under its own fence is its own commit whose reply was lost.
    NotOwner(Option<Box<Job>>),
}

/// The state of an owned job, read while its lease is renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ownership {
    Running,
    /// A cancel was committed: stop the job, then settle it as cancelled.
    Cancelling,
    Lost,
}

#[derive(Clone, Debug)]
pub enum Cancelled {
    /// CANCELLED now, or CANCELLING (the owner stops it), or already one of the two.
    Accepted(Job),
    /// SUCCEEDED or FAILED before.
    TooLate(Job),
    NotFound,
}

#[derive(Clone, Debug)]
pub enum Deleted {
    /// The row is gone; what it stored can go too.
    Done(Box<Job>),
    NotTerminal(State),
    NotFound,
}

/// What decides whether an export's files may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub state: State,
    pub fence: Fence,
    pub result_expired: bool,
}

/// Filters of a listing; newest first.
#[derive(Clone, Debug)]
pub struct ListFilter {
    pub tenant: TenantId,
    /// Empty: every state.
    pub states: Vec<State>,
    /// All must match.
    pub labels: BTreeMap<String, String>,
    /// `created_at > this`.
    pub created_after: Option<Timestamp>,
    /// `created_at < this`.
    pub created_before: Option<Timestamp>,
    /// Continue after this row.
    pub after: Option<ListCursor>,
    pub rows_max: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListCursor {
    pub created_at: Timestamp,
    pub id: ExportId,
}

/// Which owners are taken for dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Abandoned {
    /// Every RUNNING and CANCELLING row (this process is the only one, and it has just started).
    All,
    /// Of these, those who still have this fence and whose `lease_until` is past: they are `overdue`, and the lease store
    /// says that they are silent.
    Silent(Vec<(ExportId, Fence)>),
}

/// What a sweep did with one job of a dead owner.
#[derive(Clone, Debug)]
pub struct Reaped {
    pub id: ExportId,
    /// The dead owner's fence: what it stored under it can be deleted.
    pub fence: Fence,
    /// QUEUED, FAILED or CANCELLED.
    pub state: State,
}

/// Where counting a queue position ends: a client that polls for it must not scan a backlog of a million.
pub const POSITION_MAX: u64 = 10_000;

/// The most that one claim takes, whatever it asks for: it bounds what the claim reads under its locks.
pub const CLAIM_JOBS_MAX: u32 = 32;

/// The queue. Every method is one transaction; none waits for anything but the database.
///
/// Lock order in every transaction: tenant, source, job.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    async fn insert(&self, job: NewJob) -> Result<Inserted>;

    async fn get(&self, id: ExportId) -> Result<Option<Job>>;

    /// The job that this tenant submitted with this request id before, and the hash of its spec as it was given.
    async fn submitted(
        &self,
        tenant: &TenantId,
        request_id: Uuid,
    ) -> Result<Option<(Job, SpecHash)>>;

    /// How these exports stand, those that are there.
    async fn standings(&self, ids: &[ExportId]) -> Result<HashMap<ExportId, Standing>>;

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Job>>;

    /// How many jobs of the same tenant would start before this one; 0 is next. `None` unless QUEUED. Counted up to
    /// [`POSITION_MAX`], which means "that many or more".
    async fn queue_position(&self, id: ExportId) -> Result<Option<u64>>;

    /// Takes up to `jobs_max` ready jobs: least served tenants first; of each, by priority, then age; within the caps
    /// of tenant and source; none of a paused tenant. Each gets `fence + 1`, `attempt + 1`, state RUNNING. Empty means
    /// that nothing could be had; when others' claims stood in the way for too long, the error is `Contended`. Jobs that
    /// another version wrote and this one can't read end FAILED (SPEC_UNREADABLE) instead; so they do in `reap`.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Job>>;

    /// RUNNING and CANCELLING jobs whose `lease_until` is past, in the order of their ids, after `after`; at most
    /// `jobs_max`. Their owners may well be alive: leases that are kept elsewhere don't move `lease_until`.
    async fn overdue(
        &self,
        after: Option<ExportId>,
        jobs_max: u32,
    ) -> Result<Vec<(ExportId, Fence)>>;

    /// Extends `lease_until` to now + ttl where `(id, fence)` is still RUNNING or CANCELLING; one answer for each, in
    /// order.
    async fn renew(
        &self,
        owned: &[(ExportId, Fence)],
        lease_ttl: Duration,
    ) -> Result<Vec<Ownership>>;

    /// Ends an attempt by compare-and-set on `(id, fence, state)`, frees its slots, corrects the virtual time.
    /// A job that became CANCELLING meanwhile ends CANCELLED, whatever the settlement says.
    async fn settle(
        &self,
        id: ExportId,
        fence: Fence,
        settlement: &Settlement,
        work: Work,
    ) -> Result<Settled>;

    async fn cancel(&self, id: ExportId) -> Result<Cancelled>;

    /// Removes a terminal job's row.
    async fn delete(&self, id: ExportId) -> Result<Deleted>;

    /// Puts the jobs of dead owners back (no backoff; the attempt counts), or ends them: FAILED (WORKER_LOST) when
    /// `attempts_max` are used up or the job is live, CANCELLED when it was CANCELLING. At most `jobs_max` a call.
    async fn reap(
        &self,
        abandoned: &Abandoned,
        attempts_max: u32,
        jobs_max: u32,
    ) -> Result<Vec<Reaped>>;

    /// Marks results whose `expires_at` is more than `grace` past as expired, and returns those jobs: their files can
    /// go. At most `jobs_max` a call.
    async fn expire(&self, grace: Duration, jobs_max: u32) -> Result<Vec<Job>>;

    /// Deletes rows that ended more than `retention` ago and whose result is expired or absent; returns them.
    async fn purge(&self, retention: Duration, jobs_max: u32) -> Result<Vec<Job>>;
}

/// What operators set while the service runs, and what the processes tell each other about themselves. Implemented
/// by the same two backends.
#[async_trait]
pub trait ControlStore: Send + Sync + 'static {
    async fn limits(&self) -> Result<LimitOverrides>;

    /// Reads, changes and writes the overrides in one transaction; returns what is stored now.
    async fn update_limits(&self, change: &LimitChange) -> Result<LimitOverrides>;

    /// `None`: every tenant.
    async fn set_paused(&self, tenant: Option<&TenantId>, paused: Paused) -> Result<()>;

    async fn paused(&self) -> Result<PausedTenants>;

    /// 32 random bytes, made once under the migration lock: the key that authenticates resume and page tokens.
    async fn token_key(&self) -> Result<[u8; 32]>;

    /// A lock for as long as the value lives, which one process of this queue can have; `None` while another has it. For
    /// work that is done once and not everywhere, while the lease store can't say who does it.
    async fn lead(&self) -> Result<Option<Guard>>;

    /// Inserts or refreshes this process's row; rows not refreshed for `ttl` are dropped.
    async fn heartbeat(&self, worker: &WorkerRow, ttl: Duration) -> Result<()>;

    async fn workers(&self) -> Result<Vec<WorkerRow>>;

    /// Returns when there may be a ready job, or after `timeout`; false wake-ups are fine. Backends without a listener
    /// are woken by their own process's inserts.
    async fn wait_for_work(&self, timeout: Duration);

    /// Tells idle claimers, here and elsewhere, that a job may be ready. Debounced; never fails the caller. The store
    /// calls it itself after everything that makes a job claimable or frees a slot, except the end of a backoff.
    async fn announce_work(&self);

    /// The counts that the claim relies on, beside what the rows say. For tests and for operators in doubt: it reads
    /// the whole table.
    #[doc(hidden)]
    async fn audit(&self) -> Result<Audit>;
}

/// Counted and true numbers; a difference is a defect.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    pub tenants: Vec<AuditRow>,
    pub sources: Vec<AuditRow>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRow {
    pub name: String,
    pub running_counted: i64,
    pub running_rows: i64,
    /// Jobs QUEUED and past their backoff; 0 for sources, which don't count them.
    pub ready_counted: i64,
    pub ready_rows: i64,
    /// 0 for sources.
    pub virtual_time: i64,
}

impl Audit {
    pub fn is_consistent(&self) -> bool {
        self.tenants.iter().chain(&self.sources).all(|row| {
            row.running_counted == row.running_rows && row.ready_counted == row.ready_rows
        })
    }
}

#[derive(Clone, Debug, Default)]
pub struct LimitChange {
    pub set: LimitOverrides,
    /// Field names of [`LimitOverrides`], or `source_slots.NAME` / `tenant_slots.NAME`.
    pub reset: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paused {
    Yes,
    No,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PausedTenants {
    pub everyone: bool,
    pub tenants: Vec<TenantId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerRow {
    pub id: WorkerId,
    pub host: String,
    pub started_at: Timestamp,
    pub running: u32,
    pub slots: u32,
    pub version: String,
}
