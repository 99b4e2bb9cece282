//! A new job: the only place where a row of `jobs` is made.

use sqlx::{PgConnection, Row};

use super::{PostgresStore, count_source, count_tenant, load, microseconds};
use crate::{
    export::{Caps, ExportId, State},
    queue::{
        FullCap, Inserted, Job, NewJob, Result, Start,
        row::{self, Id, bigint, to_json},
        rules::{Counts, guessed_cost, rank},
    },
};

impl PostgresStore {
    pub(super) async fn insert_once(&self, job: &NewJob) -> Result<Inserted> {
        let mut tx = self.begin().await?;
        let (tenant, source) = (&job.tenant.0, &job.spec.source);
        lock_or_make_tenant(&mut tx, tenant).await?;
        // Under the tenant's lock: of concurrent submits of one request, the second one finds the first.
        if let Some(before) = submitted_before(&mut tx, job).await? {
            return Ok(before);
        }
        sqlx::query("insert into sources (name) values ($1) on conflict do nothing")
            .bind(source)
            .execute(&mut *tx)
            .await?;
        let counts = match &job.start {
            Start::Queued { ready_max } => {
                if ready(&mut tx, tenant).await? >= i64::from(*ready_max) {
                    return Ok(Inserted::QueueFull);
                }
                Counts {
                    ready: 1,
                    ..Counts::default()
                }
            }
            Start::Running { caps, .. } => {
                if let Some(refused) = no_room(&mut tx, tenant, source, caps).await? {
                    return Ok(refused);
                }
                Counts {
                    running: 1,
                    virtual_time: guessed_cost(job.estimated_rows),
                    ..Counts::default()
                }
            }
        };
        count_tenant(&mut tx, tenant, counts).await?;
        count_source(&mut tx, source, counts.running).await?;
        let created = insert_row(&mut tx, job, counts.virtual_time).await?;
        tx.commit().await?;
        Ok(Inserted::Created(created))
    }
}

async fn lock_or_make_tenant(db: &mut PgConnection, name: &str) -> Result<()> {
    const LOCK: &str = "select 1 from tenants where name = $1 for update";
    let known = sqlx::query(LOCK)
        .bind(name)
        .fetch_optional(&mut *db)
        .await?;
    if known.is_some() {
        return Ok(());
    }
    sqlx::query("insert into tenants (name) values ($1) on conflict do nothing")
        .bind(name)
        .execute(&mut *db)
        .await?;
    sqlx::query(LOCK).bind(name).fetch_one(db).await?;
    Ok(())
}

/// The job that the same request made before: by its request id, or by its own id (a reply that was lost).
async fn submitted_before(db: &mut PgConnection, job: &NewJob) -> Result<Option<Inserted>> {
    let found = sqlx::query(
        "select id, spec_hash from jobs where id = $1 \
         union all select id, spec_hash from jobs where tenant = $2 and request_id = $3 limit 1",
    )
    .bind(Id(job.id.0))
    .bind(&job.tenant.0)
    .bind(job.request_id.map(Id))
    .fetch_optional(&mut *db)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let id = ExportId(found.try_get::<Id, _>(0)?.0);
    if found.try_get::<Vec<u8>, _>(1)? != job.spec_hash.0 {
        return Ok(Some(Inserted::RequestIdReused(id)));
    }
    Ok(load(db, id)
        .await?
        .map(|stored| Inserted::Existing(stored.job)))
}

async fn ready(db: &mut PgConnection, tenant: &str) -> Result<i64> {
    Ok(
        sqlx::query_scalar("select ready from tenants where name = $1")
            .bind(tenant)
            .fetch_one(db)
            .await?,
    )
}

async fn no_room(
    db: &mut PgConnection,
    tenant: &str,
    source: &str,
    caps: &Caps,
) -> Result<Option<Inserted>> {
    let row = sqlx::query(
        "select t.paused or c.paused, t.running from tenants t, control c where t.name = $1",
    )
    .bind(tenant)
    .fetch_one(&mut *db)
    .await?;
    if row.try_get::<bool, _>(0)? {
        return Ok(Some(Inserted::Paused));
    }
    if row.try_get::<i64, _>(1)? >= i64::from(caps.of_tenant(tenant)) {
        return Ok(Some(Inserted::Full(FullCap::Tenant)));
    }
    let running: i64 = sqlx::query_scalar("select running from sources where name = $1 for update")
        .bind(source)
        .fetch_one(db)
        .await?;
    let is_full = running >= i64::from(caps.of_source(source));
    Ok(is_full.then(|| Inserted::Full(FullCap::Source(source.to_owned()))))
}

async fn insert_row(db: &mut PgConnection, job: &NewJob, charged: i64) -> Result<Job> {
    let (state, attempt, worker, lease_us) = match &job.start {
        Start::Queued { .. } => (State::Queued, 0, None, None),
        Start::Running {
            worker, lease_ttl, ..
        } => (
            State::Running,
            1,
            Some(&worker.0),
            Some(microseconds(*lease_ttl)),
        ),
    };
    // The clock is read under the tenant's lock, so that within a tenant age is the order of commits.
    let row = sqlx::query(concat!(
        "with clock as materialized (select clock_timestamp() as at) \
         insert into jobs (id, tenant, source, kind, state, rank, spec, spec_hash, request_id, labels, estimated_rows, \
           attempt, fence, worker, started_at, lease_until, charged, created_at, ready_at) \
         select $1, $2, $3, $4, $5, $6, $7::text::json, $8, $9, $10::text::jsonb, $11, $12, $12, $13, \
           case when $14::bigint is not null then at end, at + $14 * interval '1 microsecond', $15, at, at from clock \
         returning ",
        job_columns!()
    ))
    .bind(Id(job.id.0))
    .bind(&job.tenant.0)
    .bind(&job.spec.source)
    .bind(job.kind as i16)
    .bind(state as i16)
    .bind(rank(job.spec.priority))
    .bind(to_json(&job.spec)?)
    .bind(job.spec_hash.0.to_vec())
    .bind(job.request_id.map(Id))
    .bind(to_json(&job.spec.labels)?)
    .bind(job.estimated_rows.map(bigint))
    .bind(attempt)
    .bind(worker)
    .bind(lease_us)
    .bind(charged)
    .fetch_one(db)
    .await?;
    row::job(&row)
}
