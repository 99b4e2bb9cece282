//! The queue in PostgreSQL, for a cluster.
//!
//! Whatever moves a job locks its tenant first, then its source, then the job; several tenants or sources in the order
//! of their names. While a transaction holds a tenant, no other one changes the states of that tenant's jobs, so what
//! it reads after the lock holds until it commits. All times are the database's clock.

macro_rules! job_columns {
    () => {
        "id, tenant, source, spec::text as spec, kind, state, attempt, fence, worker, created_at, started_at, ended_at, \
         ready_at, estimated_rows, error::text as error, last_failure::text as last_failure, \
         result::text as result, result_expired, delayed, charged"
    };
}

mod claim;
mod control;
mod insert;
mod read;
mod retention;
mod session;
mod settle;
mod signal;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    PgConnection, PgPool, Postgres, Row, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Abandoned, Audit, Cancelled, ClaimRequest, ControlStore, Deleted, Error, Guard, Inserted, Job,
    JobStore, LimitChange, ListFilter, NewJob, Ownership, Paused, PausedTenants, Reaped, Result,
    Settled, Settlement, Standing, StoreOptions, Work, WorkerRow,
    migrations::{self, POSTGRES},
    row::{Id, StoredJob, stored_job},
    rules::Counts,
    trouble::retried,
    wake::Wake,
};
use crate::export::{ExportId, Fence, LimitOverrides, SpecHash, TenantId};
use signal::Signal;

/// A queue in a PostgreSQL database. Cheap to share behind an `Arc`.
pub struct PostgresStore {
    pool: PgPool,
    connect: PgConnectOptions,
    wake: Arc<Wake>,
    signal: Signal,
}

impl PostgresStore {
    /// Connects to `postgres://...`, brings the schema up to date, and listens for other processes' announcements.
    pub async fn connect(url: &SecretString, options: StoreOptions) -> Result<Self> {
        let connect = connect_options(url)?;
        let pool = open_pool(connect.clone(), &options).await?;
        retried(|| migrate_once(&pool)).await?;
        let wake = Arc::new(Wake::new());
        let signal = Signal::start(&pool, connect.clone(), wake.clone(), options.announce_every);
        Ok(Self {
            pool,
            connect,
            wake,
            signal,
        })
    }

    /// Creates or updates the schema of the queue at `url`, and nothing else.
    pub async fn migrate(url: &SecretString, options: StoreOptions) -> Result<()> {
        let pool = open_pool(connect_options(url)?, &options).await?;
        let migrated = retried(|| migrate_once(&pool)).await;
        pool.close().await;
        migrated
    }

    /// Claims the queue for this process alone, on a connection of its own; [`Error::InUse`] when another one has it.
    /// [`Guard::lost`] fires when that connection breaks.
    pub async fn guard(&self) -> Result<Guard> {
        session::guard(&self.connect).await
    }

    /// Waits for running transactions and closes the connections; later calls fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        Ok(self.pool.begin().await?)
    }

    /// A job may be ready, or a slot free: tells this process at once and the others soon.
    fn announce(&self) {
        self.wake.announce();
        self.signal.send();
    }
}

/// A pool that is empty for this long means that the database is stuck, or far too slow for its callers.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

fn connect_options(url: &SecretString) -> Result<PgConnectOptions> {
    // The driver's error may quote the URL, and with it the password.
    url.expose_secret()
        .parse::<PgConnectOptions>()
        .map(|options| options.application_name("rowgate"))
        .map_err(|_| Error::Broken("queue.url is not a PostgreSQL URL".to_owned()))
}

