//! The grid: every network, piece size and number of connections, every server in turn, nginx between all.
//!
//! Invariant: each measurement has one of nginx right before it and one right after it.

use super::load::{self, Load};
use super::servers::{Kind, Server};
use super::stand::{Network, Stand};
use crate::interrupt;
use anyhow::{Context, Result};
use hawker_api::units::ByteSize;
use hawker_bench::engine::{Cell, EngineReport, NAIVE, NGINX, Run, Sample, Verdict};
use std::collections::BTreeMap;

pub(crate) struct Grid {
    pub(crate) networks: Vec<Network>,
    pub(crate) pieces: Vec<u64>,
    pub(crate) connections: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) window_millis: u64,
    pub(crate) copy: bool,
}

/// Before every window, beside what the connections ask first.
const WARM_UP_MILLIS: u64 = 200;
/// A speed that every server but the naive one exceeds, bytes a millisecond.
const SLOW: u64 = 5_000_000;
/// Answers that each connection gets in a window, at least.
const ANSWERS: u64 = 2;

/// Milliseconds in which every connection gets a few whole answers, at least `usual`: 256 x 16 MiB are 4 GiB.
fn window(piece: u64, connections: usize, usual: u64) -> u64 {
    (ANSWERS * piece * connections as u64 / SLOW).max(usual)
}

/// Measures all cells; `servers` begins with nginx.
pub(crate) fn measure(stand: &Stand, servers: &[Server], grid: &Grid) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for network in &grid.networks {
        println!("\n{} with {}, ratios to nginx; * misses its target", network.name(), stand.congestion);
        println!("{}", heading());
        for piece in &grid.pieces {
            for connections in &grid.connections {
                let load = Load {
                    connections: *connections,
                    piece: *piece,
                    warm_up_millis: window(*piece, *connections, 0) / 2 + WARM_UP_MILLIS,
                    window_millis: window(*piece, *connections, grid.window_millis),
                    copy: grid.copy,
                    ..Load::default()
                };
                let cell = cell(stand, servers, *network, &load, grid.rounds)?;
                print!("{}", render(&cell, grid.copy));
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

fn cell(stand: &Stand, servers: &[Server], network: Network, load: &Load, rounds: usize) -> Result<Cell> {
    let (nginx, others) = servers.split_first().context("no server")?;
    let run = |server: &Server| -> Result<Sample> {
        interrupt::check()?;
        Ok(Sample::from(&load::measure(stand, network, server, load)?))
    };
    let mut cell = Cell {
        network: network.name().to_owned(),
        piece_bytes: load.piece,
        connections: load.connections,
        window_millis: load.window_millis,
        nginx: vec![run(nginx)?],
        engines: BTreeMap::new(),
    };
    for round in 0..rounds {
        for turn in 0..others.len() {
            // Who comes first changes with the rounds.
            let server = &others[(turn + round) % others.len()];
            let before = *cell.nginx.last().context("nginx was measured first")?;
            let sample = run(server)?;
            let after = run(nginx)?;
            cell.nginx.push(after);
            let runs = cell.engines.entry(server.kind.name().to_owned()).or_default();
            runs.push(Run::between(before, sample, after));
        }
    }
    Ok(cell)
}

/// Verdicts over the grid on what has targets: hawkerd with io_uring.
pub(crate) fn verdicts(report: &EngineReport) -> impl Iterator<Item = Verdict> + '_ {
    let copy = report.conditions.copying_client;
    report.cells.iter().flat_map(move |cell| cell.verdicts(Kind::IoUring.name(), copy))
}

fn heading() -> String {
    let columns =
        ["conns", "piece", "server", "GB/s", "s/GB", "p50 ms", "p99 ms", "slowest", "wall", "CPU", "p99"];
    let columns: Vec<String> = columns.iter().map(|name| format!("{name:>9}")).collect();
    format!("{}   by naive: wall, CPU", columns.concat())
}

fn render(cell: &Cell, copy: bool) -> String {
    let mut text = line(cell, NGINX, &cell.nginx_medians(), "");
    let naive = cell.medians(NAIVE);
    for kind in Kind::ALL {
        let Some(medians) = cell.medians(kind.name()) else { continue };
        let verdicts = cell.verdicts(kind.name(), copy);
        let shown = |what: &str, value: f64| {
            let missed = verdicts.iter().any(|verdict| verdict.what == what && !verdict.met);
            format!("{value:>8.2}{}", if missed && kind.is_ours() { '*' } else { ' ' })
        };
        let mut ratios = shown("wall by nginx", medians.wall);
        ratios += &shown("CPU by nginx", medians.cpu);
        ratios += &shown("p99 by nginx", medians.p99);
        if let Some(naive) = naive.filter(|_| kind.is_ours()) {
            ratios += &shown("wall by naive", medians.wall / naive.wall);
            ratios += &shown("CPU by naive", medians.cpu / naive.cpu);
        }
        text += &line(cell, kind.name(), &medians.sample, &ratios);
    }
    text
}

fn line(cell: &Cell, server: &str, sample: &Sample, ratios: &str) -> String {
    format!(
        "{:>9}{:>9}{server:>9}{:>9.2}{:>9.3}{:>9.2}{:>9.2}{:>9.2}{ratios}\n",
        cell.connections,
        ByteSize(cell.piece_bytes).to_string(),
        sample.gb_per_second,
        sample.cpu_per_gb,
        sample.p50_millis,
        sample.p99_millis,
        sample.slowest_by_mean,
    )
}
