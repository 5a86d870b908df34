//! What the grid does not show: a slow disk, readers that stop, idle peers, many active ones, clients that come
//! and go. Each on a server started for it.
//!
//! Invariant: a server is compared with itself, undisturbed, in the same rounds.

use super::footprint::Footprint;
use super::load::{self, Load};
use super::servers::{Kind, Server};
use super::stand::{Network, Stand};
use crate::interrupt;
use anyhow::{Context, Result, ensure};
use hawker_bench::engine::{Target, Verdict};
use hawker_bench::load::Outcome;
use hawker_bench::median;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::time::{Duration, Instant};

/// Rounds of a scenario that measures throughput.
const ROUNDS: usize = 3;
/// The slow disk.
const READ_LIMIT: u64 = 40 << 20;
const STOPPED_READERS: usize = 100;
/// What a reader that stops asks for: far more than any socket buffers.
const STOPPED_ASK: u64 = 64 << 20;
const IDLE_PEERS: usize = 1000;
const ACTIVE_PEERS: usize = 256;
const CYCLES: usize = 10_000;
/// Cycles before the first look, after which pools have their size.
const FIRST_CYCLES: usize = 1000;
/// Kernel workers that come and go with the load; one for each stopped reader would be 100.
const THREADS_SLACK: f64 = 8.0;
/// One leaked descriptor in a thousand cycles would be 10.
const DESCRIPTORS_SLACK: f64 = 4.0;
/// One leaked KiB a cycle would be ten times this.
const MEMORY_SLACK_MIB: f64 = 1.0;
/// Time for a server to notice that clients are gone.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Not one of these: the grid of networks, pieces, connections.
    Grid,
    Cold,
    Stopped,
    Idle,
    Active,
    Churn,
    /// Clients that copy what they get: what a byte costs the server then.
    Copying,
    /// `peer.send: zc` where the kernel copies.
    ZeroCopy,
}

impl Scenario {
    pub(crate) const ALL: [Self; 8] = [
        Self::Grid,
        Self::Cold,
        Self::Stopped,
        Self::Idle,
        Self::Active,
        Self::Churn,
        Self::Copying,
        Self::ZeroCopy,
    ];

    fn run(self, stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
        match self {
            Self::Grid => Ok(Vec::new()),
            Self::Cold => cold(stand, server),
            Self::Stopped => stopped(stand, server),
            Self::Idle => idle(stand, server),
            Self::Active => active(stand, server),
            Self::Churn => churn(stand, server),
            // Comparisons of io_uring's own.
            Self::Copying | Self::ZeroCopy if server.kind != Kind::IoUring => Ok(Vec::new()),
            Self::Copying => copying(stand, server),
            Self::ZeroCopy => zero_copy(stand, server),
        }
    }
}

/// Runs a scenario on one kind of server.
pub(crate) fn run(stand: &Stand, scenario: Scenario, kind: Kind) -> Result<Vec<Verdict>> {
    let server = Server::start(stand, kind)?;
    let verdicts =
        scenario.run(stand, &server).with_context(|| format!("{scenario:?} on {}", kind.name()))?;
    for verdict in &verdicts {
        println!("{}", verdict.render());
    }
    Ok(verdicts)
}

/// Targets are hawkerd's with io_uring; the others are there for comparison.
fn verdict(server: &Server, what: &str, value: f64, target: Target) -> Verdict {
    let target = if server.kind == Kind::IoUring { target } else { Target::None };
    Verdict::new(what, server.kind.name(), value, target)
}

fn measure(stand: &Stand, server: &Server, load: &Load) -> Result<Outcome> {
    interrupt::check()?;
    load::measure(stand, Network::Lo, server, load)
}

fn throughput(outcomes: &[Outcome]) -> f64 {
    median(&outcomes.iter().map(|outcome| outcome.main.gb_per_second).collect::<Vec<_>>())
}

