//! End-to-end cases of what is in the shaper's way: BPF refused, no cgroup, interfaces that are renamed or go, limits that
//! make no sense, more peers than its maps hold. Each shows the message, and that traffic flows.
//!
//! Invariant: judged by the readers and by the interface's own counters.

use super::readers;
use super::stand::{self, Stand};
use crate::command::{SHORT, check, run};
use crate::{interrupt, netns};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

const MBIT: f64 = 1e6;
const LIMIT: &str = "{ perPeerLimit: 100Mbps }";
/// Entries of the maps of peers and flows (`daemon-ebpf/src/maps.rs`).
const MAP_ENTRIES: usize = 16_384;
/// What was lost while an interface was down is sent again after a timeout that doubles from 0.2 s.
const AFTER_DOWN: Duration = Duration::from_secs(1);
/// Behind the reading end; the address of the first.
const CROWD_NETWORK: &str = "10.128.0.0/15";
const CROWD_FIRST: u32 = u32::from_be_bytes([10, 128, 0, 1]);

/// The system call itself is refused, as a seccomp profile or a locked-down kernel refuses it.
pub(super) fn bpf_refused(stand: &mut Stand) -> Result<()> {
    let program = std::env::current_exe().context("the path of this program")?;
    let by = [program.to_str().context("a path")?, "without-bpf"];
    stand.start_by(&by, LIMIT)?;
    let reason = on_its_twin(stand)?;
    ensure!(reason.contains("Operation not permitted"), "{reason}");
    stand.stop()?;
    ensure!(stand.start_by(&by, "{ mode: require }").is_err(), "it started without BPF");
    let log = fs::read_to_string(stand.log())?;
    let said = log.lines().rev().find(|line| line.contains("shaper.mode: require")).unwrap_or_default();
    println!("    require: {}", said.split("ERROR").last().unwrap_or_default().trim());
    ensure!(said.contains("Operation not permitted"), "not by its name");
    // Neither can be turned on and off for one test: what they do is refuse this very call.
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown");
    let lockdown = lockdown.unwrap_or_else(|_| "not in this kernel".to_owned());
    let sysctl = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").unwrap_or_default();
    println!("    lockdown here: {}; unprivileged_bpf_disabled: {}", lockdown.trim(), sysctl.trim());
    Ok(())
}

pub(super) fn cgroup_missing(stand: &mut Stand) -> Result<()> {
    let hide =
        "for m in $(awk '$3 == \"cgroup2\" {print $2}' /proc/mounts); do umount -l \"$m\"; done; exec \"$@\"";
    stand.start_by(&["unshare", "--mount", "sh", "-c", hide, "sh", "env"], LIMIT)?;
    let reason = on_its_twin(stand)?;
    ensure!(reason.contains("no cgroup2 file system is mounted"), "{reason}");
    stand.stop()
}

/// It serves, limits and says why; returns what it says.
fn on_its_twin(stand: &Stand) -> Result<String> {
    let status = stand.status()?;
    let reason = status["shaper"]["reason"].as_str().unwrap_or_default().to_owned();
    println!("    {reason}");
    ensure!(status["shaper"]["mode"] == "user", "{}", status["shaper"]);
    let rate = stand.read(0, 4)?.rate(Duration::from_secs(1), Duration::from_secs(2)) / MBIT;
    println!("    4 connections {rate:.2} of 100 Mbit/s");
    ensure!((rate - 100.0).abs() < 3.0, "{rate:.2} Mbit/s of 100");
    Ok(reason)
}

