//! What has to stand before the parts can be built: job store, leases, folders, names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;

use crate::{
    config::{self, LeaseUrl, QueueUrl},
    export::WorkerId,
    lease::{LeaseStore, LineOptions, LocalStore, LockOptions, Locks, RedisOptions, RedisStore},
    queue::{self, ControlStore, Guard, JobStore, PostgresStore, SqliteStore},
};

/// A job store that is open.
pub struct Stores {
    pub jobs: Arc<dyn JobStore>,
    pub control: Arc<dyn ControlStore>,
    /// Held where the queue belongs to this process alone.
    pub guard: Option<Guard>,
}

/// Opens the job store, and with `lease.url = "local"` takes it for this process alone.
///
/// # Errors
/// The job store's; another process that has it.
pub async fn open_queue(url: &QueueUrl, leases: &LeaseUrl) -> anyhow::Result<Stores> {
    let is_alone = matches!(leases, LeaseUrl::Local);
    let options = queue::StoreOptions::default();
    match url {
        QueueUrl::Sqlite(path) => {
            let store = Arc::new(SqliteStore::open(path, options).await?);
            let guard = match is_alone {
                true => Some(store.guard().await?),
                false => None,
            };
            Ok(Stores {
                jobs: store.clone(),
                control: store,
                guard,
            })
        }
        QueueUrl::Postgres(url) => {
            let store = Arc::new(PostgresStore::connect(url, options).await?);
            let guard = match is_alone {
                true => Some(store.guard().await?),
                false => None,
            };
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
pub fn queue_identity(token_key: &[u8; 32]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(
        &Sha256::new()
            .chain_update(b"queue")
            .chain_update(token_key)
            .finalize()[..16],
    )
}

/// Who watches that owners are alive, and what else processes share beside the job store.
pub struct Leases {
    pub store: Arc<dyn LeaseStore>,
    /// `None`: this process is the only one.
    pub locks: Option<Locks>,
}

/// # Errors
/// A Redis that refuses us. One that is away is waited for while the service runs.
pub async fn open_leases(config: &config::Lease, queue: &str) -> anyhow::Result<Leases> {
    let LeaseUrl::Redis(url) = &config.url else {
        return Ok(Leases {
            store: Arc::new(LocalStore::default()),
            locks: None,
        });
    };
    let store = RedisStore::open(RedisOptions {
        url: url.clone(),
        ca_file: config.ca_file.clone(),
        queue: queue.to_owned(),
        command_timeout: config.command_timeout,
    })
    .await
    .context("lease.url")?;
    match store.check().await {
        Ok(()) => {}
        Err(error) if error.retryable() => {
            tracing::warn!(%error, "Redis (lease.url) does not answer; leases are kept in the database until it does");
        }
        Err(error) => return Err(error).context("lease.url"),
    }
    let store = Arc::new(store);
    let options = LockOptions {
        backoff_min: config.lock_backoff_min,
        backoff_max: config.lock_backoff_max,
        line: LineOptions::default(),
    };
    Ok(Leases {
        store: store.clone(),
        locks: Some(Locks::new(store, options)),
    })
}

/// Beside the results, so that an encoder's temporary files are on the same disk. The only process of a queue empties it
/// at start, since a killed one leaves its own behind; among others each has its own.
pub fn scratch_folder(
    results: &Path,
    worker: &WorkerId,
    leases: &LeaseUrl,
) -> anyhow::Result<PathBuf> {
    let mut name = results.file_name().unwrap_or_default().to_owned();
    name.push(".scratch");
    let mut folder = results.with_file_name(name);
    if matches!(leases, LeaseUrl::Redis(_)) {
        folder.push(&worker.0);
    }
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
pub fn worker_id() -> WorkerId {
    let random = uuid::Uuid::new_v4().simple().to_string();
    WorkerId(format!(
        "{}-{}-{}",
        host_name(),
        std::process::id(),
        &random[..8]
    ))
}

pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
