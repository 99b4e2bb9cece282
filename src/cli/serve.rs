//! `serve`, `migrate` and `config`: the commands that act on a configuration instead of a server.

use anyhow::Context;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{ConfigArgs, ConfigCommand, ServeArgs};
use crate::{
    app::{self, App},
    config::{self, Config, Inputs, Override},
};

/// Runs the service until SIGTERM or Ctrl-C.
pub async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let mut overrides = Vec::new();
    if args.insecure {
        overrides.push(Override {
            key: "server.insecure".to_owned(),
            value: "true".to_owned(),
            flag: "--insecure".to_owned(),
        });
    }
    let config = load(args.config, overrides)?;
    let _file_size = survive_file_size_limit()?;
    let listen = config.server.listen;
    let shutdown = shutdown_signal()?;
    let app = App::build(config).await?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen} (server.listen)"))?;
    app.serve(listener, shutdown).await
}

pub async fn migrate(args: ConfigArgs) -> anyhow::Result<()> {
    let config = load(args, Vec::new())?;
    app::migrate(&config.queue.url).await?;
    println!("the job store is up to date");
    Ok(())
}

pub fn config(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show(args) => print!("{}", load(args, Vec::new())?.show()),
        ConfigCommand::Check(args) => {
            load(args, Vec::new())?;
            println!("the configuration is right");
        }
    }
    Ok(())
}

fn load(args: ConfigArgs, overrides: Vec<Override>) -> anyhow::Result<Config> {
    Ok(config::load(Inputs::of_process(args.config, overrides))?)
}

/// Completes at the first SIGTERM or SIGINT.
pub(super) fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A file that outgrows `ulimit -f` kills the process by a signal unless somebody listens to it; the write then fails
/// with an error, which ends one export as STORAGE_FULL. Holds for as long as the value lives.
pub(super) fn survive_file_size_limit() -> anyhow::Result<Signal> {
    Ok(signal(SignalKind::from_raw(libc::SIGXFSZ))?)
}
