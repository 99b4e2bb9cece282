//! Leases, locks and rates in Redis, shared by every process of a queue.
//!
//! Each compare-and-set is a script (`src/lease/redis/*.lua`), so that it is one step for all. Keys carry the queue's
//! identity, in braces: two queues on one Redis never meet, and all keys of one lie in the same slot. A process has two
//! connections, one for commands ([`link`]) and one that listens ([`news`]), and three tasks in all.

mod health;
mod keys;
mod link;
mod locks;
mod news;
mod scripts;

use std::{
    fmt,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ::redis::{Client, IntoConnectionInfo, Pipeline, TlsCertificates, io::tcp::TcpSettings};
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{health::Health, keys::Keys, link::Link, news::News};
use super::{
    Acquired, BATCH_JOBS, Error, LeaseStore, RateStore, Renewal, Result, SIGNAL_BACKLOG, Signal,
    boot_id, lock::Wake, rate::WAIT_MAX,
};
use crate::{
    export::{ExportId, Fence, Progress},
    task,
};

/// Redis is asked whether it answers at least this often, if its time-out allows.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://` or `rediss://`, with user, password and database where they are needed.
    pub url: SecretString,
    /// Certificates (PEM) that the server's has to be signed by; else those that browsers trust.
    pub ca_file: Option<PathBuf>,
    /// Tells queues on one Redis apart.
    pub queue: String,
    /// Of each command, with all its tries. Where a ttl hangs on a command, a tenth of it if that is less.
    pub command_timeout: Duration,
}

/// One owner: a process, for as long as it lives.
pub struct RedisStore {
    link: Arc<Link>,
    keys: Arc<Keys>,
    boot: String,
    members: AtomicU64,
    signals: broadcast::Sender<Signal>,
    wakes: broadcast::Sender<Wake>,
    listens: watch::Receiver<bool>,
    _stop: DropGuard,
}

impl RedisStore {
    /// Starts to connect, and goes on trying: Redis may be away when a process starts.
    ///
    /// # Errors
    /// [`Error::Refused`]: the URL or the CA file can't be used.
    pub async fn open(options: RedisOptions) -> Result<Self> {
        let client = client(&options).await?;
        let probe_every = PROBE_EVERY.min(options.command_timeout);
        let health = Arc::new(Health::new(probe_every));
        let link = Arc::new(Link::new(client, options.command_timeout, health));
        let keys = Arc::new(Keys::new(&options.queue));
        let boot = boot_id();
        let signals = broadcast::Sender::new(SIGNAL_BACKLOG);
        let wakes = broadcast::Sender::new(SIGNAL_BACKLOG);
        let (listens, is_listening) = watch::channel(false);
        let stop = CancellationToken::new();
        let news = News {
            client: link.client().clone(),
            keys: keys.clone(),
            boot: boot.clone(),
            timeout: options.command_timeout,
            ping_every: probe_every,
            signals: signals.clone(),
            wakes: wakes.clone(),
            listens,
        };
        task::spawn("redis.news", news.listen(stop.clone()));
        task::spawn(
            "redis.probe",
            probe(link.clone(), keys.clone(), probe_every, stop.clone()),
        );
        Ok(Self {
            link,
            keys,
            boot,
            members: AtomicU64::new(0),
            signals,
            wakes,
            listens: is_listening,
            _stop: stop.drop_guard(),
        })
    }

    /// Whether Redis answers now: for a process that starts, which should say what an operator has to put right.
    ///
    /// # Errors
    /// Those of any command.
    pub async fn check(&self) -> Result<()> {
        let timeout = self.link.command_timeout;
        look_for(&self.link, &self.keys, &[], timeout).await?;
        Ok(())
    }

    /// Returns when signals and wakes are heard: what is sent before is missed.
    pub async fn listens(&self) {
        // The sender lives as long as the task, and that as long as self.
        let _ = self.listens.clone().wait_for(|listens| *listens).await;
    }

    fn value(&self, fence: Fence) -> String {
        format!("{fence}:{}", self.boot)
    }

    fn job_keys(&self, jobs: &[(ExportId, Fence)]) -> Vec<String> {
        jobs.iter().map(|(id, _)| self.keys.lease(*id)).collect()
    }
}

