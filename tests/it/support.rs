//! What tests stand on: throw-away databases of servers that `tests/with-servers` started, folders, programs that are
//! not ours, and waiting. Knows nothing about exports.

#![allow(dead_code, reason = "not every helper has a caller at every commit")]

pub mod faulty;
pub mod mariadb;
pub mod postgres;
pub mod process;
pub mod program;
pub mod reading;
pub mod redis;
pub mod rowgate;

use std::{future::Future, path::PathBuf, time::Duration};

pub use program::{grpcurl, python};
use tokio::time::Instant;

/// What `tests/with-servers` put into the environment.
pub fn server_env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run the tests through `make test` or `tests/with-servers cargo nextest run`"
        )
    })
}

/// A folder that is deleted with the value. Under the servers' folder where there is one, so that nothing outlives a
/// test that is killed.
pub fn temp_dir() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("it-");
    match std::env::var_os("ROWGATE_TEST_DIR") {
        Some(dir) => builder.tempdir_in(PathBuf::from(dir)),
        None => builder.tempdir(),
    }
    .expect("a temporary folder can be made")
}

/// Asks again and again until `check` returns something, and returns that. For states that no signal tells of, such as a
/// query that disappears from a server; panics after `timeout` and says what was waited for.
pub async fn wait_until<T, F>(timeout: Duration, what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    const PAUSE: Duration = Duration::from_millis(20);
    let start = Instant::now();
    let mut asked = 0;
    loop {
        let answer = tokio::time::timeout_at(start + timeout, check()).await;
        asked += 1;
        match answer {
            Ok(Some(value)) => return value,
            Ok(None) if start.elapsed() < timeout => tokio::time::sleep(PAUSE).await,
            Ok(None) => panic!("waited {timeout:?} in vain (asked {asked} times): {what}"),
            Err(_) => panic!("waited {timeout:?} in vain (the check itself hangs): {what}"),
        }
    }
}

/// A name that no other test, process or run uses: `rowgate_<uuid>`.
fn unique_name() -> String {
    format!("rowgate_{}", uuid::Uuid::new_v4().simple())
}

/// `server` with its path replaced by a database's name.
fn url_of_database(server: &str, database: &str) -> String {
    let mut url = url::Url::parse(server).expect("tests/with-servers exports URLs");
    url.set_path(database);
    url.to_string()
}

/// Runs a future to its end on a thread of its own: for `Drop`, which can't await and may run inside any runtime.
fn block_on_own_thread(future: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built")
            .block_on(future);
    });
    // A failure to clean up must not hide the test's own; the servers' folder goes away as a whole.
    let _ = thread.join();
}
