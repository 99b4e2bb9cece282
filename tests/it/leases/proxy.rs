//! A TCP proxy before Redis that loses what a network loses.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Pass,
    /// Commands arrive; their answers don't, and the connection breaks.
    LoseAnswers,
    /// Nothing passes, and nobody is told.
    Partition,
}

pub struct Proxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, port, modes.clone()));
            }
        });
        Self { address, mode }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

/// Until either side ends, or the proxy is gone.
async fn serve(client: TcpStream, port: u16, modes: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let commands = pump(from_client, to_server, modes.clone(), false);
    let answers = pump(from_server, to_client, modes.clone(), true);
    let mut gone = modes;
    tokio::select! {
        () = commands => {}
        () = answers => {}
        () = async { while gone.changed().await.is_ok() {} } => {}
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
    is_answers: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // What is held back in a partition is delivered after it, as TCP does.
        let passes = modes.wait_for(|mode| *mode != Mode::Partition).await;
        let Ok(mode) = passes.map(|mode| *mode) else {
            return;
        };
        if mode == Mode::LoseAnswers && is_answers {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Longer than a command may take in the tests that time out.
pub const STALL: Duration = Duration::from_millis(400);
