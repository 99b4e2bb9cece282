//! The queue's rules as plain functions: whom a claim serves, what an end of an attempt makes of a job, what a job
//! costs. Both backends ask them, inside their transactions, and only store the answers.
//!
//! Refuses to know SQL, time and locks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use super::{Error, JobKind, LimitChange, Result, Settlement, Work, row::StoredJob};
use crate::export::{Caps, Code, ExportId, Failure, LimitOverrides, ResultInfo, State, WorkerId};

/// What a claim charges for a job whose size nobody estimated, in rows.
const COST_UNKNOWN: i64 = 10_000;
/// So many bytes cost as much as one row.
const BYTES_PER_COST: u64 = 256;
/// A cost beyond this is a wrong number, not work: it would put the tenant last for ever.
const COST_MAX: i64 = 1 << 50;

/// What the claim adds to the tenant's virtual time.
pub(super) fn guessed_cost(estimated_rows: Option<u64>) -> i64 {
    estimated_rows.map_or(COST_UNKNOWN, clamped)
}

fn true_cost(work: Work) -> i64 {
    clamped(work.rows_read.saturating_add(work.bytes / BYTES_PER_COST))
}

fn clamped(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(COST_MAX).min(COST_MAX)
}

/// 0 is served first.
pub(super) fn rank(priority: u8) -> i16 {
    9 - i16::from(priority.min(9))
}

/// A tenant that the claim has locked.
#[derive(Debug)]
pub(super) struct Tenant {
    pub name: String,
    pub running: i64,
    pub virtual_time: i64,
}

/// A ready job of a locked tenant, one of the first of its source.
#[derive(Debug)]
pub(super) struct Candidate {
    pub id: ExportId,
    pub tenant: String,
    pub source: String,
    pub rank: i16,
    pub created_at: Timestamp,
    pub estimated_rows: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Pick {
    pub id: ExportId,
    pub tenant: String,
    pub source: String,
    pub cost: i64,
}

/// Least served tenant first, charged for what it gets; of each the first job by rank, then age, whose source has room.
/// `sources` holds the running count of every source that a candidate names.
pub(super) fn pick(
    tenants: Vec<Tenant>,
    mut sources: HashMap<String, i64>,
    candidates: Vec<Candidate>,
    caps: &Caps,
    jobs_max: usize,
) -> Vec<Pick> {
    let mut waiting: HashMap<String, Vec<Candidate>> = HashMap::new();
    for candidate in candidates {
        waiting
            .entry(candidate.tenant.clone())
            .or_default()
            .push(candidate);
    }
    let mut order = BinaryHeap::new();
    let mut queues = HashMap::new();
    for tenant in tenants {
        let mut jobs = waiting.remove(&tenant.name).unwrap_or_default();
        jobs.sort_by_key(|job| (job.rank, job.created_at, job.id));
        let room = i64::from(caps.of_tenant(&tenant.name)) - tenant.running;
        order.push(Reverse((tenant.virtual_time, tenant.name.clone())));
        queues.insert(tenant.name, (room, VecDeque::from(jobs)));
    }

    let mut picks = Vec::new();
    while picks.len() < jobs_max
        && let Some(Reverse((virtual_time, name))) = order.pop()
    {
        let (room, jobs) = queues
            .get_mut(&name)
            .expect("every ordered tenant has a queue");
        if *room <= 0 {
            continue;
        }
        let has_room = |job: &Candidate| {
            let running = sources.get(&job.source).copied().unwrap_or(i64::MAX);
            running < i64::from(caps.of_source(&job.source))
        };
        let Some(job) = jobs
            .iter()
            .position(has_room)
            .and_then(|at| jobs.remove(at))
        else {
            continue;
        };
        *room -= 1;
        *sources
            .get_mut(&job.source)
            .expect("a source without a count has no room") += 1;
        let cost = guessed_cost(job.estimated_rows);
        order.push(Reverse((virtual_time.saturating_add(cost), name)));
        picks.push(Pick {
            id: job.id,
            tenant: job.tenant,
            source: job.source,
            cost,
        });
    }
    picks
}

/// What the picks add up to, by tenant or by source: jobs and cost. Sorted by name, the order of locks.
pub(super) fn totals<'p>(
    picks: &'p [Pick],
    name: impl Fn(&'p Pick) -> &'p str,
) -> BTreeMap<&'p str, (i64, i64)> {
    let mut totals = BTreeMap::new();
    for pick in picks {
        let (jobs, cost) = totals.entry(name(pick)).or_insert((0, 0));
        *jobs += 1;
        *cost += pick.cost;
    }
    totals
}

