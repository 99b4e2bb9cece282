//! One process for each queue: what `lease.url = "local"` promises, and how a second process finds out.

use std::{fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Error, Result};

/// Held as long as this process may treat the queue as its own. Dropping it lets the next process in.
#[derive(Debug)]
pub struct Guard {
    lost: CancellationToken,
    _hold: Hold,
}

#[derive(Debug)]
enum Hold {
    /// The kernel gives the lock back however the process ends.
    File { _locked: File },
    /// A task that keeps a PostgreSQL session, and with it the session's advisory lock; dropping the set ends it.
    Session { _keeper: JoinSet<()> },
}

impl Guard {
    /// Fires when the queue is not ours any more (the session that held the lock broke). Whoever sees it stops every
    /// job at once: another process may have taken them for abandoned. Never fires for a file lock.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    pub(super) fn of_file(queue: &Path) -> Result<Self> {
        let mut path = queue.as_os_str().to_owned();
        path.push(".lock");
        let unavailable =
            |e: std::io::Error| Error::Unavailable(format!("{}: {e}", Path::new(&path).display()));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(unavailable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                lost: CancellationToken::new(),
                _hold: Hold::File { _locked: file },
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(&queue.display().to_string())),
            Err(errno) => Err(unavailable(errno.into())),
        }
    }

    pub(super) fn of_session(lost: CancellationToken, keeper: JoinSet<()>) -> Self {
        Self {
            lost,
            _hold: Hold::Session { _keeper: keeper },
        }
    }
}

pub(super) fn in_use(queue: &str) -> Error {
    Error::InUse(format!(
        "another process uses the queue {queue}, and with lease.url = \"local\" a queue belongs to one process: stop \
         the other one, or give this one a queue.url of its own"
    ))
}
