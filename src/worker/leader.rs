//! Who of several processes looks after the queue: one, for as long as it lives.
//!
//! A lock in the lease store elects it; while that does not answer, a lock of the database. Two leaders at once would do
//! no harm: every sweep checks state and fence in its own statement.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{reaper, retention};
use crate::{
    lease::{Error, Length, Locks, Mode, Wait},
    queue::ControlStore,
    run::Runner,
};

const LOCK: &str = "leader";
/// How soon a process that leads by the database's lock looks whether the lease store answers again, and one that does
/// not lead whether it may.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Reaper and retention, here or in another process. Until `shutdown`.
pub async fn leader(
    runner: Arc<Runner>,
    control: Arc<dyn ControlStore>,
    locks: Locks,
    keep_rows: Duration,
    shutdown: CancellationToken,
) {
    let ttl = runner.lease.ttl;
    let duties = |stop: CancellationToken| {
        let (runner, control) = (runner.clone(), control.clone());
        async move {
            tokio::join!(
                reaper(runner.clone(), control, stop.clone()),
                retention(runner, keep_rows, stop)
            );
        }
    };
    while !shutdown.is_cancelled() {
        let length = Length::Unknown { ttl };
        let acquired = tokio::select! {
            () = shutdown.cancelled() => return,
            acquired = locks.acquire(LOCK, Mode::Plain, length, Wait::AtMost(ttl)) => acquired,
        };
        match acquired {
            Ok(guard) => {
                tracing::info!("this process leads: it looks for dead owners and old results");
                let lost = guard.lost();
                while_leading(lost.cancelled(), &shutdown, &duties).await;
                if lost.is_cancelled() {
                    tracing::warn!("this process leads no longer: its lock was lost");
                }
                if let Err(error) = guard.release().await {
                    tracing::debug!(%error, "the leader's lock ends by itself");
                }
            }
            Err(Error::Taken(_)) => {}
            Err(error) => {
                tracing::debug!(%error, "the lease store can't say who leads");
                lead_by_database(&runner, control.as_ref(), &shutdown, &duties).await;
            }
        }
    }
}

/// Until the lease store answers again, or `shutdown`.
async fn lead_by_database<D: Future<Output = ()>>(
    runner: &Runner,
    control: &dyn ControlStore,
    shutdown: &CancellationToken,
    duties: &impl Fn(CancellationToken) -> D,
) {
    let guard = match control.lead().await {
        Ok(Some(guard)) => guard,
        Ok(None) | Err(_) => {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            return;
        }
    };
    tracing::info!(
        "this process leads by the database's lock, while the lease store does not answer"
    );
    let lost = guard.lost();
    let over = async {
        while runner.leases.answering_for().is_none() && !lost.is_cancelled() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    while_leading(over, shutdown, duties).await;
}

/// Duties are never cut off: they stop at their next pause, so that no transaction is left half begun.
async fn while_leading<D: Future<Output = ()>>(
    over: impl Future<Output = ()>,
    shutdown: &CancellationToken,
    duties: &impl Fn(CancellationToken) -> D,
) {
    let stop = shutdown.child_token();
    let mut running = std::pin::pin!(duties(stop.clone()));
    tokio::select! {
        () = &mut running => {}
        () = over => {
            stop.cancel();
            running.await;
        }
    }
}
