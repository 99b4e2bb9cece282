//! When a call has to be answered: its client's own deadline, counted from its arrival.

use std::time::Duration;

use tokio::time::Instant;

use crate::export::{Code, Failure};

/// Longer ones can't be told from none, and their sum with a moment must not overflow.
const BUDGET_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The end of a call. The transport answers what has no answer by then with CANCELLED and without a reason, so ours
/// comes shortly before that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// From the call's arrival to its end.
    pub budget: Duration,
    pub at: Instant,
    margin: Duration,
}

impl Deadline {
    /// Of a call that arrives now.
    pub fn after(budget: Duration) -> Self {
        let budget = budget.min(BUDGET_MAX);
        Self {
            budget,
            at: Instant::now() + budget,
            margin: (budget / 20).clamp(Duration::from_millis(10), Duration::from_millis(250)),
        }
    }

    /// Waits end here, with what is known by then.
    pub fn wait_until(&self) -> Instant {
        self.before(2 * self.margin)
    }

    /// What has no answer by then gets [`deadline_exceeded`].
    pub fn answer_by(&self) -> Instant {
        self.before(self.margin)
    }

    fn before(&self, margin: Duration) -> Instant {
        self.at - margin.min(self.budget)
    }
}

/// As long as the caller wants to wait, and its deadline lets it.
pub fn within(wait: Duration, deadline: Option<Deadline>) -> Duration {
    let left = deadline.map(|deadline| {
        deadline
            .wait_until()
            .saturating_duration_since(Instant::now())
    });
    left.map_or(wait, |left| wait.min(left))
}

pub fn deadline_exceeded() -> Failure {
    Failure::new(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the call's deadline passed before its end",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_before_answers_and_answers_before_the_deadline() {
        for budget in [1, 5, 100, 2_000, 100_000].map(Duration::from_millis) {
            let now = Instant::now();
            let deadline = Deadline::after(budget);
            assert!(now <= deadline.wait_until(), "{budget:?}");
            assert!(deadline.wait_until() <= deadline.answer_by(), "{budget:?}");
            assert!(deadline.answer_by() < deadline.at, "{budget:?}");
        }
        let deadline = Deadline::after(Duration::from_secs(2));
        let wait = within(Duration::from_secs(60), Some(deadline));
        assert!(wait <= Duration::from_millis(1800), "{wait:?}");
        assert_eq!(
            within(Duration::from_secs(60), None),
            Duration::from_secs(60)
        );
        Deadline::after(Duration::MAX);
    }
}
