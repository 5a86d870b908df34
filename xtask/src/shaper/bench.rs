//! `cargo xtask bench shaper`: how exact limits are, how fast a new one holds, what a total's division comes to, and
//! what the programs cost, on the real daemon's peer port over veth.
//!
//! Invariant: every figure is what the readers got; nothing is taken from the daemon's own counters.

use super::cases::{shares, weighted};
use super::stand::{Programs, Stand};
use super::{inbound, yields};
use crate::setup::{self, Ability};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use hawker_bench::shaper::{Accuracy, Cost, Division, Sample, ShaperReport, Yielding};
use hawker_bench::{Machine, cpu, median};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const RATES_MBIT: [u32; 3] = [20, 100, 900];
const CONNECTIONS: [usize; 3] = [1, 4, 16];
const CONGESTIONS: [&str; 2] = ["cubic", "bbr"];
/// Before a window of this length: slow start, and BBR's first look at the path.
const WARM_UP: Duration = Duration::from_millis(1500);
const WINDOW: Duration = Duration::from_secs(3);
const MBIT: f64 = 1e6;
/// Limits of the convergence run, Mbit/s, two seconds each.
const STEPS_MBIT: [u32; 4] = [100, 400, 50, 100];
const STEP: Duration = Duration::from_secs(2);
const SAMPLE: Duration = Duration::from_millis(50);
const CONVERGENCE_CONNECTIONS: usize = 4;
/// Rounds of the cost, each with and without the programs, in turns.
const COST_ROUNDS: usize = 21;
const COST_WINDOW: Duration = Duration::from_millis(2000);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this part; bench/results is then left as it is.
    #[arg(long, value_enum)]
    part: Option<Part>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    Accuracy,
    Division,
    Convergence,
    Yielding,
    Cost,
    Inbound,
}

