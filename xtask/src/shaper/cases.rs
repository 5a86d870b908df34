//! End-to-end cases of the shaper. They judge by the interface's own counters, the readers' and `bpftool`.
//!
//! Invariant: each prints what it measured.

use super::stand::{self, Programs, Stand};
use super::yields;
use super::{adverse, capabilities, succession};
use crate::command::{SHORT, check};
use crate::setup::Ability;
use crate::test::Tally;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

type Case = (&'static str, fn(&mut Stand) -> Result<()>);

const CASES: [Case; 14] = [
    ("shaper: counts what the interface counts, by IPv4 and IPv6", counts_the_wire),
    ("shaper: a peer's limit holds over all its connections, and changes while they read", limits_a_peer),
    ("shaper: the total is divided by weights", divides_the_total),
    ("shaper: uploads give way to the node's other traffic, and come back", yields::gives_way),
    ("shaper: limits hold while one daemon follows another", succession::limits_hold),
    ("shaper: nothing is left after kill -9", leaves_nothing),
    ("shaper: BPF is refused: it says so, serves and limits", adverse::bpf_refused),
    ("shaper: no cgroup file system: it says so, serves and limits", adverse::cgroup_missing),
    ("shaper: an uplink is renamed, another goes", adverse::interfaces_change),
    ("shaper: a changed queue is noticed at once", adverse::queue_is_noticed),
    ("shaper: limits that make no sense are refused by name", adverse::limits_without_sense),
    ("shaper: more peers than the maps hold, the totals are exact", adverse::crowd),
    ("shaper: three capabilities suffice", capabilities::suffice),
    ("shaper: without any it runs on its twin, says so, and holds limits", capabilities::none),
];
/// Names of the programs, as `bpftool` shows them.
const PROGRAMS: [&str; 3] = ["peer_egress", "peer_ingress", "peer_sockets"];
const MBIT: f64 = 1e6;

pub(crate) fn run(ability: &Ability, only: Option<&str>, tally: &mut Tally) -> Result<()> {
    let cases: Vec<&Case> = wanted(only).collect();
    if let Ability::NoLab(why) = ability {
        cases.iter().for_each(|(name, _)| tally.skip(name, why));
        return Ok(());
    }
    if !cases.is_empty() {
        run_with(&Programs::build()?, only, tally);
    }
    Ok(())
}

fn wanted(only: Option<&str>) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(move |(name, _)| only.is_none_or(|only| name.contains(only)))
}

/// As [`run`], with programs that are built already, where there can be namespaces.
pub(crate) fn run_with(programs: &Programs, only: Option<&str>, tally: &mut Tally) {
    for (name, case) in wanted(only) {
        tally.run_timed(name, || {
            let mut stand = Stand::build(programs)?;
            case(&mut stand)?;
            drop(stand);
            let left = loaded()?;
            ensure!(left.is_empty(), "programs left: {left:?}");
            Ok(())
        });
    }
}

