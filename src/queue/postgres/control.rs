//! What operators set, and what processes say about themselves.

use std::time::Duration;

use sqlx::Row;

use super::{PostgresStore, microseconds};
use crate::{
    export::{LimitOverrides, TenantId, WorkerId},
    queue::{
        Error, LimitChange, Paused, PausedTenants, Result, WorkerRow,
        row::{At, from_json, to_json},
    },
};

impl PostgresStore {
    pub(super) async fn limits_once(&self) -> Result<LimitOverrides> {
        let text: String = sqlx::query_scalar("select limits::text from control")
            .fetch_one(&self.pool)
            .await?;
        from_json(&text)
    }

    pub(super) async fn update_limits_once(&self, change: &LimitChange) -> Result<LimitOverrides> {
        let mut tx = self.begin().await?;
        let text: String = sqlx::query_scalar("select limits::text from control for update")
            .fetch_one(&mut *tx)
            .await?;
        let mut limits = from_json(&text)?;
        change
            .apply(&mut limits)
            .map_err(|name| Error::Broken(format!("no limit is called {name}")))?;
        sqlx::query("update control set limits = $1::text::json")
            .bind(to_json(&limits)?)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(limits)
    }

    pub(super) async fn set_paused_once(
        &self,
        tenant: Option<&TenantId>,
        paused: Paused,
    ) -> Result<()> {
        let query = match tenant {
            None => sqlx::query("update control set paused = $1").bind(paused == Paused::Yes),
            Some(tenant) => sqlx::query(
                "insert into tenants (name, paused) values ($2, $1) on conflict (name) do update set paused = $1",
            )
            .bind(paused == Paused::Yes)
            .bind(&tenant.0),
        };
        query.execute(&self.pool).await?;
        Ok(())
    }

    pub(super) async fn paused_once(&self) -> Result<PausedTenants> {
        let everyone = sqlx::query_scalar("select paused from control")
            .fetch_one(&self.pool)
            .await?;
        let tenants = sqlx::query_scalar("select name from tenants where paused order by name")
            .fetch_all(&self.pool)
            .await?
            .into_iter()
            .map(TenantId)
            .collect();
        Ok(PausedTenants { everyone, tenants })
    }

    pub(super) async fn token_key_once(&self) -> Result<[u8; 32]> {
        let key: Vec<u8> = sqlx::query_scalar("select token_key from control")
            .fetch_one(&self.pool)
            .await?;
        key.try_into()
            .map_err(|_| Error::Broken("the token key is not 32 bytes long".to_owned()))
    }

    pub(super) async fn heartbeat_once(&self, worker: &WorkerRow, ttl: Duration) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "insert into workers (id, host, started_at, seen_at, running, slots, version) \
             values ($1, $2, $3, now(), $4, $5, $6) \
             on conflict (id) do update set seen_at = now(), running = excluded.running, slots = excluded.slots",
        )
        .bind(&worker.id.0)
        .bind(&worker.host)
        .bind(At(worker.started_at))
        .bind(i64::from(worker.running))
        .bind(i64::from(worker.slots))
        .bind(&worker.version)
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from workers where seen_at < now() - $1 * interval '1 microsecond'")
            .bind(microseconds(ttl))
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn workers_once(&self) -> Result<Vec<WorkerRow>> {
        sqlx::query(
            "select id, host, started_at, running, slots, version from workers order by started_at, id",
        )
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| {
            Ok(WorkerRow {
                id: WorkerId(row.try_get(0)?),
                host: row.try_get(1)?,
                started_at: row.try_get::<At, _>(2)?.0,
                running: u32::try_from(row.try_get::<i64, _>(3)?).unwrap_or(u32::MAX),
                slots: u32::try_from(row.try_get::<i64, _>(4)?).unwrap_or(u32::MAX),
                version: row.try_get(5)?,
            })
        })
        .collect()
    }
}
