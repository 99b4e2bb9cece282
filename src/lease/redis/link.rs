//! One connection to Redis for all commands of a process, replaced whenever it breaks.
//!
//! A command is tried again within its time-out: over a new connection when the old one dropped, after a pause while
//! the server loads its data or takes no writes (a replica after a failover: the new connection may lead to the
//! master). A command may therefore be carried out twice; the scripts are written so that this changes nothing. A
//! time-out drops the connection, too: behind a broken path it would stay silent for minutes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError,
    RedisResult, Script, ScriptInvocation, Value, aio::MultiplexedConnection,
};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::health::Health;
use crate::lease::{Error, Result, lock::Backoff};

const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

type Connecting = Shared<BoxFuture<'static, RedisResult<MultiplexedConnection>>>;

pub(super) struct Link {
    client: Client,
    /// Of one command with all its tries; also of one connect.
    pub command_timeout: Duration,
    slot: Mutex<Slot>,
    pub health: Arc<Health>,
}

/// The present connection. It is made by whoever needs it first; the others wait for the same.
#[derive(Default)]
struct Slot {
    /// Counts connections, so that a broken one is dropped once.
    number: u64,
    connection: Option<Connecting>,
}

enum Request<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    /// By its hash; a server that doesn't know it is sent the text.
    Script(&'a ScriptInvocation<'a>),
}

impl Link {
    pub fn new(client: Client, command_timeout: Duration, health: Arc<Health>) -> Self {
        Self {
            client,
            command_timeout,
            slot: Mutex::default(),
            health,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// At most a tenth of a ttl that hangs on the command.
    pub fn timeout_for(&self, ttl: Duration) -> Duration {
        self.command_timeout.min(ttl / 10)
    }

    pub async fn command<T: FromRedisValue>(&self, timeout: Duration, command: &Cmd) -> Result<T> {
        parsed(self.run(timeout, Request::Command(command)).await?)
    }

    /// The commands' answers don't matter.
    pub async fn pipeline(&self, timeout: Duration, pipeline: &Pipeline) -> Result<()> {
        self.run(timeout, Request::Pipeline(pipeline)).await?;
        Ok(())
    }

    pub async fn script<T: FromRedisValue>(
        &self,
        timeout: Duration,
        script: &Script,
        keys: &[String],
        args: &[String],
    ) -> Result<T> {
        let mut call = script.prepare_invoke();
        call.key(keys).arg(args);
        parsed(self.run(timeout, Request::Script(&call)).await?)
    }

    async fn run(&self, timeout: Duration, request: Request<'_>) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let mut last = Error::TimedOut(timeout);
        loop {
            let (number, connecting) = self.connection();
            let attempt = async { send(connecting.await?, &request).await };
            let error = match timeout_at(deadline, attempt).await {
                Ok(Ok(value)) => {
                    self.health.answered();
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    self.drop_connection(number);
                    self.health.broke(&last);
                    return Err(last);
                }
            };
            let verdict = Verdict::of(&error);
            if verdict.connection_is_bad {
                self.drop_connection(number);
            }
            if !verdict.is_silence {
                return Err(verdict.error);
            }
            self.health.broke(&verdict.error);
            if !verdict.error.retryable() {
                return Err(verdict.error);
            }
            last = verdict.error;
            if timeout_at(deadline, sleep(backoff.next())).await.is_err() {
                return Err(last);
            }
        }
    }

    fn connection(&self) -> (u64, Connecting) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let number = slot.number;
        let connecting = slot.connection.get_or_insert_with(|| self.connect());
        (number, connecting.clone())
    }

    fn connect(&self) -> Connecting {
        let client = self.client.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.command_timeout))
            // Each command has its own.
            .set_response_timeout(None);
        async move {
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        }
        .boxed()
        .shared()
    }

    fn drop_connection(&self, number: u64) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.number == number {
            slot.number += 1;
            slot.connection = None;
        }
    }
}

