//! Parses the command line and dispatches.

use std::process::ExitCode;

use clap::Parser;
use rowgate::cli::{self, Cli};

fn main() -> ExitCode {
    ExitCode::from(cli::main(Cli::parse()))
}