impl Part {
    /// It prints its figures itself.
    fn run(self) -> Result<()> {
        if matches!(self, Self::Inbound) {
            return inbound::measure().map(drop);
        }
        let mut stand = Stand::build(&Programs::build()?)?;
        match self {
            Self::Accuracy => accuracy(&mut stand).map(drop),
            Self::Division => division(&mut stand).map(drop),
            Self::Convergence => convergence(&mut stand).map(drop),
            Self::Yielding => yielding(&mut stand).map(drop),
            Self::Cost => cost(&mut stand).map(drop),
            Self::Inbound => Ok(()),
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Ability::NoLab(why) = setup::run()? {
        bail!("the benchmark needs namespaces: {why}");
    }
    if let Some(part) = options.part {
        return part.run().map(|()| ExitCode::SUCCESS);
    }
    let mut stand = Stand::build(&Programs::build()?)?;
    let accuracy = accuracy(&mut stand)?;
    let division = division(&mut stand)?;
    let convergence = convergence(&mut stand)?;
    let yielding = yielding(&mut stand)?;
    let cost = cost(&mut stand)?;
    drop(stand);
    let inbound = inbound::measure()?;
    let machine = Machine::here();
    let report = ShaperReport { machine, accuracy, division, convergence, inbound, yielding, cost };
    let dir = workspace::root()?.join("bench/results");
    report.write(&dir).with_context(|| format!("write results to {}", dir.display()))?;
    let (missed, of) = report.missed();
    println!("written to bench/results: shaper.json, shaper.svg; targets not met: {missed} of {of}");
    Ok(ExitCode::SUCCESS)
}

fn accuracy(stand: &mut Stand) -> Result<Vec<Accuracy>> {
    let mut cells = Vec::new();
    for rate in RATES_MBIT {
        stand.start(&per_peer(rate))?;
        for congestion in CONGESTIONS {
            stand.congestion(congestion)?;
            for connections in CONNECTIONS {
                let before = retransmits(stand)?;
                let readers = stand.read(0, connections)?;
                let mbit = readers.rate(WARM_UP, WINDOW) / MBIT;
                drop(readers);
                let retransmits = retransmits(stand)? - before;
                let cell = Accuracy {
                    limit_mbit: rate,
                    congestion: congestion.to_owned(),
                    connections,
                    mbit,
                    error_percent: (mbit / f64::from(rate) - 1.0) * 100.0,
                    retransmits,
                };
                println!("    {}", cell.line());
                cells.push(cell);
            }
        }
    }
    Ok(cells)
}

fn division(stand: &mut Stand) -> Result<Vec<Division>> {
    let mut divisions = Vec::new();
    stand.start(&weighted(210))?;
    for congestion in CONGESTIONS {
        stand.congestion(congestion)?;
        for (what, total, connections, wanted) in [
            ("210 by 1:2:4, the third limited to 60", 210, [1, 4, 16], [50.0, 100.0, 60.0]),
            ("the second is silent", 210, [1, 0, 16], [150.0, 0.0, 60.0]),
            ("the total becomes 105", 105, [1, 4, 16], [15.0, 30.0, 60.0]),
        ] {
            stand.reload(&weighted(total))?;
            let mbit = shares(stand, connections, WINDOW)?;
            let wanted = if total == 105 { filled(105.0) } else { wanted };
            let division = Division {
                what: what.to_owned(),
                congestion: congestion.to_owned(),
                mbit: mbit.to_vec(),
                wanted: wanted.to_vec(),
            };
            println!("    {}", division.line());
            divisions.push(division);
        }
    }
    Ok(divisions)
}

/// The answer for all three peers: while the third's part is below its limit, the total by weights.
fn filled(total: f64) -> [f64; 3] {
    let level = total / 7.0;
    if level * 4.0 <= 60.0 {
        return [level, level * 2.0, level * 4.0];
    }
    [(total - 60.0) / 3.0, (total - 60.0) / 1.5, 60.0]
}

fn convergence(stand: &mut Stand) -> Result<Vec<Sample>> {
    stand.start(&per_peer(STEPS_MBIT[0]))?;
    stand.congestion("cubic")?;
    let readers = stand.read(0, CONVERGENCE_CONNECTIONS)?;
    std::thread::sleep(WARM_UP);
    let (started, mut samples) = (Instant::now(), Vec::new());
    let (mut bytes, mut at) = (readers.bytes(), started);
    for limit in STEPS_MBIT {
        stand.reload(&per_peer(limit))?;
        let until = Instant::now() + STEP;
        while Instant::now() < until {
            std::thread::sleep(SAMPLE);
            let (now, total) = (Instant::now(), readers.bytes());
            let mbit = (total - bytes) as f64 * 8.0 / (now - at).as_secs_f64() / MBIT;
            samples.push(Sample { seconds: (now - started).as_secs_f64(), mbit, limit_mbit: limit });
            (bytes, at) = (total, now);
        }
    }
    for (limit, settled) in hawker_bench::shaper::settled(&samples) {
        println!("    {limit} Mbit/s holds after {settled:.2} s");
    }
    Ok(samples)
}

/// Uploads beside a flow of the node's own. The link is what it was afterwards.
fn yielding(stand: &mut Stand) -> Result<Vec<Yielding>> {
    let mut all = Vec::new();
    for congestion in CONGESTIONS {
        let figures = yields::measure(stand, "{ mode: require }", congestion, 6)?.figures(congestion);
        println!("    {}", figures.line());
        all.push(figures);
    }
    yields::unshape()?;
    Ok(all)
}

/// CPU seconds of the daemon for each GB it sends as fast as it can, with the programs and without.
fn cost(stand: &mut Stand) -> Result<Cost> {
    stand.congestion("cubic")?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..COST_ROUNDS {
        for with_programs in [round % 2 == 0, round % 2 == 1] {
            stand.start(if with_programs { "{ mode: require }" } else { "{ mode: off }" })?;
            let readers = stand.read(0, 4)?;
            std::thread::sleep(Duration::from_millis(500));
            let (cpu, bytes) = (cpu::of_processes(&[stand.pid()?]), readers.bytes());
            std::thread::sleep(COST_WINDOW);
            let (cpu, bytes) = (cpu::of_processes(&[stand.pid()?]) - cpu, readers.bytes() - bytes);
            ensure!(bytes > 0, "nothing was sent");
            let per_gb = cpu / (bytes as f64 / 1e9);
            if with_programs { with.push(per_gb) } else { without.push(per_gb) }
        }
    }
    let cost = Cost { ratio: median(&with) / median(&without), with, without };
    println!("    {}", cost.line());
    Ok(cost)
}

fn retransmits(stand: &Stand) -> Result<u64> {
    let status = stand.status()?;
    let peers = status["peers"].as_array().into_iter().flatten();
    Ok(peers.filter_map(|peer| peer["retransmits"].as_u64()).sum())
}

fn per_peer(mbit: u32) -> String {
    format!("{{ mode: require, perPeerLimit: {mbit}Mbps }}")
}
