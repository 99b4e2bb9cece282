//! The queue in one SQLite file, for one machine.
//!
//! Every transaction that writes begins IMMEDIATE, so writers take turns and nothing else needs a lock; readers see the
//! last commit beside them (WAL). All times are this machine's clock: there is no other one.

macro_rules! job_columns {
    () => {
        "id, tenant, source, spec, kind, state, attempt, fence, worker, created_at, started_at, ended_at, ready_at, \
         estimated_rows, error, last_failure, result, result_expired, delayed, charged"
    };
}

mod claim;
mod control;
mod insert;
mod read;
mod retention;
mod settle;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    Connection, Row, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Abandoned, Audit, Cancelled, ClaimRequest, ControlStore, Deleted, Error, Guard, Inserted, Job,
    JobStore, LimitChange, ListFilter, NewJob, Ownership, Paused, PausedTenants, Reaped, Result,
    Settled, Settlement, Standing, StoreOptions, Work, WorkerRow,
    migrations::{self, SQLITE},
    row::{At, Id, StoredJob, stored_job},
    rules::Counts,
    trouble::retried,
    wake::Wake,
};
use crate::export::{ExportId, Fence, LimitOverrides, SpecHash, TenantId};

/// A queue in a file. Cheap to share behind an `Arc`; every call is one short transaction on a thread of sqlx.
pub struct SqliteStore {
    path: PathBuf,
    /// One connection: SQLite has one writer, and waiting for it in the pool is fairer than its busy loop.
    writer: SqlitePool,
    readers: SqlitePool,
    wake: Wake,
}

impl SqliteStore {
    /// Opens the queue, creating the file and its folder, and brings the schema up to date.
    pub async fn open(path: &Path, options: StoreOptions) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| Error::Unavailable(format!("{}: {e}", folder.display())))?;
        }
        let connect = connect_options(path, &options);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // On a full disk or an I/O error SQLite rolls back by itself, the driver's own rollback then fails, and the
            // driver believes in a transaction that is over: no other could begin on this connection. The ping comes
            // behind a rollback that is still queued.
            .after_release(|db, _| {
                Box::pin(async move {
                    db.ping().await?;
                    Ok(!db.is_in_transaction())
                })
            })
            .connect_with(connect.clone())
            .await?;
        let store = Self {
            path: path.to_owned(),
            writer,
            readers: SqlitePoolOptions::new()
                .max_connections(options.connections_max.max(1))
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_lazy_with(connect.create_if_missing(false)),
            wake: Wake::new(),
        };
        retried(|| store.migrate_once()).await?;
        Ok(store)
    }

    /// Creates or updates the schema of the queue at `path`, and nothing else.
    pub async fn migrate(path: &Path, options: StoreOptions) -> Result<()> {
        let store = Self::open(path, options).await?;
        store.close().await;
        Ok(())
    }

    /// Claims the queue for this process alone; [`Error::InUse`] when another one has it.
    pub async fn guard(&self) -> Result<Guard> {
        Guard::of_file(&self.path)
    }

    /// The same for a file that need not be opened, nor be there.
    pub fn guard_of(path: &Path) -> Result<Guard> {
        Guard::of_file(path)
    }

    /// Waits for running transactions and closes the file; later calls fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn migrate_once(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::raw_sql(
            "create table if not exists rowgate_migrations \
             (number integer primary key, name text not null, applied_at integer not null) strict",
        )
        .execute(&mut *tx)
        .await?;
        let applied = sqlx::query("select number, name from rowgate_migrations")
            .fetch_all(&mut *tx)
            .await?
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<Vec<_>>>()?;
        for migration in migrations::missing(SQLITE, &applied)? {
            sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
            sqlx::query(
                "insert into rowgate_migrations (number, name, applied_at) values ($1, $2, $3)",
            )
            .bind(migration.number)
            .bind(migration.name)
            .bind(now())
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query(
            "insert into control (single, token_key) values (1, $1) on conflict do nothing",
        )
        .bind(migrations::new_token_key())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// A transaction that may write: it holds SQLite's one write lock from here to its end.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin_with("begin immediate").await?)
    }
}

/// Far beyond any transaction of ours; reaching it means that the disk or the process is stuck.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

fn connect_options(path: &Path, options: &StoreOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL, not the NORMAL that is usual with WAL: an accepted export must survive a power cut, and so must a
        // fence, which names paths. It costs one fsync for each change of a job's state, a few for each export.
        .synchronous(SqliteSynchronous::Full)
        // Only other processes (`rowgate migrate`, sqlite3) can make us wait; ours queue in the pool.
        .busy_timeout(options.lock_timeout)
}

fn now() -> At {
    At(Timestamp::now())
}

fn later(from: At, by: Duration) -> At {
    At(from.0.checked_add(by).unwrap_or(Timestamp::MAX))
}

fn earlier(from: At, by: Duration) -> At {
    At(from.0.checked_sub(by).unwrap_or(Timestamp::MIN))
}

async fn load(db: &mut SqliteConnection, id: ExportId) -> Result<Option<StoredJob>> {
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

/// Adds to a tenant's counts. A tenant that becomes active by it starts at the least virtual time among the active
/// ones, unless it has been served more than that; when nobody is active, where the most served one stopped.
async fn count_tenant(db: &mut SqliteConnection, name: &str, counts: Counts) -> Result<()> {
    sqlx::query(
        "update tenants set \
           virtual_time = $4 + case when ready > 0 or running > 0 then virtual_time else max(virtual_time, coalesce( \
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

async fn count_source(db: &mut SqliteConnection, name: &str, running: i64) -> Result<()> {
    sqlx::query("update sources set running = running + $2 where name = $1")
        .bind(name)
        .bind(running)
        .execute(db)
        .await?;
    Ok(())
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn insert(&self, job: NewJob) -> Result<Inserted> {
        let inserted = retried(|| self.insert_once(&job)).await?;
        if let Inserted::Created(_) = inserted {
            self.wake.announce();
        }
        Ok(inserted)
    }

    async fn get(&self, id: ExportId) -> Result<Option<Job>> {
        let mut db = self.readers.acquire().await?;
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
        self.wake.announce();
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
            self.wake.announce();
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
impl ControlStore for SqliteStore {
    async fn limits(&self) -> Result<LimitOverrides> {
        self.limits_once().await
    }

    async fn update_limits(&self, change: &LimitChange) -> Result<LimitOverrides> {
        let limits = retried(|| self.update_limits_once(change)).await?;
        self.wake.announce();
        Ok(limits)
    }

    async fn set_paused(&self, tenant: Option<&TenantId>, paused: Paused) -> Result<()> {
        retried(|| self.set_paused_once(tenant, paused)).await?;
        self.wake.announce();
        Ok(())
    }

    async fn paused(&self) -> Result<PausedTenants> {
        self.paused_once().await
    }

    async fn token_key(&self) -> Result<[u8; 32]> {
        self.token_key_once().await
    }

    async fn lead(&self) -> Result<Option<Guard>> {
        match Guard::of_file(&self.path.with_added_extension("leader")) {
            Ok(guard) => Ok(Some(guard)),
            Err(Error::InUse(_)) => Ok(None),
            Err(error) => Err(error),
        }
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
        self.wake.announce();
    }

    async fn audit(&self) -> Result<Audit> {
        self.audit_once().await
    }
}
