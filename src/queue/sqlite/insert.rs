//! A new job: the only place where a row of `jobs` is made.

use sqlx::{Row, SqliteConnection};

use super::{SqliteStore, count_source, count_tenant, later, load, now};
use crate::{
    export::{Caps, ExportId, State},
    queue::{
        Error, FullCap, Inserted, NewJob, Result, Start,
        row::{At, Id, bigint, to_json},
        rules::{Counts, guessed_cost, rank},
    },
};

impl SqliteStore {
    pub(super) async fn insert_once(&self, job: &NewJob) -> Result<Inserted> {
        let mut tx = self.begin().await?;
        if let Some(before) = submitted_before(&mut tx, job).await? {
            return Ok(before);
        }
        let (tenant, source) = (&job.tenant.0, &job.spec.source);
        sqlx::query("insert into tenants (name) values ($1) on conflict do nothing")
            .bind(tenant)
            .execute(&mut *tx)
            .await?;
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
        insert_row(&mut tx, job, counts.virtual_time, now()).await?;
        let created = load(&mut tx, job.id).await?;
        tx.commit().await?;
        created
            .map(|stored| Inserted::Created(stored.job))
            .ok_or_else(|| Error::Broken(format!("export {} vanished as it was made", job.id)))
    }
}

/// The job that the same request made before: by its request id, or by its own id (a reply that was lost).
async fn submitted_before(db: &mut SqliteConnection, job: &NewJob) -> Result<Option<Inserted>> {
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

async fn ready(db: &mut SqliteConnection, tenant: &str) -> Result<i64> {
    Ok(
        sqlx::query_scalar("select ready from tenants where name = $1")
            .bind(tenant)
            .fetch_one(db)
            .await?,
    )
}

async fn no_room(
    db: &mut SqliteConnection,
    tenant: &str,
    source: &str,
    caps: &Caps,
) -> Result<Option<Inserted>> {
    let row = sqlx::query(
        "select t.paused or c.paused, t.running, s.running from tenants t, sources s, control c \
         where t.name = $1 and s.name = $2",
    )
    .bind(tenant)
    .bind(source)
    .fetch_one(db)
    .await?;
    Ok(if row.try_get::<bool, _>(0)? {
        Some(Inserted::Paused)
    } else if row.try_get::<i64, _>(1)? >= i64::from(caps.of_tenant(tenant)) {
        Some(Inserted::Full(FullCap::Tenant))
    } else if row.try_get::<i64, _>(2)? >= i64::from(caps.of_source(source)) {
        Some(Inserted::Full(FullCap::Source(source.to_owned())))
    } else {
        None
    })
}

async fn insert_row(db: &mut SqliteConnection, job: &NewJob, charged: i64, at: At) -> Result<()> {
    let (state, attempt, worker, started_at, lease_until) = match &job.start {
        Start::Queued { .. } => (State::Queued, 0, None, None, None),
        Start::Running {
            worker, lease_ttl, ..
        } => (
            State::Running,
            1,
            Some(&worker.0),
            Some(at),
            Some(later(at, *lease_ttl)),
        ),
    };
    sqlx::query(
        "insert into jobs (id, tenant, source, kind, state, rank, spec, spec_hash, request_id, labels, estimated_rows, \
           attempt, fence, worker, started_at, lease_until, charged, created_at, ready_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, $15, $16, $17, $17)",
    )
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
    .bind(started_at)
    .bind(lease_until)
    .bind(charged)
    .bind(at)
    .execute(db)
    .await?;
    Ok(())
}