async fn client(options: &RedisOptions) -> Result<Client> {
    let url = options.url.expose_secret();
    let refused = |error: ::redis::RedisError| Error::Refused(error.to_string());
    let info = url
        .into_connection_info()
        .map_err(refused)?
        // Many small commands share the connection: none waits for the answer to the one before.
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    if !url.starts_with("rediss://") {
        return Client::open(info).map_err(refused);
    }
    // Whatever other crates bring along: TLS here is ring's. It fails only if the process has chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root_cert = match &options.ca_file {
        Some(path) => Some(certificates(path).await?),
        None => None,
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert,
    };
    Client::build_with_tls(info, certificates).map_err(refused)
}

async fn certificates(path: &Path) -> Result<Vec<u8>> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let refused = |why: &dyn fmt::Display| Error::Refused(format!("{}: {why}", path.display()));
    let text = tokio::fs::read(path)
        .await
        .map_err(|error| refused(&error))?;
    if text.windows(BEGIN.len()).any(|window| window == BEGIN) {
        Ok(text)
    } else {
        Err(refused(&"there is no certificate (PEM) in it"))
    }
}

/// Keeps account of whether Redis answers while nobody has anything to ask.
async fn probe(link: Arc<Link>, keys: Arc<Keys>, every: Duration, stop: CancellationToken) {
    loop {
        // The health has noted what came of it.
        let _ = look_for(&link, &keys, &[], link.command_timeout).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Which jobs have a key; the epoch is looked at in the same step.
async fn look_for(
    link: &Link,
    keys: &Keys,
    ids: &[ExportId],
    timeout: Duration,
) -> Result<Vec<bool>> {
    let mut all = vec![keys.epoch()];
    all.extend(ids.iter().map(|id| keys.lease(*id)));
    let fresh = [boot_id()];
    let answers: Vec<String> = link.script(timeout, &scripts::ALIVE, &all, &fresh).await?;
    let Some((epoch, found)) = answers.split_first() else {
        return Err(Error::Broken("no epoch".to_owned()));
    };
    link.health.read_epoch(epoch);
    as_many(ids.len(), found.iter().map(|flag| flag == "1").collect())
}

#[async_trait]
impl LeaseStore for RedisStore {
    async fn acquire(&self, jobs: &[(ExportId, Fence)], ttl: Duration) -> Result<Vec<Acquired>> {
        let timeout = self.link.timeout_for(ttl);
        let mut all = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(BATCH_JOBS) {
            let mut args = vec![milliseconds(ttl)];
            args.extend(jobs.iter().map(|(_, fence)| self.value(*fence)));
            let in_the_way: Vec<Option<String>> = self
                .link
                .script(timeout, &scripts::ACQUIRE, &self.job_keys(jobs), &args)
                .await?;
            let answers = in_the_way.into_iter().map(|value| match value {
                None => Acquired::Held,
                Some(value) => Acquired::NotOwner {
                    fence: fence_of(&value),
                },
            });
            all.extend(as_many(jobs.len(), answers.collect())?);
        }
        Ok(all)
    }

    async fn renew(&self, jobs: &[(ExportId, Fence)], ttl: Duration) -> Result<Vec<Renewal>> {
        let timeout = self.link.timeout_for(ttl);
        let mut all = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(BATCH_JOBS) {
            let mut args = Vec::with_capacity(2 * jobs.len());
            for (_, fence) in jobs {
                args.extend([milliseconds(ttl), self.value(*fence)]);
            }
            let found: Vec<Option<String>> = self
                .link
                .script(timeout, &scripts::RENEW, &self.job_keys(jobs), &args)
                .await?;
            let answers = jobs.iter().zip(found).map(|((_, ours), found)| {
                match found.as_deref().map(|value| (value, fence_of(value))) {
                    None => Renewal::Renewed,
                    Some(("", _)) => Renewal::Missing,
                    Some((_, fence)) if fence < *ours => Renewal::Missing,
                    Some((_, fence)) => Renewal::NotOwner { fence },
                }
            });
            all.extend(as_many(jobs.len(), answers.collect())?);
        }
        Ok(all)
    }

    async fn release(&self, id: ExportId, fence: Fence) -> Result<()> {
        let timeout = self.link.command_timeout;
        let (keys, args) = ([self.keys.lease(id)], [self.value(fence)]);
        self.link
            .script::<u64>(timeout, &scripts::RELEASE, &keys, &args)
            .await?;
        Ok(())
    }

    async fn alive(&self, ids: &[ExportId], ttl: Duration) -> Result<Vec<bool>> {
        let timeout = self.link.timeout_for(ttl);
        let mut all = Vec::with_capacity(ids.len());
        for ids in ids.chunks(BATCH_JOBS) {
            let found = look_for(&self.link, &self.keys, ids, timeout).await?;
            // Asked after the answer, which may have been the first after a break.
            let is_steady = self.answering_for().is_some_and(|time| time >= ttl);
            all.extend(found.into_iter().map(|is_there| is_there || !is_steady));
        }
        Ok(all)
    }

    fn answering_for(&self) -> Option<Duration> {
        self.link.health.answering_for()
    }

    async fn publish(&self, progress: &[(ExportId, Fence, Progress)], ttl: Duration) -> Result<()> {
        let timeout = self.link.timeout_for(ttl);
        for progress in progress.chunks(BATCH_JOBS) {
            let mut pipeline = Pipeline::with_capacity(progress.len());
            for (id, fence, progress) in progress {
                let json = serde_json::to_string(progress)
                    .map_err(|error| Error::Broken(error.to_string()))?;
                pipeline
                    .cmd("SET")
                    .arg(self.keys.progress(*id))
                    .arg(format!("{fence}:{json}"))
                    .arg("PX")
                    .arg(milliseconds(ttl))
                    .ignore();
            }
            self.link.pipeline(timeout, &pipeline).await?;
        }
        Ok(())
    }

    async fn progress(&self, id: ExportId) -> Result<Option<Progress>> {
        let mut command = ::redis::cmd("MGET");
        command.arg(self.keys.lease(id)).arg(self.keys.progress(id));
        let (holder, published): (Option<String>, Option<String>) = self
            .link
            .command(self.link.command_timeout, &command)
            .await?;
        let (Some(holder), Some(published)) = (holder, published) else {
            return Ok(None);
        };
        // Of an owner before, or of another version of ours: as if there were none.
        let is_current = fence_of(&holder) == fence_of(&published);
        let json = published.split_once(':').map_or("", |(_, json)| json);
        Ok(serde_json::from_str(json).ok().filter(|_| is_current))
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(self.keys.signals()).arg(signal.to_text());
        self.link
            .command::<u64>(self.link.command_timeout, &command)
            .await?;
        Ok(())
    }

    fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }
}

#[async_trait]
impl RateStore for RedisStore {
    async fn take_rows(
        &self,
        source: &str,
        rows: u64,
        rows_per_second: NonZero<u64>,
    ) -> Result<Duration> {
        let args = [
            rows.to_string(),
            rows_per_second.to_string(),
            WAIT_MAX.as_micros().to_string(),
        ];
        let timeout = self.link.command_timeout;
        let keys = [self.keys.rate(source)];
        let wait_us: u64 = self
            .link
            .script(timeout, &scripts::RATE, &keys, &args)
            .await?;
        Ok(Duration::from_micros(wait_us))
    }
}

/// As Redis takes them; never 0, which it refuses.
fn milliseconds(time: Duration) -> String {
    time.as_millis().max(1).to_string()
}

/// Of `<fence>:…`. What is no such value is older than anything.
fn fence_of(value: &str) -> Fence {
    let fence = value
        .split_once(':')
        .and_then(|(fence, _)| fence.parse().ok());
    Fence(fence.unwrap_or(-1))
}

/// A script answers for each of its keys.
fn as_many<T>(expected: usize, answers: Vec<T>) -> Result<Vec<T>> {
    if answers.len() == expected {
        Ok(answers)
    } else {
        Err(Error::Broken(format!(
            "{} answers for {expected} keys",
            answers.len()
        )))
    }
}
