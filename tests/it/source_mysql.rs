//! MySQL as a source, on a real MariaDB.

mod reading;
mod refusals;
mod stopping;
mod values;

use std::time::Duration;

use rowgate::source::Resolved;
use sqlx::{MySqlConnection, Row};
use tokio::sync::Mutex;

use crate::support::{
    mariadb::Database,
    reading::{Collected, sql},
    wait_until,
};

/// Only a defect lets it pass.
const PATIENCE: Duration = Duration::from_secs(30);
/// Only a defect takes longer to end a read and its query. A second is promised, and `promises` keeps the time.
const GONE: Duration = Duration::from_secs(10);

fn rows(collected: &Collected) -> Vec<String> {
    collected.rows().iter().map(|row| row.join("|")).collect()
}

/// Sees the sources' sessions in a database; connected before anything has to be gone.
struct Look {
    database: String,
    connection: Mutex<MySqlConnection>,
}

impl Look {
    async fn at(database: &Database) -> Self {
        Self {
            database: database.name.clone(),
            connection: Mutex::new(database.connect().await),
        }
    }

    /// What they run, and for how many seconds.
    async fn running(&self) -> Vec<(String, i64)> {
        let rows = sqlx::query(
            "select cast(coalesce(info, command) as char), cast(time as signed) from information_schema.processlist \
             where db = ? and id <> connection_id()",
        )
        .bind(&self.database)
        .fetch_all(&mut *self.connection.lock().await)
        .await
        .expect("the process list can be read");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn until_it_runs(&self, part: &str) {
        self.until_it_runs_for(part, 0).await;
    }

    async fn until_it_runs_for(&self, part: &str, seconds_min: i64) {
        let what = format!("{part} runs for {seconds_min} s");
        wait_until(PATIENCE, &what, async || {
            let running = self.running().await;
            let is_it =
                |(query, seconds): &(String, i64)| query.contains(part) && *seconds >= seconds_min;
            running.iter().any(is_it).then_some(())
        })
        .await;
    }

    /// No session of a source, running or idle.
    async fn until_gone(&self) {
        wait_until(GONE, "the query is gone from the server", async || {
            self.running().await.is_empty().then_some(())
        })
        .await;
    }
}

async fn allowed(database: &Database, text: &str) -> Resolved {
    sql(&database.url, text)
        .await
        .expect("the source takes SQL")
}

async fn with_numbers(count: u32) -> Database {
    let database = Database::create().await;
    database
        .execute(&format!(
            "create table t(id int primary key, pad varchar(200) not null);
             insert into t select seq, repeat('x', 200) from seq_1_to_{count}; analyze table t"
        ))
        .await;
    database
}