/// The new values of a job's row, and what they do to the counts of its tenant and source.
#[derive(Debug)]
pub(super) struct Change {
    pub state: State,
    pub attempt: u32,
    pub worker: Option<WorkerId>,
    /// Of a job that goes back to QUEUED; zero: ready at once.
    pub delay: Duration,
    pub error: Option<Failure>,
    pub last_failure: Option<Failure>,
    pub result: Option<ResultInfo>,
    pub charged: i64,
    pub counts: Counts,
}

/// What is added to the counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub running: i64,
    pub ready: i64,
    pub virtual_time: i64,
}

impl Change {
    /// The job with another state; the rest as it is.
    fn to(stored: &StoredJob, state: State) -> Self {
        let job = &stored.job;
        let was_running = i64::from(is_owned(job.state));
        let was_ready = i64::from(job.state == State::Queued && !stored.delayed);
        Self {
            state,
            attempt: job.attempt,
            worker: if state == State::Queued {
                None
            } else {
                job.worker.clone()
            },
            delay: Duration::ZERO,
            error: job.error.clone(),
            last_failure: job.last_failure.clone(),
            result: job.result.clone(),
            charged: if is_owned(state) { stored.charged } else { 0 },
            counts: Counts {
                running: i64::from(is_owned(state)) - was_running,
                ready: i64::from(state == State::Queued) - was_ready,
                virtual_time: 0,
            },
        }
    }

    fn failed(stored: &StoredJob, failure: Failure) -> Self {
        Self {
            error: Some(failure),
            ..Self::to(stored, State::Failed)
        }
    }

    fn queued(stored: &StoredJob, failure: &Failure, delay: Duration) -> Self {
        let mut change = Self::to(stored, State::Queued);
        change.last_failure = Some(failure.clone());
        change.delay = delay;
        change.counts.ready = i64::from(!change.is_delayed());
        change
    }

    pub fn is_delayed(&self) -> bool {
        self.state == State::Queued && !self.delay.is_zero()
    }
}

fn is_owned(state: State) -> bool {
    matches!(state, State::Running | State::Cancelling)
}

/// The end of an attempt, of a job that is RUNNING or CANCELLING under the caller's fence.
pub(super) fn settled(stored: &StoredJob, settlement: &Settlement, work: Work) -> Result<Change> {
    let mut change = if stored.job.state == State::Cancelling {
        Change::to(stored, State::Cancelled)
    } else {
        settled_running(stored, settlement)?
    };
    change.counts.virtual_time = true_cost(work) - stored.charged;
    Ok(change)
}

fn settled_running(stored: &StoredJob, settlement: &Settlement) -> Result<Change> {
    let job = &stored.job;
    Ok(match (settlement, job.kind) {
        (Settlement::Succeeded(result), _) => Change {
            result: Some(result.clone()),
            ..Change::to(stored, State::Succeeded)
        },
        // A live stream is never queued: what would be another attempt is its end.
        (Settlement::Failed(failure), _) | (Settlement::Retry { failure, .. }, JobKind::Live) => {
            Change::failed(stored, failure.clone())
        }
        (Settlement::Retry { failure, delay }, JobKind::Export) => {
            Change::queued(stored, failure, *delay)
        }
        (Settlement::HandBack, JobKind::Export) => Change {
            attempt: job.attempt.saturating_sub(1),
            ..Change::to(stored, State::Queued)
        },
        (Settlement::HandBack, JobKind::Live) => Change::failed(stored, draining()),
        (Settlement::Cancelled, JobKind::Live) => Change::to(stored, State::Cancelled),
        (Settlement::Cancelled, JobKind::Export) => {
            return Err(Error::Broken(format!(
                "export {} is settled as cancelled, but nobody cancelled it",
                job.id
            )));
        }
    })
}

