//! The real server as a process of its own: to be killed, told to end, refused, or held to `ulimit -f`.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rowgate::rpc::pb::{
    admin_service_client::AdminServiceClient, export_service_client::ExportServiceClient,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tonic::transport::Channel;

use super::wait_until;

const START: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_rowgate");

/// Killed with the value.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    pub channel: Channel,
    pub exports: ExportServiceClient<Channel>,
    pub admin: AdminServiceClient<Channel>,
}

impl Process {
    /// `toml` as in `Rowgate::start_in`; the port is free and its own.
    pub async fn start(folder: &Path, toml: &str) -> Self {
        Self::run(Command::new(PROGRAM), folder, toml).await
    }

    /// As soon as the queue is free of a process that was killed: the kernel, or the server of the queue, gives the lock
    /// back when it notices.
    pub async fn start_after_another(folder: &Path, toml: &str) -> Self {
        wait_until(START, "the queue is free", || async {
            Self::try_run(Command::new(PROGRAM), folder, toml).await
        })
        .await
    }

    /// With no file larger than `file_kib`, until [`Process::lift_limit`].
    pub async fn start_limited(folder: &Path, toml: &str, file_kib: u64) -> Self {
        let mut shell = Command::new("bash");
        shell.args([
            "-c",
            &format!("ulimit -S -f {file_kib} && exec \"$0\" \"$@\""),
            PROGRAM,
        ]);
        Self::run(shell, folder, toml).await
    }

    async fn run(command: Command, folder: &Path, toml: &str) -> Self {
        let started = Self::try_run(command, folder, toml).await;
        started.expect("the queue is free")
    }

    /// `None` when it refused, because another process has the queue.
    async fn try_run(command: Command, folder: &Path, toml: &str) -> Option<Self> {
        let (child, log) = spawn(command, folder, toml);
        let child = Mutex::new(child);
        let said = || async {
            let ended = child.lock().unwrap().try_wait().unwrap();
            let log = log.lock().unwrap().clone();
            if let Some((_, rest)) = log.split_once("rowgate serves address=")
                && let Some((address, _)) = rest.split_once('\n')
            {
                return Some(Ok(address.to_owned()));
            }
            // The pipe may hold its last line for a moment longer.
            ended
                .filter(|_| log.contains("rowgate: "))
                .map(|_| Err(log))
        };
        let address = match wait_until(START, "the line that says where it serves", said).await {
            Ok(address) => address,
            Err(log) if log.contains("lease.url") => return None,
            Err(log) => panic!("it does not start:\n{log}"),
        };
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Some(Self {
            child: child.into_inner().unwrap(),
            log,
            exports: ExportServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel.clone()),
            channel,
        })
    }

    /// As `kill -9` does it: the process ends without a word.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn terminate(&self) {
        let id = self.child.id().expect("it runs").to_string();
        let told = std::process::Command::new("kill")
            .args(["-TERM", &id])
            .status();
        assert!(told.unwrap().success());
    }

    /// As when a full disk has room again.
    pub fn lift_limit(&self) {
        let id = self.child.id().expect("it runs").to_string();
        let lifted = std::process::Command::new("prlimit")
            .args(["--pid", &id, "--fsize=unlimited:"])
            .status();
        assert!(lifted.unwrap().success());
    }

    pub async fn ended(&mut self, patience: Duration) -> ExitStatus {
        tokio::time::timeout(patience, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it still runs after {patience:?}:\n{}", self.log()))
            .unwrap()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

/// Starts a server that is expected to refuse; its exit status and what it said.
pub async fn refused(folder: &Path, toml: &str) -> (ExitStatus, String) {
    let (mut child, log) = spawn(Command::new(PROGRAM), folder, toml);
    let status = tokio::time::timeout(START, child.wait())
        .await
        .unwrap_or_else(|_| panic!("it did not refuse:\n{}", log.lock().unwrap()))
        .unwrap();
    // The pipe may still hold the last line.
    let said = wait_until(START, "a word about why", || async {
        let log = log.lock().unwrap().clone();
        log.contains("rowgate: ").then_some(log)
    })
    .await;
    (status, said)
}

fn spawn(mut command: Command, folder: &Path, toml: &str) -> (Child, Arc<Mutex<String>>) {
    let folder = folder.display().to_string();
    let toml = toml.replace("{folder}", &folder);
    let file = format!("{folder}/rowgate-{}.toml", uuid::Uuid::new_v4().simple());
    std::fs::write(&file, &toml).unwrap();
    command
        .args(["serve", "--config", &file])
        .env("ROWGATE_SERVER__LISTEN", "127.0.0.1:0")
        .env("ROWGATE_STORAGE__URL", format!("file://{folder}/results"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if !toml.contains("[queue]\nurl") {
        command.env("ROWGATE_QUEUE__URL", format!("sqlite://{folder}/queue.db"));
    }
    let mut child = command.spawn().unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let into = log.clone();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = into.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    (child, log)
}
