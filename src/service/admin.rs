//! Limits, pauses and workers: what operators see and set while the service runs.

use std::sync::{Arc, PoisonError, RwLock};

use crate::{
    export::{Caps, Failure, LimitOverrides, Limits, TenantId},
    pipeline::Sizes,
    queue::{self, ControlStore, LimitChange, Paused, WorkerRow},
    run::Slots,
};

use super::{Service, store_failure};

/// The configuration's limits under what `SetLimits` stored, applied to the running parts whenever they change.
pub struct LiveLimits {
    configured: Limits,
    effective: RwLock<Limits>,
    sizes: Arc<Sizes>,
    slots: Arc<Slots>,
    /// Changes are applied one after the other, in the order in which they were stored.
    applying: tokio::sync::Mutex<()>,
}

impl LiveLimits {
    pub fn new(configured: Limits, sizes: Arc<Sizes>, slots: Arc<Slots>) -> Self {
        Self {
            effective: RwLock::new(configured.clone()),
            configured,
            sizes,
            slots,
            applying: tokio::sync::Mutex::new(()),
        }
    }

    /// # Errors
    /// The job store's.
    pub async fn load(&self, control: &dyn ControlStore) -> Result<(), queue::Error> {
        let _turn = self.applying.lock().await;
        let overrides = control.limits().await?;
        self.apply(&overrides);
        Ok(())
    }

    pub fn effective(&self) -> Limits {
        self.effective
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn caps(&self) -> Caps {
        self.effective
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .caps()
    }

    fn apply(&self, overrides: &LimitOverrides) {
        let limits = self.configured.overridden(overrides);
        self.sizes.apply(&limits);
        self.slots.resize(&limits);
        *self
            .effective
            .write()
            .unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

impl Service {
    pub fn limits(&self) -> Limits {
        self.limits.effective()
    }

    pub async fn set_limits(self: &Arc<Self>, change: LimitChange) -> Result<Limits, Failure> {
        let service = self.clone();
        let setting = async move { service.store_and_apply(&change).await };
        self.to_its_end("service.limits", setting).await
    }

    /// What is stored is in force, too.
    async fn store_and_apply(&self, change: &LimitChange) -> Result<Limits, Failure> {
        let overrides = self
            .control
            .update_limits(change)
            .await
            .map_err(store_failure)?;
        // What is stored by now, which may be a later change than this one.
        self.limits
            .load(self.control.as_ref())
            .await
            .map_err(store_failure)?;
        tracing::info!(?overrides, "limits were set");
        self.runner.news.limits();
        // More slots may let waiting jobs start.
        self.control.announce_work().await;
        Ok(self.limits.effective())
    }

    pub async fn set_paused(
        &self,
        tenant: Option<&TenantId>,
        paused: Paused,
    ) -> Result<(), Failure> {
        self.control
            .set_paused(tenant, paused)
            .await
            .map_err(store_failure)?;
        tracing::info!(
            tenant = tenant.map(ToString::to_string),
            ?paused,
            "the queue"
        );
        if paused == Paused::No {
            self.control.announce_work().await;
        }
        Ok(())
    }

    pub async fn workers(&self) -> Result<Vec<WorkerRow>, Failure> {
        self.control.workers().await.map_err(store_failure)
    }
}
