//! The claim, and the renewal of what was claimed.

use std::{collections::BTreeMap, collections::HashMap, time::Duration};

use sqlx::{PgConnection, Row};

use super::{PostgresStore, count_tenant, lock_tenants, microseconds, settle::apply};
use crate::{
    export::{ExportId, Fence, State},
    queue::{
        CLAIM_JOBS_MAX, ClaimRequest, Error, Job, Ownership, Result,
        row::{At, Id, stored_job, to_json},
        rules::{Candidate, Counts, Pick, Tenant, pick, totals, unreadable},
    },
};

/// Ready jobs that leave their backoff in one claim; more wait for the next one.
const DUE_MAX: i64 = 256;

/// How often a claim starts over because others took what it had seen. In each round some claim succeeds, so this many
/// in a row mean a crowd, which the caller should let pass.
const ROUNDS_MAX: u32 = 10;

/// Tenants that may be served, least served first: $1 and $2 are the tenants' caps (by name as JSON, and the default),
/// $3 and $4 the sources'. The LIMITs in the lateral parts keep the planner from turning the probes of the ready index
/// into a join with the whole backlog.
macro_rules! next_tenants {
    () => {
        "from tenants t \
         cross join lateral ( \
           select 1 from sources s \
           cross join lateral ( \
             select 1 from jobs j where j.tenant = t.name and j.source = s.name and j.state = 1 and not j.delayed \
             order by j.rank, j.created_at, j.id limit 1) first \
           where s.running < coalesce(($3::text::jsonb ->> s.name)::bigint, $4) \
           limit 1) work \
         where t.ready > 0 and not t.paused and not (select c.paused from control c) \
           and t.running < coalesce(($1::text::jsonb ->> t.name)::bigint, $2) \
         order by t.virtual_time, t.name"
    };
}

impl PostgresStore {
    pub(super) async fn claim_once(&self, request: &ClaimRequest) -> Result<Vec<Job>> {
        let jobs_max = request.jobs_max.min(CLAIM_JOBS_MAX);
        if jobs_max == 0 {
            return Ok(Vec::new());
        }
        let caps = CapsAsSql::of(request)?;
        for _ in 0..ROUNDS_MAX {
            let mut db = self.pool.acquire().await?;
            let (due, ready) = look(&mut db, &caps).await?;
            drop(db);
            if due {
                // In a transaction of its own: it waits for tenants, which a claim that holds some must not.
                self.end_backoffs().await?;
            } else if !ready {
                return Ok(Vec::new());
            }
            let jobs = self.claim_round(request, &caps, jobs_max).await?;
            if !jobs.is_empty() {
                return Ok(jobs);
            }
        }
        Err(Error::Contended(
            "other claims took every job first".to_owned(),
        ))
    }

    async fn claim_round(
        &self,
        request: &ClaimRequest,
        caps: &CapsAsSql,
        jobs_max: u32,
    ) -> Result<Vec<Job>> {
        let mut tx = self.begin().await?;
        let mut tenants = lock_next_tenants(&mut tx, caps, jobs_max, Locked::Skip).await?;
        if tenants.is_empty() {
            // A locked tenant is not an empty queue: wait for one.
            tenants = lock_next_tenants(&mut tx, caps, 1, Locked::Wait).await?;
        }
        let candidates = candidates(&mut tx, &tenants, caps, jobs_max).await?;
        let sources = lock_sources(&mut tx, &candidates).await?;
        let picks = pick(
            tenants,
            sources,
            candidates,
            &request.caps,
            jobs_max as usize,
        );
        if picks.is_empty() {
            return Ok(Vec::new());
        }
        let jobs = take(&mut tx, request, &picks).await?;
        tx.commit().await?;
        Ok(jobs)
    }

