//! Holders of locks and the lines before them, in memory. Each operation is what one script does in Redis.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::lease::lock::{LineOptions, Order, Place, Token, Try, Turn, Wake};

/// A lock that was handed over has to be confirmed within this, or for as long as the last sign of life counts.
const CONFIRM_MIN: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Lines {
    locks: HashMap<String, Line>,
    /// When each process with waiters last said that it lives; as many as there are `Locks`.
    members: HashMap<String, Instant>,
    /// Where the clock of places begins.
    epoch: Option<Instant>,
}

#[derive(Default)]
struct Line {
    holder: Option<(Token, Instant)>,
    waiting: BTreeSet<(Place, Token)>,
    places: HashMap<Token, Place>,
}

impl Line {
    fn holder(&self, now: Instant) -> Option<&Token> {
        self.holder
            .as_ref()
            .filter(|(_, ends_at)| *ends_at > now)
            .map(|(token, _)| token)
    }

    fn hold(&mut self, token: &Token, ends_at: Instant) -> Turn {
        self.leave(token);
        self.holder = Some((token.clone(), ends_at));
        Turn::Held
    }

    fn enter(&mut self, token: &Token, place: Place) {
        self.places.insert(token.clone(), place);
        self.waiting.insert((place, token.clone()));
    }

    fn leave(&mut self, token: &Token) {
        if let Some(place) = self.places.remove(token) {
            self.waiting.remove(&(place, token.clone()));
        }
    }

    /// The first in line whose member lives, and for how long that was silent. Those that are forgotten leave.
    fn first_alive(
        &mut self,
        members: &HashMap<String, Instant>,
        line: &LineOptions,
        now: Instant,
    ) -> Option<(Token, Duration)> {
        let mut forgotten = Vec::new();
        let mut first = None;
        for (_, token) in &self.waiting {
            match members.get(token.member()).map(|last| now - *last) {
                Some(silent_for) if silent_for <= line.dead_after => {
                    first = Some((token.clone(), silent_for));
                    break;
                }
                Some(silent_for) if silent_for <= line.forget_after => {}
                _ => forgotten.push(token.clone()),
            }
        }
        for token in forgotten {
            self.leave(&token);
        }
        first
    }

    /// Gives the lock to the first in line that lives. It keeps its place until it confirms.
    fn hand_over(
        &mut self,
        name: &str,
        members: &HashMap<String, Instant>,
        line: &LineOptions,
        now: Instant,
    ) -> Option<Wake> {
        let (token, silent_for) = self.first_alive(members, line, now)?;
        let confirm_within = line.dead_after.saturating_sub(silent_for).max(CONFIRM_MIN);
        self.holder = Some((token.clone(), now + confirm_within));
        Some(Wake {
            name: name.into(),
            token,
        })
    }
}

impl Lines {
    pub fn take(&mut self, attempt: &Try<'_>, now: Instant) -> (Turn, Option<Wake>) {
        let clock = self.clock(now);
        let Try {
            name, token, line, ..
        } = attempt;
        let lock = self.locks.entry((*name).to_owned()).or_default();
        let holder = lock.holder(now).cloned();
        if holder.as_ref() == Some(*token) {
            return (lock.hold(token, now + attempt.ttl), None);
        }
        let mut answer = Turn::Taken;
        if let Order::InLine(former) = attempt.order {
            self.members.insert(token.member().to_owned(), now);
            let last = lock.waiting.last().map_or(0, |(place, _)| place.0);
            let place = lock.places.get(*token).copied().or(former);
            let place = place.unwrap_or(Place(clock.max(last + 1)));
            lock.enter(token, place);
            answer = Turn::Waits(place);
        }
        if holder.is_some() {
            return (answer, None);
        }
        match lock.first_alive(&self.members, line, now) {
            Some((first, _)) if first != **token => {
                (answer, lock.hand_over(name, &self.members, line, now))
            }
            _ => (lock.hold(token, now + attempt.ttl), None),
        }
    }

    pub fn keep(&mut self, name: &str, token: &Token, ttl: Duration, now: Instant) -> bool {
        let Some(lock) = self.locks.get_mut(name) else {
            return false;
        };
        let is_ours = lock.holder(now) == Some(token);
        if is_ours {
            lock.holder = Some((token.clone(), now + ttl));
        }
        is_ours
    }

    pub fn give_back(
        &mut self,
        name: &str,
        token: &Token,
        line: &LineOptions,
        now: Instant,
    ) -> (bool, Option<Wake>) {
        let Some(lock) = self.locks.get_mut(name) else {
            return (false, None);
        };
        lock.leave(token);
        let was_held = lock.holder(now) == Some(token);
        let mut wake = None;
        if was_held {
            lock.holder = None;
            wake = lock.hand_over(name, &self.members, line, now);
        }
        if lock.waiting.is_empty() && lock.holder(now).is_none() {
            self.locks.remove(name);
        }
        (was_held, wake)
    }

    /// Whether the member had been forgotten.
    pub fn lives(&mut self, member: &str, line: &LineOptions, now: Instant) -> bool {
        self.members
            .insert(member.to_owned(), now)
            .is_none_or(|last| now - last > line.forget_after)
    }

    /// Who holds the lock, after it was handed to the next in line if nobody did.
    pub fn look_after(
        &mut self,
        name: &str,
        line: &LineOptions,
        now: Instant,
    ) -> (Option<Token>, Option<Wake>) {
        let Some(lock) = self.locks.get_mut(name) else {
            return (None, None);
        };
        if let Some(holder) = lock.holder(now) {
            return (Some(holder.clone()), None);
        }
        let wake = lock.hand_over(name, &self.members, line, now);
        (wake.as_ref().map(|wake| wake.token.clone()), wake)
    }

    pub fn rejoin(&mut self, name: &str, token: &Token, place: Place, now: Instant) {
        let lock = self.locks.entry(name.to_owned()).or_default();
        if lock.holder(now) != Some(token) && !lock.places.contains_key(token) {
            lock.enter(token, place);
        }
    }

    /// Microseconds since the first question.
    fn clock(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        u64::try_from((now - epoch).as_micros()).unwrap_or(u64::MAX - 1) + 1
    }
}
