//! Inline or queued: DESIGN.md section 4, with its numbers.

use std::time::Duration;

use crate::{
    export::{Admission, Code, Execution, Failure, TenantId},
    pipeline::{Plan, Turn},
};

use super::{Service, deadline::Deadline, store_failure};

/// What is asked for, and the caller's own deadline.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub execution: Execution,
    pub deadline: Option<Deadline>,
}

impl Service {
    /// Decides by size alone; pauses, permits and caps are found when the export is inserted.
    pub(super) async fn admit(
        &self,
        plan: &Plan,
        turn: &Turn,
        wish: Wish,
    ) -> Result<Admission, Failure> {
        let budget = wish
            .deadline
            .map_or(Duration::MAX, |deadline| deadline.budget)
            .min(self.options.gateway_timeout)
            .mul_f64(self.options.inline_safety);
        let speed = self
            .runner
            .speeds
            .of(plan.source_name(), plan.expected_rows_per_second());
        let threshold_rows = (speed * budget.as_secs_f64()) as u64;
        let estimate = plan.estimate(turn, self.options.estimate_patience).await?;
        let fits = estimate.is_some_and(|estimate| estimate.rows <= threshold_rows);
        let (mode, reason) = match (wish.execution, estimate) {
            (Execution::Queued, _) => (Execution::Queued, "REQUESTED"),
            (Execution::Inline, Some(_)) if !fits => (Execution::Queued, "TOO_LARGE"),
            (Execution::Inline, _) => (Execution::Inline, "REQUESTED"),
            (Execution::Auto, None) => (Execution::Queued, "NO_ESTIMATE"),
            (Execution::Auto, Some(_)) if fits => (Execution::Inline, "FITS"),
            (Execution::Auto, Some(_)) => (Execution::Queued, "TOO_LARGE"),
        };
        Ok(Admission {
            mode,
            reason: reason.to_owned(),
            estimated_rows: estimate.map(|estimate| estimate.rows),
            estimate_source: estimate
                .map(|estimate| estimate.origin.to_owned())
                .unwrap_or_default(),
            threshold_rows,
            budget,
            free_inline_slots: self.runner.slots.free_inline(),
        })
    }
}

impl Service {
    /// For `validate_only`: what submitting would find now, but for the caps, which only the insertion counts.
    pub(super) async fn predicted(
        &self,
        tenant: &TenantId,
        asked: Execution,
        admission: Admission,
    ) -> Result<Admission, Failure> {
        let admission = match admission.mode {
            Execution::Inline if admission.free_inline_slots == 0 => {
                queued_because(admission, "NO_PERMIT")
            }
            Execution::Inline if self.is_paused(tenant).await? => {
                queued_because(admission, "PAUSED")
            }
            _ => admission,
        };
        match (asked, admission.mode) {
            (Execution::Inline, Execution::Queued) => Err(inline_refused(&admission)),
            _ => Ok(admission),
        }
    }

    async fn is_paused(&self, tenant: &TenantId) -> Result<bool, Failure> {
        let paused = self.control.paused().await.map_err(store_failure)?;
        Ok(paused.everyone || paused.tenants.contains(tenant))
    }
}

/// The same decision, queued for another reason.
pub(super) fn queued_because(admission: Admission, reason: &str) -> Admission {
    Admission {
        mode: Execution::Queued,
        reason: reason.to_owned(),
        ..admission
    }
}

/// INLINE was asked for and can't be had.
pub(super) fn inline_refused(admission: &Admission) -> Failure {
    match admission.reason.as_str() {
        "TOO_LARGE" => Failure::new(
            Code::FailedPrecondition,
            "TOO_LARGE_FOR_INLINE",
            format!(
                "about {} rows are expected and {} fit into {:?}; leave execution unset, or set it to QUEUED",
                admission.estimated_rows.unwrap_or_default(),
                admission.threshold_rows,
                admission.budget
            ),
        )
        .metadata(
            "estimated_rows",
            admission.estimated_rows.unwrap_or_default().to_string(),
        )
        .metadata("threshold_rows", admission.threshold_rows.to_string()),
        "PAUSED" => queue_paused(),
        reason => no_room(reason, "no inline export can start now"),
    }
}

/// RESOURCE_EXHAUSTED / NO_PERMIT, CAP, ... which passes by itself.
pub(super) fn no_room(reason: &str, message: &str) -> Failure {
    Failure::new(Code::ResourceExhausted, reason, message).retry_after(Duration::from_secs(2))
}

pub(super) fn queue_paused() -> Failure {
    Failure::new(
        Code::Unavailable,
        "QUEUE_PAUSED",
        "the queue is paused by its operator",
    )
    .retry_after(Duration::from_secs(30))
}
