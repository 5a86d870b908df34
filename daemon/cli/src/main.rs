//! `hawker`: fetches files and images' parts through the node's daemon, and shows what it holds.
//!
//! No logic here: everything is in the library.

use clap::Parser;
use hawker_cli::Arguments;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "how a command says that it failed")]
fn main() -> ExitCode {
    match hawker_cli::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hawker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
