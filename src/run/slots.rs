//! What one process may run at once: claimed jobs, inline exports, live streams.
//!
//! Slots of tenants and sources are elsewhere: those hold for the cluster and are counted in the claim.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::export::Limits;

#[derive(Debug)]
pub struct Slots {
    counts: Mutex<Counts>,
    freed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    worker_max: u32,
    inline_max: u32,
    stream_max: u32,
    worker: u32,
    /// Inline permits taken, by inline exports and by queued jobs alike.
    inline: u32,
    /// Those of them that hold queued jobs: at most half of the permits, so that inline never starves.
    borrowed: u32,
    stream: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Worker,
    Inline,
    Borrowed,
    Stream,
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Slot {
    kind: Kind,
    slots: Arc<Slots>,
}

impl Slots {
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                worker_max: limits.worker_slots,
                inline_max: limits.inline_slots,
                stream_max: limits.stream_slots,
                worker: 0,
                inline: 0,
                borrowed: 0,
                stream: 0,
            }),
            freed: Notify::new(),
        })
    }

    /// New bounds hold for what starts from now on; nothing that runs is stopped.
    pub fn resize(&self, limits: &Limits) {
        let mut counts = self.lock();
        counts.worker_max = limits.worker_slots;
        counts.inline_max = limits.inline_slots;
        counts.stream_max = limits.stream_slots;
        drop(counts);
        self.freed.notify_one();
    }

    pub fn try_inline(self: &Arc<Self>) -> Option<Slot> {
        let mut counts = self.lock();
        (counts.inline < counts.inline_max).then(|| {
            counts.inline += 1;
            self.slot(Kind::Inline)
        })
    }

    pub fn try_stream(self: &Arc<Self>) -> Option<Slot> {
        let mut counts = self.lock();
        (counts.stream < counts.stream_max).then(|| {
            counts.stream += 1;
            self.slot(Kind::Stream)
        })
    }

    /// How many places queued jobs may take now.
    pub fn free_for_claims(&self) -> u32 {
        let counts = self.lock();
        counts.free_worker() + counts.free_to_borrow()
    }

    /// A place for a claimed job: the worker's own, else a free inline permit up to their half. An inline export may
    /// have been faster since [`Slots::free_for_claims`]; a claimed job must run all the same, so it then takes one
    /// worker slot over the bound, which the next claim waits for.
    pub fn take_for_claim(self: &Arc<Self>) -> Slot {
        let mut counts = self.lock();
        if counts.free_worker() == 0 && counts.free_to_borrow() > 0 {
            counts.inline += 1;
            counts.borrowed += 1;
            return self.slot(Kind::Borrowed);
        }
        counts.worker += 1;
        self.slot(Kind::Worker)
    }

    pub fn free_inline(&self) -> u32 {
        let counts = self.lock();
        counts.inline_max.saturating_sub(counts.inline)
    }

    /// Queued jobs that run here, and how many could.
    pub fn worker_load(&self) -> (u32, u32) {
        let counts = self.lock();
        (counts.worker + counts.borrowed, counts.worker_max)
    }

    /// Returns when a place may have become free.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn slot(self: &Arc<Self>, kind: Kind) -> Slot {
        Slot {
            kind,
            slots: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().give_back(self.kind);
        self.slots.freed.notify_one();
    }
}

impl Counts {
    fn free_worker(&self) -> u32 {
        self.worker_max.saturating_sub(self.worker)
    }

    fn free_to_borrow(&self) -> u32 {
        let permits = self.inline_max.saturating_sub(self.inline);
        permits.min((self.inline_max / 2).saturating_sub(self.borrowed))
    }

    fn give_back(&mut self, kind: Kind) {
        match kind {
            Kind::Worker => self.worker -= 1,
            Kind::Inline => self.inline -= 1,
            Kind::Borrowed => {
                self.inline -= 1;
                self.borrowed -= 1;
            }
            Kind::Stream => self.stream -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(worker: u32, inline: u32) -> Arc<Slots> {
        Slots::new(&limits(worker, inline))
    }

    fn limits(worker_slots: u32, inline_slots: u32) -> Limits {
        Limits {
            memory_budget_bytes: 1,
            queue_bytes: 1,
            queue_batches: 1,
            batch_rows: 1,
            transform_workers: 1,
            worker_slots,
            inline_slots,
            stream_slots: 1,
            source_slots: Default::default(),
            tenant_slots: Default::default(),
        }
    }

    #[test]
    fn queued_jobs_take_at_most_half_of_the_inline_permits() {
        let slots = slots(2, 5);
        assert_eq!(slots.free_for_claims(), 2 + 2);
        let claims: Vec<_> = (0..4).map(|_| slots.take_for_claim()).collect();
        assert_eq!(slots.free_for_claims(), 0);
        let inline: Vec<_> = std::iter::from_fn(|| slots.try_inline()).collect();
        assert_eq!(inline.len(), 3);
        drop(claims);
        assert_eq!(slots.free_inline(), 2);
        assert_eq!(slots.worker_load(), (0, 2));
    }

    #[test]
    fn a_single_inline_permit_is_never_lent() {
        assert_eq!(slots(0, 1).free_for_claims(), 0);
    }

    #[test]
    fn a_smaller_bound_lets_what_runs_end() {
        let slots = slots(0, 2);
        let (one, two) = (slots.try_inline().unwrap(), slots.try_inline().unwrap());
        let mut limits = limits(0, 1);
        slots.resize(&limits);
        drop(one);
        assert!(slots.try_inline().is_none());
        drop(two);
        assert!(slots.try_inline().is_some());
        limits.inline_slots = 0;
        slots.resize(&limits);
        assert!(slots.try_inline().is_none());
    }
}
