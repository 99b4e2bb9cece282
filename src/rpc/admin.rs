//! `AdminService`: limits, pauses, workers. Before authentication exists every caller is an operator.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert,
    pb::{self, admin_service_server::AdminService},
    status::from_failure,
};
use crate::{queue::Paused, service::Service};

#[derive(Clone)]
pub struct AdminHandlers {
    service: Arc<Service>,
}

impl AdminHandlers {
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

#[tonic::async_trait]
impl AdminService for AdminHandlers {
    async fn get_limits(
        &self,
        _request: Request<pb::GetLimitsRequest>,
    ) -> Result<Response<pb::GetLimitsResponse>, Status> {
        let limits = convert::limits_to_proto(&self.service.limits());
        Ok(Response::new(pb::GetLimitsResponse {
            // Nothing adjusts limits by itself yet: what is set is what holds.
            effective: Some(limits.clone()),
            limits: Some(limits),
        }))
    }

    async fn set_limits(
        &self,
        request: Request<pb::SetLimitsRequest>,
    ) -> Result<Response<pb::SetLimitsResponse>, Status> {
        let change = convert::set_limits_from_proto(request.into_inner()).map_err(from_failure)?;
        let limits = self
            .service
            .set_limits(change)
            .await
            .map_err(from_failure)?;
        Ok(Response::new(pb::SetLimitsResponse {
            limits: Some(convert::limits_to_proto(&limits)),
        }))
    }

    async fn pause_queue(
        &self,
        request: Request<pb::PauseQueueRequest>,
    ) -> Result<Response<pb::PauseQueueResponse>, Status> {
        self.set_paused(request.into_inner().tenant, Paused::Yes)
            .await?;
        Ok(Response::new(pb::PauseQueueResponse {}))
    }

    async fn resume_queue(
        &self,
        request: Request<pb::ResumeQueueRequest>,
    ) -> Result<Response<pb::ResumeQueueResponse>, Status> {
        self.set_paused(request.into_inner().tenant, Paused::No)
            .await?;
        Ok(Response::new(pb::ResumeQueueResponse {}))
    }

    async fn list_workers(
        &self,
        _request: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersResponse>, Status> {
        let workers = self.service.workers().await.map_err(from_failure)?;
        Ok(Response::new(pb::ListWorkersResponse {
            workers: workers.iter().map(convert::worker_to_proto).collect(),
        }))
    }
}

impl AdminHandlers {
    async fn set_paused(&self, tenant: String, paused: Paused) -> Result<(), Status> {
        let tenant = convert::pause_tenant_from_proto(tenant).map_err(from_failure)?;
        self.service
            .set_paused(tenant.as_ref(), paused)
            .await
            .map_err(from_failure)
    }
}
