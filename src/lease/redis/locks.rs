//! Locks and their lines in Redis.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{RedisStore, as_many, milliseconds, scripts};
use crate::lease::{
    Result,
    lock::{LineOptions, LockStore, Order, Place, Tick, Token, Try, Turn, Wake},
};

#[async_trait]
impl LockStore for RedisStore {
    fn member(&self) -> String {
        let number = self.members.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}", self.boot)
    }

    fn wakes(&self) -> broadcast::Receiver<Wake> {
        self.wakes.subscribe()
    }

    async fn take(&self, attempt: &Try<'_>) -> Result<Turn> {
        let (order, place) = match attempt.order {
            Order::Apart => ("apart", None),
            Order::InLine(place) => ("line", place),
        };
        let [dead_after, forget_after] = microseconds(&attempt.line);
        let args = [
            attempt.token.to_string(),
            milliseconds(attempt.ttl),
            dead_after,
            forget_after,
            self.keys.wakes(),
            order.to_owned(),
            place.map_or(String::new(), |Place(at)| at.to_string()),
        ];
        let timeout = self.link.timeout_for(attempt.ttl);
        let keys = self.lock_keys(attempt.name);
        let answer: i64 = self
            .link
            .script(timeout, &scripts::LOCK_TAKE, &keys, &args)
            .await?;
        Ok(match u64::try_from(answer) {
            Ok(0) => Turn::Held,
            Ok(place) => Turn::Waits(Place(place)),
            Err(_) => Turn::Taken,
        })
    }

    async fn keep(&self, held: &[(Arc<str>, Token, Duration)]) -> Result<Vec<bool>> {
        let shortest = held.iter().map(|(_, _, ttl)| *ttl).min();
        let timeout = self.link.timeout_for(shortest.unwrap_or(Duration::MAX));
        let keys: Vec<String> = held
            .iter()
            .map(|(name, _, _)| self.keys.lock(name))
            .collect();
        let args: Vec<String> = held
            .iter()
            .flat_map(|(_, token, ttl)| [milliseconds(*ttl), token.to_string()])
            .collect();
        let found: Vec<Option<String>> = self
            .link
            .script(timeout, &scripts::RENEW, &keys, &args)
            .await?;
        as_many(held.len(), found.iter().map(Option::is_none).collect())
    }

    async fn give_back(&self, name: &str, token: &Token, line: LineOptions) -> Result<bool> {
        let [dead_after, forget_after] = microseconds(&line);
        let args = [
            token.to_string(),
            dead_after,
            forget_after,
            self.keys.wakes(),
        ];
        let timeout = self.link.command_timeout;
        let keys = self.lock_keys(name);
        let was_held: u64 = self
            .link
            .script(timeout, &scripts::LOCK_GIVE_BACK, &keys, &args)
            .await?;
        Ok(was_held == 1)
    }

    async fn tick(&self, member: &str, names: &[Arc<str>], line: LineOptions) -> Result<Tick> {
        let mut keys = vec![self.keys.members()];
        for name in names {
            keys.extend([self.keys.lock(name), self.keys.line(name)]);
        }
        let [dead_after, forget_after] = microseconds(&line);
        let args = [
            member.to_owned(),
            dead_after,
            forget_after,
            self.keys.wakes(),
        ];
        let timeout = self.link.command_timeout;
        let mut answers: Vec<String> = self
            .link
            .script(timeout, &scripts::LOCK_TICK, &keys, &args)
            .await?;
        answers = as_many(names.len() + 1, answers)?;
        let holders = answers.split_off(1);
        Ok(Tick {
            was_forgotten: answers[0] == "1",
            holders: holders
                .iter()
                .map(|holder| (!holder.is_empty()).then(|| Token::from_text(holder)))
                .collect(),
        })
    }

    async fn rejoin(&self, places: &[(Arc<str>, Token, Place)]) -> Result<()> {
        let mut keys = Vec::with_capacity(2 * places.len());
        let mut args = Vec::with_capacity(2 * places.len());
        for (name, token, Place(at)) in places {
            keys.extend([self.keys.lock(name), self.keys.line(name)]);
            args.extend([token.to_string(), at.to_string()]);
        }
        let timeout = self.link.command_timeout;
        self.link
            .script::<u64>(timeout, &scripts::LOCK_REJOIN, &keys, &args)
            .await?;
        Ok(())
    }
}

impl RedisStore {
    fn lock_keys(&self, name: &str) -> [String; 3] {
        [
            self.keys.lock(name),
            self.keys.line(name),
            self.keys.members(),
        ]
    }
}

/// `dead_after` and `forget_after`.
fn microseconds(line: &LineOptions) -> [String; 2] {
    [line.dead_after, line.forget_after].map(|time| time.as_micros().to_string())
}
