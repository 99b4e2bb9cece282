//! What the cases stand on: a fresh queue of either backend, and short words for what they do with it.

use std::{collections::BTreeMap, ops::AsyncFnOnce, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use rowgate::{
    export::{
        Caps, Code, ExportId, ExportSpec, Failure, ReadFrom, ResultInfo, ResultKind, TableRead,
        TenantId, WorkerId,
    },
    queue::{
        ClaimRequest, ControlStore, Error, Guard, Inserted, Job, JobKind, JobStore, ListFilter,
        NewJob, PostgresStore, Settled, Settlement, SqliteStore, Start, StoreOptions, Work,
    },
};
use secrecy::SecretString;

use crate::support::{postgres, temp_dir};

pub const HOUR: Duration = Duration::from_secs(3600);
/// Past at once: for leases whose owner is to be dead.
pub const NO_TIME: Duration = Duration::ZERO;
/// No case takes longer, or it hangs.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

pub trait Store: JobStore + ControlStore {}
impl<T: JobStore + ControlStore> Store for T {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backlog {
    Ready,
    InBackoff,
}

/// A queue of its own for one case.
pub struct Rig {
    pub store: Arc<dyn Store>,
    place: Place,
}

enum Place {
    Sqlite {
        path: PathBuf,
        _folder: tempfile::TempDir,
    },
    Postgres(postgres::Database),
}

/// Runs one case, and checks the counts after it.
pub async fn run(backend: Backend, case: impl AsyncFnOnce(&Rig)) {
    let rig = Rig::create(backend).await;
    tokio::time::timeout(CASE_TIMEOUT, case(&rig))
        .await
        .expect("the case ends in time");
    rig.assert_consistent().await;
}

impl Rig {
    async fn create(backend: Backend) -> Self {
        let place = Place::create(backend).await;
        let store = place.open().await.expect("a new queue opens");
        Self { store, place }
    }

    pub fn backend(&self) -> Backend {
        match self.place {
            Place::Sqlite { .. } => Backend::Sqlite,
            Place::Postgres(_) => Backend::Postgres,
        }
    }

    /// The same queue as another process sees it.
    pub async fn another(&self) -> Arc<dyn Store> {
        self.place.open().await.expect("the queue opens again")
    }

    /// A queue of the same backend that nobody has opened yet, opened by `count` at once; they all read one token key.
    pub async fn open_at_once(&self, count: usize) {
        let place = Place::create(self.backend()).await;
        let opened = futures::future::join_all((0..count).map(|_| place.open())).await;
        let mut keys = Vec::new();
        for store in opened {
            let store = store.expect("each opens");
            keys.push(store.token_key().await.expect("reads"));
        }
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    /// Claims the queue for one process, as a process of its own.
    pub async fn guard(&self) -> Result<Guard, Error> {
        match &self.place {
            Place::Sqlite { path, .. } => {
                SqliteStore::open(path, StoreOptions::default())
                    .await?
                    .guard()
                    .await
            }
            Place::Postgres(database) => {
                let url = SecretString::from(database.url.clone());
                PostgresStore::connect(&url, StoreOptions::default())
                    .await?
                    .guard()
                    .await
            }
        }
    }

    pub async fn migrate(&self) {
        match &self.place {
            Place::Sqlite { path, .. } => SqliteStore::migrate(path, StoreOptions::default()).await,
            Place::Postgres(database) => {
                let url = SecretString::from(database.url.clone());
                PostgresStore::migrate(&url, StoreOptions::default()).await
            }
        }
        .expect("the queue migrates");
    }

    /// Changes rows behind the store's back: how a case makes time pass.
    pub async fn execute(&self, sql: &str) {
        match &self.place {
            Place::Sqlite { path, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new()
                    .filename(path)
                    .busy_timeout(Duration::from_secs(10));
                let mut db = sqlx::ConnectOptions::connect(&options)
                    .await
                    .expect("it opens");
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
                    .execute(&mut db)
                    .await
                    .unwrap_or_else(|e| panic!("{e}, in: {sql}"));
            }
            Place::Postgres(database) => database.execute(sql).await,
        }
    }

    /// Many queued jobs at once, made in the database.
    pub async fn backlog(&self, tenant: &str, source: &str, jobs: u32, backlog: Backlog) {
        let first = self.submit(new_job(tenant, source)).await;
        let (delayed, day) = match (backlog, self.backend()) {
            (Backlog::Ready, _) => ("false", ""),
            (Backlog::InBackoff, Backend::Sqlite) => ("true", " + 86400000000"),
            (Backlog::InBackoff, Backend::Postgres) => ("true", " + interval '1 day'"),
        };
        let (new_id, numbers) = match self.backend() {
            Backend::Sqlite => (
                "randomblob(16)",
                format!(
                    "(with recursive n(i) as (select 1 union all select i + 1 from n where i < {jobs}) select i from n)"
                ),
            ),
            Backend::Postgres => ("gen_random_uuid()", format!("generate_series(1, {jobs})")),
        };
        let columns = "tenant, source, kind, state, rank, spec, spec_hash, labels, attempt, fence, created_at";
        self.execute(&format!(
            "insert into jobs (id, {columns}, delayed, ready_at) \
               select {new_id}, {columns}, {delayed}, ready_at{day} from jobs cross join {numbers} n \
               where tenant = '{tenant}' and source = '{source}'; \
             update tenants set ready = (select count(*) from jobs where tenant = '{tenant}' and state = 1 \
               and not delayed) where name = '{tenant}'"
        ))
        .await;
        self.store.cancel(first.id).await.expect("the pattern goes");
    }

    pub async fn assert_consistent(&self) {
        let audit = self.store.audit().await.expect("the audit reads");
        assert!(audit.is_consistent(), "counts differ from rows: {audit:#?}");
    }

    pub async fn virtual_time(&self, tenant: &str) -> i64 {
        let audit = self.store.audit().await.expect("the audit reads");
        let row = audit.tenants.iter().find(|row| row.name == tenant);
        row.unwrap_or_else(|| panic!("no tenant {tenant}"))
            .virtual_time
    }

    pub async fn submit(&self, job: NewJob) -> Job {
        match self.store.insert(job).await.expect("the insert works") {
            Inserted::Created(job) => job,
            other => panic!("not created: {other:?}"),
        }
    }

    /// Up to `jobs_max` jobs without caps, leased for an hour.
    pub async fn claim(&self, jobs_max: u32) -> Vec<Job> {
        self.claim_with(jobs_max, Caps::default()).await
    }

    pub async fn claim_with(&self, jobs_max: u32, caps: Caps) -> Vec<Job> {
        let request = ClaimRequest {
            caps,
            ..claim_request(jobs_max)
        };
        self.store.claim(&request).await.expect("the claim works")
    }

    pub async fn claim_one(&self) -> Job {
        let mut jobs = self.claim(1).await;
        assert_eq!(jobs.len(), 1, "one job is ready");
        jobs.remove(0)
    }

    /// A job of the tenant and source `t`, `s`, claimed.
    pub async fn running(&self) -> Job {
        self.submit(new_job("t", "s")).await;
        self.claim_one().await
    }

    pub async fn settle(&self, job: &Job, settlement: Settlement) -> Settled {
        self.store
            .settle(job.id, job.fence, &settlement, Work::default())
            .await
            .expect("the settle works")
    }

    pub async fn settle_done(&self, job: &Job, settlement: Settlement) -> Job {
        match self.settle(job, settlement).await {
            Settled::Done(job) => job,
            Settled::NotOwner(now) => panic!("not the owner: {now:?}"),
        }
    }

    pub async fn get(&self, id: ExportId) -> Job {
        self.store
            .get(id)
            .await
            .expect("the job reads")
            .expect("the job is there")
    }
}

impl Place {
    async fn create(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let folder = temp_dir();
                Self::Sqlite {
                    path: folder.path().join("data/queue.db"),
                    _folder: folder,
                }
            }
            Backend::Postgres => Self::Postgres(postgres::Database::create().await),
        }
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(match self {
            Self::Sqlite { path, .. } => {
                Arc::new(SqliteStore::open(path, StoreOptions::default()).await?)
            }
            Self::Postgres(database) => {
                let url = SecretString::from(database.url.clone());
                Arc::new(PostgresStore::connect(&url, StoreOptions::default()).await?)
            }
        })
    }
}

pub fn worker() -> WorkerId {
    WorkerId("host-1-abc".to_owned())
}

pub fn claim_request(jobs_max: u32) -> ClaimRequest {
    ClaimRequest {
        worker: worker(),
        jobs_max,
        lease_ttl: HOUR,
        caps: Caps::default(),
    }
}

pub fn spec(source: &str) -> ExportSpec {
    ExportSpec {
        source: source.to_owned(),
        from: ReadFrom::Table(TableRead {
            name: "orders".to_owned(),
            order_by: Vec::new(),
            limit: None,
        }),
        params: BTreeMap::new(),
        columns: Vec::new(),
        filter: None,
        format: None,
        file_name: None,
        time_zone: None,
        ttl: None,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

/// A queued export.
pub fn new_job(tenant: &str, source: &str) -> NewJob {
    of_spec(tenant, spec(source))
}

pub fn of_spec(tenant: &str, spec: ExportSpec) -> NewJob {
    NewJob {
        id: ExportId::generate(),
        tenant: TenantId(tenant.to_owned()),
        spec_hash: spec.hash(),
        spec,
        request_id: None,
        kind: JobKind::Export,
        estimated_rows: None,
        start: Start::Queued {
            ready_max: u32::MAX,
        },
    }
}

pub fn with_priority(priority: u8) -> NewJob {
    let spec = ExportSpec {
        priority,
        ..spec("s")
    };
    of_spec("t", spec)
}

/// An export that starts at once.
pub fn inline(tenant: &str, source: &str, caps: Caps) -> NewJob {
    NewJob {
        start: Start::Running {
            worker: worker(),
            lease_ttl: HOUR,
            caps,
        },
        ..new_job(tenant, source)
    }
}

pub fn live(tenant: &str, source: &str) -> NewJob {
    NewJob {
        kind: JobKind::Live,
        ..inline(tenant, source, Caps::default())
    }
}

pub fn tenant_cap(name: &str, slots: u32) -> Caps {
    Caps {
        tenant_slots: BTreeMap::from([(name.to_owned(), slots)]),
        ..Caps::default()
    }
}

pub fn source_cap(name: &str, slots: u32) -> Caps {
    Caps {
        source_slots: BTreeMap::from([(name.to_owned(), slots)]),
        ..Caps::default()
    }
}

pub fn everything_of(tenant: &str) -> ListFilter {
    ListFilter {
        tenant: TenantId(tenant.to_owned()),
        states: Vec::new(),
        labels: BTreeMap::new(),
        created_after: None,
        created_before: None,
        after: None,
        rows_max: 100,
    }
}

pub fn failure(reason: &str) -> Failure {
    Failure::new(Code::Unavailable, reason, "for a test").retryable()
}

pub fn retry(delay: Duration) -> Settlement {
    Settlement::Retry {
        failure: failure("SOURCE_UNAVAILABLE"),
        delay,
    }
}

pub fn succeeded() -> Settlement {
    Settlement::Succeeded(result(None))
}

pub fn result(expires_at: Option<Timestamp>) -> ResultInfo {
    let at = "2026-01-02T03:04:05.678901Z".parse().expect("a moment");
    ResultInfo {
        kind: ResultKind::File,
        file_name: "orders.csv".to_owned(),
        media_type: "text/csv".to_owned(),
        path: "x/1/orders.csv".to_owned(),
        size_bytes: 10,
        sha256: "00".repeat(32),
        rows_read: 3,
        rows_filtered: 1,
        rows: 2,
        schema: Vec::new(),
        fidelity: Vec::new(),
        sheets: 0,
        query_hash: "11".repeat(32),
        read_started_at: at,
        read_ended_at: at,
        snapshot: None,
        expires_at,
    }
}

pub fn ids(jobs: &[Job]) -> Vec<ExportId> {
    jobs.iter().map(|job| job.id).collect()
}