async fn open_pool(connect: PgConnectOptions, options: &StoreOptions) -> Result<PgPool> {
    let lock_timeout_ms = options.lock_timeout.as_millis().max(1).to_string();
    let pool = PgPoolOptions::new()
        .max_connections(options.connections_max.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let lock_timeout_ms = lock_timeout_ms.clone();
            Box::pin(async move {
                // By a statement, not by the start-up packet: poolers refuse options there.
                sqlx::query(
                    "select set_config('lock_timeout', $1, false), \
                       set_config('idle_in_transaction_session_timeout', '60s', false)",
                )
                .bind(lock_timeout_ms)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .connect_with(connect)
        .await?;
    Ok(pool)
}

/// Serialises the migrations of all processes; an arbitrary number of ours.
const MIGRATION_LOCK: i64 = 0x0072_6f77_6761_7465;

async fn migrate_once(pool: &PgPool) -> Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("select set_config('lock_timeout', '0', true), pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *tx)
        .await?;
    sqlx::raw_sql(
        "create table if not exists rowgate_migrations \
         (number bigint primary key, name text not null, applied_at timestamptz not null)",
    )
    .execute(&mut *tx)
    .await?;
    let applied = sqlx::query("select number, name from rowgate_migrations")
        .fetch_all(&mut *tx)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<Vec<_>>>()?;
    for migration in migrations::missing(POSTGRES, &applied)? {
        sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
        sqlx::query(
            "insert into rowgate_migrations (number, name, applied_at) values ($1, $2, now())",
        )
        .bind(migration.number)
        .bind(migration.name)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("insert into control (single, token_key) values (1, $1) on conflict do nothing")
        .bind(migrations::new_token_key())
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// For `$n * interval '1 microsecond'`. A century stands for "for ever": longer ones leave the range of timestamps.
fn microseconds(duration: Duration) -> i64 {
    const CENTURY_US: i64 = 100 * 366 * 86_400 * 1_000_000;
    i64::try_from(duration.as_micros())
        .unwrap_or(CENTURY_US)
        .min(CENTURY_US)
}

async fn load(db: &mut PgConnection, id: ExportId) -> Result<Option<StoredJob>> {
    sqlx::query(concat!(
        "select ",
        job_columns!(),
        " from jobs where id = $1"
    ))
    .bind(Id(id.0))
    .fetch_optional(db)
    .await?
    .as_ref()
    .map(stored_job)
    .transpose()
}

/// Locks the tenant of a job and reads the job under that lock. `None`: there is no such job.
async fn lock_job(db: &mut PgConnection, id: ExportId) -> Result<Option<StoredJob>> {
    let locked = sqlx::query(
        "select 1 from tenants t where t.name = (select tenant from jobs where id = $1) for update",
    )
    .bind(Id(id.0))
    .fetch_optional(&mut *db)
    .await?;
    match locked {
        None => Ok(None),
        Some(_) => load(db, id).await,
    }
}

/// Locks tenants in the order of their names.
async fn lock_tenants(db: &mut PgConnection, names: &[String]) -> Result<()> {
    sqlx::query("select 1 from tenants where name = any($1) order by name for update")
        .bind(names)
        .execute(db)
        .await?;
    Ok(())
}

/// Adds to the counts of a locked tenant. One that becomes active by it starts at the least virtual time among the
/// active ones, unless it has been served more than that; when nobody is active, where the most served one stopped.
async fn count_tenant(db: &mut PgConnection, name: &str, counts: Counts) -> Result<()> {
    if counts == Counts::default() {
        return Ok(());
    }
    sqlx::query(
        "update tenants set \
           virtual_time = $4 + case when ready > 0 or running > 0 then virtual_time \
             else greatest(virtual_time, coalesce( \
               (select min(a.virtual_time) from tenants a where a.ready > 0 or a.running > 0), \
               (select max(a.virtual_time) from tenants a))) end, \
           running = running + $2, ready = ready + $3 \
         where name = $1",
    )
    .bind(name)
    .bind(counts.running)
    .bind(counts.ready)
    .bind(counts.virtual_time)
    .execute(db)
    .await?;
    Ok(())
}

async fn count_source(db: &mut PgConnection, name: &str, running: i64) -> Result<()> {
    if running == 0 {
        return Ok(());
    }
    sqlx::query("update sources set running = running + $2 where name = $1")
        .bind(name)
        .bind(running)
        .execute(db)
        .await?;
    Ok(())
}

#[async_trait]
impl JobStore for PostgresStore {
    async fn insert(&self, job: NewJob) -> Result<Inserted> {
        let inserted = retried(|| self.insert_once(&job)).await?;
        if let Inserted::Created(_) = inserted {
            self.announce();
        }
        Ok(inserted)
    }

    async fn get(&self, id: ExportId) -> Result<Option<Job>> {
        let mut db = self.pool.acquire().await?;
        Ok(load(&mut db, id).await?.map(|stored| stored.job))
    }

    async fn submitted(
        &self,
        tenant: &TenantId,
        request_id: uuid::Uuid,
    ) -> Result<Option<(Job, SpecHash)>> {
        self.submitted_once(tenant, request_id).await
    }

    async fn standings(&self, ids: &[ExportId]) -> Result<HashMap<ExportId, Standing>> {
        self.standings_once(ids).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Job>> {
        self.list_once(filter).await
    }

    async fn queue_position(&self, id: ExportId) -> Result<Option<u64>> {
        self.queue_position_once(id).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Job>> {
        self.wake.looking();
        retried(|| self.claim_once(request)).await
    }

    async fn renew(
        &self,
        owned: &[(ExportId, Fence)],
        lease_ttl: Duration,
    ) -> Result<Vec<Ownership>> {
        retried(|| self.renew_once(owned, lease_ttl)).await
    }

    async fn settle(
        &self,
        id: ExportId,
        fence: Fence,
        settlement: &Settlement,
        work: Work,
    ) -> Result<Settled> {
        let settled = retried(|| self.settle_once(id, fence, settlement, work)).await?;
        self.announce();
        Ok(settled)
    }

    async fn cancel(&self, id: ExportId) -> Result<Cancelled> {
        retried(|| self.cancel_once(id)).await
    }

    async fn delete(&self, id: ExportId) -> Result<Deleted> {
        retried(|| self.delete_once(id)).await
    }

    async fn overdue(
        &self,
        after: Option<ExportId>,
        jobs_max: u32,
    ) -> Result<Vec<(ExportId, Fence)>> {
        retried(|| self.overdue_once(after, jobs_max)).await
    }

    async fn reap(
        &self,
        abandoned: &Abandoned,
        attempts_max: u32,
        jobs_max: u32,
    ) -> Result<Vec<Reaped>> {
        let reaped = retried(|| self.reap_once(abandoned, attempts_max, jobs_max)).await?;
        if !reaped.is_empty() {
            self.announce();
        }
        Ok(reaped)
    }

    async fn expire(&self, grace: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        retried(|| self.expire_once(grace, jobs_max)).await
    }

    async fn purge(&self, retention: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        retried(|| self.purge_once(retention, jobs_max)).await
    }
}

#[async_trait]
impl ControlStore for PostgresStore {
    async fn limits(&self) -> Result<LimitOverrides> {
        self.limits_once().await
    }

    async fn update_limits(&self, change: &LimitChange) -> Result<LimitOverrides> {
        let limits = retried(|| self.update_limits_once(change)).await?;
        self.announce();
        Ok(limits)
    }

    async fn set_paused(&self, tenant: Option<&TenantId>, paused: Paused) -> Result<()> {
        retried(|| self.set_paused_once(tenant, paused)).await?;
        self.announce();
        Ok(())
    }

    async fn paused(&self) -> Result<PausedTenants> {
        self.paused_once().await
    }

    async fn token_key(&self) -> Result<[u8; 32]> {
        self.token_key_once().await
    }

    async fn lead(&self) -> Result<Option<Guard>> {
        session::leader(&self.connect).await
    }

    async fn heartbeat(&self, worker: &WorkerRow, ttl: Duration) -> Result<()> {
        retried(|| self.heartbeat_once(worker, ttl)).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRow>> {
        self.workers_once().await
    }

    async fn wait_for_work(&self, timeout: Duration) {
        self.wake.wait(timeout).await;
    }

    async fn announce_work(&self) {
        self.announce();
    }

    async fn audit(&self) -> Result<Audit> {
        self.audit_once().await
    }
}
