//! PostgreSQL as a source, on a real server.

mod names;
mod params;
mod reading;
mod refusals;
mod stopping;
mod values;

use std::time::Duration;

use tokio::sync::oneshot;

use crate::support::reading::Collected;

/// Only a defect lets it pass.
const PATIENCE: Duration = Duration::from_secs(30);

fn rows(collected: &Collected) -> Vec<String> {
    collected.rows().iter().map(|row| row.join("|")).collect()
}

/// A read that fails keeps its receiver for the test to look at, so that a signal may never come.
async fn arrives(signal: oneshot::Receiver<()>) {
    tokio::time::timeout(PATIENCE, signal)
        .await
        .expect("the signal comes in time")
        .expect("the read gave it");
}
