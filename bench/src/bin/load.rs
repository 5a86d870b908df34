//! `bench-load`: the load generator as a program, so that it can be given a namespace and a CPU of its
//! own. Prints one JSON document; no logic of its own.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hawker_api::units::ByteSize;
use hawker_bench::load::{self, Body, Crowd, Order, Plan, Stream};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

/// Seeds of the two streams: constant, so that every server is asked the same.
const MAIN_SEED: u64 = 1;
const SIDE_SEED: u64 = 2;
/// A verification of a whole blob takes no longer than this.
const VERIFY_LIMIT: Duration = Duration::from_secs(120);

/// Range requests on many connections, one outstanding on each.
#[derive(Parser)]
#[command(name = "bench-load")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures: throughput, latencies, CPU of the server.
    Run(Run),
    /// Asks a whole blob once and compares every byte with a file.
    Verify {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        file: PathBuf,
    },
    /// Opens connections and holds them until standard input ends.
    Hold {
        #[command(flatten)]
        common: Common,
        /// First range asked by everybody; 0: none.
        #[arg(long, default_value = "0")]
        asked: ByteSize,
        /// Ask and never read.
        #[arg(long)]
        stopped: bool,
    },
    /// Connects, asks, and aborts, over and over.
    Churn {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 10_000)]
        cycles: usize,
    },
}

#[derive(Args)]
struct Common {
    #[arg(long)]
    server: SocketAddrV4,
    /// First of our addresses.
    #[arg(long)]
    source: Ipv4Addr,
    /// How many addresses, counted up from the first.
    #[arg(long, default_value_t = 1)]
    sources: u32,
    #[arg(long)]
    path: String,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value = "4MiB")]
    piece: ByteSize,
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    #[arg(long)]
    congestion: Option<String>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    #[arg(long, default_value_t = 200)]
    warm_up_millis: u64,
    #[arg(long, default_value_t = 600)]
    window_millis: u64,
    #[arg(long, value_enum, default_value_t = BodyKind::Discard)]
    body: BodyKind,
    /// Processes whose CPU time is the server's.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<i32>,
    /// A second resource, asked by one connection beside the others, every piece once.
    #[arg(long)]
    side_path: Option<String>,
    #[arg(long, default_value = "1MiB")]
    side_piece: ByteSize,
    #[arg(long, default_value = "512MiB")]
    side_size: ByteSize,
}

#[derive(Clone, Copy, ValueEnum)]
enum BodyKind {
    Discard,
    Copy,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Task::Run(run) => measure(&run),
        Task::Verify { common, file } => verify(&common, &file),
        Task::Hold { common, asked, stopped } => {
            Ok(load::hold(&common.crowd(asked.0, !stopped), wait_for_end_of_input)?)
        }
        Task::Churn { common, cycles } => Ok(load::churn(&common.crowd(common.piece.0, false), cycles)?),
    }
}

fn measure(run: &Run) -> Result<()> {
    let side = run.side_path.as_ref().map(|path| Stream {
        path: path.clone(),
        connections: 1,
        piece_bytes: run.side_piece.0,
        blob_bytes: run.side_size.0,
        order: Order::Once,
        seed: SIDE_SEED,
    });
    let plan = Plan {
        side,
        body: match run.body {
            BodyKind::Discard => Body::Discard,
            BodyKind::Copy => Body::Copy,
        },
        warm_up: Duration::from_millis(run.warm_up_millis),
        window: Duration::from_millis(run.window_millis),
        watched: run.pids.clone(),
        ..run.common.plan(Order::Random)
    };
    print(&load::run(&plan)?)
}

fn verify(common: &Common, file: &PathBuf) -> Result<()> {
    let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let plan = Plan { body: Body::Compare(opened), window: VERIFY_LIMIT, ..common.plan(Order::Once) };
    let outcome = load::run(&plan)?;
    let expected = common.size.0 / common.piece.0 * common.piece.0;
    anyhow::ensure!(outcome.main.bytes == expected, "{} of {expected} bytes came", outcome.main.bytes);
    print(&outcome)
}

fn print(outcome: &load::Outcome) -> Result<()> {
    println!("{}", serde_json::to_string(outcome).context("write the figures")?);
    Ok(())
}

/// Tells that everybody is in, then waits for whoever started us.
fn wait_for_end_of_input() {
    println!("ready");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

impl Common {
    fn addresses(&self) -> Vec<Ipv4Addr> {
        let first = u32::from(self.source);
        (0..self.sources.max(1)).map(|number| Ipv4Addr::from(first + number)).collect()
    }

    fn plan(&self, order: Order) -> Plan {
        Plan {
            server: self.server,
            sources: self.addresses(),
            congestion: self.congestion.clone(),
            main: Stream {
                path: self.path.clone(),
                connections: self.connections,
                piece_bytes: self.piece.0,
                blob_bytes: self.size.0,
                order,
                seed: MAIN_SEED,
            },
            side: None,
            body: Body::Discard,
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
            watched: Vec::new(),
        }
    }

    fn crowd(&self, asked_bytes: u64, read: bool) -> Crowd {
        Crowd {
            server: self.server,
            sources: self.addresses(),
            path: self.path.clone(),
            connections: self.connections,
            asked_bytes,
            read,
        }
    }
}