pub(super) fn interfaces_change(stand: &mut Stand) -> Result<()> {
    let server = stand::server();
    netns::ip(&["-n", &server, "link", "add", "second", "type", "veth", "peer", "name", "other"])?;
    netns::ip(&["-n", &server, "link", "set", "other", "up"])?;
    netns::ip(&["-n", &server, "addr", "add", "10.74.0.1/24", "dev", "second"])?;
    netns::ip(&["-n", &server, "link", "set", "second", "up"])?;
    stand.start("{ mode: require, perPeerLimit: 100Mbps }")?;
    let readers = stand.read(0, 4)?;
    let first = readers.rate(Duration::from_secs(1), Duration::from_secs(1)) / MBIT;
    uplinks(stand, &["eth0", "second"])?;
    let before = uplink_sent(&stand.status()?, "eth0");
    let pause = rename(&server, "eth0", "wan0")?;
    uplinks(stand, &["wan0", "second"])?;
    let renamed = readers.rate(pause, Duration::from_secs(1)) / MBIT;
    let after = uplink_sent(&stand.status()?, "wan0");
    netns::ip(&["-n", &server, "link", "del", "second"])?;
    uplinks(stand, &["wan0"])?;
    let gone = readers.rate(Duration::ZERO, Duration::from_secs(1)) / MBIT;
    rename(&server, "wan0", "eth0")?;
    println!(
        "    {first:.2} of 100 Mbit/s, {renamed:.2} {:.0} s after renaming, {gone:.2} after another interface went",
        pause.as_secs_f64()
    );
    println!("    the uplink had sent {before} bytes before it was renamed, {after} after");
    ensure!(after > before, "its total began anew");
    for rate in [first, renamed, gone] {
        ensure!((rate - 100.0).abs() < 3.0, "{rate:.2} Mbit/s of 100");
    }
    let log = fs::read_to_string(stand.log())?;
    for said in ["an uplink was renamed", "an uplink is gone"] {
        ensure!(log.contains(said), "the log does not say: {said}");
    }
    Ok(())
}

/// Returns how long connections need to go on: before Linux 6.2 an interface must be down for that.
fn rename(namespace: &str, from: &str, to: &str) -> Result<Duration> {
    let set = |name: &str, words: &[&str]| {
        netns::ip(&[&["-n", namespace, "link", "set", name][..], words].concat())
    };
    if set(from, &["name", to]).is_ok() {
        return Ok(Duration::ZERO);
    }
    set(from, &["down"])?;
    set(from, &["name", to])?;
    set(to, &["up"])?;
    Ok(AFTER_DOWN)
}

fn uplinks(stand: &Stand, names: &[&str]) -> Result<()> {
    interrupt::poll("the uplinks are known", Duration::from_secs(3), || {
        let status = stand.status()?;
        let list = status["shaper"]["uplinks"].as_array().into_iter().flatten();
        let mut known: Vec<&str> = list.filter_map(|uplink| uplink["name"].as_str()).collect();
        let mut wanted = names.to_vec();
        known.sort_unstable();
        wanted.sort_unstable();
        if known == wanted { Ok(()) } else { bail!("{known:?}") }
    })
}

fn uplink_sent(status: &Value, name: &str) -> u64 {
    let list = status["shaper"]["uplinks"].as_array().into_iter().flatten();
    list.filter(|uplink| uplink["name"] == name).filter_map(|uplink| uplink["sent_bytes"].as_u64()).sum()
}

