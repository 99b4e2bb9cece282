//! How far an export is, and which stage holds it up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    pub rows_read: u64,
    pub rows_written: u64,
    pub bytes_written: u64,
    pub estimated_rows: Option<u64>,
    /// Over the last seconds, not since the start.
    pub rows_per_second: f64,
    pub eta: Option<Duration>,
    /// Source, transform, sink.
    pub stages: Vec<StageProgress>,
    /// `source`, `transform`, `sink` or `client`; empty before anything ran.
    pub slowest_stage: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StageProgress {
    pub name: String,
    /// Time spent working, summed over the stage's threads.
    pub busy: Duration,
    /// Time spent waiting for room in the queue behind it.
    pub blocked: Duration,
    /// What waits in the queue before the stage; 0 for the source.
    pub queued_batches: u64,
    pub queued_bytes: u64,
    /// Bound of that queue.
    pub capacity_bytes: u64,
}
