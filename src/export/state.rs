//! A job's state machine.
//!
//! ```text
//! QUEUED ──▶ RUNNING ──▶ SUCCEEDED | FAILED
//!    ▲          │
//!    └──────────┤ retried, or handed back
//!    │          ▼
//!    │      CANCELLING ──▶ CANCELLED
//!    └────────────────────────▲
//! ```
//! CANCELLING is committed before anything is stopped, and ends only in CANCELLED.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(i16)]
pub enum State {
    Queued = 1,
    Running = 2,
    Cancelling = 3,
    Succeeded = 4,
    Failed = 5,
    Cancelled = 6,
}

impl State {
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The number that the job store and the wire both use.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as i16 == number)
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Cancelling => "CANCELLING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}
