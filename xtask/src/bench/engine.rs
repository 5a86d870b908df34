//! `cargo xtask bench engine`: hawkerd's serving engines, through its real peer port, against nginx with
//! sendfile and a naive tokio server.
//!
//! Invariant: a server that was asked for and cannot be measured is reported as an error, and the command
//! fails; no other one takes its place.

use super::grid;
use super::scenarios::{self, Scenario};
use super::servers::{Kind, Server};
use super::stand::{Network, Stand, version};
use crate::setup::{self, Ability};
use crate::{interrupt, workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use hawker_api::units::ByteSize;
use hawker_bench::Machine;
use hawker_bench::engine::{Conditions, EngineReport, Noise};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Size of the blob that is pushed out of the page cache: seconds of reading at the limit.
const COLD_BYTES: u64 = 512 << 20;

const NETWORKS: [Network; 2] = [Network::Lo, Network::Veth];
const PIECES: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
const CONNECTIONS: [usize; 5] = [1, 4, 16, 64, 256];

#[derive(Args)]
pub(crate) struct Options {
    /// A few cells of the grid, two rounds: minutes. Results go to the target directory.
    #[arg(long)]
    quick: bool,
    /// What to show; the quick run's usual is the grid alone.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// What to measure beside nginx, which is always there.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Kind>,
    #[arg(long, value_delimiter = ',')]
    networks: Vec<Network>,
    #[arg(long, value_delimiter = ',')]
    pieces: Vec<ByteSize>,
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    #[arg(long)]
    rounds: Option<usize>,
    #[arg(long, default_value_t = 600)]
    window_millis: u64,
    /// The client copies bodies into a buffer instead of dropping them in the kernel.
    #[arg(long)]
    copy: bool,
    /// Keeps what earlier runs of the same hawkerd left in the target directory: parts of the grid, one after the other,
    /// become a whole.
    #[arg(long)]
    add: bool,
    /// Of both sides; a namespace may not be allowed to have each that the host knows.
    #[arg(long, default_value = "reno")]
    congestion: String,
    /// The blob that is served.
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Ability::NoLab(why) = setup::run()? {
        bail!("the benchmark needs namespaces: {why}");
    }
    let stand = Stand::build(&options.congestion, options.size.0, COLD_BYTES)?;
    let mut report = EngineReport {
        machine: Machine::watched(),
        conditions: options.conditions(&stand)?,
        errors: BTreeMap::new(),
        cells: Vec::new(),
        scenarios: Vec::new(),
        scenarios_run: Vec::new(),
    };
    let chosen = options.scenarios();
    if chosen.contains(&Scenario::Grid) {
        let servers = start(&stand, &options.engines(), &mut report)?;
        report.cells = grid::measure(&stand, &servers, &options.grid())?;
    }
    for scenario in chosen.into_iter().filter(|scenario| *scenario != Scenario::Grid) {
        println!("\n{scenario:?}, on lo with {}", stand.congestion);
        disturb(&stand, scenario, &options.engines(), &mut report);
    }
    interrupt::check()?;
    let parts = workspace::target()?.join("bench");
    let earlier = EngineReport::read(&parts).filter(|earlier| {
        (&earlier.conditions.program, earlier.conditions.rounds)
            == (&report.conditions.program, report.conditions.rounds)
    });
    if let Some(earlier) = earlier.filter(|_| options.add) {
        report.complete_from(earlier);
    }
    finish(&report, options)
}

/// A scenario on every kind of server but the naive one, of which nothing is expected.
fn disturb(stand: &Stand, scenario: Scenario, kinds: &[Kind], report: &mut EngineReport) {
    let errors = report.errors.len();
    let others = kinds.iter().filter(|kind| !matches!(kind, Kind::Nginx | Kind::Naive));
    for kind in std::iter::once(&Kind::Nginx).chain(others) {
        match scenarios::run(stand, scenario, *kind) {
            Ok(verdicts) => report.scenarios.extend(verdicts),
            Err(error) => {
                println!("ERROR {}: {error:#}", kind.name());
                report.errors.insert(kind.name().to_owned(), format!("{error:#}"));
            }
        }
    }
    if report.errors.len() == errors {
        report.scenarios_run.push(format!("{scenario:?}"));
    }
}

/// nginx first: without it nothing can be compared. What else does not start is noted.
fn start(stand: &Stand, kinds: &[Kind], report: &mut EngineReport) -> Result<Vec<Server>> {
    let mut servers = vec![Server::start(stand, Kind::Nginx)?];
    for kind in kinds.iter().filter(|kind| **kind != Kind::Nginx) {
        match Server::start(stand, *kind) {
            Ok(server) => servers.push(server),
            Err(error) => {
                println!("ERROR {}: {error:#}", kind.name());
                report.errors.insert(kind.name().to_owned(), format!("{error:#}"));
            }
        }
    }
    Ok(servers)
}

fn finish(report: &EngineReport, options: &Options) -> Result<ExitCode> {
    let whole = options.is_whole(report) && report.errors.is_empty();
    let dir =
        if whole { workspace::root()?.join("bench/results") } else { workspace::target()?.join("bench") };
    report.write(&dir).with_context(|| format!("write results to {}", dir.display()))?;
    report.machine.gaps.iter().for_each(|gaps| println!("{}", gaps.render()));
    if let Some(noise) = Noise::of(&report.cells) {
        println!("{}", noise.render());
    }
    let missed = grid::verdicts(report).filter(|verdict| !verdict.met).count();
    let missed = missed + report.scenarios.iter().filter(|verdict| !verdict.met).count();
    println!("written to {}: engine.json, engine.svg; targets not met: {missed}", dir.display());
    for (name, error) in &report.errors {
        println!("ERROR {name}: {error}");
    }
    Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn engines(&self) -> Vec<Kind> {
        if self.engines.is_empty() { Kind::ALL.to_vec() } else { self.engines.clone() }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        match (self.scenarios.is_empty(), self.quick) {
            (false, _) => self.scenarios.clone(),
            (true, true) => vec![Scenario::Grid],
            (true, false) => Scenario::ALL.to_vec(),
        }
    }

    /// Everything was measured, so that the figures may stand in the repository.
    fn is_whole(&self, report: &EngineReport) -> bool {
        let cells = NETWORKS.len() * PIECES.len() * CONNECTIONS.len();
        let all = report.cells.iter().filter(|cell| cell.engines.len() == Kind::ALL.len() - 1).count();
        let scenarios = Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Grid);
        let mut run = scenarios.map(|scenario| format!("{scenario:?}"));
        all == cells && run.all(|name| report.scenarios_run.contains(&name)) && !(self.quick || self.copy)
    }

    fn grid(&self) -> grid::Grid {
        let or = |given: &[ByteSize], usual: &[u64]| -> Vec<u64> {
            if given.is_empty() { usual.to_vec() } else { given.iter().map(|size| size.0).collect() }
        };
        let networks = if self.networks.is_empty() { NETWORKS.to_vec() } else { self.networks.clone() };
        let (pieces, connections): (&[u64], &[usize]) =
            if self.quick { (&[64 << 10, 4 << 20], &[1, 16, 64]) } else { (&PIECES, &CONNECTIONS) };
        let connections =
            if self.connections.is_empty() { connections.to_vec() } else { self.connections.clone() };
        grid::Grid {
            networks,
            pieces: or(&self.pieces, pieces),
            connections,
            rounds: self.rounds(),
            window_millis: self.window_millis,
            copy: self.copy,
        }
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 3 }).max(1)
    }

    fn conditions(&self, stand: &Stand) -> Result<Conditions> {
        let hawkerd = stand.programs.hawkerd.to_string_lossy();
        Ok(Conditions {
            congestion: self.congestion.clone(),
            pinning: stand.cage.pinning().to_owned(),
            program: digest(&stand.programs.hawkerd)?,
            versions: vec![version(&hawkerd, "--version")?, version("nginx", "-v")?],
            load_average: load_average(),
            blob_bytes: self.size.0,
            rounds: self.rounds(),
            window_millis: self.window_millis,
            copying_client: self.copy,
        })
    }
}

fn digest(program: &Path) -> Result<String> {
    let bytes = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
    Ok(format!("{:x}", sha2::Sha256::digest(&bytes)))
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}
