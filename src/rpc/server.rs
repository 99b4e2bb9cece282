//! The gRPC server: services, health, reflection, keep-alive and message limits.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::server::HealthReporter;
use tower::{layer::layer_fn, util::MapResponseLayer};

use super::{
    admin::AdminHandlers,
    deadline::InTime,
    export::ExportHandlers,
    pb::{admin_service_server::AdminServiceServer, export_service_server::ExportServiceServer},
    reflection,
    status::with_reason,
};
use crate::{service::Service, task};

/// HTTP/2 pings find half-open clients; they go only one hop, so streams have heartbeats besides.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(10);
/// A request is small: what is larger is OUT_OF_RANGE.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Why the server ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server: {0}")]
pub struct Error(String);

/// A server that runs in a task of its own.
pub struct Serving {
    health: HealthReporter,
    ended: JoinHandle<Result<(), Error>>,
}

/// Serves `service`, or no more than health, on `listener` until `stop` fires, then waits for open calls to end.
pub async fn serve(
    service: Option<Arc<Service>>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Serving {
    let (health, health_service) = tonic_health::server::health_reporter();
    let (reflection_v1, reflection_v1alpha) = reflection::services();
    let exports = service.clone().map(|service| {
        ExportServiceServer::new(ExportHandlers::new(service))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
    });
    let admin = service.map(|service| {
        AdminServiceServer::new(AdminHandlers::new(service))
            .max_decoding_message_size(REQUEST_BYTES_MAX)
    });
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
        .layer(layer_fn(InTime))
        .layer(MapResponseLayer::new(with_reason))
        .add_service(health_service)
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha)
        .add_optional_service(exports)
        .add_optional_service(admin);
    let incoming = incoming(listener);
    let ended = task::spawn("server", async move {
        router
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
            .map_err(|error| Error(error.to_string()))
    });
    let serving = Serving { health, ended };
    serving.set_health(Health::Serving).await;
    serving
}

/// A small answer does not wait for the acknowledgement of the one before it.
fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// What `grpc.health.v1` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    Serving,
    NotServing,
}

impl Serving {
    /// For both services, and for the server as a whole.
    pub async fn set_health(&self, health: Health) {
        let status = match health {
            Health::Serving => tonic_health::ServingStatus::Serving,
            Health::NotServing => tonic_health::ServingStatus::NotServing,
        };
        for name in ["", EXPORT_SERVICE, ADMIN_SERVICE] {
            self.health.set_service_status(name, status).await;
        }
    }

    /// Completes when the server has ended, for whatever reason.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match (&mut self.ended).await {
            Ok(outcome) => outcome,
            Err(panicked) => Err(Error(panicked.to_string())),
        }
    }

    /// Cuts open calls off.
    pub fn abort(&self) {
        self.ended.abort();
    }
}

const EXPORT_SERVICE: &str = "rowgate.v1.ExportService";
const ADMIN_SERVICE: &str = "rowgate.v1.AdminService";

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_send_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = incoming(listener);
        let (accepted, _client) = tokio::join!(incoming.next(), TcpStream::connect(address));
        assert!(accepted.unwrap().unwrap().nodelay().unwrap());
    }
}
