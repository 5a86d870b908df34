//! `cargo xtask bench engine`: hawkerd's serving engines, through its real peer port, against nginx with
//! sendfile and a naive tokio server.
//!
//! Invariant: a server that was asked for and cannot be measured is reported as an error, and the command
//! fails; no other one takes its place.

use super::grid;
use super::servers::{Kind, Server};
use super::stand::{Network, Stand, version};
use crate::setup::{self, Ability};
use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::Args;
use hawker_api::units::ByteSize;
use hawker_bench::Machine;
use hawker_bench::engine::{Conditions, EngineReport};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Size of the blob that is pushed out of the page cache: seconds of reading at the limit.
const COLD_BYTES: u64 = 512 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// A few cells of the grid, two rounds: minutes. Results go to the target directory.
    #[arg(long)]
    quick: bool,
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
        machine: Machine::here(),
        conditions: options.conditions(&stand)?,
        errors: BTreeMap::new(),
        cells: Vec::new(),
        scenarios: Vec::new(),
    };
    let servers = start(&stand, &options.engines(), &mut report)?;
    let grid = options.grid();
    report.cells = grid::measure(&stand, &servers, &grid)?;
    finish(&report, options)
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
    let whole = options.is_whole() && report.errors.is_empty();
    let dir =
        if whole { workspace::root()?.join("bench/results") } else { workspace::target()?.join("bench") };
    report.write(&dir).with_context(|| format!("write results to {}", dir.display()))?;
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

    /// Everything was measured, so that the figures may stand in the repository.
    fn is_whole(&self) -> bool {
        let narrowed = !(self.engines.is_empty()
            && self.networks.is_empty()
            && self.pieces.is_empty()
            && self.connections.is_empty());
        !(self.quick || narrowed || self.copy)
    }

    fn grid(&self) -> grid::Grid {
        let or = |given: &[ByteSize], usual: &[u64]| -> Vec<u64> {
            if given.is_empty() { usual.to_vec() } else { given.iter().map(|size| size.0).collect() }
        };
        let networks =
            if self.networks.is_empty() { vec![Network::Lo, Network::Veth] } else { self.networks.clone() };
        let (pieces, connections): (&[u64], &[usize]) = if self.quick {
            (&[64 << 10, 4 << 20], &[1, 16, 64])
        } else {
            (&[64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20], &[1, 4, 16, 64, 256])
        };
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
            versions: vec![version(&hawkerd, "--version")?, version("nginx", "-v")?],
            load_average: load_average(),
            blob_bytes: self.size.0,
            rounds: self.rounds(),
            window_millis: self.window_millis,
            copying_client: self.copy,
        })
    }
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}
