//! NOTIFY and LISTEN: how processes wake each other's idle claimers. Only ever a hint; the poll makes up for what is
//! lost (a dead listener, a transaction-mode pooler).

use std::{sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::Notify, task::JoinSet};

use super::Wake;

const CHANNEL: &str = "rowgate_work";
const RECONNECT_MIN: Duration = Duration::from_millis(250);
const RECONNECT_MAX: Duration = Duration::from_secs(30);

pub(super) struct Signal {
    pending: Arc<Notify>,
    /// Announcer and listener end with the store.
    _tasks: JoinSet<()>,
}

impl Signal {
    pub fn start(
        pool: &PgPool,
        connect: PgConnectOptions,
        wake: Arc<Wake>,
        announce_every: Duration,
    ) -> Self {
        let pending = Arc::new(Notify::new());
        // Tells our own notifications from others': this process has woken itself already.
        let myself = uuid::Uuid::new_v4().simple().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(announce(
            pool.clone(),
            pending.clone(),
            myself.clone(),
            announce_every,
        ));
        tasks.spawn(listen(connect, wake, myself));
        Self {
            pending,
            _tasks: tasks,
        }
    }

    pub fn send(&self) {
        self.pending.notify_one();
    }
}

/// Sends what is pending, at most once in `announce_every`: each NOTIFY takes a lock that all commits with one share,
/// which is also why it is not part of the transactions that it tells of.
async fn announce(pool: PgPool, pending: Arc<Notify>, myself: String, announce_every: Duration) {
    loop {
        pending.notified().await;
        let sent = sqlx::query("select pg_notify($1, $2)")
            .bind(CHANNEL)
            .bind(&myself)
            .execute(&pool)
            .await;
        if let Err(error) = sent {
            tracing::debug!(%error, "other processes were not told of work; they poll");
        }
        tokio::time::sleep(announce_every).await;
    }
}

async fn listen(connect: PgConnectOptions, wake: Arc<Wake>, myself: String) {
    let mut backoff = RECONNECT_MIN;
    loop {
        if let Err(error) = listen_once(&connect, &wake, &myself, &mut backoff).await {
            tracing::debug!(%error, "the listener is down; claims go by polling");
        }
        tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
        backoff = (backoff * 2).min(RECONNECT_MAX);
    }
}

/// Listens on a connection of its own until that breaks.
async fn listen_once(
    connect: &PgConnectOptions,
    wake: &Wake,
    myself: &str,
    backoff: &mut Duration,
) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(connect.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    *backoff = RECONNECT_MIN;
    // Whatever was announced while nobody listened.
    wake.announce();
    while let Some(notification) = listener.try_recv().await? {
        if notification.payload() != myself {
            wake.announce();
        }
    }
    Ok(())
}
