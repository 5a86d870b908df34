//! `cargo xtask bench receive`: a blob from a serving process into files, by hawkerd's client and store against
//! plain tokio, with each digest.
//!
//! Invariant: source and receiver have a CPU each; every way takes its turn in every round, into pages of memory that
//! were touched a moment before.

use super::servers::{Kind, Server};
use super::stand::{Network, Stand, version};
use super::streams;
use crate::command::{LONG, check};
use crate::setup::{self, Ability};
use crate::{interrupt, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use hawker_api::units::ByteSize;
use hawker_bench::engine::{Target, Verdict};
use hawker_bench::receive_report::{Conditions, ReceiveReport, Received, Row};
use hawker_bench::{Machine, median};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Ways and digests as `bench-receive` knows them; the product first, then its rivals, then the two parts of what a byte costs
/// at least.
const WAYS: [&str; 5] = ["product", "plain", "naive", "discard", "write"];
/// The ways whose file is the blob.
const WHOLE: usize = 3;
const DIGESTS: [(&str, Target); 4] = [
    ("none", Target::None),
    ("crc32c", Target::AtLeast(1.8)),
    ("blake3", Target::AtLeast(1.35)),
    ("sha256", Target::AtLeast(1.15)),
];
/// A blob that only exists because a stand has two; small, as nobody asks for it here.
const OTHER_BYTES: u64 = 4 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Two rounds; results go to the target directory.
    #[arg(long)]
    quick: bool,
    #[arg(long)]
    rounds: Option<usize>,
    /// Who serves.
    #[arg(long, value_enum, default_value_t = Kind::Nginx)]
    source: Kind,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// Into pages that are there already: receiving without what fresh pages of a file cost.
    #[arg(long)]
    overwrite: bool,
    #[arg(long, default_value = "reno")]
    congestion: String,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Ability::NoLab(why) = setup::run()? {
        bail!("the benchmark needs namespaces: {why}");
    }
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 5 }).max(1);
    let stand = Stand::build(&options.congestion, options.size.0, OTHER_BYTES)?;
    let source = Server::start(&stand, options.source)?;
    let hawkerd = stand.programs.hawkerd.to_string_lossy();
    let mut report = ReceiveReport {
        machine: Machine::watched(),
        conditions: Conditions {
            source: options.source.name().to_owned(),
            congestion: options.congestion.clone(),
            connections: options.connections,
            blob_bytes: options.size.0,
            overwrite: options.overwrite,
            rounds,
            versions: vec![version(&hawkerd, "--version")?, version("nginx", "-v")?],
        },
        rows: Vec::new(),
        streams: Vec::new(),
        verdicts: Vec::new(),
    };
    println!("\n{:>9}{:>9}{:>9}{:>9}   by plain: wall, CPU", "digest", "way", "GB/s", "s/GB");
    for (digest, target) in DIGESTS {
        let rows = digest_rows(&stand, &source, options, digest, rounds)?;
        report.verdicts.extend(judge(&rows, digest, target));
        report.rows.extend(rows);
    }
    drop(source);
    let (rows, verdicts) = streams::run(&stand, rounds)?;
    report.streams = rows;
    report.verdicts.extend(verdicts);
    report.machine.gaps.iter().for_each(|gaps| println!("{}", gaps.render()));
    for verdict in &report.verdicts {
        println!("{}", verdict.render());
    }
    let whole = !options.quick && !options.overwrite && options.rounds.is_none();
    let dir =
        if whole { workspace::root()?.join("bench/results") } else { workspace::target()?.join("bench") };
    report.write(&dir).with_context(|| format!("write results to {}", dir.display()))?;
    println!("written to {}: receive.json", dir.display());
    Ok(ExitCode::SUCCESS)
}

