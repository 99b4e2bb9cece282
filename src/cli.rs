//! The command line: what can be typed, and the client's half of it.
//!
//! Owns the arguments of every command and the commands that talk to a server over gRPC. Refuses to know how a server
//! works: `serve`, `migrate`, `config` and `demo` are only parsed here, main runs them.
//!
//! Exit codes, for scripts:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the export FAILED or was CANCELLED |
//! | 2 | a bad command line, or a request that the server refuses as it is |
//! | 3 | no such export, source, definition or table |
//! | 4 | server or source unavailable, busy, or too slow: trying again may help |
//! | 5 | not permitted, or not authenticated |
//! | 6 | the export is not in the right state: not ready, too late, expired |
//! | 7 | a local file or the standard output failed |
//! | 8 | what arrived is incomplete or damaged |
//! | 9 | a defect of the server |
//! | 130 | interrupted; an export that was submitted goes on |

mod demo;
mod download;
mod failure;
mod fields;
mod json;
mod list;
mod progress;
mod serve;
mod spec;
mod stream;
mod submit;
mod table;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tonic::transport::{Channel, Endpoint};

use crate::rpc::pb::export_service_client::ExportServiceClient;

pub use failure::{Failure, INTERRUPTED};

/// Exports large query results: as files, and as streams of rows.
#[derive(Parser, Debug)]
#[command(name = "rowgate", version, arg_required_else_help = true)]
pub struct Cli {
    /// Server that client commands talk to
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub server: String,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the service
    Serve(ServeArgs),
    /// Bring the job store's schema up to date, and exit
    Migrate(ConfigArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make sample data and show an export through the API
    Demo(DemoArgs),
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Bind beyond loopback without authentication
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// Configuration file (TOML); ROWGATE_CONFIG names it, too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Print what is in force, secrets masked
    Show(ConfigArgs),
    /// Check file and environment, and exit
    Check(ConfigArgs),
}

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Stay up after the tour
    #[arg(long)]
    pub serve: bool,
}

#[derive(Subcommand, Debug)]
pub enum ClientCommand {
    /// Ask for an export
    Submit(submit::SubmitArgs),
    /// Tell the state of an export
    Status(list::StatusArgs),
    /// Follow an export to its end; exits 1 when it fails
    Watch(list::WatchArgs),
    /// Print rows: of a finished export without a format, or live
    Stream(stream::StreamArgs),
    /// Save the file of an export, verified by its checksums
    Download(download::DownloadArgs),
    /// Cancel an export
    Cancel(list::CancelArgs),
    /// List exports, newest first
    List(list::ListArgs),
    /// List sources, and what they offer
    Sources(list::SourcesArgs),
}

/// How tables are printed on the standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OutputFormat {
    Json,
    #[default]
    Table,
    Csv,
}

type Client = ExportServiceClient<Channel>;

/// Room beyond the 4 MiB that a server sends at most.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs any command, tells what went wrong on stderr, and returns the exit code. Not async: whoever polls a future
/// compiles all that it calls, and the binary would compile the crate a second time.
pub fn main(cli: Cli) -> u8 {
    keep_memory_flat();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rowgate: no runtime: {error}");
            return 1;
        }
    };
    let code = runtime.block_on(dispatch(cli));
    // What still blocks a thread must not keep the process.
    runtime.shutdown_background();
    code
}

/// Batches of one size come and go between threads, for hours. glibc's defaults (eight heaps for each core, a threshold
/// for mappings of their own that rises with what was freed) let the process grow by what lies between them:
/// `benches/memory` showed up to 1.25 times the peak at ten times the rows with them, and about 1.1 with these. Must
/// be called before the first thread starts.
fn keep_memory_flat() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE_BYTES: libc::c_int = 1 << 20;
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        // SAFETY: mallopt takes plain integers and may be called at any time; what it refuses it leaves as it was.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, cores.min(64) as libc::c_int);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
        }
    }
}

async fn dispatch(cli: Cli) -> u8 {
    let outcome = match cli.command {
        Command::Client(command) => {
            let ended = run(&cli.server, *command, &mut std::io::stdout()).await;
            return ended.map_or_else(|failure| report(&failure), |()| 0);
        }
        Command::Serve(args) => {
            log_to_stderr();
            serve::serve(args).await
        }
        Command::Demo(args) => demo::demo(args).await,
        Command::Migrate(args) => serve::migrate(args).await,
        Command::Config(command) => serve::config(command),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("rowgate: {error:#}");
            1
        }
    }
}

fn report(failure: &Failure) -> u8 {
    eprintln!("rowgate: {failure}");
    failure.exit_code()
}

/// Text for people; `RUST_LOG` is deliberately not read: the configuration is the one place for settings.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::INFO)
        .init();
}

/// Runs a client command to its end or to Ctrl-C; what it prints goes to `out`, progress to the terminal on stderr.
pub async fn run(
    server: &str,
    command: ClientCommand,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let work = async {
        let mut client = connect(server).await?;
        match command {
            ClientCommand::Submit(args) => submit::submit(&mut client, args, out).await,
            ClientCommand::Status(args) => list::status(&mut client, args, out).await,
            ClientCommand::Watch(args) => list::watch(&mut client, args, out).await,
            ClientCommand::Stream(args) => stream::stream(&mut client, args, out).await,
            ClientCommand::Download(args) => download::download(&mut client, args, out).await,
            ClientCommand::Cancel(args) => list::cancel(&mut client, args, out).await,
            ClientCommand::List(args) => list::list(&mut client, args, out).await,
            ClientCommand::Sources(args) => list::sources(&mut client, args, out).await,
        }
    };
    // Dropping the work in the middle is what an interrupt means: downloads keep their part file.
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}

async fn connect(server: &str) -> Result<Client, Failure> {
    let unusable = |why: String| Failure::Usage(format!("--server {server}: {why}"));
    if server.starts_with("https://") {
        return Err(unusable(
            "this version has no TLS; name an http:// address".to_owned(),
        ));
    }
    let channel = Endpoint::from_shared(server.to_owned())
        .map_err(|error| unusable(error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .connect()
        .await
        .map_err(|error| Failure::unreachable(server, &error))?;
    Ok(Client::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

#[cfg(test)]
mod tests;
