//! What came of an export: how it was admitted, and what it produced.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Field;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Execution {
    Auto,
    Inline,
    Queued,
}

/// The decision between inline and queued, with the numbers that led to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Admission {
    /// Inline or Queued.
    pub mode: Execution,
    /// REQUESTED, FITS, TOO_LARGE, NO_ESTIMATE, NO_PERMIT, CAP or PAUSED.
    pub reason: String,
    pub estimated_rows: Option<u64>,
    /// `planner`, `count` or `limit`; empty without an estimate.
    pub estimate_source: String,
    pub threshold_rows: u64,
    pub budget: Duration,
    pub free_inline_slots: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    /// Served by `DownloadResult`.
    File,
    /// Spooled rows, served by `StreamRows`.
    Rows,
    /// Rows that went to a live stream; nothing is stored.
    Live,
}

/// The manifest of a complete result, stored with the job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ResultInfo {
    pub kind: ResultKind,
    /// For display only; never part of a path.
    pub file_name: String,
    pub media_type: String,
    /// Where the object is in the result storage; empty for live streams.
    pub path: String,
    pub size_bytes: u64,
    /// Lower-case hex.
    pub sha256: String,
    pub rows_read: u64,
    pub rows_filtered: u64,
    /// Rows in the result.
    pub rows: u64,
    pub schema: Vec<Field>,
    #[serde(default)]
    pub fidelity: Vec<ColumnFidelity>,
    /// xlsx only; 0 otherwise.
    #[serde(default)]
    pub sheets: u32,
    /// SHA-256 of the SQL text that ran, lower-case hex.
    pub query_hash: String,
    pub read_started_at: Timestamp,
    pub read_ended_at: Timestamp,
    /// The source's name for the snapshot that was read, where it has one.
    #[serde(default)]
    pub snapshot: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// Values of one column that the format could not hold as they were, counted by what was done to them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ColumnFidelity {
    pub column: String,
    /// By treatment, as `digits_as_text`, `date_as_text`, `text_cut`, `control_escaped`, `nan_as_text`.
    pub counts: BTreeMap<String, u64>,
}
