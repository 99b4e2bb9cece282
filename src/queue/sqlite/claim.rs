//! The claim, and the renewal of what was claimed.

use std::{collections::HashMap, time::Duration};

use sqlx::{Row, SqliteConnection};

use super::{SqliteStore, count_source, count_tenant, later, now, settle::apply};
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

/// Tenants that may be served, least served first: $1 and $2 are the tenants' caps (by name as JSON, and the default),
/// $3 and $4 the sources'.
macro_rules! next_tenants {
    () => {
        "from tenants t where t.ready > 0 and not t.paused and not (select paused from control) \
           and t.running < coalesce((select value from json_each($1) where key = t.name), $2) \
           and exists (select 1 from sources s \
             where s.running < coalesce((select value from json_each($3) where key = s.name), $4) \
               and exists (select 1 from jobs j where j.tenant = t.name and j.source = s.name and j.state = 1 \
                 and not j.delayed)) \
         order by t.virtual_time, t.name"
    };
}

impl SqliteStore {
    pub(super) async fn claim_once(&self, request: &ClaimRequest) -> Result<Vec<Job>> {
        let jobs_max = request.jobs_max.min(CLAIM_JOBS_MAX);
        let caps = CapsAsSql::of(request)?;
        // Most claims of an idle process find nothing: they only read, beside the writer.
        let mut reader = self.readers.acquire().await?;
        let at = now();
        let due = is_due(&mut reader, at).await?;
        if jobs_max == 0 || !(due || any_ready(&mut reader, &caps).await?) {
            return Ok(Vec::new());
        }
        drop(reader);

        let mut tx = self.begin().await?;
        if due {
            end_backoffs(&mut tx, at).await?;
        }
        let tenants = next_tenants(&mut tx, &caps, jobs_max).await?;
        let (sources, candidates) = candidates(&mut tx, &tenants, &caps, jobs_max).await?;
        let picks = pick(
            tenants,
            sources,
            candidates,
            &request.caps,
            jobs_max as usize,
        );
        let jobs = take(&mut tx, request, &picks, at).await?;
        tx.commit().await?;
        Ok(jobs)
    }

    pub(super) async fn renew_once(
        &self,
        owned: &[(ExportId, Fence)],
        lease_ttl: Duration,
    ) -> Result<Vec<Ownership>> {
        let mut tx = self.begin().await?;
        let until = later(now(), lease_ttl);
        let mut answers = Vec::with_capacity(owned.len());
        for (id, fence) in owned {
            let state: Option<i16> = sqlx::query_scalar(
                "update jobs set lease_until = $3 where id = $1 and fence = $2 and state in (2, 3) returning state",
            )
            .bind(Id(id.0))
            .bind(fence.0)
            .bind(until)
            .fetch_optional(&mut *tx)
            .await?;
            answers.push(match state.and_then(State::from_number) {
                Some(State::Running) => Ownership::Running,
                Some(State::Cancelling) => Ownership::Cancelling,
                _ => Ownership::Lost,
            });
        }
        tx.commit().await?;
        Ok(answers)
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

async fn is_due(db: &mut SqliteConnection, at: At) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from jobs where state = 1 and delayed and ready_at <= $1)",
    )
    .bind(at)
    .fetch_one(db)
    .await?)
}

async fn any_ready(db: &mut SqliteConnection, caps: &CapsAsSql) -> Result<bool> {
    Ok(
        sqlx::query(concat!("select 1 ", next_tenants!(), " limit 1"))
            .bind(&caps.tenants)
            .bind(caps.tenant_default)
            .bind(&caps.sources)
            .bind(caps.source_default)
            .fetch_optional(db)
            .await?
            .is_some(),
    )
}

/// Moves jobs whose backoff is over into the ready index.
async fn end_backoffs(db: &mut SqliteConnection, at: At) -> Result<()> {
    let mut ready: HashMap<String, i64> = HashMap::new();
    let rows = sqlx::query(
        "update jobs set delayed = 0 where id in (select id from jobs where state = 1 and delayed and ready_at <= $1 \
           order by ready_at limit $2) returning tenant",
    )
    .bind(at)
    .bind(DUE_MAX)
    .fetch_all(&mut *db)
    .await?;
    for row in rows {
        *ready.entry(row.try_get(0)?).or_default() += 1;
    }
    for (tenant, ready) in ready {
        let counts = Counts {
            ready,
            ..Counts::default()
        };
        count_tenant(db, &tenant, counts).await?;
    }
    Ok(())
}

