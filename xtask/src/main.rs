//! `cargo xtask`: the commands of this repository. Parses, dispatches, reports.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks on its terminal"
)]

mod alerts;
mod bench;
mod bench_get;
mod bench_pull;
mod binaries;
mod command;
mod console;
mod deb;
mod demo;
mod docs;
mod e2e;
mod ebpf;
mod go;
mod http;
mod image;
mod interrupt;
mod kube;
mod lab;
mod netns;
mod openid;
mod postgres;
mod seccomp;
mod setup;
mod shaper;
mod test;
mod tidy;
mod vmtest;
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
    /// Stock Debian kernels in emulated machines: the engine's, the shaper's and the cluster's tests on each.
    #[command(name = "vmtest")]
    VmTest(vmtest::Options),
    /// What the emulated machine runs, as its first process.
    #[command(name = "vm-init", hide = true)]
    VmInit,
    /// What that one starts.
    #[command(name = "vm-run", hide = true)]
    VmRun,
    /// Build the console, which the manager embeds, with Node.
    Console,
    /// OCI images of the programs, without a container engine.
    Image,
    /// Debian packages of the programs, with their units.
    Deb,
    /// Write the kustomize base from the Helm chart.
    Kustomize,
    /// Runs a program to which the kernel refuses `bpf(2)`.
    #[command(name = "without-bpf", hide = true)]
    WithoutBpf {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
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
        Task::VmTest(options) => vmtest::run(&options),
        Task::VmInit => vmtest::guest::init(),
        Task::VmRun => vmtest::guest::run(),
        Task::Console => console::run(),
        Task::Deb => deb::run(),
        Task::Image => image::run(),
        Task::Kustomize => kube::write_base(),
        Task::WithoutBpf { program } => seccomp::without_bpf(&program),
        Task::Tidy => tidy::run(),
        Task::Setup => setup::run().map(|_| ExitCode::SUCCESS),
    }
}