fn counts_the_wire(stand: &mut Stand) -> Result<()> {
    stand::without_segmentation()?;
    stand.start("{ mode: require }")?;
    for (family, v6) in [("IPv4", false), ("IPv6", true)] {
        let (before, before_device) = (Totals::of(&stand.status()?)?, stand::interface()?);
        let readers = if v6 { stand.read_v6(4)? } else { stand.read(0, 4)? };
        let rate = readers.rate(Duration::ZERO, Duration::from_secs(2));
        drop(readers);
        // What is in flight arrives, and is acknowledged.
        std::thread::sleep(Duration::from_millis(500));
        let (after, device) = (Totals::of(&stand.status()?)?, stand::interface()?);
        let (sent, received) = (after.sent - before.sent, after.received - before.received);
        let device = (device.sent - before_device.sent, device.received - before_device.received);
        let errors = (error(sent, device.0), error(received, device.1));
        println!(
            "    {family}: {:.0} Mbit/s; sent {sent}, interface {} ({:+.4} %); received {received}, interface {} ({:+.4} %)",
            rate / MBIT,
            device.0,
            errors.0,
            device.1,
            errors.1
        );
        ensure!(errors.0.abs() < 0.1 && errors.1.abs() < 0.1, "more than 0.1 % off");
        let (peer, class) = (after.by_peer, after.sent + after.received);
        ensure!(peer == class, "the peers have {peer} bytes, the classes {class}");
        let (up, all) = (after.uplink_sent, after.sent);
        ensure!(error(up, all).abs() < 0.1, "the uplink sent {up}, hawkerd {all}");
    }
    let status = stand.status()?;
    let peer = &status["peers"][0];
    println!("    {} peers; one: {peer}", status["peers"].as_array().map_or(0, Vec::len));
    ensure!(peer["srtt_us"].as_u64() > Some(0) && peer["connections_opened"].as_u64() == Some(4), "{peer}");
    // The metrics follow within a second.
    std::thread::sleep(Duration::from_millis(1500));
    let metrics = stand.metrics()?;
    let line = metrics
        .lines()
        .find(|line| line.contains(r#"hawker_wire_bytes_total{class="upload",direction="tx"}"#));
    let value: u64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).context("no wire metric")?;
    ensure!(value == Totals::of(&status)?.sent, "the metric says {value}");
    Ok(())
}

fn limits_a_peer(stand: &mut Stand) -> Result<()> {
    for mode in ["require", "off"] {
        stand.start(&format!("{{ mode: {mode}, perPeerLimit: 100Mbps }}"))?;
        println!("    {}", stand.status()?["shaper"]["reason"]);
        for congestion in ["cubic", "bbr"] {
            stand.congestion(congestion)?;
            stand.reload(&format!("{{ mode: {mode}, perPeerLimit: 100Mbps }}"))?;
            let readers = stand.read(0, 8)?;
            let rate = readers.rate(Duration::from_secs(1), Duration::from_secs(2)) / MBIT;
            stand.reload(&format!("{{ mode: {mode}, perPeerLimit: 40Mbps }}"))?;
            let lower = readers.rate(Duration::from_millis(500), Duration::from_secs(2)) / MBIT;
            stand.reload(&format!("{{ mode: {mode} }}"))?;
            let free = readers.rate(Duration::from_millis(500), Duration::from_secs(1)) / MBIT;
            println!(
                "    {mode} {congestion}: 8 connections {rate:.2} of 100, {lower:.2} of 40, then {free:.0} Mbit/s"
            );
            ensure!((rate - 100.0).abs() < 3.0, "{rate:.2} Mbit/s of 100");
            ensure!((lower - 40.0).abs() < 2.0, "{lower:.2} Mbit/s of 40");
            ensure!(free > 200.0, "{free:.2} Mbit/s without a limit");
        }
    }
    Ok(())
}

fn divides_the_total(stand: &mut Stand) -> Result<()> {
    stand.start(&weighted(210))?;
    stand.congestion("cubic")?;
    let rates = shares(stand, [2, 4, 8], Duration::from_secs(2))?;
    let text: Vec<String> = rates.iter().map(|rate| format!("{rate:.1}")).collect();
    println!("    {} Mbit/s; water-filling says 50, 100, 60", text.join(", "));
    for (rate, wanted) in rates.into_iter().zip([50.0, 100.0, 60.0]) {
        ensure!((rate / wanted - 1.0).abs() < 0.05, "{rate:.1} Mbit/s of {wanted}");
    }
    Ok(())
}

/// 1:2:4, the third limited to 60 Mbit/s.
pub(super) fn weighted(total: u32) -> String {
    let (one, two, three) = (stand::address(0), stand::address(1), stand::address(2));
    format!(
        "{{ mode: require, uploadLimit: {total}Mbps, peers: [{{ network: {one} }}, \
         {{ network: {two}, weight: 2 }}, {{ network: {three}, weight: 4, limit: 60Mbps }}] }}"
    )
}

/// Rates of the three peers with so many connections, Mbit/s, after a second.
pub(super) fn shares(stand: &Stand, connections: [usize; 3], window: Duration) -> Result<[f64; 3]> {
    let readers = (0..stand::PEERS).zip(connections).map(|(peer, count)| stand.read(peer, count));
    let readers: Vec<_> = readers.collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<u64> = readers.iter().map(|readers| readers.bytes()).collect();
    std::thread::sleep(window);
    let mut rates = [0.0; 3];
    for ((rate, readers), before) in rates.iter_mut().zip(&readers).zip(before) {
        *rate = (readers.bytes() - before) as f64 * 8.0 / window.as_secs_f64() / MBIT;
    }
    Ok(rates)
}

fn leaves_nothing(stand: &mut Stand) -> Result<()> {
    stand.start("{ mode: require, perPeerLimit: 100Mbps }")?;
    let readers = stand.read(0, 2)?;
    let _ = readers.rate(Duration::ZERO, Duration::from_millis(300));
    let running = loaded()?;
    println!("    while it runs: {}", running.join(" "));
    ensure!(PROGRAMS.iter().all(|program| running.iter().any(|name| name == program)), "not all are loaded");
    stand.crash()?;
    drop(readers);
    // The last references go with a grace period of the kernel.
    std::thread::sleep(Duration::from_millis(500));
    let (programs, links, maps) = (loaded()?, count("link")?, count("map")?);
    println!("    after kill -9: programs {programs:?}, {links} links and {maps} maps of hawkerd");
    ensure!(programs.is_empty() && links == 0 && maps == 0, "left: {programs:?}");
    ensure!(stand.filters()?.is_empty(), "filters left: {:?}", stand.filters()?);
    // The next start removes the empty cgroup.
    stand.start("{ mode: require }")?;
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", stand.pid()?)).unwrap_or_default();
    stand.stop()?;
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
    println!("    its cgroup was {group}");
    let standing =
        check(Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", "hawkerd-*"]), SHORT)?;
    ensure!(standing.stdout.trim().is_empty(), "cgroups left: {}", standing.stdout);
    Ok(())
}

/// The daemon's programs that the kernel holds.
pub(super) fn loaded() -> Result<Vec<String>> {
    let text = check(Command::new("bpftool").args(["prog", "show"]), SHORT)?.stdout;
    let words: Vec<&str> = text.split_whitespace().collect();
    let ours = PROGRAMS.iter().filter(|name| words.contains(name));
    Ok(ours.map(|name| (*name).to_owned()).collect())
}

/// Links or maps of the daemon.
fn count(kind: &str) -> Result<usize> {
    let text = check(Command::new("bpftool").args([kind, "show"]), SHORT)?.stdout;
    let ours = |line: &&str| match kind {
        "map" => ["FLOWS", "PEERS", "CLASSES", "CONNECTIONS"].iter().any(|name| line.contains(name)),
        _ => line.contains("hawkerd"),
    };
    Ok(text.lines().filter(ours).count())
}

fn error(ours: u64, theirs: u64) -> f64 {
    (ours as f64 / theirs as f64 - 1.0) * 100.0
}

/// Sums of `/status`.
struct Totals {
    sent: u64,
    received: u64,
    by_peer: u64,
    uplink_sent: u64,
}

impl Totals {
    fn of(status: &Value) -> Result<Self> {
        let sum = |list: &Value, key: &str| -> u64 {
            list.as_array().into_iter().flatten().filter_map(|entry| entry[key].as_u64()).sum()
        };
        let (classes, peers) = (&status["shaper"]["classes"], &status["peers"]);
        ensure!(status["shaper"]["mode"] == "ebpf", "{}", status["shaper"]);
        Ok(Self {
            sent: sum(classes, "sent_bytes"),
            received: sum(classes, "received_bytes"),
            by_peer: sum(peers, "sent_bytes") + sum(peers, "received_bytes"),
            uplink_sent: sum(&status["shaper"]["uplinks"], "sent_bytes"),
        })
    }
}
