//! `demo`: a tour of a real export through the real gRPC API, on sample data, in `./rowgate-demo`.
//!
//! Every step is a command that can be typed: the demo prints it, then runs it as main would.

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use anyhow::{Context, bail};
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Cli, Command, DemoArgs, serve};
use crate::{
    app::App,
    config::{self, Inputs},
    queue::{self, Guard, SqliteStore},
    source::sample,
    task,
};

const FOLDER: &str = "rowgate-demo";
const ROWS: u32 = 200_000;
/// Where a server that stays up is expected.
const SERVE_AT: &str = "127.0.0.1:50051";

/// Relative paths: the tour is started where the folder is to be.
const CONFIG: &str = r#"# Made by `rowgate demo`. Serve it again: rowgate serve --config rowgate-demo/rowgate.toml
[queue]
url = "sqlite://rowgate-demo/queue.db"

[storage]
url = "file://rowgate-demo/results"

[sources.shop]
url = "sqlite://rowgate-demo/shop.db"
allow_tables = ["orders"]
allow_sql = true

[sources.shop.definitions.paid_orders]
title = "Paid orders, with masked addresses"
sql = "select id, order_no, customer, email, amount, created_at from orders where is_paid and created_at >= :since order by id"
params = { since = { type = "timestamp", required = true, description = "first moment, UTC" } }
columns = [
  { name = "id" }, { name = "order_no", header = "Order" }, { name = "customer", header = "Customer", width = 24 },
  { name = "email", header = "E-mail", expression = "mask_email(email)", width = 24 },
  { name = "amount", header = "Amount" }, { name = "created_at", header = "Created" },
]
"#;

/// Runs the tour; with `--serve` stays up behind it.
pub async fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let address = if args.serve { SERVE_AT } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    prepare().await?;
    let config_path = Path::new(FOLDER).join("rowgate.toml");
    let config = config::load(Inputs {
        file: Some(config_path),
        env: Vec::new(),
        overrides: Vec::new(),
    })?;
    let _file_size = serve::survive_file_size_limit()?;
    let address = listener.local_addr()?.to_string();
    let app = App::build(config).await?;
    let stop = CancellationToken::new();
    let served = task::spawn(
        "demo.server",
        app.serve(listener, stop.clone().cancelled_owned()),
    );

    tour(&format!("http://{address}")).await?;
    println!("\nThe tour took {:.1} s.", started.elapsed().as_secs_f64());
    if args.serve {
        print_invitation(&address);
        println!("\nServing on {address} until Ctrl-C.");
        serve::shutdown_signal()?.await;
    } else {
        println!("To try it yourself, start it again with `rowgate demo --serve`, then:");
        print_invitation(SERVE_AT);
    }
    stop.cancel();
    served.await.context("the server's task")?
}

/// A fresh folder: what an earlier tour left is replaced.
async fn prepare() -> anyhow::Result<()> {
    let folder = Path::new(FOLDER);
    let is_ours = !folder.exists() || folder.join("rowgate.toml").exists();
    if !is_ours {
        bail!(
            "./{FOLDER} exists and was not made by the demo; move it away, or start the demo elsewhere"
        );
    }
    let _unused = match folder.exists() {
        true => Some(take_from_nobody(&folder.join("queue.db"))?),
        false => None,
    };
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context(format!("emptying ./{FOLDER}"));
        }
        _ => {}
    }
    std::fs::create_dir_all(folder).context(format!("making ./{FOLDER}"))?;
    std::fs::write(folder.join("rowgate.toml"), CONFIG)?;
    let started = Instant::now();
    task::spawn_thread("sample".to_owned(), || {
        sample::create_orders(&Path::new(FOLDER).join("shop.db"), ROWS)
    })?
    .await???;
    println!(
        "Made ./{FOLDER}/shop.db: {ROWS} orders, in {:.1} s.",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A server that runs on the folder would lose its queue and its results.
fn take_from_nobody(queue: &Path) -> anyhow::Result<Guard> {
    match SqliteStore::guard_of(queue) {
        Err(queue::Error::InUse(_)) => {
            bail!(
                "a server uses ./{FOLDER}, maybe another demo: stop it, or start this one elsewhere"
            )
        }
        taken => Ok(taken?),
    }
}

async fn tour(server: &str) -> anyhow::Result<()> {
    step("What may be exported?", server, &["sources"]).await?;
    step(
        "What would this export give? Nothing is left behind.",
        server,
        &[
            "submit",
            "--source",
            "shop",
            "--definition",
            "paid_orders",
            "--param",
            "since=2023-01-01 00:00:00",
            "--validate",
        ],
    )
    .await?;
    step(
        "All orders as a workbook, queued, watched, downloaded and verified.",
        server,
        &[
            "submit",
            "--source",
            "shop",
            "--table",
            "orders",
            "--execution",
            "queued",
            "--output",
            "rowgate-demo/orders.xlsx",
        ],
    )
    .await?;
    step(
        "Ten rows, live, as JSON lines; a filter and a computed column on the way.",
        server,
        &[
            "stream", "--source", "shop", "--sql",
            "select id, customer, email, amount from orders where status = 'paid' order by id limit 10",
            "--column", "id", "--column", "customer", "--column", "email=mask_email(email)",
            "--column", "with_tax=amount * 1.2",
        ],
    )
    .await?;
    step("What ran?", server, &["list"]).await?;
    let size_bytes = std::fs::metadata("rowgate-demo/orders.xlsx")?.len();
    println!(
        "\n./{FOLDER}/orders.xlsx is there ({:.1} MB): open it with Excel or LibreOffice.",
        size_bytes as f64 / 1e6
    );
    Ok(())
}

/// Prints a command as it would be typed, and runs it.
async fn step(title: &str, server: &str, words: &[&str]) -> anyhow::Result<()> {
    let typed: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    println!("\n# {title}\n$ rowgate {}", typed.join(" "));
    let cli = Cli::try_parse_from([&["rowgate", "--server", server], words].concat())?;
    let Command::Client(command) = cli.command else {
        bail!("{words:?} is no command of the client");
    };
    let mut out = Vec::new();
    let ended = super::run(server, *command, &mut out).await;
    io::stdout().write_all(&out)?;
    ended.map_err(|failure| anyhow::anyhow!("{failure}"))
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:".contains(c);
    if word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("\"{}\"", word.replace('"', "\\\""))
    }
}

fn print_invitation(address: &str) {
    println!(
        r#"
  grpcurl -plaintext {address} list
  grpcurl -plaintext {address} describe rowgate.v1.ExportService.SubmitExport
  grpcurl -plaintext -d '{{"spec":{{"source":"shop","table":{{"name":"orders"}},"format":{{"csv":{{}}}}}}}}' {address} rowgate.v1.ExportService/SubmitExport
  grpcurl -plaintext -d '{{"spec":{{"source":"shop","table":{{"name":"orders","limit":10}}}}}}' {address} rowgate.v1.ExportService/StreamRows"#
    );
}
