//! What ends or interrupts an attempt: settle, cancel, reap. One function applies the change that the rules decided.

use sqlx::{PgConnection, Row};

use super::{PostgresStore, count_source, count_tenant, lock_job, lock_tenants, microseconds};
use crate::{
    export::{ExportId, Fence, State},
    queue::{
        Abandoned, Cancelled, Error, Job, Reaped, Result, Settled, Settlement, Work,
        row::{At, Id, StoredJob, job, optional_to_json, stored_job},
        rules::{self, Change},
    },
};

impl PostgresStore {
    pub(super) async fn settle_once(
        &self,
        id: ExportId,
        fence: Fence,
        settlement: &Settlement,
        work: Work,
    ) -> Result<Settled> {
        let mut tx = self.begin().await?;
        let Some(stored) = lock_job(&mut tx, id).await? else {
            return Ok(Settled::NotOwner(None));
        };
        let is_owned = matches!(stored.job.state, State::Running | State::Cancelling);
        if !is_owned || stored.job.fence != fence {
            return Ok(Settled::NotOwner(Some(Box::new(stored.job))));
        }
        let change = rules::settled(&stored, settlement, work)?;
        let job = apply(&mut tx, &stored, &change).await?;
        tx.commit().await?;
        Ok(Settled::Done(job))
    }

    pub(super) async fn cancel_once(&self, id: ExportId) -> Result<Cancelled> {
        let mut tx = self.begin().await?;
        let Some(stored) = lock_job(&mut tx, id).await? else {
            return Ok(Cancelled::NotFound);
        };
        let Some(change) = rules::cancelled(&stored) else {
            return Ok(match stored.job.state {
                State::Succeeded | State::Failed => Cancelled::TooLate(stored.job),
                _ => Cancelled::Accepted(stored.job),
            });
        };
        let job = apply(&mut tx, &stored, &change).await?;
        tx.commit().await?;
        Ok(Cancelled::Accepted(job))
    }

    pub(super) async fn overdue_once(
        &self,
        after: Option<ExportId>,
        jobs_max: u32,
    ) -> Result<Vec<(ExportId, Fence)>> {
        let rows = sqlx::query(
            "select id, fence from jobs where state in (2, 3) and lease_until < now() and ($1::uuid is null or id > $1) \
             order by id limit $2",
        )
        .bind(after.map(|id| Id(id.0)))
        .bind(i64::from(jobs_max))
        .fetch_all(&self.pool)
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
        let (every_owner, silent) = match abandoned {
            Abandoned::All => (true, [].as_slice()),
            Abandoned::Silent(silent) => (false, silent.as_slice()),
        };
        let silent_ids: Vec<Id> = silent.iter().map(|(id, _)| Id(id.0)).collect();
        let silent_fences: Vec<i64> = silent.iter().map(|(_, fence)| fence.0).collect();
        let mut tx = self.begin().await?;
        let seen = sqlx::query(
            "select id, tenant, source, fence from jobs where state in (2, 3) and ($1 or lease_until < now() and \
               (id, fence) in (select * from unnest($3::uuid[], $4::bigint[]))) \
             order by id limit $2",
        )
        .bind(every_owner)
        .bind(i64::from(jobs_max))
        .bind(silent_ids)
        .bind(silent_fences)
        .fetch_all(&mut *tx)
        .await?;
        let (mut ids, mut fences) = (Vec::new(), Vec::new());
        let (mut tenants, mut sources) = (Vec::new(), Vec::new());
        for row in &seen {
            ids.push(row.try_get::<Id, _>(0)?);
            fences.push(row.try_get::<i64, _>(3)?);
            tenants.push(row.try_get::<String, _>(1)?);
            sources.push(row.try_get::<String, _>(2)?);
        }
        lock_tenants(&mut tx, &tenants).await?;
        lock_sources(&mut tx, &sources).await?;
        // Read again under the locks: an owner may have renewed or settled meanwhile.
        let rows = sqlx::query(concat!(
            "select ",
            job_columns!(),
            " from jobs where (id, fence) in (select * from unnest($1::uuid[], $3::bigint[])) and state in (2, 3) \
               and ($2 or lease_until < now()) order by id for update"
        ))
        .bind(ids)
        .bind(every_owner)
        .bind(fences)
        .fetch_all(&mut *tx)
        .await?;
        let mut reaped = Vec::with_capacity(rows.len());
        for row in &rows {
            let stored = stored_job(row)?;
            stored.log_unreadable();
            let Some(change) = rules::reaped(&stored, attempts_max) else {
                continue;
            };
            let job = apply(&mut tx, &stored, &change).await?;
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

async fn lock_sources(db: &mut PgConnection, names: &[String]) -> Result<()> {
    sqlx::query("select 1 from sources where name = any($1) order by name for update")
        .bind(names)
        .execute(db)
        .await?;
    Ok(())
}

/// Under the tenant's lock; takes the source's and the job's.
pub(super) async fn apply(
    db: &mut PgConnection,
    stored: &StoredJob,
    change: &Change,
) -> Result<Job> {
    let before = &stored.job;
    count_tenant(db, &before.tenant.0, change.counts).await?;
    count_source(db, &before.spec.source, change.counts.running).await?;
    let is_queued = change.state == State::Queued;
    let result = change.result.as_ref();
    let row = sqlx::query(concat!(
        "update jobs set state = $4, attempt = $5, worker = $6, delayed = $7, \
           ready_at = coalesce(now() + $8::bigint * interval '1 microsecond', ready_at), \
           ended_at = case when $9 then clock_timestamp() end, error = $10::text::json, \
           last_failure = $11::text::json, result = $12::text::json, result_expires_at = $13, charged = $14, \
           lease_until = case when $4 in (2, 3) then lease_until end \
         where id = $1 and fence = $2 and state = $3 returning ",
        job_columns!()
    ))
    .bind(Id(before.id.0))
    .bind(before.fence.0)
    .bind(before.state as i16)
    .bind(change.state as i16)
    .bind(i32::try_from(change.attempt).unwrap_or(i32::MAX))
    .bind(change.worker.as_ref().map(|worker| &worker.0))
    .bind(change.is_delayed())
    .bind(is_queued.then(|| microseconds(change.delay)))
    .bind(change.state.is_terminal())
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