/// A queue that changes is noticed at once: until then a limit may hold in the wrong way, or not at all.
pub(super) fn queue_is_noticed(stand: &mut Stand) -> Result<()> {
    netns::shape(&stand::server(), "eth0", "900mbit")?;
    stand.start("{ mode: require, perPeerLimit: 100Mbps }")?;
    let reason = |stand: &Stand| -> Result<String> {
        Ok(stand.status()?["shaper"]["reason"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(reason(stand)?.contains("tbf"), "{}", reason(stand)?);
    let changed = Instant::now();
    let words = ["-n", &stand::server(), "qdisc", "replace", "dev", "eth0", "root", "pfifo"];
    check(Command::new("tc").args(words), SHORT)?;
    while !reason(stand)?.contains("pfifo") {
        ensure!(changed.elapsed() < Duration::from_secs(2), "not noticed: {}", reason(stand)?);
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = changed.elapsed();
    println!("    noticed {:.0} ms after the command began: {}", took.as_secs_f64() * 1e3, reason(stand)?);
    ensure!(took < Duration::from_millis(500), "noticed after {took:?}");
    Ok(())
}

pub(super) fn limits_without_sense(stand: &mut Stand) -> Result<()> {
    for (limit, says) in [
        ("1bps", "shaper.perPeerLimit"),
        ("7999", "shaper.perPeerLimit"),
        ("9223372036854775808", "shaper.perPeerLimit"),
        ("18446744073709551616", "perPeerLimit"),
        ("-1", "shaper"),
    ] {
        let refused = stand.refused(&format!("{{ perPeerLimit: {limit} }}"))?;
        println!("    {limit}: {refused}");
        ensure!(refused.contains(says), "not by its name");
    }
    // Of a running daemon nothing changes; 0 is no limit.
    stand.start("{ mode: require, perPeerLimit: 100Mbps }")?;
    let readers = stand.read(0, 4)?;
    stand.reload("{ mode: require, perPeerLimit: 1bps }")?;
    let held = readers.rate(Duration::from_secs(1), Duration::from_secs(1)) / MBIT;
    stand.reload("{ mode: require, perPeerLimit: 0 }")?;
    let free = readers.rate(Duration::from_secs(1), Duration::from_secs(1)) / MBIT;
    println!("    {held:.2} of 100 Mbit/s while 1 bit/s stands in the file; {free:.0} with 0");
    ensure!((held - 100.0).abs() < 3.0 && free > 200.0, "{held:.2}, then {free:.2} Mbit/s");
    Ok(())
}

/// More peers than the maps hold ([`Programs::crowd`](super::Programs)), each a TCP connection with a request and its answer.
pub(super) fn crowd(stand: &mut Stand) -> Result<()> {
    let (server, client, size) = (stand::server(), stand::client(), stand.crowd());
    stand::without_segmentation()?;
    netns::ip(&["-n", &client, "route", "add", "local", CROWD_NETWORK, "dev", "lo"])?;
    let gateway = stand::address(0).to_string();
    netns::ip(&["-n", &server, "route", "add", CROWD_NETWORK, "via", &gateway])?;
    stand.start("{ mode: require, perPeerLimit: 100Mbps }")?;
    let (before, device) = (totals(&stand.status()?), stand::interface()?);
    let started = Instant::now();
    let answered = netns::within(&client, || {
        readers::crowd(
            (0..size).map(|number| Ipv4Addr::from_bits(CROWD_FIRST + number)),
            stand::piece_server(),
        )
    })?;
    let took = started.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(1500));
    let status = stand.status()?;
    let (after, now) = (totals(&status), stand::interface()?);
    let remembered = status["peers"].as_array().map_or(0, Vec::len);
    let off = |ours: u64, theirs: u64| (ours as f64 / theirs as f64 - 1.0) * 100.0;
    let sent = (after.0 - before.0, now.sent - device.sent);
    let received = (after.1 - before.1, now.received - device.received);
    println!(
        "    {answered} of {size} peers were answered in {took:.1} s; {remembered} are remembered one by one"
    );
    println!(
        "    sent {} of the interface's {} ({:+.4} %), received {} of {} ({:+.4} %)",
        sent.0,
        sent.1,
        off(sent.0, sent.1),
        received.0,
        received.1,
        off(received.0, received.1)
    );
    let entries = [map_entries("FLOWS")?, map_entries("PEERS")?];
    println!(
        "    entries in the kernel: flows {}, peers {}; room for {MAP_ENTRIES} each",
        entries[0], entries[1]
    );
    ensure!(answered == size, "not all were answered");
    ensure!(
        off(sent.0, sent.1).abs() < 0.1 && off(received.0, received.1).abs() < 0.1,
        "more than 0.1 % off"
    );
    ensure!(entries.into_iter().all(|entries| entries <= MAP_ENTRIES), "the maps grew");
    ensure!(remembered <= MAP_ENTRIES && remembered > MAP_ENTRIES / 2, "{remembered} are remembered");
    // One that was never seen before is limited as any other.
    let rate = stand.read(1, 4)?.rate(Duration::from_secs(1), Duration::from_secs(1)) / MBIT;
    println!("    a new peer after them: {rate:.2} of 100 Mbit/s");
    ensure!((rate - 100.0).abs() < 3.0, "{rate:.2} Mbit/s of 100");
    Ok(())
}

/// Sent and received by all classes.
fn totals(status: &Value) -> (u64, u64) {
    let sum = |key: &str| {
        let classes = status["shaper"]["classes"].as_array().into_iter().flatten();
        classes.filter_map(|class| class[key].as_u64()).sum()
    };
    (sum("sent_bytes"), sum("received_bytes"))
}

/// Entries of the daemon's map of this name, walked by `bpftool`.
fn map_entries(name: &str) -> Result<usize> {
    let shown = check(Command::new("bpftool").args(["--json", "map", "show", "name", name]), SHORT)?.stdout;
    let shown: Value = serde_json::from_str(&shown).context("read what bpftool says")?;
    let first = if shown.is_array() { &shown[0] } else { &shown };
    let id = first["id"].as_u64().with_context(|| format!("no map {name}"))?.to_string();
    let count = format!("bpftool map dump id {id} | grep -c '\"key\"'");
    let counted = run(Command::new("sh").args(["-c", &count]), Duration::from_secs(30))?;
    counted.stdout.trim().parse().with_context(|| format!("count a map's entries: {}", counted.stderr))
}
