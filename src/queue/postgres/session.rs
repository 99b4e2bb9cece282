//! Locks for life on PostgreSQL, that of `lease.url = "local"` and that of a leader: a session that holds an advisory lock
//! as long as it lives.

use std::time::Duration;

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Result;
use crate::queue::{Guard, guard::in_use};

/// First keys of the locks; the second is the schema, so that two queues in one database don't exclude each other.
const QUEUE_CLASS: i32 = 0x0072_6f77;
const LEADER_CLASS: i32 = 0x0072_6f78;
/// How soon a broken session is noticed; the database frees its lock at about the same time.
const CHECK_EVERY: Duration = Duration::from_millis(500);
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The queue for this process alone.
pub(super) async fn guard(connect: &PgConnectOptions) -> Result<Guard> {
    let place = || {
        format!(
            "{} on {}",
            connect.get_database().unwrap_or("of that user"),
            connect.get_host()
        )
    };
    hold(connect, QUEUE_CLASS)
        .await?
        .ok_or_else(|| in_use(&place()))
}

/// `None`: another process leads.
pub(super) async fn leader(connect: &PgConnectOptions) -> Result<Option<Guard>> {
    hold(connect, LEADER_CLASS).await
}

async fn hold(connect: &PgConnectOptions, class: i32) -> Result<Option<Guard>> {
    let mut session = connect.connect().await?;
    sqlx::query("select set_config('idle_session_timeout', '0', false)")
        .execute(&mut session)
        .await?;
    let locked: bool = sqlx::query_scalar(
        "select pg_try_advisory_lock($1, hashtext(coalesce(current_schema(), '')))",
    )
    .bind(class)
    .fetch_one(&mut session)
    .await?;
    if !locked {
        return Ok(None);
    }
    let lost = CancellationToken::new();
    let mut keeper = JoinSet::new();
    keeper.spawn(keep(session, class, lost.clone().drop_guard()));
    Ok(Some(Guard::of_session(lost, keeper)))
}

/// Asks the session again and again whether it still holds the lock (a pooler may have swapped it); ends, and fires the
/// token, when the answer is anything but yes.
async fn keep(mut session: PgConnection, class: i32, _lost: DropGuard) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let held = sqlx::query_scalar(
            "select exists (select 1 from pg_locks where locktype = 'advisory' and granted \
               and pid = pg_backend_pid() and classid::bigint = $1)",
        )
        .bind(i64::from(class))
        .fetch_one(&mut session);
        match timeout(CHECK_TIMEOUT, held).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                tracing::error!("a session lost the lock that it held for this process");
                return;
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the session that held a lock for this process broke");
                return;
            }
            Err(_) => {
                tracing::error!("the session that holds a lock for this process does not answer");
                return;
            }
        }
    }
}
