//! `bench-control`: load on manager and scheduler, as a program of its own. Prints one JSON document; no logic of its own.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use anyhow::{Context, Result};
use clap::Parser;
use hawker_bench::control::{self, HostsPlan, ReadsPlan};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Parser)]
#[command(name = "bench-control")]
enum Load {
    /// Hosts that register, and report each second until SIGTERM.
    Hosts {
        #[arg(long)]
        manager: String,
        #[arg(long)]
        scheduler: String,
        #[arg(long, default_value_t = 1)]
        cluster: u64,
        #[arg(long)]
        first: u32,
        #[arg(long)]
        count: u32,
        #[arg(long, default_value_t = 500)]
        ramp: u32,
    },
    /// People who read by REST.
    Reads {
        #[arg(long)]
        rest: String,
        #[arg(long)]
        token_file: PathBuf,
        #[arg(long)]
        seconds: u64,
        #[arg(long, default_value_t = 4)]
        readers: usize,
        paths: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let text = match Load::parse() {
        Load::Hosts { manager, scheduler, cluster, first, count, ramp } => {
            let (stop, stopped) = watch::channel(false);
            let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
            let plan = HostsPlan { manager, scheduler, scheduler_cluster_id: cluster, first, count, ramp };
            let ending = async move {
                terminate.recv().await;
                stop.send_replace(true);
            };
            let (outcome, ()) = tokio::join!(control::hosts(plan, stopped), ending);
            serde_json::to_string(&outcome?)
        }
        Load::Reads { rest, token_file, seconds, readers, paths } => {
            let token = std::fs::read_to_string(&token_file).context("read the token")?.trim().to_owned();
            let window = Duration::from_secs(seconds);
            let plan = ReadsPlan { rest, token, readers, paths, window };
            serde_json::to_string(&control::reads(plan).await?)
        }
    };
    println!("{}", text.context("write the figures")?);
    Ok(())
}
