//! Builds the parts, wires them, runs them, and takes them down in order. The only place that knows all of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, select_all},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, QueueUrl},
    export::WorkerId,
    lease::LeaseOptions,
    pipeline::{Catalog, Sizes},
    queue::{self, ControlStore, Guard, JobStore, PostgresStore, SqliteStore, WorkerRow},
    rpc::server::{self, Health},
    run::{Owned, Retries, Runner, Slots, Speeds, StopReason, trust_keeper, watchdog},
    service::{LiveLimits, Service, ServiceOptions, Tokens},
    storage::ResultStore,
    task,
    worker::{Worker, abandon_all, reaper, retention},
};

/// What is left after the grace time is cut off after this.
const HARD_EXIT: Duration = Duration::from_secs(5);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// A service whose parts stand, not yet serving.
pub struct App {
    service: Arc<Service>,
    runner: Arc<Runner>,
    control: Arc<dyn ControlStore>,
    config: Config,
    guard: Guard,
}

/// A job store that is open and this process's own.
pub struct Stores {
    pub jobs: Arc<dyn JobStore>,
    pub control: Arc<dyn ControlStore>,
    pub guard: Guard,
}

impl App {
    /// Opens the job store (migrating it), the result storage and the sources; takes up what a former process left.
    ///
    /// # Errors
    /// What an operator has to put right, in words.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let stores = open_queue(&config.queue.url).await?;
        Self::over(stores, config).await
    }

    /// The same over a job store that stands already: tests let it fail.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn over(stores: Stores, config: Config) -> anyhow::Result<Self> {
        let results = ResultStore::local(&config.storage.folder)
            .with_context(|| format!("the result folder {}", config.storage.folder.display()))?;
        let token_key = stores.control.token_key().await?;
        results.claim_for(&queue_identity(&token_key)).await?;
        let catalog = Catalog::new(config.sources.clone())
            .map_err(|invalid| anyhow::anyhow!("{}: {}", invalid.key, invalid.message))?;
        let sizes = Arc::new(Sizes::new(&config.limits));
        let slots = Slots::new(&config.limits);
        let limits = Arc::new(LiveLimits::new(
            config.limits.clone(),
            sizes.clone(),
            slots.clone(),
        ));
        limits.load(stores.control.as_ref()).await?;
        let runner = Arc::new(Runner {
            store: stores.jobs.clone(),
            catalog: Arc::new(catalog),
            results,
            sizes,
            slots,
            owned: Arc::new(Owned::default()),
            speeds: Speeds::default(),
            lease: LeaseOptions {
                ttl: config.lease.ttl,
                renew_every: config.lease.renew_every,
                margin: config.lease.margin,
            },
            retries: Retries {
                attempts_max: config.queue.max_attempts,
                backoff_min: config.queue.backoff_min,
                backoff_max: config.queue.backoff_max,
            },
            result_ttl: config.storage.ttl,
            scratch: scratch_folder(&config.storage.folder)?,
            changed: Runner::changes(),
        });
        let service = Arc::new(Service {
            runner: runner.clone(),
            store: stores.jobs,
            control: stores.control.clone(),
            limits,
            tokens: Tokens::new(token_key),
            worker: worker_id(),
            options: ServiceOptions {
                gateway_timeout: config.server.gateway_timeout,
                inline_safety: config.inline_safety,
                tenant_queued: config.tenant_queued,
                estimate_patience: config.estimate_patience,
                stream_idle_timeout: config.server.stream_idle_timeout,
                poll_interval: config.queue.poll_interval,
            },
            running: TaskTracker::new(),
            draining: CancellationToken::new(),
            cut_off: CancellationToken::new(),
        });
        let app = Self {
            service,
            runner,
            control: stores.control,
            config,
            guard: stores.guard,
        };
        app.take_up().await?;
        Ok(app)
    }

    /// This process has the queue to itself and has just started: whatever runs in it has no owner.
    async fn take_up(&self) -> anyhow::Result<()> {
        let abandoned = abandon_all(&self.runner).await?;
        if abandoned > 0 {
            tracing::info!(abandoned, "took up what a former process left");
        }
        Ok(())
    }

    /// Serves on `listener` until `shutdown` completes, then drains and returns.
    ///
    /// # Errors
    /// The server can't serve, the queue is no longer this process's own, or a part of the service ended by itself.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr()?;
        let stop_background = CancellationToken::new();
        let stop_claims = self.service.draining.clone();
        let mut parts = self.spawn_background(&stop_background);
        let worker = self.spawn_worker(stop_claims.clone());
        parts.push(worker.clone());

        let stop_server = CancellationToken::new();
        let mut server = server::serve(self.service.clone(), listener, stop_server.clone()).await;
        tracing::info!(%address, "rowgate serves");

        let lost = self.guard.lost();
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            () = lost.cancelled() => {
                self.runner.owned.stop_all(StopReason::Lost);
                Err(anyhow::anyhow!("the lock on the queue was lost: another process may use it now"))
            }
            // Only a defect ends one: nobody would claim, renew or reap any more.
            (how, ..) = select_all(parts) => Err(anyhow::anyhow!("{how}; the service can't go on without it")),
            ended = server.ended() => return ended.map_err(anyhow::Error::from),
        };

        tracing::info!("draining");
        server.set_health(Health::NotServing).await;
        stop_claims.cancel();
        self.drain(worker).await;
        stop_server.cancel();
        // A graceful end waits for ever on one open stream: cut it off.
        if tokio::time::timeout(HARD_EXIT, server.ended())
            .await
            .is_err()
        {
            server.abort();
        }
        stop_background.cancel();
        outcome
    }

    fn spawn_background(&self, stop: &CancellationToken) -> Vec<Part> {
        let runner = &self.runner;
        vec![
            part(
                "watchdog",
                watchdog(
                    runner.owned.clone(),
                    runner.store.clone(),
                    runner.lease,
                    self.config.queue.poll_interval,
                    stop.clone(),
                ),
            ),
            part(
                "trust keeper",
                trust_keeper(runner.owned.clone(), runner.lease, stop.clone()),
            ),
            part(
                "reaper",
                reaper(runner.clone(), self.control.clone(), stop.clone()),
            ),
            part(
                "retention",
                retention(runner.clone(), self.config.queue.retention, stop.clone()),
            ),
            part("heartbeat", heartbeat(self.service.clone(), stop.clone())),
        ]
    }

    fn spawn_worker(&self, stop: CancellationToken) -> Part {
        let limits = self.service.limits.clone();
        let worker = Worker {
            id: self.service.worker.clone(),
            runner: self.runner.clone(),
            control: self.control.clone(),
            caps: Arc::new(move || limits.caps()),
            poll_interval: self.config.queue.poll_interval,
        };
        part(
            "worker",
            worker.run(stop, self.config.server.shutdown_grace),
        )
    }

    /// Lets what runs finish within the grace time, hands the rest back, and waits until that is written.
    async fn drain(&self, worker: Part) {
        let grace = self.config.server.shutdown_grace;
        let running = &self.service.running;
        running.close();
        let finish = async {
            if tokio::time::timeout(grace, running.wait()).await.is_err() {
                self.runner.owned.stop_all(StopReason::Shutdown);
                self.service.cut_off.cancel();
                running.wait().await;
            }
        };
        let all = async { tokio::join!(finish, worker) };
        if tokio::time::timeout(grace + HARD_EXIT, all).await.is_err() {
            tracing::warn!("some exports did not stop in time; the next process takes them up");
        }
    }
}

