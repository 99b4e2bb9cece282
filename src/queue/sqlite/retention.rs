//! How rows end: deleted by their owner, expired, purged. Only terminal jobs, which no count includes.

use std::time::Duration;

use super::{SqliteStore, earlier, load, now};
use crate::{
    export::ExportId,
    queue::{
        Deleted, Job, Result,
        row::{Id, job},
    },
};

impl SqliteStore {
    pub(super) async fn delete_once(&self, id: ExportId) -> Result<Deleted> {
        let mut tx = self.begin().await?;
        let Some(stored) = load(&mut tx, id).await? else {
            return Ok(Deleted::NotFound);
        };
        if !stored.job.state.is_terminal() {
            return Ok(Deleted::NotTerminal(stored.job.state));
        }
        sqlx::query("delete from jobs where id = $1")
            .bind(Id(id.0))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Deleted::Done(Box::new(stored.job)))
    }

    pub(super) async fn expire_once(&self, grace: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        let mut tx = self.begin().await?;
        let rows = sqlx::query(concat!(
            "update jobs set result_expired = 1 where id in (select id from jobs where state = 4 and not result_expired \
               and result_expires_at is not null and result_expires_at < $1 order by result_expires_at limit $2) \
             returning ",
            job_columns!()
        ))
        .bind(earlier(now(), grace))
        .bind(jobs_max)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        rows.iter().map(job).collect()
    }

    pub(super) async fn purge_once(&self, retention: Duration, jobs_max: u32) -> Result<Vec<Job>> {
        let mut tx = self.begin().await?;
        // A live stream (kind 2) left nothing in the storage that could expire.
        let rows = sqlx::query(concat!(
            "delete from jobs where id in (select id from jobs where state in (4, 5, 6) and ended_at < $1 \
               and (result is null or result_expired or kind = 2) order by ended_at limit $2) returning ",
            job_columns!()
        ))
        .bind(earlier(now(), retention))
        .bind(jobs_max)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        rows.iter().map(job).collect()
    }
}