    /// Moves jobs whose backoff is over into the ready index.
    async fn end_backoffs(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        let due = sqlx::query(
            "select id, tenant from jobs where state = 1 and delayed and ready_at <= now() order by ready_at limit $1",
        )
        .bind(DUE_MAX)
        .fetch_all(&mut *tx)
        .await?;
        let (mut ids, mut tenants) = (Vec::new(), Vec::new());
        for row in due {
            ids.push(row.try_get::<Id, _>(0)?);
            tenants.push(row.try_get::<String, _>(1)?);
        }
        lock_tenants(&mut tx, &tenants).await?;
        let moved: Vec<String> = sqlx::query_scalar(
            "update jobs set delayed = false where id = any($1) and state = 1 and delayed and ready_at <= now() \
             returning tenant",
        )
        .bind(ids)
        .fetch_all(&mut *tx)
        .await?;
        let mut ready: BTreeMap<String, i64> = BTreeMap::new();
        for tenant in moved {
            *ready.entry(tenant).or_default() += 1;
        }
        for (tenant, ready) in ready {
            let counts = Counts {
                ready,
                ..Counts::default()
            };
            count_tenant(&mut tx, &tenant, counts).await?;
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn renew_once(
        &self,
        owned: &[(ExportId, Fence)],
        lease_ttl: Duration,
    ) -> Result<Vec<Ownership>> {
        let ids: Vec<Id> = owned.iter().map(|(id, _)| Id(id.0)).collect();
        let fences: Vec<i64> = owned.iter().map(|(_, fence)| fence.0).collect();
        let rows = sqlx::query(
            "update jobs set lease_until = now() + $3 * interval '1 microsecond' \
             from unnest($1::uuid[], $2::bigint[]) as o(owned_id, owned_fence) \
             where id = owned_id and fence = owned_fence and state in (2, 3) returning id, fence, state",
        )
        .bind(ids)
        .bind(fences)
        .bind(microseconds(lease_ttl))
        .fetch_all(&self.pool)
        .await?;
        let mut states = HashMap::with_capacity(rows.len());
        for row in rows {
            let key = (ExportId(row.try_get::<Id, _>(0)?.0), Fence(row.try_get(1)?));
            states.insert(key, State::from_number(row.try_get(2)?));
        }
        let answer = |key| match states.get(key).copied().flatten() {
            Some(State::Running) => Ownership::Running,
            Some(State::Cancelling) => Ownership::Cancelling,
            _ => Ownership::Lost,
        };
        Ok(owned.iter().map(answer).collect())
    }
}

struct CapsAsSql {
    tenants: String,
    tenant_default: i64,
    sources: String,
    source_default: i64,
}

impl CapsAsSql {
    fn of(request: &ClaimRequest) -> Result<Self> {
        let caps = &request.caps;
        Ok(Self {
            tenants: to_json(&caps.tenant_slots)?,
            tenant_default: i64::from(caps.of_tenant("*")),
            sources: to_json(&caps.source_slots)?,
            source_default: i64::from(caps.of_source("*")),
        })
    }
}

#[derive(Clone, Copy)]
enum Locked {
    Skip,
    Wait,
}

/// Whether a backoff is over, and whether any tenant may be served: all that an idle process asks in each poll.
async fn look(db: &mut PgConnection, caps: &CapsAsSql) -> Result<(bool, bool)> {
    let row = sqlx::query(concat!(
        "select exists (select 1 from jobs where state = 1 and delayed and ready_at <= now()), \
         exists (select 1 ",
        next_tenants!(),
        " limit 1)"
    ))
    .bind(&caps.tenants)
    .bind(caps.tenant_default)
    .bind(&caps.sources)
    .bind(caps.source_default)
    .fetch_one(db)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

macro_rules! lock_next_tenants {
    ($how:literal) => {
        concat!(
            "select t.name, t.running, t.virtual_time ",
            next_tenants!(),
            " limit $5 for update of t",
            $how
        )
    };
}

async fn lock_next_tenants(
    db: &mut PgConnection,
    caps: &CapsAsSql,
    tenants_max: u32,
    locked: Locked,
) -> Result<Vec<Tenant>> {
    sqlx::query(match locked {
        Locked::Skip => lock_next_tenants!(" skip locked"),
        Locked::Wait => lock_next_tenants!(""),
    })
    .bind(&caps.tenants)
    .bind(caps.tenant_default)
    .bind(&caps.sources)
    .bind(caps.source_default)
    .bind(i64::from(tenants_max))
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        Ok(Tenant {
            name: row.try_get(0)?,
            running: row.try_get(1)?,
            virtual_time: row.try_get(2)?,
        })
    })
    .collect()
}

/// The first jobs of each locked tenant in each source that seems to have room.
async fn candidates(
    db: &mut PgConnection,
    tenants: &[Tenant],
    caps: &CapsAsSql,
    jobs_max: u32,
) -> Result<Vec<Candidate>> {
    let names: Vec<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
    sqlx::query(
        "select j.id, j.tenant, j.source, j.rank, j.created_at, j.estimated_rows \
         from unnest($1::text[]) as t(name) cross join sources s cross join lateral ( \
           select k.id, k.tenant, k.source, k.rank, k.created_at, k.estimated_rows from jobs k \
           where k.tenant = t.name and k.source = s.name and k.state = 1 and not k.delayed \
           order by k.rank, k.created_at, k.id limit $4) j \
         where s.running < coalesce(($2::text::jsonb ->> s.name)::bigint, $3)",
    )
    .bind(names)
    .bind(&caps.sources)
    .bind(caps.source_default)
    .bind(i64::from(jobs_max))
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        Ok(Candidate {
            id: ExportId(row.try_get::<Id, _>(0)?.0),
            tenant: row.try_get(1)?,
            source: row.try_get(2)?,
            rank: row.try_get(3)?,
            created_at: row.try_get::<At, _>(4)?.0,
            estimated_rows: row
                .try_get::<Option<i64>, _>(5)?
                .and_then(|rows| u64::try_from(rows).ok()),
        })
    })
    .collect()
}

