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

fn rows(collected: &Collected) -> Vec<String> {
    collected.rows().iter().map(|row| row.join("|")).collect()
}

/// A read that fails keeps its receiver for the test to look at, so that a signal may never come.
async fn arrives(signal: oneshot::Receiver<()>) {
    tokio::time::timeout(Duration::from_secs(10), signal)
        .await
        .expect("the signal comes within ten seconds")
        .expect("the read gave it");
}
