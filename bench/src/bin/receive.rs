//! `bench-receive`: fetches a blob one way, as a program of its own so that it can be given one CPU. Prints one
//! JSON document; no logic of its own.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use anyhow::{Context, Result};
use clap::Parser;
use hawker_api::task::TaskId;
use hawker_api::units::ByteSize;
use hawker_bench::receive::{self, DigestKind, Job, Way};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A blob from a server into files.
#[derive(Parser)]
#[command(name = "bench-receive")]
struct Arguments {
    #[arg(long, value_enum)]
    way: Way,
    #[arg(long, value_enum)]
    digest: DigestKind,
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    task: TaskId,
    #[arg(long)]
    size: ByteSize,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Measure the second time into the same file, whose pages are there.
    #[arg(long)]
    overwrite: bool,
    /// Compare what was written with this file.
    #[arg(long)]
    compare: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let job = Job {
        server: arguments.server,
        task: arguments.task,
        size: arguments.size.0,
        dir: arguments.dir,
        connections: arguments.connections,
        digest: arguments.digest,
        overwrite: arguments.overwrite,
        compare: arguments.compare,
    };
    let received = receive::run(arguments.way, job).await?;
    println!("{}", serde_json::to_string(&received).context("write the figures")?);
    Ok(())
}