/// Locks the candidates' sources, and returns how many run in each: from here to the commit the numbers are exact.
async fn lock_sources(
    db: &mut PgConnection,
    candidates: &[Candidate],
) -> Result<HashMap<String, i64>> {
    let mut names: Vec<String> = candidates.iter().map(|job| job.source.clone()).collect();
    names.sort_unstable();
    names.dedup();
    sqlx::query("select name, running from sources where name = any($1) order by name for update")
        .bind(names)
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Makes the picked jobs the worker's, and counts them. The clock is read now, not where the transaction began: it may
/// have waited for a tenant since.
async fn take(db: &mut PgConnection, request: &ClaimRequest, picks: &[Pick]) -> Result<Vec<Job>> {
    let ids: Vec<Id> = picks.iter().map(|pick| Id(pick.id.0)).collect();
    let costs: Vec<i64> = picks.iter().map(|pick| pick.cost).collect();
    let rows = sqlx::query(concat!(
        "update jobs set state = 2, fence = fence + 1, attempt = attempt + 1, worker = $3, \
           started_at = clock_timestamp(), lease_until = clock_timestamp() + $4 * interval '1 microsecond', charged = picked_cost \
         from unnest($1::uuid[], $2::bigint[]) as p(picked_id, picked_cost) \
         where id = picked_id and state = 1 and not delayed returning ",
        job_columns!()
    ))
    .bind(ids)
    .bind(costs)
    .bind(&request.worker.0)
    .bind(microseconds(request.lease_ttl))
    .fetch_all(&mut *db)
    .await?;
    let mut taken = HashMap::with_capacity(rows.len());
    for row in &rows {
        let stored = stored_job(row)?;
        taken.insert(stored.job.id, stored);
    }
    count_picks(db, picks).await?;
    let mut jobs = Vec::with_capacity(picks.len());
    for pick in picks {
        let stored = taken.remove(&pick.id).ok_or_else(|| {
            Error::Broken(format!("export {} left the queue under its lock", pick.id))
        })?;
        match unreadable(&stored) {
            None => jobs.push(stored.job),
            Some(change) => {
                stored.log_unreadable();
                apply(db, &stored, &change).await?;
            }
        }
    }
    Ok(jobs)
}

/// All rows that it changes are locked.
async fn count_picks(db: &mut PgConnection, picks: &[Pick]) -> Result<()> {
    let of_tenants = totals(picks, |pick| &pick.tenant);
    let names: Vec<String> = of_tenants.keys().map(|name| (*name).to_owned()).collect();
    let (jobs, costs): (Vec<i64>, Vec<i64>) = of_tenants.values().copied().unzip();
    sqlx::query(
        "update tenants set running = running + jobs, ready = ready - jobs, virtual_time = virtual_time + cost \
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as p(tenant, jobs, cost) where name = tenant",
    )
    .bind(names)
    .bind(jobs)
    .bind(costs)
    .execute(&mut *db)
    .await?;
    let of_sources = totals(picks, |pick| &pick.source);
    let names: Vec<String> = of_sources.keys().map(|name| (*name).to_owned()).collect();
    let jobs: Vec<i64> = of_sources.values().map(|(jobs, _)| *jobs).collect();
    sqlx::query(
        "update sources set running = running + jobs \
         from unnest($1::text[], $2::bigint[]) as p(source, jobs) where name = source",
    )
    .bind(names)
    .bind(jobs)
    .execute(db)
    .await?;
    Ok(())
}
