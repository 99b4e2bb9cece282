//! What the operator decided: typed sections, from one TOML file, then the environment, then flags; the later wins.
//!
//! Owns names, defaults and rules of every key. Refuses to know what the values are used for. [`load`] is the only place
//! of the whole crate that reads the environment, and the configuration's files.

mod keys;
mod load;
mod nearest;
mod read;
mod sections;
mod show;
#[cfg(test)]
mod tests;
mod units;
mod urls;

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{export::Limits, source::SourceOptions};

pub use load::{Inputs, Override, load};
pub use urls::{LeaseUrl, QueueUrl};

/// All that is in force. Immutable: what may change at run time are the [`Limits`], through `SetLimits`.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub queue: Queue,
    pub lease: Lease,
    pub storage: Storage,
    /// As the file has them, before what `SetLimits` stored. `source_slots` names each source that states its own.
    pub limits: Limits,
    /// The share of the budget that an inline run may be expected to take; above 0, up to 1.
    pub inline_safety: f64,
    /// Exports of one tenant that may wait in the queue.
    pub tenant_queued: u32,
    /// An estimate that takes longer is none. No key reads it; a test gives a busy machine more.
    pub estimate_patience: Duration,
    /// By name.
    pub sources: BTreeMap<String, SourceOptions>,
    shown: Vec<show::Line>,
}

impl Config {
    /// What is in force as TOML, secrets masked, with where each value came from. Loads again (but for the masks).
    pub fn show(&self) -> String {
        show::toml(&self.shown)
    }
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
    pub roles: Roles,
    /// What stands in front of us cuts a call off after this.
    pub gateway_timeout: Duration,
    pub shutdown_grace: Duration,
    /// A client of a stream that takes nothing for this long is dropped.
    pub stream_idle_timeout: Duration,
}

/// What a process does for its queue: at least one of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// Serves the API; runs inline exports and live streams.
    pub api: bool,
    /// Takes jobs from the queue.
    pub worker: bool,
}

#[derive(Clone, Debug)]
pub struct Queue {
    pub url: QueueUrl,
    /// +- jitter; also how often owners look whether their jobs are to be cancelled.
    pub poll_interval: Duration,
    pub max_attempts: u32,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How long rows of ended jobs are kept; at least as long as results.
    pub retention: Duration,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub url: LeaseUrl,
    /// PEM; for `rediss://`.
    pub ca_file: Option<PathBuf>,
    pub ttl: Duration,
    /// +- 10 %.
    pub renew_every: Duration,
    /// The owner's trust ends this long before the ttl.
    pub margin: Duration,
    /// Of each command to Redis; at most a tenth of the ttl.
    pub command_timeout: Duration,
    /// Between two asks for a plain lock: doubled from the one to the other, with jitter.
    pub lock_backoff_min: Duration,
    pub lock_backoff_max: Duration,
}

#[derive(Clone, Debug)]
pub struct Storage {
    pub folder: PathBuf,
    /// How long a result is kept, where the export doesn't say.
    pub ttl: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration file {} can't be read: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("the configuration file {} is not TOML: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("the configuration is not right:{}", listed(.0))]
    Invalid(Vec<Problem>),
}

/// One thing to put right. The text holds no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// `server.listen`.
    pub key: String,
    /// `rowgate.toml`, `ROWGATE_SERVER__LISTEN`, `--listen`; `None` for a default or several keys.
    pub origin: Option<String>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} (from {origin}): {}", self.key, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  - {problem}"))
        .collect()
}
