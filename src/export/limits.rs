//! The limits that can be changed while the service runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Key of the default in `source_slots` and `tenant_slots`.
pub const DEFAULT_KEY: &str = "*";

/// What is in force. Sizes hold for one process; the slots of tenants and sources for the whole cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub memory_budget_bytes: u64,
    /// Of each queue between two stages.
    pub queue_bytes: u64,
    pub queue_batches: u32,
    pub batch_rows: u32,
    /// 0 has been resolved to the number of cores.
    pub transform_workers: u32,
    pub worker_slots: u32,
    pub inline_slots: u32,
    pub stream_slots: u32,
    /// By name; [`DEFAULT_KEY`] is always present.
    pub source_slots: BTreeMap<String, u32>,
    pub tenant_slots: BTreeMap<String, u32>,
}

impl Limits {
    pub fn caps(&self) -> Caps {
        Caps {
            source_slots: self.source_slots.clone(),
            tenant_slots: self.tenant_slots.clone(),
        }
    }

    /// These limits with what the overrides name replaced.
    pub fn overridden(&self, over: &LimitOverrides) -> Self {
        let mut limits = self.clone();
        limits.memory_budget_bytes = over
            .memory_budget_bytes
            .unwrap_or(limits.memory_budget_bytes);
        limits.queue_bytes = over.queue_bytes.unwrap_or(limits.queue_bytes);
        limits.queue_batches = over.queue_batches.unwrap_or(limits.queue_batches);
        limits.batch_rows = over.batch_rows.unwrap_or(limits.batch_rows);
        limits.transform_workers = over.transform_workers.unwrap_or(limits.transform_workers);
        limits.worker_slots = over.worker_slots.unwrap_or(limits.worker_slots);
        limits.inline_slots = over.inline_slots.unwrap_or(limits.inline_slots);
        limits.stream_slots = over.stream_slots.unwrap_or(limits.stream_slots);
        limits.source_slots.extend(over.source_slots.clone());
        limits.tenant_slots.extend(over.tenant_slots.clone());
        limits
    }
}

/// What `SetLimits` stored: it overrides the configuration, also after restarts, until it is reset.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LimitOverrides {
    pub memory_budget_bytes: Option<u64>,
    pub queue_bytes: Option<u64>,
    pub queue_batches: Option<u32>,
    pub batch_rows: Option<u32>,
    pub transform_workers: Option<u32>,
    pub worker_slots: Option<u32>,
    pub inline_slots: Option<u32>,
    pub stream_slots: Option<u32>,
    #[serde(default)]
    pub source_slots: BTreeMap<String, u32>,
    #[serde(default)]
    pub tenant_slots: BTreeMap<String, u32>,
}

/// How many exports of a tenant and of a source may run at once in the whole cluster. 0 lets none run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    pub source_slots: BTreeMap<String, u32>,
    pub tenant_slots: BTreeMap<String, u32>,
}

impl Caps {
    pub fn of_source(&self, name: &str) -> u32 {
        slots(&self.source_slots, name)
    }

    pub fn of_tenant(&self, name: &str) -> u32 {
        slots(&self.tenant_slots, name)
    }
}

fn slots(map: &BTreeMap<String, u32>, name: &str) -> u32 {
    map.get(name)
        .or_else(|| map.get(DEFAULT_KEY))
        .copied()
        .unwrap_or(u32::MAX)
}
