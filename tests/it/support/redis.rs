//! Redis for tests: an identity of its own in the shared one, or a server of its own, to be flushed, stopped and
//! killed.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

use super::{server_env, temp_dir, unique_name, wait_until};

const START: Duration = Duration::from_secs(30);
/// Somebody may take the port between finding and using it.
const TRIES: u32 = 5;

/// One Redis serves all tests: each is a queue of its own there, and so has keys of its own.
pub struct Database {
    pub url: String,
    pub queue: String,
}

pub fn database() -> Database {
    Database {
        url: server_env("ROWGATE_TEST_REDIS_URL"),
        queue: unique_name(),
    }
}

/// A server for one test. Killed with the value.
pub struct Server {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
}

impl Server {
    pub async fn start(options: &[&str]) -> Self {
        let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let mut folder = temp_dir();
        for _ in 0..TRIES {
            let port = free_port();
            let child = spawn(port, folder.path(), &options);
            let mut server = Self {
                child,
                port,
                folder,
                options,
            };
            if server.listens().await {
                return server;
            }
            (folder, options) = (server.folder, server.options);
        }
        panic!("no Redis starts: {options:?}");
    }

    /// As it was started, or with other options.
    pub async fn start_again(&mut self, options: &[&str]) {
        self.options
            .extend(options.iter().map(|option| (*option).to_owned()));
        self.kill().await;
        self.child = spawn(self.port, self.folder.path(), &self.options);
        assert!(self.listens().await, "Redis starts again on its port");
    }

    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// `STOP` or `CONT`.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .await;
        assert!(told.unwrap().success());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        connect(&self.url()).await
    }

    /// Runs words as redis-cli would.
    pub async fn tell<T: redis::FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command
            .query_async(&mut self.connect().await)
            .await
            .unwrap()
    }

    /// `false` when it ended instead.
    async fn listens(&mut self) -> bool {
        let port = self.port;
        let child = &mut self.child;
        let ended = async { child.wait().await.is_ok() };
        let listening = wait_until(START, "Redis listens", || async move {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
        });
        tokio::select! {
            biased;
            _ = ended => false,
            _ = listening => true,
        }
    }
}

pub async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    wait_until(START, "Redis answers", || async {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let pong: Result<String, _> = redis::cmd("PING").query_async(&mut connection).await;
        pong.ok().map(|_| connection)
    })
    .await
}

fn spawn(port: u16, folder: &Path, options: &Vec<String>) -> Child {
    let program = program();
    // The death signal ends it even when the test is killed hard.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server starts")
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|program| program.exists())
        .expect("redis-server is installed: run `make test`")
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