fn p99(outcomes: &[Outcome]) -> f64 {
    median(&outcomes.iter().map(|outcome| outcome.main.p99_millis).collect::<Vec<_>>())
}

/// One peer asks for what is not in the page cache, from a slow disk; four others for what is.
fn cold(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    let alone = Load { window_millis: 1500, ..Load::default() };
    let beside = Load { cold: true, ..alone };
    let (mut quiet, mut disturbed) = (Vec::new(), Vec::new());
    stand.cage.limit_reads(&stand.dir, Some(READ_LIMIT))?;
    for _ in 0..ROUNDS {
        quiet.push(measure(stand, server, &alone)?);
        let file = File::open(&stand.cold.data).context("open the cold blob")?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).context("drop cached pages")?;
        disturbed.push(measure(stand, server, &beside)?);
    }
    stand.cage.limit_reads(&stand.dir, None)?;
    let side: Vec<f64> =
        disturbed.iter().filter_map(|outcome| Some(outcome.side.as_ref()?.gb_per_second * 1e3)).collect();
    Ok(vec![
        verdict(server, "4 warm connections alone, GB/s", throughput(&quiet), Target::None),
        verdict(
            server,
            "4 warm connections beside a cold one, by alone",
            throughput(&disturbed) / throughput(&quiet),
            Target::AtLeast(0.8),
        ),
        verdict(server, "their p99 alone, ms", p99(&quiet), Target::None),
        verdict(server, "their p99 beside the cold one, ms", p99(&disturbed), Target::AtMost(5.0)),
        verdict(server, "the cold one, MB/s (the disk gives 42)", median(&side), Target::None),
    ])
}

/// Peers that ask for much and read nothing.
fn stopped(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    let others = Load::default();
    let readers = Load { connections: STOPPED_READERS, piece: STOPPED_ASK, ..Load::default() };
    let (mut quiet, mut disturbed, mut gained) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        quiet.push(measure(stand, server, &others)?);
        let before = Footprint::of(&server.pids)?.threads;
        let held = load::hold(stand, Network::Lo, server, &readers, true)?;
        disturbed.push(measure(stand, server, &others)?);
        gained.push(float(Footprint::of(&server.pids)?.threads - before));
        held.release()?;
        settle(server, Footprint::default())?;
    }
    Ok(vec![
        verdict(
            server,
            "threads more with 100 stopped readers",
            median(&gained),
            Target::AtMost(THREADS_SLACK),
        ),
        verdict(
            server,
            "4 connections beside 100 stopped readers, by alone",
            throughput(&disturbed) / throughput(&quiet),
            Target::AtLeast(0.9),
        ),
    ])
}

/// Peers that asked once and stay.
fn idle(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    measure(stand, server, &Load { connections: 16, piece: 64 << 10, ..Load::default() })?;
    let before = settle(server, Footprint::default())?;
    let peers = Load { connections: IDLE_PEERS, piece: 64 << 10, ..Load::default() };
    let held = load::hold(stand, Network::Lo, server, &peers, false)?;
    let during = Footprint::of(&server.pids)?;
    held.release()?;
    let each = float(during.resident_kib - before.resident_kib) / 1000.0;
    Ok(vec![
        verdict(server, "resident memory, MiB", float(before.resident_kib) / 1024.0, Target::None),
        verdict(server, "one of 1000 idle peers, KiB", each, Target::AtMost(8.0)),
    ])
}

/// Many at once.
fn active(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    let load = Load { connections: ACTIVE_PEERS, window_millis: 3000, ..Load::default() };
    let mut slowest = Vec::new();
    for _ in 0..ROUNDS {
        slowest.push(measure(stand, server, &load)?.main.slowest_by_mean);
    }
    Ok(vec![verdict(server, "slowest of 256 active by their mean", median(&slowest), Target::AtLeast(0.5))])
}

