//! MySQL as a source, on a real MariaDB.

mod reading;
mod refusals;
mod stopping;
mod values;

use std::time::{Duration, Instant};

use rowgate::source::Resolved;
use sqlx::Row;

use crate::support::{
    mariadb::Database,
    reading::{Collected, sql},
    wait_until,
};

const A_SECOND: Duration = Duration::from_secs(1);

fn rows(collected: &Collected) -> Vec<String> {
    collected.rows().iter().map(|row| row.join("|")).collect()
}

/// What else runs in this database: the sources' sessions, by what they run.
async fn running(database: &Database, connection: &mut sqlx::MySqlConnection) -> Vec<String> {
    let rows = sqlx::query(
        "select cast(coalesce(info, command) as char) from information_schema.processlist \
         where db = ? and id <> connection_id()",
    )
    .bind(&database.name)
    .fetch_all(connection)
    .await
    .expect("the process list can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn wait_for_query(database: &Database, part: &str) {
    let mut connection = database.connect().await;
    let started = Instant::now();
    loop {
        let found = running(database, &mut connection).await;
        if found.iter().any(|query| query.contains(part)) {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "never saw {part}: {found:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// Fails unless every other session of the database is gone within a second.
async fn assert_gone_within_a_second(database: &Database) {
    let connection = tokio::sync::Mutex::new(database.connect().await);
    wait_until(A_SECOND, "the query is gone from the server", || async {
        let left = running(database, &mut *connection.lock().await).await;
        left.is_empty().then_some(())
    })
    .await;
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
