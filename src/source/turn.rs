//! Connections to a source beside those of exports: while a query is prepared, its planner asked, a sample read.
//!
//! Owns how many there may be at once. Callers bring them, in any number: what comes over the bound waits for a moment
//! and is then sent away. Refuses to know what is done in a turn.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::export::{Code, Failure};

/// A caller waits for its answer meanwhile, and a source that hangs holds its turns for longer anyhow.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// As many as exports may read the source at once: who allows that many connections for them can bear as many again.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

/// The right to one connection at a time, given back on drop.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(slots: u32) -> Self {
        Self(Arc::new(Semaphore::new(slots as usize)))
    }

    /// # Errors
    /// RESOURCE_EXHAUSTED / SOURCE_BUSY when there is none for a while.
    pub async fn take(&self, source: &str) -> Result<Turn, Failure> {
        match tokio::time::timeout(PATIENCE, self.0.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            Ok(Err(_)) => Err(Failure::internal("the turns of a source were closed")),
            Err(_) => Err(Failure::new(
                Code::ResourceExhausted,
                "SOURCE_BUSY",
                format!("as many queries as may are being prepared at the source {source}"),
            )
            .retry_after(RETRY_AFTER)),
        }
    }
}
