//! How rows end: deleted by their owner, expired, purged. Only terminal jobs, which no count includes and no other
//! transaction moves: no tenant is locked.

use std::time::Duration;

use super::{PostgresStore, load, microseconds};
use crate::{
    export::ExportId,
    queue::{
        Deleted, Job, Result,
        row::{Id, job},
    },
};

impl PostgresStore {
    pub(super) async fn delete_once(&self, id: ExportId) -> Result<Deleted> {
        let row = sqlx::query(concat!(
            "delete from jobs where id = $1 and state in (4, 5, 6) returning ",
            job_columns!()
        ))
        .bind(Id(id.0))
        .fetch_optional(&self.pool)
        .await?;
        if let Some(row) = row {
            return Ok(Deleted::Done(Box::new(job(&row)?)));
        }
        let mut db = self.pool.acquire().await?;
        Ok(match load(&mut db, id).await? {
            Some(stored) if stored.job.state.is_terminal() => {
                // It ended between the two statements.
                return Err(super::Error::Contended(format!(
                    "export {id} has just ended"
                )));
            }
            Some(stored) => Deleted::NotTerminal(stored.job.state),
            None => Deleted::NotFound,
        })
    }

    pub(super) async fn expire_once(&self, grace: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        sqlx::query(concat!(
            "with due as materialized (select id as due_id from jobs where state = 4 and not result_expired \
               and result_expires_at is not null and result_expires_at < now() - $1 * interval '1 microsecond' \
               order by result_expires_at limit $2 for update skip locked) \
             update jobs set result_expired = true from due where id = due_id returning ",
            job_columns!()
        ))
        .bind(microseconds(grace))
        .bind(i64::from(jobs_max))
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(job)
        .collect()
    }

    pub(super) async fn purge_once(&self, retention: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        // A live stream (kind 2) left nothing in the storage that could expire.
        sqlx::query(concat!(
            "with due as materialized (select id as due_id from jobs where state in (4, 5, 6) \
               and ended_at < now() - $1 * interval '1 microsecond' \
               and (result is null or result_expired or kind = 2) \
               order by ended_at limit $2 for update skip locked) \
             delete from jobs using due where id = due_id returning ",
            job_columns!()
        ))
        .bind(microseconds(retention))
        .bind(i64::from(jobs_max))
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(job)
        .collect()
    }
}
