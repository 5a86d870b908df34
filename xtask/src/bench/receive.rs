//! `cargo xtask bench receive`: a blob from a serving process into files, by hawkerd's client and store against
//! plain tokio, with each digest.
//!
//! Invariant: source and receiver have a CPU each; every way takes its turn in every round.

use super::servers::{Kind, Server};
use super::stand::{Network, Stand, version};
use crate::command::{LONG, check};
use crate::setup::{self, Ability};
use crate::{interrupt, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use hawker_api::units::ByteSize;
use hawker_bench::engine::{Target, Verdict};
use hawker_bench::receive_report::{Conditions, ReceiveReport, Received, Row};
use hawker_bench::{Machine, median};
use std::process::ExitCode;

/// Ways and digests as `bench-receive` knows them; the product first, then its rivals.
const WAYS: [&str; 3] = ["product", "plain", "naive"];
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
        machine: Machine::here(),
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
        verdicts: Vec::new(),
    };
    println!("\n{:>9}{:>9}{:>9}{:>9}   by plain: wall, CPU", "digest", "way", "GB/s", "s/GB");
    for (digest, target) in DIGESTS {
        let rows = digest_rows(&stand, &source, options, digest, rounds)?;
        report.verdicts.extend(judge(&rows, digest, target));
        report.rows.extend(rows);
    }
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
            let received = receive(stand, source, options, (&row.way, digest), round == 0)?;
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
    let [product, plain, naive] = rows else { return Vec::new() };
    let wall = |rival: &Row| {
        let rounds = product.runs.iter().zip(&rival.runs);
        median(&rounds.map(|(ours, theirs)| ours.gb_per_second / theirs.gb_per_second).collect::<Vec<_>>())
    };
    vec![
        Verdict::new(format!("{digest}: wall by plain tokio"), "product", wall(plain), target),
        Verdict::new(format!("{digest}: wall by naive tokio"), "product", wall(naive), Target::None),
    ]
}

fn receive(
    stand: &Stand,
    source: &Server,
    options: &Options,
    (way, digest): (&str, &str),
    compare: bool,
) -> Result<Received> {
    interrupt::check()?;
    let into = tempfile::Builder::new().prefix("into-").tempdir_in(&stand.dir)?;
    let mut command = stand.client(Network::Lo, &stand.programs.receive);
    command.args(["--way", way, "--digest", digest]);
    command.args(["--server", &format!("{}:{}", Network::Lo.server(), source.port)]);
    command.args(["--task", stand.warm.task(), "--size", &stand.warm.bytes.to_string()]);
    command.args(["--connections", &options.connections.to_string()]);
    command.arg("--dir").arg(into.path());
    if options.overwrite {
        command.arg("--overwrite");
    }
    if compare {
        command.arg("--compare").arg(&stand.warm.data);
    }
    let finished = check(&mut command, LONG).with_context(|| format!("receive {way} with {digest}"))?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("read figures of {}", finished.stdout))
}
