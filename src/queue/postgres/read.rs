//! What only looks: listing, position, audit.

use std::collections::HashMap;

use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use super::{PostgresStore, load};
use crate::{
    export::{ExportId, SpecHash, State, TenantId},
    queue::{
        Audit, AuditRow, Job, ListFilter, POSITION_MAX, Result, Standing,
        row::{At, Id, bigint, job, spec_hash, standing, to_json},
        rules::rank,
    },
};

impl PostgresStore {
    pub(super) async fn submitted_once(
        &self,
        tenant: &TenantId,
        request_id: Uuid,
    ) -> Result<Option<(Job, SpecHash)>> {
        let mut db = self.pool.acquire().await?;
        let found =
            sqlx::query("select id, spec_hash from jobs where tenant = $1 and request_id = $2")
                .bind(&tenant.0)
                .bind(Id(request_id))
                .fetch_optional(&mut *db)
                .await?;
        let Some(found) = found else { return Ok(None) };
        let id = ExportId(found.try_get::<Id, _>(0)?.0);
        let hash = spec_hash(found.try_get(1)?)?;
        Ok(load(&mut db, id).await?.map(|stored| (stored.job, hash)))
    }

    pub(super) async fn standings_once(
        &self,
        ids: &[ExportId],
    ) -> Result<HashMap<ExportId, Standing>> {
        let ids: Vec<Id> = ids.iter().map(|id| Id(id.0)).collect();
        sqlx::query("select id, state, fence, result_expired from jobs where id = any($1)")
            .bind(ids)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(standing)
            .collect()
    }

    pub(super) async fn list_once(&self, filter: &ListFilter) -> Result<Vec<Job>> {
        let mut query = QueryBuilder::<Postgres>::new(concat!(
            "select ",
            job_columns!(),
            " from jobs where tenant = "
        ));
        query.push_bind(filter.tenant.0.clone());
        if !filter.states.is_empty() {
            query.push(" and state in (");
            let mut list = query.separated(", ");
            for state in &filter.states {
                list.push_bind(*state as i16);
            }
            query.push(")");
        }
        if !filter.labels.is_empty() {
            query
                .push(" and labels @> ")
                .push_bind(to_json(&filter.labels)?)
                .push("::text::jsonb");
        }
        if let Some(after) = filter.created_after {
            query.push(" and created_at > ").push_bind(At(after));
        }
        if let Some(before) = filter.created_before {
            query.push(" and created_at < ").push_bind(At(before));
        }
        if let Some(cursor) = filter.after {
            query
                .push(" and (created_at, id) < (")
                .push_bind(At(cursor.created_at))
                .push(", ")
                .push_bind(Id(cursor.id.0))
                .push(")");
        }
        query
            .push(" order by created_at desc, id desc limit ")
            .push_bind(i64::from(filter.rows_max));
        query
            .build()
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(job)
            .collect()
    }

    pub(super) async fn queue_position_once(&self, id: ExportId) -> Result<Option<u64>> {
        let mut db = self.pool.acquire().await?;
        let Some(stored) = load(&mut db, id).await? else {
            return Ok(None);
        };
        let job = stored.job;
        if job.state != State::Queued {
            return Ok(None);
        }
        // A range of the ready index for each source; the inner LIMIT keeps it one.
        let ahead: i64 = sqlx::query_scalar(
            "select count(*) from (select 1 from sources s cross join lateral ( \
               select 1 from jobs j where j.tenant = $1 and j.source = s.name and j.state = 1 and not j.delayed \
                 and (j.rank, j.created_at, j.id) < ($2, $3, $4) limit $5) ahead limit $5) counted",
        )
        .bind(&job.tenant.0)
        .bind(rank(job.spec.priority))
        .bind(At(job.created_at))
        .bind(Id(job.id.0))
        .bind(bigint(POSITION_MAX))
        .fetch_one(&mut *db)
        .await?;
        Ok(u64::try_from(ahead).ok())
    }

    pub(super) async fn audit_once(&self) -> Result<Audit> {
        let mut tx = self
            .pool
            .begin_with("begin isolation level repeatable read, read only")
            .await?;
        let tenants = sqlx::query(
            "select n.name, coalesce(t.running, 0), \
               (select count(*) from jobs j where j.tenant = n.name and j.state in (2, 3)), coalesce(t.ready, 0), \
               (select count(*) from jobs j where j.tenant = n.name and j.state = 1 and not j.delayed), \
               coalesce(t.virtual_time, 0) \
             from (select name from tenants union select tenant from jobs) n \
             left join tenants t on t.name = n.name order by n.name",
        )
        .fetch_all(&mut *tx)
        .await?;
        let sources = sqlx::query(
            "select n.name, coalesce(s.running, 0), \
               (select count(*) from jobs j where j.source = n.name and j.state in (2, 3)), 0::bigint, 0::bigint, 0::bigint \
             from (select name from sources union select source from jobs) n \
             left join sources s on s.name = n.name order by n.name",
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(Audit {
            tenants: tenants.iter().map(audit_row).collect::<Result<_>>()?,
            sources: sources.iter().map(audit_row).collect::<Result<_>>()?,
        })
    }
}

fn audit_row(row: &PgRow) -> Result<AuditRow> {
    Ok(AuditRow {
        name: row.try_get(0)?,
        running_counted: row.try_get(1)?,
        running_rows: row.try_get(2)?,
        ready_counted: row.try_get(3)?,
        ready_rows: row.try_get(4)?,
        virtual_time: row.try_get(5)?,
    })
}