/// Clients that connect, ask and are gone.
fn churn(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    load::churn(stand, Network::Lo, server, FIRST_CYCLES)?;
    let before = settle(server, Footprint::default())?;
    load::churn(stand, Network::Lo, server, CYCLES)?;
    let after = settle(server, before)?;
    load::verify(stand, server, &stand.warm).context("verify after all came and went")?;
    let gained = |of: fn(&Footprint) -> i64| float(of(&after) - of(&before));
    Ok(vec![
        verdict(
            server,
            "descriptors more after 10,000 connect and abort",
            gained(|f| f.descriptors),
            Target::AtMost(DESCRIPTORS_SLACK),
        ),
        verdict(server, "pipe ends among them", gained(|f| f.pipe_ends), Target::AtMost(DESCRIPTORS_SLACK)),
        verdict(server, "threads more", gained(|f| f.threads), Target::AtMost(THREADS_SLACK)),
        verdict(
            server,
            "resident memory more, MiB",
            gained(|f| f.resident_kib) / 1024.0,
            Target::AtMost(MEMORY_SLACK_MIB),
        ),
    ])
}

/// The naive server, and hawkerd with and without copies of its own, under clients that copy. The client is the
/// bottleneck then, so that the server's CPU is what counts.
fn copying(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    let (naive, copies) = (Server::start(stand, Kind::Naive)?, Server::start(stand, Kind::Copy)?);
    let mut verdicts = Vec::new();
    for (connections, piece, name) in [(16, 4 << 20, "16 x 4 MiB"), (64, 1 << 20, "64 x 1 MiB")] {
        let load = Load { connections, piece, copy: true, ..Load::default() };
        let (mut ours, mut buffers, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(measure(stand, server, &load)?);
            theirs.push(measure(stand, &naive, &load)?);
            buffers.push(measure(stand, &copies, &load)?);
        }
        let (ours, buffers, theirs) = (cpu(&ours), cpu(&buffers), cpu(&theirs));
        let what = |what: &str| format!("clients that copy, {name}: {what}");
        verdicts.push(verdict(server, &what("CPU s/GB"), ours, Target::None));
        verdicts.push(verdict(server, &what("CPU by naive"), ours / theirs, Target::AtMost(0.25)));
        verdicts.push(verdict(&copies, &what("CPU by naive"), buffers / theirs, Target::None));
        verdicts.push(verdict(&naive, &what("CPU s/GB"), theirs, Target::None));
    }
    Ok(verdicts)
}

fn cpu(outcomes: &[Outcome]) -> f64 {
    median(&outcomes.iter().map(|outcome| outcome.server_cpu_per_gb).collect::<Vec<_>>())
}

/// Loopback copies every zero-copy send: asked for all the same, it must not cost.
fn zero_copy(stand: &Stand, server: &Server) -> Result<Vec<Verdict>> {
    let zc = Server::start(stand, Kind::Zc)?;
    let load = Load { connections: 16, piece: 4 << 20, ..Load::default() };
    let (mut by_splice, mut by_zc) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        by_splice.push(measure(stand, server, &load)?);
        by_zc.push(measure(stand, &zc, &load)?);
    }
    let (_, reason) = zc.engine()?;
    ensure!(reason.contains("zc is off"), "it did not notice that the kernel copies: {reason}");
    println!("{reason}");
    let wall = throughput(&by_zc) / throughput(&by_splice);
    let what = "peer.send: zc where the kernel copies, GB/s by splice";
    Ok(vec![verdict(server, what, wall, Target::AtLeast(0.95))])
}

/// Waits until the server stands still, or is back to where it was.
fn settle(server: &Server, before: Footprint) -> Result<Footprint> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut last = Footprint::of(&server.pids)?;
    loop {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(500));
        let now = Footprint::of(&server.pids)?;
        let still = now.descriptors == last.descriptors && now.threads == last.threads;
        if still && (now.descriptors <= before.descriptors || before.descriptors == 0)
            || Instant::now() > deadline
        {
            return Ok(now);
        }
        last = now;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and KiB, far below 2^53")]
fn float(count: i64) -> f64 {
    count as f64
}
