//! What this process tells others about jobs, and hears from them. Lossy in both directions: whoever must know polls,
//! too, only less often.

use std::sync::Arc;

use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio_util::sync::CancellationToken;

use super::Runner;
use crate::{
    export::ExportId,
    lease::{LeaseStore, Signal},
};

/// Waiters of `GetStatus` and `WatchExport` that are further behind re-read the row at their next poll.
const CHANGED_BACKLOG: usize = 1024;
/// News that wait for a slow lease store; what comes on top is dropped.
const OUTBOX: usize = 1024;

pub struct News {
    /// Ids whose state changed.
    changed: broadcast::Sender<ExportId>,
    /// `None`: there are no other processes.
    outbox: Option<mpsc::Sender<Signal>>,
}

impl News {
    /// Of the only process of its queue.
    pub fn alone() -> Self {
        Self {
            changed: broadcast::channel(CHANGED_BACKLOG).0,
            outbox: None,
        }
    }

    /// Of one among several; the other half goes to [`send_news`].
    pub fn among_others() -> (Self, mpsc::Receiver<Signal>) {
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        let news = Self {
            outbox: Some(outbox),
            ..Self::alone()
        };
        (news, waiting)
    }

    pub fn subscribe(&self) -> broadcast::Receiver<ExportId> {
        self.changed.subscribe()
    }

    /// The job's row changed.
    pub fn changed(&self, id: ExportId) {
        self.tell_here(id);
        self.tell_others(Signal::Changed(id));
    }

    /// A cancel was committed; the owner may be elsewhere.
    pub fn cancelled(&self, id: ExportId) {
        self.tell_others(Signal::Cancelled(id));
        self.changed(id);
    }

    /// Limits were set.
    pub fn limits(&self) {
        self.tell_others(Signal::Limits);
    }

    fn tell_here(&self, id: ExportId) {
        // Nobody may be waiting.
        let _ = self.changed.send(id);
    }

    fn tell_others(&self, signal: Signal) {
        if let Some(outbox) = &self.outbox
            && outbox.try_send(signal).is_err()
        {
            tracing::debug!(
                ?signal,
                "news were dropped; others find out at their next poll"
            );
        }
    }
}

/// Until `shutdown`.
pub async fn send_news(
    mut outbox: mpsc::Receiver<Signal>,
    leases: Arc<dyn LeaseStore>,
    shutdown: CancellationToken,
) {
    loop {
        let signal = tokio::select! {
            () = shutdown.cancelled() => return,
            signal = outbox.recv() => signal,
        };
        let Some(signal) = signal else {
            // Nobody is left who could tell anything.
            return shutdown.cancelled().await;
        };
        if let Err(error) = leases.signal(signal).await {
            tracing::debug!(%error, ?signal, "news were not sent; others find out at their next poll");
        }
    }
}

/// Until `shutdown`; `on_limits` when limits were set, or may have been.
pub async fn hear_news(runner: Arc<Runner>, on_limits: impl Fn(), shutdown: CancellationToken) {
    let mut signals = runner.leases.signals();
    loop {
        let signal = tokio::select! {
            () = shutdown.cancelled() => return,
            signal = signals.recv() => signal,
        };
        match signal {
            // Looked up in the database before anything is stopped.
            Ok(Signal::Cancelled(id)) => runner.owned.look_after(id),
            Ok(Signal::Changed(id)) => runner.news.tell_here(id),
            Ok(Signal::Limits) => on_limits(),
            Err(RecvError::Lagged(_)) => {
                runner.owned.look_after_all();
                on_limits();
            }
            Err(RecvError::Closed) => return shutdown.cancelled().await,
        }
    }
}