async fn next_tenants(
    db: &mut SqliteConnection,
    caps: &CapsAsSql,
    jobs_max: u32,
) -> Result<Vec<Tenant>> {
    sqlx::query(concat!(
        "select t.name, t.running, t.virtual_time ",
        next_tenants!(),
        " limit $5"
    ))
    .bind(&caps.tenants)
    .bind(caps.tenant_default)
    .bind(&caps.sources)
    .bind(caps.source_default)
    .bind(jobs_max)
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

/// The first jobs of each tenant in each source that has room, and how many run in those sources.
async fn candidates(
    db: &mut SqliteConnection,
    tenants: &[Tenant],
    caps: &CapsAsSql,
    jobs_max: u32,
) -> Result<(HashMap<String, i64>, Vec<Candidate>)> {
    let names: Vec<&str> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    // CROSS JOIN fixes the order of the loops: tenants, sources, and of each pair only the head of its index.
    let rows = sqlx::query(
        "select j.id, j.tenant, j.source, j.rank, j.created_at, j.estimated_rows, s.running \
         from json_each($1) t cross join sources s cross join jobs j \
         where s.running < coalesce((select value from json_each($2) where key = s.name), $3) \
           and j.rowid in (select k.rowid from jobs k where k.tenant = t.value and k.source = s.name and k.state = 1 \
             and not k.delayed order by k.rank, k.created_at, k.id limit $4)",
    )
    .bind(to_json(&names)?)
    .bind(&caps.sources)
    .bind(caps.source_default)
    .bind(jobs_max)
    .fetch_all(db)
    .await?;
    let mut sources = HashMap::new();
    let mut candidates = Vec::with_capacity(rows.len());
    for row in rows {
        let source: String = row.try_get(2)?;
        sources.insert(source.clone(), row.try_get(6)?);
        candidates.push(Candidate {
            id: ExportId(row.try_get::<Id, _>(0)?.0),
            tenant: row.try_get(1)?,
            source,
            rank: row.try_get(3)?,
            created_at: row.try_get::<At, _>(4)?.0,
            estimated_rows: row
                .try_get::<Option<i64>, _>(5)?
                .and_then(|rows| u64::try_from(rows).ok()),
        });
    }
    Ok((sources, candidates))
}

/// Makes the picked jobs the worker's, and counts them.
async fn take(
    db: &mut SqliteConnection,
    request: &ClaimRequest,
    picks: &[Pick],
    at: At,
) -> Result<Vec<Job>> {
    for (tenant, (jobs, cost)) in totals(picks, |pick| &pick.tenant) {
        let counts = Counts {
            running: jobs,
            ready: -jobs,
            virtual_time: cost,
        };
        count_tenant(db, tenant, counts).await?;
    }
    for (source, (jobs, _)) in totals(picks, |pick| &pick.source) {
        count_source(db, source, jobs).await?;
    }
    let mut jobs = Vec::with_capacity(picks.len());
    for pick in picks {
        let row = sqlx::query(concat!(
            "update jobs set state = 2, fence = fence + 1, attempt = attempt + 1, worker = $2, started_at = $3, \
               lease_until = $4, charged = $5 where id = $1 and state = 1 and not delayed returning ",
            job_columns!()
        ))
        .bind(Id(pick.id.0))
        .bind(&request.worker.0)
        .bind(at)
        .bind(later(at, request.lease_ttl))
        .bind(pick.cost)
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Error::Broken(format!("export {} left the queue under its lock", pick.id)))?;
        let stored = stored_job(&row)?;
        match unreadable(&stored) {
            None => jobs.push(stored.job),
            Some(change) => {
                stored.log_unreadable();
                apply(db, &stored, &change, at).await?;
            }
        }
    }
    Ok(jobs)
}