async fn send(mut connection: MultiplexedConnection, request: &Request<'_>) -> RedisResult<Value> {
    match request {
        Request::Command(command) => command.query_async(&mut connection).await,
        Request::Pipeline(pipeline) => pipeline.query_async(&mut connection).await,
        Request::Script(call) => call.invoke_async(&mut connection).await,
    }
}

fn parsed<T: FromRedisValue>(value: Value) -> Result<T> {
    T::from_redis_value(value).map_err(|error| Error::Broken(error.to_string()))
}

/// What an error means for the command and for the connection.
struct Verdict {
    error: Error,
    connection_is_bad: bool,
    /// Redis can't be used; else it answered, and the answer is final.
    is_silence: bool,
}

impl Verdict {
    fn of(error: &RedisError) -> Self {
        let text = error.to_string();
        let code = error.code().unwrap_or_default();
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Self::refused(text),
            _ if is_refusal(code) => Self::refused(text),
            // A certificate that is not trusted, or a server that speaks no TLS.
            ErrorKind::Io if is_bad_tls(error) => Self::refused(text),
            ErrorKind::Io | ErrorKind::Parse => Self::unavailable(text, true),
            // In Redis 6, what a script ran into stands behind ERR.
            _ if code == "READONLY" || text.contains("READONLY") => Self::unavailable(text, true),
            _ if is_temporary(code) => Self::unavailable(text, false),
            _ => Self {
                error: Error::Broken(text),
                connection_is_bad: false,
                is_silence: false,
            },
        }
    }

    fn refused(text: String) -> Self {
        Self {
            error: Error::Refused(text),
            connection_is_bad: true,
            is_silence: true,
        }
    }

    fn unavailable(text: String, connection_is_bad: bool) -> Self {
        Self {
            error: Error::Unavailable(text),
            connection_is_bad,
            is_silence: true,
        }
    }
}

fn is_refusal(code: &str) -> bool {
    ["NOAUTH", "WRONGPASS", "NOPERM", "DENIED"].contains(&code)
}

/// Loading, out of memory, unable to save, busy with a script, cut off from its master. NOSCRIPT is left when scripts
/// were flushed between loading and calling one.
fn is_temporary(code: &str) -> bool {
    [
        "LOADING",
        "OOM",
        "MISCONF",
        "BUSY",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "NOREPLICAS",
        "NOSCRIPT",
    ]
    .contains(&code)
}

fn is_bad_tls(error: &RedisError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::InvalidData;
        }
        source = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error(line: &str) -> RedisError {
        ::redis::parse_redis_value(line.as_bytes())
            .and_then(|value| value.extract_error())
            .unwrap_err()
    }

    #[test]
    fn answers_are_told_from_silence() {
        for (line, retryable, is_silence, connection_is_bad) in [
            (
                "-LOADING Redis is loading the dataset\r\n",
                true,
                true,
                false,
            ),
            ("-READONLY You can't write\r\n", true, true, true),
            (
                "-ERR Error running script: @user_script:3: -READONLY You can't write\r\n",
                true,
                true,
                true,
            ),
            ("-BUSY Redis is busy\r\n", true, true, false),
            ("-NOAUTH Authentication required.\r\n", false, true, true),
            (
                "-NOPERM this user has no permissions\r\n",
                false,
                true,
                true,
            ),
            ("-WRONGTYPE Operation\r\n", false, false, false),
            ("-ERR unknown command\r\n", false, false, false),
        ] {
            let verdict = Verdict::of(&server_error(line));
            assert_eq!(verdict.error.retryable(), retryable, "{line}");
            assert_eq!(verdict.is_silence, is_silence, "{line}");
            assert_eq!(verdict.connection_is_bad, connection_is_bad, "{line}");
        }
        let dropped = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(Verdict::of(&dropped).connection_is_bad);
        assert!(Verdict::of(&dropped).error.retryable());
    }
}