/// All ways with one digest, in turns.
fn digest_rows(
    stand: &Stand,
    source: &Server,
    options: &Options,
    digest: &str,
    rounds: usize,
) -> Result<Vec<Row>> {
    let row = |way: &str| Row { digest: digest.to_owned(), way: way.to_owned(), runs: Vec::new() };
    let mut rows: Vec<Row> = WAYS.into_iter().map(row).collect();
    for round in 0..rounds {
        for turn in 0..rows.len() {
            let number = (turn + round) % WAYS.len();
            let row = &mut rows[number];
            // Bytes are compared once a way and digest: it takes as long as receiving.
            let compare = round == 0 && number < WHOLE;
            let received = receive(stand, source, options, (&row.way, digest), compare)?;
            row.runs.push(received);
        }
    }
    let plain = (rows[1].gb_per_second(), rows[1].cpu_per_gb());
    for row in &rows {
        let (wall, cpu) = (row.gb_per_second(), row.cpu_per_gb());
        let ratios = format!("{:>9.2}{:>9.2}", wall / plain.0, cpu / plain.1);
        println!("{digest:>9}{:>9}{wall:>9.2}{cpu:>9.3}{ratios}", row.way);
    }
    Ok(rows)
}

fn judge(rows: &[Row], digest: &str, target: Target) -> Vec<Verdict> {
    let [product, plain, naive, discard, write] = rows else { return Vec::new() };
    let wall = |rival: &Row| {
        let rounds = product.runs.iter().zip(&rival.runs);
        median(&rounds.map(|(ours, theirs)| ours.gb_per_second / theirs.gb_per_second).collect::<Vec<_>>())
    };
    // On one core.
    let rounds = plain.runs.iter().zip(least(discard, write));
    let most = median(&rounds.map(|(plain, least)| plain.cpu_per_gb / least).collect::<Vec<_>>());
    vec![
        Verdict::new(format!("{digest}: wall by plain tokio"), "product", wall(plain), target),
        Verdict::new(
            format!("{digest}: the most there is to gain, by plain tokio"),
            "anybody",
            most,
            Target::None,
        ),
        Verdict::new(format!("{digest}: wall by naive tokio"), "product", wall(naive), Target::None),
    ]
}

/// CPU seconds per 10⁹ bytes with every cost but the least taken away, by round.
pub(super) fn least(discard: &Row, write: &Row) -> impl Iterator<Item = f64> {
    discard.runs.iter().zip(&write.runs).map(|(discard, write)| discard.cpu_per_gb + write.cpu_per_gb)
}

fn receive(
    stand: &Stand,
    source: &Server,
    options: &Options,
    (way, digest): (&str, &str),
    compare: bool,
) -> Result<Received> {
    let command = stand.client(Network::Lo, &stand.programs.receive);
    let server = (Network::Lo, source);
    one(stand, command, server, (way, digest), options.connections, |command| {
        if options.overwrite {
            command.arg("--overwrite");
        }
        if compare {
            command.arg("--compare").arg(&stand.warm.data);
        }
    })
}

/// Runs `bench-receive` once: `command` says where.
pub(super) fn one(
    stand: &Stand,
    mut command: Command,
    (network, source): (Network, &Server),
    (way, digest): (&str, &str),
    connections: usize,
    also: impl FnOnce(&mut Command),
) -> Result<Received> {
    interrupt::check()?;
    let into = tempfile::Builder::new().prefix("into-").tempdir_in(&stand.dir)?;
    touch_free_memory(into.path(), stand.warm.bytes)?;
    command.args(["--way", way, "--digest", digest]);
    command.args(["--server", &format!("{}:{}", network.server(), source.port)]);
    command.args(["--task", stand.warm.task(), "--size", &stand.warm.bytes.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    command.arg("--dir").arg(into.path());
    also(&mut command);
    let finished = check(&mut command, LONG).with_context(|| format!("receive {way} with {digest}"))?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("read figures of {}", finished.stdout))
}

/// A virtual machine gives its free memory back to its host, and the next one to use it waits for the host: up to 1 s
/// per GB, at random. So as much as is needed is used and freed right before.
fn touch_free_memory(dir: &Path, bytes: u64) -> Result<()> {
    let path = dir.join("touched");
    let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let chunk = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(chunk.len() as u64) {
        file.write_all(&chunk).context("touch memory")?;
    }
    std::fs::remove_file(&path).context("free the memory")
}
