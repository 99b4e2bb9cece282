//! A real Rowgate on a free port of this process: the whole service, its gRPC clients, its folder.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rowgate::{
    app::{self, App},
    config::{self, Inputs},
    rpc::pb::{
        admin_service_client::AdminServiceClient, export_service_client::ExportServiceClient,
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

use super::faulty::Faults;

/// A service that stops with the value.
pub struct Rowgate {
    pub address: String,
    pub exports: ExportServiceClient<Channel>,
    pub admin: AdminServiceClient<Channel>,
    pub folder: PathBuf,
    channel: Channel,
    _held: Option<tempfile::TempDir>,
    stop: CancellationToken,
    served: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Rowgate {
    /// `toml` is the configuration; `{folder}` in it stands for a folder of this service's own. Queue and results are
    /// there unless it says otherwise.
    pub async fn start(toml: &str) -> Self {
        Self::start_held(super::temp_dir(), toml).await
    }

    /// In a folder where something was put before.
    pub async fn start_held(held: tempfile::TempDir, toml: &str) -> Self {
        let mut rowgate = Self::start_in(held.path().to_owned(), toml).await;
        rowgate._held = Some(held);
        rowgate
    }

    /// In a folder that outlives it: for restarts.
    pub async fn start_in(folder: PathBuf, toml: &str) -> Self {
        Self::start_of(Self::config(&folder, toml), folder).await
    }

    /// With a configuration that the test has changed after it was read.
    pub async fn start_of(config: config::Config, folder: PathBuf) -> Self {
        let app = App::build(config).await.unwrap();
        Self::serve(app, folder).await
    }

    /// In a folder that outlives it, over a job store that fails on command.
    pub async fn start_faulty(folder: PathBuf, toml: &str) -> (Self, Arc<Faults>) {
        let config = Self::config(&folder, toml);
        let stores = app::open_queue(&config.queue.url, &config.lease.url)
            .await
            .unwrap();
        let (stores, faults) = Faults::over(stores);
        let app = App::over(stores, config).await.unwrap();
        (Self::serve(app, folder).await, faults)
    }

    async fn serve(app: App, folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        let stop = CancellationToken::new();
        let served = tokio::spawn(app.serve(listener, stop.clone().cancelled_owned()));
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            exports: ExportServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel.clone()),
            channel,
            address,
            folder,
            _held: None,
            stop,
            served: Some(served),
        }
    }

    /// As the operator's, but for the patience with estimates: how large an export is must not hang on how busy the
    /// machine is.
    pub fn config(folder: &std::path::Path, toml: &str) -> config::Config {
        let path = folder.join("rowgate.toml");
        std::fs::write(
            &path,
            toml.replace("{folder}", &folder.display().to_string()),
        )
        .unwrap();
        let env = [
            (
                "ROWGATE_QUEUE__URL",
                format!("sqlite://{}/queue.db", folder.display()),
            ),
            (
                "ROWGATE_STORAGE__URL",
                format!("file://{}/results", folder.display()),
            ),
        ];
        let text = std::fs::read_to_string(&path).unwrap();
        let is_set = |section: &str| text.contains(&format!("[{section}]\nurl"));
        let mut config = config::load(Inputs {
            file: Some(path.clone()),
            env: env
                .into_iter()
                .filter(|(name, _)| {
                    !is_set(if name.contains("QUEUE") {
                        "queue"
                    } else {
                        "storage"
                    })
                })
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            overrides: Vec::new(),
        })
        .unwrap();
        config.estimate_patience = Duration::from_secs(20);
        config
    }

    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        self.served.take().expect("it ends once").await.unwrap()
    }

    /// Drains and ends; the folder stays where it was given.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let served = self.served.take().expect("it is stopped once");
        drop(self);
        served.await.unwrap()
    }
}

impl Drop for Rowgate {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            served.abort();
        }
    }
}