/// What runs as long as the service does; tells how it ended.
type Part = Shared<BoxFuture<'static, String>>;

fn part(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Part {
    let running = task::spawn(name, work);
    let ended = async move {
        match running.await {
            Ok(()) => format!("the {name} ended by itself"),
            Err(error) => format!("the {name} ended by itself: {error}"),
        }
    };
    ended.boxed().shared()
}

/// Opens the job store and takes it for this process alone.
///
/// # Errors
/// The job store's; another process that has it.
pub async fn open_queue(url: &QueueUrl) -> anyhow::Result<Stores> {
    let options = queue::StoreOptions::default();
    match url {
        QueueUrl::Sqlite(path) => {
            let store = Arc::new(SqliteStore::open(path, options).await?);
            let guard = store.guard().await?;
            Ok(Stores {
                jobs: store.clone(),
                control: store,
                guard,
            })
        }
        QueueUrl::Postgres(url) => {
            let store = Arc::new(PostgresStore::connect(url, options).await?);
            let guard = store.guard().await?;
            Ok(Stores {
                jobs: store.clone(),
                control: store,
                guard,
            })
        }
    }
}

/// Brings the job store's schema up to this version; fine when it is.
///
/// # Errors
/// The job store's.
pub async fn migrate(url: &QueueUrl) -> Result<(), queue::Error> {
    let options = queue::StoreOptions::default();
    match url {
        QueueUrl::Sqlite(path) => SqliteStore::migrate(path, options).await,
        QueueUrl::Postgres(url) => PostgresStore::migrate(url, options).await,
    }
}

/// Tells queues apart without telling their key.
fn queue_identity(token_key: &[u8; 32]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(
        &Sha256::new()
            .chain_update(b"queue")
            .chain_update(token_key)
            .finalize()[..16],
    )
}

/// Beside the results, so that an encoder's temporary files are on the same disk; emptied at start, since a killed
/// process leaves its own behind.
fn scratch_folder(results: &Path) -> anyhow::Result<PathBuf> {
    let mut name = results.file_name().unwrap_or_default().to_owned();
    name.push(".scratch");
    let folder = results.with_file_name(name);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("emptying {}", folder.display()));
        }
        _ => {}
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Unique for this boot of this process.
fn worker_id() -> WorkerId {
    let random = uuid::Uuid::new_v4().simple().to_string();
    WorkerId(format!(
        "{}-{}-{}",
        host_name(),
        std::process::id(),
        &random[..8]
    ))
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Tells the other processes, and `ListWorkers`, that this one lives.
async fn heartbeat(service: Arc<Service>, stop: CancellationToken) {
    let started_at = jiff::Timestamp::now();
    loop {
        let (running, slots) = service.runner.slots.worker_load();
        let row = WorkerRow {
            id: service.worker.clone(),
            host: host_name(),
            started_at,
            running,
            slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        if let Err(error) = service.control.heartbeat(&row, HEARTBEAT_EVERY * 3).await {
            tracing::warn!(%error, "the worker's row could not be refreshed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
        }
    }
}
