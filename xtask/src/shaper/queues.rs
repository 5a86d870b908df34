//! End-to-end cases of what depends on the queue of the uplink: departure times under `fq`, the shared clock elsewhere,
//! and the change from one to the other. They need a kernel with `fq`, which `cargo xtask vmtest` has.
//!
//! Invariant: each prints what it measured.

use super::Programs;
use super::cases::{shares, weighted};
use super::stand::{self, Stand};
use crate::command::{SHORT, check};
use crate::interrupt;
use crate::test::Tally;
use anyhow::{Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

type Case = (&'static str, fn(&mut Stand) -> Result<()>);

const CASES: [Case; 4] = [
    ("shaper: departure times under fq hold a peer's limit", departure_times),
    ("shaper: departure times under fq divide the total by weights", divides_under_fq),
    ("shaper: the shared clock without fq holds a peer's limit", shared_clock),
    ("shaper: when the queue changes the mode follows, and the limit holds", queue_changes),
];
const LIMITS_MBIT: [u32; 2] = [20, 100];
const CONNECTIONS: [usize; 3] = [1, 4, 16];
const WARM_UP: Duration = Duration::from_millis(1500);
const WINDOW: Duration = Duration::from_secs(3);
/// The daemon looks at the queues every second.
const NOTICED_WITHIN: Duration = Duration::from_secs(3);
const MBIT: f64 = 1e6;
/// Told apart from no limit, and from the wrong mode, which misses by 12 % and more.
const TOLERANCE_PERCENT: f64 = 3.0;
/// Sixteen BBR connections that share 20 Mbit/s still probe after the warm-up, each with a window of some packets at least.
const BBR_CROWD_TOLERANCE_PERCENT: f64 = 8.0;

pub(crate) fn run(programs: &Programs, only: Option<&str>, tally: &mut Tally) {
    for (name, case) in CASES.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        tally.run(name, || case(&mut Stand::build(programs)?));
    }
}

/// The queue of the daemon's uplink: `fq`, or `pfifo_fast`.
pub(crate) fn fair_queue(fair: bool) -> Result<()> {
    let kind = if fair { "fq" } else { "pfifo_fast" };
    let server = stand::server();
    let words = ["-n", &server, "qdisc", "replace", "dev", "eth0", "root", kind];
    check(Command::new("tc").args(words), SHORT).map(drop)
}

fn departure_times(stand: &mut Stand) -> Result<()> {
    fair_queue(true)?;
    limits(stand, "departure times: fq on eth0")
}

fn shared_clock(stand: &mut Stand) -> Result<()> {
    fair_queue(false)?;
    limits(stand, "shared clock: eth0 is queued by pfifo_fast, not fq")
}

fn limits(stand: &mut Stand, reason: &str) -> Result<()> {
    let mut missed = Vec::new();
    for limit in LIMITS_MBIT {
        stand.start(&per_peer(limit))?;
        says(stand, reason)?;
        for congestion in ["cubic", "bbr"] {
            stand.congestion(congestion)?;
            let mut errors = Vec::new();
            for connections in CONNECTIONS {
                let mbit = stand.read(0, connections)?.rate(WARM_UP, WINDOW) / MBIT;
                let error = error_percent(mbit, limit);
                errors.push(format!("{error:+.2}"));
                let crowd = congestion == "bbr" && connections == 16 && limit < 100;
                let tolerance = if crowd { BBR_CROWD_TOLERANCE_PERCENT } else { TOLERANCE_PERCENT };
                if error.abs() > tolerance {
                    missed.push(format!(
                        "{mbit:.2} of {limit} Mbit/s, {congestion}, {connections} connections"
                    ));
                }
            }
            println!("    {limit} Mbit/s {congestion}: {} % over 1, 4, 16 connections", errors.join(", "));
        }
    }
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    Ok(())
}

fn divides_under_fq(stand: &mut Stand) -> Result<()> {
    fair_queue(true)?;
    stand.start(&weighted(105))?;
    says(stand, "departure times")?;
    let rates = shares(stand, [2, 4, 8], WINDOW)?;
    let text: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
    println!("    {} Mbit/s; water-filling says 15, 30, 60", text.join(", "));
    for (rate, wanted) in rates.into_iter().zip([15.0, 30.0, 60.0]) {
        ensure!((rate / wanted - 1.0).abs() < 0.05, "{rate:.1} Mbit/s of {wanted}");
    }
    Ok(())
}

/// On connections that stand: to `fq`, away from it, and back.
fn queue_changes(stand: &mut Stand) -> Result<()> {
    const LIMIT: u32 = 50;
    fair_queue(false)?;
    stand.start(&per_peer(LIMIT))?;
    let readers = stand.read(0, 4)?;
    let mut missed = Vec::new();
    for (fair, mode) in [
        (false, "shared clock"),
        (true, "departure times"),
        (false, "clock in user space"),
        (true, "departure times"),
    ] {
        fair_queue(fair)?;
        let (changed, bytes) = (Instant::now(), readers.bytes());
        says(stand, mode)?;
        let (took, meanwhile) = (changed.elapsed(), readers.bytes() - bytes);
        // What was sent over the limit until the daemon looked is made up for, for 2 s at most.
        let mbit = readers.rate(Duration::from_secs(3), WINDOW) / MBIT;
        println!(
            "    {mode} after {:.1} s ({:.0} Mbit until then): {mbit:.2} of {LIMIT} Mbit/s",
            took.as_secs_f64(),
            meanwhile as f64 * 8.0 / MBIT
        );
        if error_percent(mbit, LIMIT).abs() > TOLERANCE_PERCENT {
            missed.push(format!("{mbit:.2} of {LIMIT} Mbit/s by {mode}"));
        }
    }
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    Ok(())
}

/// Waits until the daemon gives this reason.
fn says(stand: &Stand, reason: &str) -> Result<()> {
    interrupt::poll("the mode follows the queue", NOTICED_WITHIN, || {
        let status = stand.status()?;
        let text = status["shaper"]["reason"].as_str().unwrap_or_default();
        ensure!(text.contains(reason), "it says: {text}");
        Ok(())
    })
}

fn per_peer(mbit: u32) -> String {
    format!("{{ mode: require, perPeerLimit: {mbit}Mbps }}")
}

fn error_percent(mbit: f64, limit: u32) -> f64 {
    (mbit / f64::from(limit) - 1.0) * 100.0
}
