//! What only Redis can do to us: flush, die, stand still, lose answers, refuse. Each case has a server of its own.

use std::{num::NonZero, sync::Arc, time::Duration};

use rowgate::{
    export::{Fence, Progress},
    lease::{
        Acquired, Error, LeaseStore, Length, LocalStore, LockStore, Locks, Mode, RateLimit,
        RateStore, RedisOptions, RedisStore, Renewal, Signal, Wait,
    },
};
use tokio::time::Instant;

use super::{
    proxy::{Mode as Proxied, Proxy, STALL},
    rig::{
        LONG, PATIENT_LINE, Spy, Store, held, job, lock_options, next_in_line, open, options,
        patiently, soon, until,
    },
};
use crate::support::{redis::Server, temp_dir};

mod tls;

const HELD: [Acquired; 1] = [Acquired::Held];
const RENEWED_ONE: [Renewal; 1] = [Renewal::Renewed];
const MISSING: [Renewal; 1] = [Renewal::Missing];

async fn impatient(url: &str, command_timeout: Duration) -> RedisStore {
    RedisStore::open(RedisOptions {
        command_timeout,
        ..options(url, "q")
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_scripts_are_sent_again() {
    let server = Server::start(&[]).await;
    let store = open(&server.url(), "q").await;
    let job = job(1);
    assert_eq!(store.acquire(&[job], LONG).await.unwrap(), HELD);
    assert_eq!(store.renew(&[job], LONG).await.unwrap(), RENEWED_ONE);
    server.tell::<()>("SCRIPT FLUSH").await;
    assert_eq!(store.renew(&[job], LONG).await.unwrap(), RENEWED_ONE);
    assert!(store.answering_for().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_are_made_anew() {
    let server = Server::start(&[]).await;
    let store = open(&server.url(), "q").await;
    let job = job(1);
    store.acquire(&[job], LONG).await.unwrap();
    for kind in ["normal", "pubsub"] {
        server
            .tell::<u64>(&format!("CLIENT KILL TYPE {kind}"))
            .await;
        assert_eq!(store.renew(&[job], LONG).await.unwrap(), RENEWED_ONE);
    }
    let mut signals = store.signals();
    until("signals are heard again", async || {
        store.signal(Signal::Limits).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(100), signals.recv());
        heard.await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_a_look_into_the_database() {
    let mut server = Server::start(&[]).await;
    let store = open(&server.url(), "q").await;
    let job = job(1);
    store.acquire(&[job], LONG).await.unwrap();
    until("it is steady", async || {
        store.answering_for() > Some(Duration::from_millis(500))
    })
    .await;
    server.start_again(&[]).await;
    assert_eq!(
        patiently(async || store.renew(&[job], LONG).await).await,
        MISSING
    );
    // Whoever looks now finds no key, and says nothing about the owner.
    assert_eq!(store.alive(&[job.0], LONG).await.unwrap(), [true]);
    assert_eq!(store.acquire(&[job], LONG).await.unwrap(), HELD);
    assert_eq!(store.renew(&[job], LONG).await.unwrap(), RENEWED_ONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_keys_are_noticed_without_a_broken_connection() {
    let server = Server::start(&[]).await;
    let store = open(&server.url(), "q").await;
    let job = job(1);
    let steady = Duration::from_secs(1);
    store.acquire(&[job], LONG).await.unwrap();
    until("it is steady", async || {
        store.answering_for() >= Some(steady)
    })
    .await;
    server.tell::<()>("FLUSHALL").await;
    // A reaper that looks at once must not take the owner for dead.
    assert_eq!(store.alive(&[job.0], LONG).await.unwrap(), [true]);
    until("nobody set the key again", async || {
        store.alive(&[job.0], steady * 10).await.unwrap() == [false]
    })
    .await;
    assert!(store.answering_for() >= Some(steady * 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_a_time_out_and_not_a_wait() {
    let server = Server::start(&[]).await;
    let store = impatient(&server.url(), STALL).await;
    let job = job(1);
    patiently(async || store.acquire(&[job], LONG).await).await;
    server.signal("STOP").await;
    let begin = Instant::now();
    let error = store.renew(&[job], LONG).await.unwrap_err();
    assert!(
        matches!(error, Error::TimedOut(time) if time == STALL),
        "{error}"
    );
    assert!(error.retryable());
    assert!(begin.elapsed() >= STALL);
    assert_eq!(store.answering_for(), None);
    // The ttl bounds it further.
    let ttl = Duration::from_secs(1);
    let error = store.renew(&[job], ttl).await.unwrap_err();
    assert!(
        matches!(error, Error::TimedOut(time) if time == ttl / 10),
        "{error}"
    );
    server.signal("CONT").await;
    let renewed = patiently(async || store.renew(&[job], LONG).await).await;
    assert_eq!(renewed, RENEWED_ONE);
    assert!(store.answering_for().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_ends_in_time_and_heals() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::before(server.port).await;
    let store = impatient(&proxy.url(), STALL).await;
    let job = job(1);
    patiently(async || store.acquire(&[job], LONG).await).await;
    proxy.set(Proxied::Partition);
    let error = store.renew(&[job], LONG).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    proxy.set(Proxied::Pass);
    let renewed = patiently(async || store.renew(&[job], LONG).await).await;
    assert_eq!(renewed, RENEWED_ONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_before_its_answer_was_lost_is_our_own() {
    let server = Server::start(&[]).await;
    let proxy = Proxy::before(server.port).await;
    let store = impatient(&proxy.url(), STALL).await;
    let witness = open(&server.url(), "q").await;
    let job = job(2);
    // So that the server knows the script: else the answer that is lost is that it doesn't.
    witness.acquire(&[super::rig::job(1)], LONG).await.unwrap();
    patiently(async || store.check().await).await;
    proxy.set(Proxied::LoseAnswers);
    let error = store.acquire(&[job], LONG).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    // It was carried out all the same.
    let (id, _) = job;
    let refused = witness.acquire(&[(id, Fence(1))], LONG).await.unwrap();
    assert_eq!(refused, [Acquired::NotOwner { fence: Fence(2) }]);
    proxy.set(Proxied::Pass);
    let acquired = patiently(async || store.acquire(&[job], LONG).await).await;
    assert_eq!(acquired, HELD);
    assert_eq!(store.renew(&[job], LONG).await.unwrap(), RENEWED_ONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_sent_and_wrong_ones_refused() {
    // What docs/configuration.md says is enough.
    let rights = ["~rowgate:*", "&rowgate:*", "+@all", "-@dangerous"];
    let user = [&["--user", "rowgate", "on", ">right"], &rights[..]].concat();
    let server = Server::start(&[&["--requirepass", "default"], &user[..]].concat()).await;
    let url = |who: &str| {
        server
            .url()
            .replace("127.0.0.1", &format!("{who}@127.0.0.1"))
    };
    for right in ["rowgate:right", ":default"] {
        let store: Arc<dyn Store> = Arc::new(open(&url(right), "q").await);
        let job = job(1);
        assert_eq!(store.acquire(&[job], LONG).await.unwrap(), HELD);
        assert_eq!(store.alive(&[job.0], LONG).await.unwrap(), [true]);
        let progress = [(job.0, job.1, Progress::default())];
        store.publish(&progress, LONG).await.unwrap();
        assert!(store.progress(job.0).await.unwrap().is_some());
        store.signal(Signal::Limits).await.unwrap();
        store
            .take_rows("shop", 1, NonZero::new(1).unwrap())
            .await
            .unwrap();
        let locks = super::rig::locks(&store, PATIENT_LINE);
        let guard = held(&locks, "a", Mode::Fair).await;
        let (spy, mut turns) = Spy::on(&store);
        let others = Locks::new(spy as Arc<dyn LockStore>, lock_options(PATIENT_LINE));
        let next = tokio::spawn(async move { held(&others, "a", Mode::Fair).await });
        next_in_line(&mut turns).await;
        guard.release().await.unwrap();
        soon("the next in line", next).await.unwrap();
    }
    let urls = [url("rowgate:hunter2"), url(":hunter2"), server.url()];
    for wrong in urls {
        let store = impatient(&wrong, Duration::from_secs(20)).await;
        let error = store.check().await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
        assert!(!error.retryable());
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(store.answering_for(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_no_leases_until_it_is_the_master() {
    // Of a master that nobody knows: it answers, and takes no writes.
    let server = Server::start(&["--replicaof", "127.0.0.1", "1"]).await;
    let store = impatient(&server.url(), STALL).await;
    let job = job(1);
    let error = store.acquire(&[job], LONG).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    assert_eq!(store.answering_for(), None);
    server.tell::<()>("REPLICAOF NO ONE").await;
    let acquired = patiently(async || store.acquire(&[job], LONG).await).await;
    assert_eq!(acquired, HELD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_its_data_is_waited_for() {
    let mut server = Server::start(&[]).await;
    let fill = "for i = 1, 20000 do redis.call('SET', 'k' .. i, i) end";
    let mut connection = server.connect().await;
    let mut command = redis::cmd("EVAL");
    command.arg(fill).arg(0);
    command.exec_async(&mut connection).await.unwrap();
    server.tell::<()>("SAVE").await;
    // 20,000 keys, 200 µs each, and it answers in between.
    let slow = [
        "--key-load-delay",
        "200",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    server.start_again(&slow).await;
    let store = impatient(&server.url(), STALL).await;
    let mut said = Vec::new();
    let job = job(1);
    until("it has loaded", async || {
        match store.acquire(&[job], LONG).await {
            Ok(acquired) => acquired == HELD,
            Err(error) => {
                assert!(error.retryable(), "{error}");
                said.push(error.to_string());
                false
            }
        }
    })
    .await;
    assert!(
        said.iter()
            .any(|text| text.contains("LOADING") || text.contains("loading")),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_no_reason_not_to_start() {
    let port = crate::support::redis::free_port();
    let store = impatient(&format!("redis://127.0.0.1:{port}"), STALL).await;
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_eq!(store.answering_for(), None);
    let rates = RateLimit::new(Arc::new(store) as Arc<dyn RateStore>);
    let wait = rates.take("shop", 5000, 1000).await;
    assert_eq!(
        wait,
        Duration::from_secs(5),
        "each process keeps the rate itself"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_queues_on_one_server_never_meet() {
    let server = Server::start(&[]).await;
    let one = open(&server.url(), "one").await;
    let two = open(&server.url(), "two").await;
    let job = job(1);
    assert_eq!(one.acquire(&[job], LONG).await.unwrap(), HELD);
    assert_eq!(two.renew(&[job], LONG).await.unwrap(), MISSING);
    assert_eq!(two.acquire(&[job], LONG).await.unwrap(), HELD);
    let mut heard = two.signals();
    one.signal(Signal::Limits).await.unwrap();
    two.signal(Signal::Changed(job.0)).await.unwrap();
    let first = soon("a signal of its own queue", heard.recv()).await;
    assert_eq!(first, Ok(Signal::Changed(job.0)));
    let locks = [one, two].map(|store| {
        let store: Arc<dyn Store> = Arc::new(store);
        super::rig::locks(&store, PATIENT_LINE)
    });
    let _both = [
        held(&locks[0], "a", Mode::Fair).await,
        held(&locks[1], "a", Mode::Fair).await,
    ];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_redis_forgot_is_lost() {
    let server = Server::start(&[]).await;
    let store: Arc<dyn Store> = Arc::new(open(&server.url(), "q").await);
    let locks = super::rig::locks(&store, PATIENT_LINE);
    let length = Length::Unknown {
        ttl: Duration::from_secs(6),
    };
    let guard = locks.acquire("a", Mode::Fair, length, Wait::Unbounded);
    let guard = soon("the lock", guard).await.unwrap();
    server.tell::<()>("FLUSHALL").await;
    let ended = soon("the loss", guard.run(std::future::pending::<()>())).await;
    assert!(matches!(ended, Err(Error::Lost(_))), "{ended:?}");
}

/// Everybody's place is lost; whoever waits stands again where it stood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_is_made_anew_after_redis_forgot_it() {
    let server = Server::start(&[]).await;
    let store: Arc<dyn Store> = Arc::new(open(&server.url(), "q").await);
    let (spy, mut turns) = Spy::on(&store);
    let locks = Locks::new(spy as Arc<dyn LockStore>, lock_options(PATIENT_LINE));
    let guard = held(&locks, "a", Mode::Fair).await;
    let (tell, mut served) = tokio::sync::mpsc::channel(100);
    for number in 0..10 {
        let (locks, tell) = (locks.clone(), tell.clone());
        tokio::spawn(async move {
            let guard = held(&locks, "a", Mode::Fair).await;
            tell.send(number).await.unwrap();
            guard.release().await.unwrap();
        });
        next_in_line(&mut turns).await;
    }
    // A holder that nobody in line knows keeps the lock until all stand again.
    let mut raw = server.connect().await;
    let mut command = redis::cmd("EVAL");
    command
        .arg(
            "redis.call('FLUSHALL') redis.call('SET', KEYS[1], 'x.0:0') return redis.call('ZCARD', KEYS[2])",
        )
        .arg(2)
        .arg("rowgate:{q}:lock:a")
        .arg("rowgate:{q}:line:a");
    command.exec_async(&mut raw).await.unwrap();
    until("all stand in line again", async || {
        server.tell::<usize>("ZCARD rowgate:{q}:line:a").await == 10
    })
    .await;
    server.tell::<()>("DEL rowgate:{q}:lock:a").await;
    for number in 0..10 {
        let next = soon("the next in line", served.recv()).await;
        assert_eq!(next, Some(number));
    }
    drop(guard);
}

/// A process of ours has two connections, however many wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_and_leases_share_two_connections() {
    let server = Server::start(&[]).await;
    let store: Arc<dyn Store> = Arc::new(open(&server.url(), "q").await);
    let (spy, mut turns) = Spy::on(&store);
    let locks = Locks::new(spy as Arc<dyn LockStore>, lock_options(PATIENT_LINE));
    let guard = held(&locks, "a", Mode::Fair).await;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let locks = locks.clone();
        waiters.spawn(async move { held(&locks, "a", Mode::Fair).await });
    }
    for _ in 0..300 {
        next_in_line(&mut turns).await;
    }
    let jobs: Vec<_> = (0..20_000).map(|_| job(1)).collect();
    let held = store.acquire(&jobs, LONG).await.unwrap();
    assert_eq!(held, vec![Acquired::Held; jobs.len()]);
    let renewed = store.renew(&jobs, LONG).await.unwrap();
    assert_eq!(renewed, vec![Renewal::Renewed; jobs.len()]);
    let clients: String = server.tell("CLIENT LIST").await;
    // Two of ours, and the one that asks.
    assert_eq!(clients.lines().count(), 3, "{clients}");
    drop(guard);
    let first = soon("the first in line", waiters.join_next()).await;
    first.expect("somebody waits").unwrap();
}

#[tokio::test]
async fn urls_that_can_not_be_used_are_refused() {
    for wrong in ["redis://", "http://cache", "cache:6379"] {
        let opened = RedisStore::open(options(wrong, "q")).await;
        assert!(matches!(opened, Err(Error::Refused(_))), "{wrong}");
    }
    let folder = temp_dir();
    for (name, text) in [("missing.pem", None), ("empty.pem", Some("no certificate"))] {
        let path = folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let opened = RedisStore::open(RedisOptions {
            ca_file: Some(path),
            ..options("rediss://cache", "q")
        })
        .await;
        match opened {
            Err(Error::Refused(text)) => assert!(text.contains(name), "{text}"),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
}

/// The limit of a source holds in the process where there is no Redis.
#[tokio::test]
async fn a_rate_of_zero_is_no_limit() {
    let rates = RateLimit::new(Arc::new(LocalStore::default()));
    assert_eq!(rates.take("shop", u64::MAX, 0).await, Duration::ZERO);
    assert!(rates.take("shop", 10, 1).await > Duration::from_secs(5));
}