/// A cancel; `None` when the job is past it.
pub(super) fn cancelled(stored: &StoredJob) -> Option<Change> {
    match stored.job.state {
        State::Queued => Some(Change::to(stored, State::Cancelled)),
        State::Running => Some(Change::to(stored, State::Cancelling)),
        _ => None,
    }
}

/// The end of a job that was claimed and that this version can't run; `None` when it can.
pub(super) fn unreadable(stored: &StoredJob) -> Option<Change> {
    stored.unreadable.as_ref()?;
    let mut change = Change::failed(stored, spec_unreadable());
    change.counts.virtual_time = -stored.charged;
    Some(change)
}

/// The end of a job whose owner is dead; `None` when it has no owner any more. What the attempt read nobody knows: a
/// guess that was large is cut, or each attempt would charge the tenant for the whole export.
pub(super) fn reaped(stored: &StoredJob, attempts_max: u32) -> Option<Change> {
    let job = &stored.job;
    let mut change = match (job.state, job.kind) {
        (State::Cancelling, _) => Change::to(stored, State::Cancelled),
        (State::Running, _) if stored.unreadable.is_some() => {
            Change::failed(stored, spec_unreadable())
        }
        (State::Running, JobKind::Export) if job.attempt < attempts_max => {
            Change::queued(stored, &worker_lost().retryable(), Duration::ZERO)
        }
        (State::Running, _) => Change::failed(stored, worker_lost()),
        _ => return None,
    };
    change.counts.virtual_time = stored.charged.min(COST_UNKNOWN) - stored.charged;
    Some(change)
}

fn worker_lost() -> Failure {
    Failure::new(
        Code::Unavailable,
        "WORKER_LOST",
        "the process that ran the export died or lost its lease",
    )
}

fn spec_unreadable() -> Failure {
    Failure::new(
        Code::Internal,
        "SPEC_UNREADABLE",
        "another version of the server stored the export, and this one can't read it; submit it again",
    )
}

fn draining() -> Failure {
    Failure::new(
        Code::Unavailable,
        "DRAINING",
        "the server shut down while the stream ran; start it again",
    )
}

impl LimitChange {
    /// Resets, then sets. The name of the first limit that does not exist is the error.
    pub fn apply(&self, limits: &mut LimitOverrides) -> Result<(), String> {
        for name in &self.reset {
            reset(limits, name).ok_or_else(|| name.clone())?;
        }
        let LimitOverrides {
            memory_budget_bytes,
            queue_bytes,
            queue_batches,
            batch_rows,
            transform_workers,
            worker_slots,
            inline_slots,
            stream_slots,
            source_slots,
            tenant_slots,
        } = self.set.clone();
        limits.memory_budget_bytes = memory_budget_bytes.or(limits.memory_budget_bytes);
        limits.queue_bytes = queue_bytes.or(limits.queue_bytes);
        limits.queue_batches = queue_batches.or(limits.queue_batches);
        limits.batch_rows = batch_rows.or(limits.batch_rows);
        limits.transform_workers = transform_workers.or(limits.transform_workers);
        limits.worker_slots = worker_slots.or(limits.worker_slots);
        limits.inline_slots = inline_slots.or(limits.inline_slots);
        limits.stream_slots = stream_slots.or(limits.stream_slots);
        limits.source_slots.extend(source_slots);
        limits.tenant_slots.extend(tenant_slots);
        Ok(())
    }
}

fn reset(limits: &mut LimitOverrides, name: &str) -> Option<()> {
    if let Some(source) = name.strip_prefix("source_slots.") {
        limits.source_slots.remove(source);
        return Some(());
    }
    if let Some(tenant) = name.strip_prefix("tenant_slots.") {
        limits.tenant_slots.remove(tenant);
        return Some(());
    }
    match name {
        "memory_budget_bytes" => limits.memory_budget_bytes = None,
        "queue_bytes" => limits.queue_bytes = None,
        "queue_batches" => limits.queue_batches = None,
        "batch_rows" => limits.batch_rows = None,
        "transform_workers" => limits.transform_workers = None,
        "worker_slots" => limits.worker_slots = None,
        "inline_slots" => limits.inline_slots = None,
        "stream_slots" => limits.stream_slots = None,
        "source_slots" => limits.source_slots.clear(),
        "tenant_slots" => limits.tenant_slots.clear(),
        _ => return None,
    }
    Some(())
}
