//! Parses the command line, loads the configuration, dispatches.

use std::process::ExitCode;

use clap::Parser;
use rowgate::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rowgate: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::main(cli));
    // What still blocks a thread must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}
