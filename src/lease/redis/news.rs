//! The one connection of a process that listens: signals for everybody, and wakes for its own waiters.
//!
//! It is made anew whenever it breaks; a ping finds out when it only looks alive. What is published in between is
//! lost, and nothing relies on it.

use std::{sync::Arc, time::Duration};

use ::redis::{Client, Msg, RedisResult, Value};
use futures::StreamExt;
use tokio::{
    sync::{broadcast, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Keys;
use crate::lease::{
    Signal,
    lock::{Backoff, Token, Wake},
};

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct News {
    pub client: Client,
    pub keys: Arc<Keys>,
    pub boot: String,
    /// Of a connect, and of the answer to a ping.
    pub timeout: Duration,
    pub ping_every: Duration,
    pub signals: broadcast::Sender<Signal>,
    pub wakes: broadcast::Sender<Wake>,
    /// Whether it listens now.
    pub listens: watch::Sender<bool>,
}

impl News {
    /// Until `stop`.
    pub async fn listen(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.listen_once() => ended,
            };
            if self.listens.send_replace(false) {
                backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
            }
            tracing::debug!(error = ?ended.err(), "the connection that listens to Redis broke");
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(backoff.next()) => {}
            }
        }
    }

    async fn listen_once(&self) -> RedisResult<()> {
        let connect = async {
            let mut listener = self.client.get_async_pubsub().await?;
            listener.subscribe(self.keys.signals()).await?;
            listener.subscribe(self.keys.wakes() + &self.boot).await?;
            Ok(listener.split())
        };
        let (mut sink, mut messages) = in_time(self.timeout, connect).await?;
        self.listens.send_replace(true);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.pass_on(&message),
                    None => return Ok(()),
                },
                () = sleep(self.ping_every) => {
                    in_time(self.timeout, sink.ping::<Value>()).await?;
                }
            }
        }
    }

    fn pass_on(&self, message: &Msg) {
        let Ok(text) = std::str::from_utf8(message.get_payload_bytes()) else {
            return;
        };
        // Nobody may be listening.
        if message.get_channel_name() == self.keys.signals() {
            if let Some(signal) = Signal::parse(text) {
                let _ = self.signals.send(signal);
            }
        } else if let Some((token, lock)) = text.split_once(' ')
            && let Some(name) = self.keys.name_of_lock(lock)
        {
            let _ = self.wakes.send(Wake {
                name: name.into(),
                token: Token::from_text(token),
            });
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    future: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    match timeout(patience, future).await {
        Ok(result) => result,
        Err(elapsed) => Err(std::io::Error::from(elapsed).into()),
    }
}
