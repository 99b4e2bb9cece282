//! For how long Redis has been answering, without a break and without losing its keys. Each change is logged once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::lease::Error;

pub(super) struct Health {
    /// Without an answer for longer, nobody knows what happened in between: this process may have stood still.
    gap_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answering_since: Option<Instant>,
    last_answer: Option<Instant>,
    /// The value of the epoch's key when it was last read.
    epoch: Option<String>,
    is_told_away: bool,
}

impl Health {
    /// Somebody asks at least every `asked_every`.
    pub fn new(asked_every: Duration) -> Self {
        Self {
            gap_max: asked_every * 5,
            state: Mutex::default(),
        }
    }

    pub fn answered(&self) {
        self.answered_at(Instant::now());
    }

    fn answered_at(&self, now: Instant) {
        let mut state = self.state();
        let had_gap = state
            .last_answer
            .is_none_or(|last| now - last > self.gap_max);
        if had_gap {
            state.answering_since = None;
        }
        state.answering_since.get_or_insert(now);
        state.last_answer = Some(now);
        if std::mem::take(&mut state.is_told_away) {
            tracing::info!("Redis answers again");
        }
    }

    pub fn broke(&self, error: &Error) {
        let mut state = self.state();
        state.answering_since = None;
        if !std::mem::replace(&mut state.is_told_away, true) {
            tracing::warn!(
                %error,
                "Redis does not answer; running jobs go on under the leases in the database"
            );
        }
    }

    /// Another epoch: keys that were there before are gone.
    pub fn read_epoch(&self, epoch: &str) {
        let mut state = self.state();
        if state.epoch.as_deref() == Some(epoch) {
            return;
        }
        if state.epoch.replace(epoch.to_owned()).is_some() {
            tracing::warn!("Redis lost its keys; owners set theirs again");
            state.answering_since = Some(Instant::now());
        }
    }

    pub fn answering_for(&self) -> Option<Duration> {
        self.state().answering_since.map(|since| since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn away() -> Error {
        Error::TimedOut(SECOND)
    }

    #[test]
    fn it_answers_from_the_first_answer_after_a_break() {
        let health = Health::new(SECOND);
        assert_eq!(health.answering_for(), None);
        let begin = Instant::now();
        health.answered_at(begin);
        health.answered_at(begin + SECOND);
        assert_eq!(health.state().answering_since, Some(begin));
        health.broke(&away());
        assert_eq!(health.answering_for(), None);
        health.answered_at(begin + 2 * SECOND);
        assert_eq!(health.state().answering_since, Some(begin + 2 * SECOND));
    }

    #[test]
    fn a_process_that_stood_still_knows_nothing_of_the_time_between() {
        let health = Health::new(SECOND);
        let begin = Instant::now();
        health.answered_at(begin);
        health.answered_at(begin + 60 * SECOND);
        assert_eq!(health.state().answering_since, Some(begin + 60 * SECOND));
    }

    #[test]
    fn lost_keys_are_a_break() {
        let health = Health::new(SECOND);
        let begin = Instant::now();
        health.answered_at(begin);
        health.read_epoch("a");
        health.read_epoch("a");
        assert_eq!(health.state().answering_since, Some(begin));
        health.read_epoch("b");
        assert!(health.state().answering_since > Some(begin));
    }
}
