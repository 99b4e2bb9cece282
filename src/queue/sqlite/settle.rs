//! What ends or interrupts an attempt: settle, cancel, reap. One function applies the change that the rules decided.

use sqlx::{Row, SqliteConnection};

use super::{SqliteStore, count_source, count_tenant, later, load, now};
use crate::{
    export::{ExportId, Fence, State},
    queue::{
        Abandoned, Cancelled, Error, Job, Reaped, Result, Settled, Settlement, Work,
        row::{At, Id, StoredJob, job, optional_to_json},
        rules::{self, Change},
    },
};

impl SqliteStore {
    pub(super) async fn settle_once(
        &self,
        id: ExportId,
        fence: Fence,
        settlement: &Settlement,
        work: Work,
    ) -> Result<Settled> {
        let mut tx = self.begin().await?;
        let Some(stored) = load(&mut tx, id).await? else {
            return Ok(Settled::NotOwner(None));
        };
        let is_owned = matches!(stored.job.state, State::Running | State::Cancelling);
        if !is_owned || stored.job.fence != fence {
            return Ok(Settled::NotOwner(Some(Box::new(stored.job))));
        }
        let change = rules::settled(&stored, settlement, work)?;
        let job = apply(&mut tx, &stored, &change, now()).await?;
        tx.commit().await?;
        Ok(Settled::Done(job))
    }

    pub(super) async fn cancel_once(&self, id: ExportId) -> Result<Cancelled> {
        let mut tx = self.begin().await?;
        let Some(stored) = load(&mut tx, id).await? else {
            return Ok(Cancelled::NotFound);
        };
        let Some(change) = rules::cancelled(&stored) else {
            return Ok(match stored.job.state {
                State::Succeeded | State::Failed => Cancelled::TooLate(stored.job),
                _ => Cancelled::Accepted(stored.job),
            });
        };
        let job = apply(&mut tx, &stored, &change, now()).await?;
        tx.commit().await?;
        Ok(Cancelled::Accepted(job))
    }

    pub(super) async fn overdue_once(
        &self,
        after: Option<ExportId>,
        jobs_max: u32,
    ) -> Result<Vec<(ExportId, Fence)>> {
        let rows = sqlx::query(
            "select id, fence from jobs where state in (2, 3) and lease_until < $1 and ($2 is null or id > $2) \
             order by id limit $3",
        )
        .bind(now())
        .bind(after.map(|id| Id(id.0)))
        .bind(jobs_max)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| Ok((ExportId(row.try_get::<Id, _>(0)?.0), Fence(row.try_get(1)?))))
            .collect()
    }

    pub(super) async fn reap_once(
        &self,
        abandoned: &Abandoned,
        attempts_max: u32,
        jobs_max: u32,
    ) -> Result<Vec<Reaped>> {
        let mut tx = self.begin().await?;
        let at = now();
        let (expired_before, silent) = match abandoned {
            Abandoned::All => (None, [].as_slice()),
            Abandoned::Silent(silent) => (Some(at), silent.as_slice()),
        };
        let silent: Vec<(String, i64)> = silent
            .iter()
            .map(|(id, fence)| (hex::encode_upper(id.0.as_bytes()), fence.0))
            .collect();
        let silent = serde_json::to_string(&silent).map_err(|e| Error::Broken(e.to_string()))?;
        let rows = sqlx::query(concat!(
            "select ",
            job_columns!(),
            " from jobs where state in (2, 3) and ($1 is null or lease_until < $1 and (hex(id), fence) in \
               (select value ->> 0, value ->> 1 from json_each($3))) order by id limit $2"
        ))
        .bind(expired_before)
        .bind(jobs_max)
        .bind(silent)
        .fetch_all(&mut *tx)
        .await?;
        let mut reaped = Vec::with_capacity(rows.len());
        for row in &rows {
            let stored = super::stored_job(row)?;
            stored.log_unreadable();
            let Some(change) = rules::reaped(&stored, attempts_max) else {
                continue;
            };
            let job = apply(&mut tx, &stored, &change, at).await?;
            reaped.push(Reaped {
                id: job.id,
                fence: job.fence,
                state: job.state,
            });
        }
        tx.commit().await?;
        Ok(reaped)
    }
}

pub(super) async fn apply(
    db: &mut SqliteConnection,
    stored: &StoredJob,
    change: &Change,
    at: At,
) -> Result<Job> {
    let before = &stored.job;
    count_tenant(db, &before.tenant.0, change.counts).await?;
    count_source(db, &before.spec.source, change.counts.running).await?;
    let is_queued = change.state == State::Queued;
    let result = change.result.as_ref();
    let row = sqlx::query(concat!(
        "update jobs set state = $4, attempt = $5, worker = $6, delayed = $7, ready_at = coalesce($8, ready_at), \
           ended_at = $9, error = $10, last_failure = $11, result = $12, result_expires_at = $13, charged = $14, \
           lease_until = case when $4 in (2, 3) then lease_until end \
         where id = $1 and fence = $2 and state = $3 returning ",
        job_columns!()
    ))
    .bind(Id(before.id.0))
    .bind(before.fence.0)
    .bind(before.state as i16)
    .bind(change.state as i16)
    .bind(i64::from(change.attempt))
    .bind(change.worker.as_ref().map(|worker| &worker.0))
    .bind(change.is_delayed())
    .bind(is_queued.then(|| later(at, change.delay)))
    .bind(change.state.is_terminal().then_some(at))
    .bind(optional_to_json(change.error.as_ref())?)
    .bind(optional_to_json(change.last_failure.as_ref())?)
    .bind(optional_to_json(result)?)
    .bind(result.and_then(|result| result.expires_at).map(At))
    .bind(change.charged)
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::Broken(format!("export {} changed under its lock", before.id)))?;
    job(&row)
}
