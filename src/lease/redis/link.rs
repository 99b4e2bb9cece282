//! One connection to Redis for all commands of a process, replaced whenever it breaks.
//!
//! A command is tried again within its time-out: over a new connection when the old one dropped, after a pause while
//! the server loads its data or takes no writes (a replica after a failover: the new connection may lead to the
//! master). A command may therefore be carried out twice; the scripts are written so that this changes nothing. A
//! time-out drops the connection, too: behind a broken path it would stay silent for minutes.

use std::{
    io,
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
            let attempt = async {
                match connecting.await {
                    Ok(connection) => send(connection, &request).await.map_err(Verdict::of),
                    Err(error) => Err(Verdict::of_connect(error)),
                }
            };
            let verdict = match timeout_at(deadline, attempt).await {
                Ok(Ok(value)) => {
                    self.health.answered();
                    return Ok(value);
                }
                Ok(Err(verdict)) => verdict,
                Err(_) => {
                    // A shorter one says little about Redis; the next probe has the full time.
                    if timeout >= self.command_timeout {
                        self.drop_connection(number);
                        self.health.broke(&last);
                    }
                    return Err(last);
                }
            };
            if verdict.connection_is_bad {
                self.drop_connection(number);
            }
            if verdict.is_silence {
                self.health.broke(&verdict.error);
            }
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
    fn of(error: RedisError) -> Self {
        let text = error.to_string();
        let code = error.code().unwrap_or_default();
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Self::refused(text),
            // This command alone.
            _ if code == "NOPERM" => Self::answered(Error::Refused(text)),
            _ if is_refusal(code) => Self::refused(text),
            // A certificate that is not trusted, or a server that speaks no TLS.
            ErrorKind::Io if is_bad_tls(&error) => Self::refused(text),
            ErrorKind::Io | ErrorKind::Parse => Self::unavailable(text, true),
            // In Redis 6, what a script ran into stands behind ERR.
            _ if code == "READONLY" || text.contains("READONLY") => Self::unavailable(text, true),
            _ if is_temporary(code) => Self::unavailable(text, false),
            _ => Self::answered(Error::Broken(text)),
        }
    }

    /// Without a connection nothing can be asked, whatever the reason, and the next try needs a new one.
    fn of_connect(error: RedisError) -> Self {
        Self {
            connection_is_bad: true,
            is_silence: true,
            ..Self::of(error)
        }
    }

    fn answered(error: Error) -> Self {
        Self {
            error,
            connection_is_bad: false,
            is_silence: false,
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
    ["NOAUTH", "WRONGPASS", "DENIED"].contains(&code)
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

/// TLS says so by this kind. redis wraps what it was told twice.
fn is_bad_tls(error: &RedisError) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>())
        .and_then(|inner| inner.downcast_ref::<io::Error>())
        .is_some_and(|io| io.kind() == io::ErrorKind::InvalidData)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error(line: &str) -> RedisError {
        ::redis::parse_redis_value(line.as_bytes())
            .and_then(Value::extract_error)
            .unwrap_err()
    }

    fn verdicts<const N: usize>(lines: [&str; N]) -> [Verdict; N] {
        lines.map(|line| Verdict::of(server_error(line)))
    }

    #[test]
    fn a_connect_that_failed_is_never_used_again() {
        let verdict = Verdict::of_connect(server_error("-LOADING Redis is loading\r\n"));
        assert!(verdict.error.retryable() && verdict.connection_is_bad);
    }

    #[test]
    fn answers_are_told_from_silence() {
        for verdict in verdicts([
            "-LOADING Redis is loading the dataset\r\n",
            "-BUSY Redis is busy\r\n",
        ]) {
            assert!(verdict.error.retryable() && verdict.is_silence);
            assert!(!verdict.connection_is_bad);
        }
        for verdict in verdicts([
            "-READONLY You can't write\r\n",
            "-ERR Error running script: @user_script:3: -READONLY You can't write\r\n",
        ]) {
            assert!(verdict.error.retryable() && verdict.is_silence);
            assert!(verdict.connection_is_bad);
        }
        for verdict in verdicts(["-NOAUTH Authentication required.\r\n"]) {
            assert!(matches!(verdict.error, Error::Refused(_)));
            assert!(verdict.is_silence && verdict.connection_is_bad);
        }
        for verdict in verdicts([
            "-NOPERM this user has no permissions\r\n",
            "-WRONGTYPE Operation\r\n",
            "-ERR unknown command\r\n",
        ]) {
            assert!(!verdict.error.retryable());
            assert!(!verdict.is_silence && !verdict.connection_is_bad);
        }
        let io = |kind| Verdict::of(RedisError::from(io::Error::from(kind)));
        let dropped = io(io::ErrorKind::BrokenPipe);
        assert!(dropped.connection_is_bad && dropped.error.retryable());
        let bad_certificate = io(io::ErrorKind::InvalidData);
        assert!(bad_certificate.connection_is_bad && !bad_certificate.error.retryable());
    }
}
