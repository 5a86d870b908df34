//! `cargo xtask`: the commands of this repository. Parses, dispatches, reports.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks on its terminal"
)]

mod bench;
mod bench_pull;
mod binaries;
mod command;
mod demo;
mod e2e;
mod ebpf;
mod http;
mod interrupt;
mod lab;
mod netns;
mod setup;
mod shaper;
mod test;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The commands of this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Set everything up and show the main job: two clusters, four nodes, one registry.
    Demo {
        /// Exit when the table is printed, with 0 only if everything held.
        #[arg(long)]
        once: bool,
    },
    /// Set everything up and run every test.
    Test {
        /// Only the end-to-end cases whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Nodes in network namespaces, with real containerd and a real registry.
    Lab {
        #[command(subcommand)]
        action: lab::cli::Action,
    },
    /// Measure against a rival in the same run.
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Build the eBPF object from source and put it where the daemon embeds it from.
    BuildEbpf,
    /// House rules that can be counted.
    Tidy,
    /// Install what is missing and can be installed.
    Setup,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    interrupt::install()?;
    match task {
        Task::Demo { once } => demo::run(once),
        Task::Test { only } => test::run(only.as_deref()),
        Task::Lab { action } => lab::cli::run(action),
        Task::Bench { bench } => bench::run(bench),
        Task::BuildEbpf => ebpf::run(),
        Task::Tidy => tidy::run(),
        Task::Setup => setup::run().map(|_| ExitCode::SUCCESS),
    }
}
