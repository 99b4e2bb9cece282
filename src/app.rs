//! Builds the parts, wires them, runs them, and takes them down in order. The only place that knows all of them.

mod open;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, select_all},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    lease::{LeaseOptions, Locks, Signal},
    pipeline::{Catalog, Sizes},
    queue::{ControlStore, Guard, WorkerRow},
    rpc::server::{self, Health},
    run::{
        News, Owned, Retries, Runner, Slots, Speeds, StopReason, Watchdog, hear_news,
        publish_progress, send_news, trust_keeper,
    },
    service::{LiveLimits, Service, ServiceOptions, Tokens},
    storage::ResultStore,
    task,
    worker::{Worker, abandon_all, leader, reaper, retention},
};

pub use open::{Stores, migrate, open_queue};
use open::{host_name, open_leases, queue_identity, scratch_folder, worker_id};

/// What is left after the grace time is cut off after this.
const HARD_EXIT: Duration = Duration::from_secs(5);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// How old the progress is that another process shows.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long limits that were set elsewhere may take to hold here, with every signal lost.
const LIMITS_EVERY: Duration = Duration::from_secs(10);

/// A service whose parts stand, not yet serving.
pub struct App {
    service: Arc<Service>,
    runner: Arc<Runner>,
    control: Arc<dyn ControlStore>,
    config: Config,
    guard: Option<Guard>,
    /// `None`: this process is the only one of its queue.
    fleet: Option<Fleet>,
}

/// What one process among several needs beside.
struct Fleet {
    locks: Locks,
    /// News for others that wait to be sent.
    outbox: mpsc::Receiver<Signal>,
}

impl App {
    /// Opens the job store (migrating it), the result storage and the sources; takes up what a former process left.
    ///
    /// # Errors
    /// What an operator has to put right, in words.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let stores = open_queue(&config.queue.url, &config.lease.url).await?;
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
        let identity = queue_identity(&token_key);
        results.claim_for(&identity).await?;
        let leases = open_leases(&config.lease, &identity).await?;
        let (news, fleet) = match leases.locks {
            None => (News::alone(), None),
            Some(locks) => {
                let (news, outbox) = News::among_others();
                (news, Some(Fleet { locks, outbox }))
            }
        };
        let worker = worker_id();
        let catalog = Catalog::new(config.sources.clone()).map_err(|invalid| {
            let all: Vec<_> = invalid.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", all.join("\n"))
        })?;
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
            leases: leases.store,
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
            scratch: scratch_folder(&config.storage.folder, &worker, &config.lease.url)?,
            news,
        });
        let service = Arc::new(Service {
            runner: runner.clone(),
            store: stores.jobs,
            control: stores.control.clone(),
            limits,
            tokens: Tokens::new(token_key),
            worker,
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
            fleet,
        };
        if app.fleet.is_none() {
            app.take_up().await?;
        }
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
        mut self,
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
        let mut server = server::serve(
            // A process that only works has nothing to offer but its health.
            self.config.server.roles.api.then(|| self.service.clone()),
            listener,
            stop_server.clone(),
        )
        .await;
        tracing::info!(%address, "rowgate serves");

        let lost = self
            .guard
            .as_ref()
            .map_or_else(CancellationToken::new, Guard::lost);
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
        if self.guard.is_none() {
            // Nobody else empties it.
            let _ = std::fs::remove_dir_all(&self.runner.scratch);
        }
        outcome
    }

    fn spawn_background(&mut self, stop: &CancellationToken) -> Vec<Part> {
        let runner = &self.runner;
        let watchdog = Watchdog {
            owned: runner.owned.clone(),
            store: runner.store.clone(),
            leases: runner.leases.clone(),
            options: runner.lease,
            poll_interval: self.config.queue.poll_interval,
        };
        let mut parts = vec![
            part("watchdog", watchdog.run(stop.clone())),
            part(
                "trust keeper",
                trust_keeper(runner.owned.clone(), runner.lease, stop.clone()),
            ),
            part("heartbeat", heartbeat(self.service.clone(), stop.clone())),
        ];
        let (keep_rows, control) = (self.config.queue.retention, self.control.clone());
        match self.fleet.take() {
            None => parts.extend([
                part("reaper", reaper(runner.clone(), control, stop.clone())),
                part(
                    "retention",
                    retention(runner.clone(), keep_rows, stop.clone()),
                ),
            ]),
            Some(Fleet { locks, outbox }) => {
                let leader = leader(runner.clone(), control, locks, keep_rows, stop.clone());
                parts.push(part("leader", leader));
                parts.extend(self.spawn_news(outbox, stop));
            }
        }
        parts
    }

    /// What other processes are told, and what they tell.
    fn spawn_news(&self, outbox: mpsc::Receiver<Signal>, stop: &CancellationToken) -> [Part; 4] {
        let runner = &self.runner;
        let limits_set = Arc::new(Notify::new());
        let on_limits = {
            let limits_set = limits_set.clone();
            move || limits_set.notify_one()
        };
        let progress = publish_progress(
            runner.owned.clone(),
            runner.leases.clone(),
            PROGRESS_EVERY,
            stop.clone(),
        );
        [
            part(
                "news to others",
                send_news(outbox, runner.leases.clone(), stop.clone()),
            ),
            part(
                "news from others",
                hear_news(runner.clone(), on_limits, stop.clone()),
            ),
            part("progress", progress),
            part(
                "limits",
                follow_limits(self.service.clone(), limits_set, stop.clone()),
            ),
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
        let grace = self.config.server.shutdown_grace;
        match self.config.server.roles.worker {
            true => part("worker", worker.run(stop, grace)),
            false => part("worker", async move { stop.cancelled().await }),
        }
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

/// Limits that were set elsewhere hold here, too.
async fn follow_limits(service: Arc<Service>, set: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = set.notified() => {}
            () = tokio::time::sleep(LIMITS_EVERY) => {}
        }
        if let Err(error) = service.limits.load(service.control.as_ref()).await {
            tracing::warn!(%error, "limits that others set could not be read");
        }
    }
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
