//! The claim at a backlog of a million jobs, and with a thousand tenants: measured, not guessed. Ignored, because it
//! takes minutes: `tests/with-servers cargo test --test it queue_scale -- --ignored --nocapture`.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rowgate::{
    export::{Caps, ExportId, ExportSpec, ReadFrom, TableRead, TenantId, WorkerId},
    queue::{
        ClaimRequest, ControlStore, JobKind, JobStore, NewJob, PostgresStore, Settlement,
        SqliteStore, Start, StoreOptions, Work,
    },
};
use secrecy::SecretString;

use crate::support::{postgres::Database, temp_dir};

const HOUR: Duration = Duration::from_secs(3600);
const CLAIMS: usize = 200;

fn new_job(tenant: &str, source: &str) -> NewJob {
    let spec = ExportSpec {
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
    };
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

/// Median and worst time of a claim of one job and of its settle.
async fn measure(what: &str, store: &dyn JobStore, caps: &Caps) {
    let request = ClaimRequest {
        worker: WorkerId("w".to_owned()),
        jobs_max: 1,
        lease_ttl: HOUR,
        caps: caps.clone(),
    };
    let (mut claims, mut settles) = (Vec::new(), Vec::new());
    for _ in 0..CLAIMS {
        let began = Instant::now();
        let jobs = store.claim(&request).await.expect("claims");
        claims.push(began.elapsed());
        assert_eq!(jobs.len(), 1);
        let began = Instant::now();
        store
            .settle(
                jobs[0].id,
                jobs[0].fence,
                &Settlement::HandBack,
                Work::default(),
            )
            .await
            .expect("settles");
        settles.push(began.elapsed());
    }
    claims.sort();
    settles.sort();
    println!(
        "{what}: claim median {:?}, worst {:?}; settle median {:?}",
        claims[CLAIMS / 2],
        claims[CLAIMS - 1],
        settles[CLAIMS / 2]
    );
    // A scan of a million rows takes hundreds of milliseconds.
    assert!(claims[CLAIMS / 2] < Duration::from_millis(30));
}

const COLUMNS: &str =
    "source, kind, state, rank, spec, spec_hash, labels, attempt, fence, created_at, ready_at";

#[tokio::test]
#[ignore = "takes minutes"]
async fn postgres_claims_stay_flat() {
    let database = Database::create().await;
    let store = PostgresStore::connect(
        &SecretString::from(database.url.clone()),
        StoreOptions::default(),
    )
    .await
    .expect("opens");
    store.insert(new_job("t0", "s")).await.expect("inserts");
    measure("postgres, one job", &store, &Caps::default()).await;
    for tenants in [1, 1000] {
        database
            .execute(&format!(
                "insert into sources (name) values ('full'), ('s2'), ('s3') on conflict do nothing; \
                 insert into tenants (name) select 't' || n from generate_series(0, {tenants} - 1) n on conflict do nothing; \
                 insert into jobs (id, tenant, {COLUMNS}) \
                   select gen_random_uuid(), 't' || n % {tenants}, (array['s', 'full'])[1 + n / 500000], kind, state, rank, spec, \
                     spec_hash, labels, attempt, fence, created_at + n * interval '1 ms', ready_at \
                   from (select * from jobs limit 1) j cross join generate_series(0, 999999) n; \
                 update tenants t set ready = (select count(*) from jobs j where j.tenant = t.name and state = 1)"
            ))
            .await;
        let full = Caps {
            source_slots: BTreeMap::from([("full".to_owned(), 0)]),
            ..Caps::default()
        };
        // As the store finds it right after the flood, and as it is once PostgreSQL has looked at it.
        measure(
            &format!("postgres, a million more, {tenants} tenants, no statistics"),
            &store,
            &full,
        )
        .await;
        database.execute("analyze").await;
        measure(
            &format!("postgres, a million more, {tenants} tenants"),
            &store,
            &full,
        )
        .await;
        assert!(store.audit().await.expect("reads").is_consistent());
        contended(&store, &full).await;
    }
}

/// Eight claimers, each settling what it got.
async fn contended(store: &PostgresStore, caps: &Caps) {
    let began = Instant::now();
    let request = ClaimRequest {
        worker: WorkerId("w".to_owned()),
        jobs_max: 1,
        lease_ttl: HOUR,
        caps: caps.clone(),
    };
    let claimer = async || {
        for _ in 0..CLAIMS / 4 {
            let jobs = store.claim(&request).await.expect("claims");
            assert_eq!(jobs.len(), 1, "no empty claim");
            store
                .settle(
                    jobs[0].id,
                    jobs[0].fence,
                    &Settlement::HandBack,
                    Work::default(),
                )
                .await
                .expect("settles");
        }
    };
    futures::future::join_all((0..8).map(|_| claimer())).await;
    println!(
        "eight claimers: {:?} for each claim and settle",
        began.elapsed() / (2 * CLAIMS as u32)
    );
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn sqlite_claims_stay_flat() {
    let folder = temp_dir();
    let path = folder.path().join("queue.db");
    let store = Arc::new(
        SqliteStore::open(&path, StoreOptions::default())
            .await
            .expect("opens"),
    );
    store.insert(new_job("t0", "s")).await.expect("inserts");
    measure("sqlite, one job", &*store, &Caps::default()).await;
    for tenants in [1, 1000] {
        flood_sqlite(&path, tenants).await;
        let full = Caps {
            source_slots: BTreeMap::from([("full".to_owned(), 0)]),
            ..Caps::default()
        };
        measure(
            &format!("sqlite, a million more, {tenants} tenants"),
            &*store,
            &full,
        )
        .await;
    }
}

async fn flood_sqlite(path: &Path, tenants: u32) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut db = sqlx::ConnectOptions::connect(&options)
        .await
        .expect("opens");
    let sql = format!(
        "insert into sources (name) values ('full'), ('s2'), ('s3') on conflict do nothing; \
         create temp table numbers as with recursive n(i) as (select 0 union all select i + 1 from n where i < 999999) \
           select i from n; \
         insert into tenants (name) select 't' || i from numbers where i < {tenants} on conflict do nothing; \
         create temp table pattern as select * from jobs limit 1; \
         insert into jobs (id, tenant, {COLUMNS}) \
           select randomblob(16), 't' || i % {tenants}, case when i < 500000 then 's' else 'full' end, kind, state, rank, \
             spec, spec_hash, labels, attempt, fence, created_at + i * 1000, ready_at from pattern cross join numbers; \
         update tenants set ready = (select count(*) from jobs j where j.tenant = tenants.name and state = 1)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut db)
        .await
        .expect("floods");
}
