//! What only the PostgreSQL job store has: sessions that break, listeners that die, locks that others hold.

use std::time::{Duration, Instant};

use rowgate::{
    export::{Caps, ExportId, ExportSpec, ReadFrom, TableRead, TenantId, WorkerId},
    queue::{
        ClaimRequest, ControlStore, Error, JobKind, JobStore, NewJob, PostgresStore, Start,
        StoreOptions,
    },
};
use secrecy::SecretString;
use sqlx::Row;
use tokio::time::timeout;

use crate::support::{postgres::Database, wait_until};

/// For what should happen at once; only a defect lets it pass.
const SOON: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

async fn open(database: &Database) -> PostgresStore {
    open_with(database, StoreOptions::default()).await
}

async fn open_with(database: &Database, options: StoreOptions) -> PostgresStore {
    PostgresStore::connect(&SecretString::from(database.url.clone()), options)
        .await
        .expect("the queue opens")
}

fn new_job() -> NewJob {
    let spec = ExportSpec {
        source: "s".to_owned(),
        from: ReadFrom::Table(TableRead {
            name: "orders".to_owned(),
            order_by: Vec::new(),
            limit: None,
        }),
        params: Default::default(),
        columns: Vec::new(),
        filter: None,
        format: None,
        file_name: None,
        time_zone: None,
        ttl: None,
        labels: Default::default(),
        priority: 0,
    };
    NewJob {
        id: ExportId::generate(),
        tenant: TenantId::default(),
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

fn claim_request(jobs_max: u32) -> ClaimRequest {
    ClaimRequest {
        worker: WorkerId("w".to_owned()),
        jobs_max,
        lease_ttl: HOUR,
        caps: Caps::default(),
    }
}

#[tokio::test]
async fn the_guard_notices_that_its_session_broke() {
    let database = Database::create().await;
    let store = open(&database).await;
    let guard = store.guard().await.expect("nobody else is there");
    database
        .execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted \
             and database = (select oid from pg_database where datname = current_database())",
        )
        .await;
    timeout(SOON, guard.lost().cancelled())
        .await
        .expect("it is noticed");
    // Another process may have the queue now, while the first one still holds its broken guard; the server may need a
    // moment longer than we do to see that the session is over.
    wait_until(SOON, "the lock is free", async || store.guard().await.ok()).await;
}

#[tokio::test]
async fn a_listener_that_died_comes_back() {
    let database = Database::create().await;
    let (store, other) = (open(&database).await, open(&database).await);
    let db = database.pool(1).await;
    let listeners = async || {
        let sql = "select pid from pg_stat_activity where datname = current_database() and query ilike 'listen%'";
        let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(&db).await.expect("looks");
        (pids.len() == 2).then_some(pids)
    };
    let first = wait_until(SOON, "both stores listen", &listeners).await;
    sqlx::query("select pg_terminate_backend(pid) from unnest($1) pid")
        .bind(&first)
        .execute(&db)
        .await
        .expect("terminates");
    wait_until(SOON, "both stores listen again", async || {
        // What was terminated may still be listed for a moment.
        let again = listeners().await?;
        (!again.iter().any(|pid| first.contains(pid))).then_some(())
    })
    .await;
    // Whatever the reconnect announced is over once a wait has ended by its time; only the insert can wake it now.
    const BRIEF: Duration = Duration::from_millis(200);
    wait_until(SOON, "a wait without a word", async || {
        let jobs = store.claim(&claim_request(1)).await.expect("claims");
        assert!(jobs.is_empty());
        let began = Instant::now();
        store.wait_for_work(BRIEF).await;
        (began.elapsed() >= BRIEF).then_some(())
    })
    .await;
    other.insert(new_job()).await.expect("inserts");
    timeout(SOON, store.wait_for_work(HOUR))
        .await
        .expect("it is woken");
}

#[tokio::test]
async fn a_lock_that_others_hold_is_contention_not_a_hang() {
    let database = Database::create().await;
    let options = StoreOptions {
        lock_timeout: Duration::from_millis(20),
        ..StoreOptions::default()
    };
    let store = open_with(&database, options).await;
    store.insert(new_job()).await.expect("inserts");
    let mut holder = database.connect().await;
    sqlx::raw_sql("begin; select 1 from tenants for update")
        .execute(&mut holder)
        .await
        .expect("it locks");
    let insert = timeout(SOON, store.insert(new_job()))
        .await
        .expect("it ends");
    assert!(matches!(insert, Err(Error::Contended(_))), "{insert:?}");
    // The tenant is locked, not idle: a claim must not say that there is nothing to do.
    let claim = timeout(SOON, store.claim(&claim_request(1)))
        .await
        .expect("it ends");
    assert!(matches!(claim, Err(Error::Contended(_))), "{claim:?}");
    sqlx::raw_sql("rollback")
        .execute(&mut holder)
        .await
        .expect("it unlocks");
    assert_eq!(
        store.claim(&claim_request(1)).await.expect("claims").len(),
        1
    );
}

#[tokio::test]
async fn an_attempt_starts_when_its_claim_got_the_lock() {
    let database = Database::create().await;
    let store = open(&database).await;
    store.insert(new_job()).await.expect("inserts");
    let mut holder = database.connect().await;
    sqlx::raw_sql("begin; select 1 from tenants for update")
        .execute(&mut holder)
        .await
        .expect("it locks");
    let watcher = database.pool(1).await;
    let unlock = async {
        wait_until(SOON, "the claim waits for the tenant", async || {
            let waits = sqlx::query(
                "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_optional(&watcher)
            .await
            .expect("looks");
            waits.map(drop)
        })
        .await;
        let now = sqlx::query("select clock_timestamp()::text");
        let at: String = now.fetch_one(&mut holder).await.expect("reads").get(0);
        sqlx::raw_sql("rollback")
            .execute(&mut holder)
            .await
            .expect("it unlocks");
        at
    };
    let request = claim_request(1);
    let (claimed, unlocked_at) = tokio::join!(store.claim(&request), unlock);
    let job = claimed.expect("claims").remove(0);
    let is_later: bool = sqlx::query_scalar(
        "select started_at >= $1::text::timestamptz and lease_until >= $1::text::timestamptz + interval '1 hour' \
         from jobs where id = $2::text::uuid",
    )
    .bind(unlocked_at)
    .bind(job.id.to_string())
    .fetch_one(&mut database.connect().await)
    .await
    .expect("reads");
    assert!(is_later);
}

#[tokio::test]
async fn a_lost_connection_is_unavailable_and_the_next_call_works() {
    let database = Database::create().await;
    let options = StoreOptions {
        connections_max: 1,
        ..StoreOptions::default()
    };
    let store = open_with(&database, options).await;
    let mut holder = database.connect().await;
    store.insert(new_job()).await.expect("inserts");
    sqlx::raw_sql("begin; select 1 from tenants for update")
        .execute(&mut holder)
        .await
        .expect("it locks");
    // The insert waits for the tenant; its connection is cut meanwhile.
    let watcher = database.pool(1).await;
    let cut = async {
        wait_until(SOON, "the insert waits for the lock", async || {
            let cut = sqlx::query(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where datname = current_database() and wait_event_type = 'Lock' and query ilike '%tenants%'",
            )
            .fetch_optional(&watcher)
            .await
            .expect("looks");
            cut.map(drop)
        })
        .await;
        sqlx::raw_sql("rollback")
            .execute(&mut holder)
            .await
            .expect("it unlocks");
    };
    let (insert, ()) = tokio::join!(store.insert(new_job()), cut);
    assert!(matches!(insert, Err(Error::Unavailable(_))), "{insert:?}");
    store
        .insert(new_job())
        .await
        .expect("a new connection is opened");
    assert!(store.audit().await.expect("reads").is_consistent());
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_no_password_is_told() {
    let url = SecretString::from("postgres://u:secret-word@127.0.0.1:1/none?connect_timeout=1");
    let options = StoreOptions::default();
    let error = timeout(SOON, PostgresStore::connect(&url, options.clone()))
        .await
        .expect("it ends")
        .err()
        .expect("nobody listens there");
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(!error.to_string().contains("secret-word"));
    let url = SecretString::from("postgres://u:secret-word@host:port/none");
    let error = PostgresStore::connect(&url, options)
        .await
        .err()
        .expect("no URL");
    assert!(!error.to_string().contains("secret-word"), "{error}");
}

#[tokio::test]
async fn renewals_stay_within_their_page() {
    let database = Database::create().await;
    let store = open(&database).await;
    // An index on lease_until would move every row, every time; a page that is full would, too.
    let mut db = database.connect().await;
    let indexes: Vec<String> = sqlx::query_scalar(
        "select pg_get_indexdef(indexrelid) from pg_index where indrelid = 'jobs'::regclass",
    )
    .fetch_all(&mut db)
    .await
    .expect("looks");
    assert!(indexes.len() > 1, "{indexes:?}");
    let covers = |index: &&String| index.contains("lease_until");
    assert_eq!(indexes.iter().find(covers), None);
    let room: bool = sqlx::query_scalar(
        "select 'fillfactor=80' = any(reloptions) from pg_class where oid = 'jobs'::regclass",
    )
    .fetch_one(&mut db)
    .await
    .expect("looks");
    assert!(room, "pages of jobs keep room for their updates");

    store.insert(new_job()).await.expect("inserts");
    let job = store.claim(&claim_request(1)).await.expect("claims");
    let owned = [(job[0].id, job[0].fence)];
    // How many stay within their page depends on what else the server does: a transaction that is open anywhere keeps
    // old versions. One shows that they can; a claim never does, since indexes ask for the state.
    wait_until(SOON, "a renewal within its page", async || {
        let store = open(&database).await;
        for _ in 0..10 {
            store.renew(&owned, HOUR).await.expect("renews");
        }
        // A connection tells the server's statistics what it did when it ends, at the latest.
        drop(store);
        let within: i64 = sqlx::query_scalar(
            "select n_tup_hot_upd from pg_stat_user_tables where relname = 'jobs'",
        )
        .fetch_one(&mut database.connect().await)
        .await
        .expect("counts");
        (within > 0).then_some(())
    })
    .await;
}
