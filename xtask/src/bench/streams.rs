//! Part of `cargo xtask bench receive`: one connection from a hawkerd's peer port into a store, over veth, against
//! what iperf3 gets over the same pair.
//!
//! Invariant: the sender is on one CPU, the same in all rows; a row says which CPUs the receiver may use.

use super::receive::{least, one};
use super::servers::{Kind, Server};
use super::stand::{Network, Stand};
use crate::command::{LONG, check};
use crate::lab::processes::Process;
use crate::{interrupt, netns};
use anyhow::{Context, Result};
use hawker_bench::engine::{Target, Verdict};
use hawker_bench::median;
use hawker_bench::receive_report::{Received, Row};
use std::time::Duration;

const PORT: u16 = 5201;
const START_LIMIT: Duration = Duration::from_secs(5);
/// The receiver's own CPU, and that one with the sender's.
const ONE: &str = "1";
const BOTH: &str = "0,1";
/// Digest, ways by name, CPUs. With both CPUs the digest is computed beside the stream; without one there is nothing to
/// hold it back.
const ROWS: [(&str, &str, &str); 9] = [
    ("none", "iperf3", ONE),
    ("none", "product", ONE),
    ("blake3", "product", ONE),
    ("none", "product", BOTH),
    ("blake3", "product", BOTH),
    ("blake3", "plain", BOTH),
    ("none", "discard", ONE),
    ("none", "write", ONE),
    ("blake3", "write", ONE),
];

pub(super) fn run(stand: &Stand, rounds: usize) -> Result<(Vec<Row>, Vec<Verdict>)> {
    let source = Server::start(stand, Kind::IoUring)?;
    let mut rows: Vec<Row> = ROWS
        .iter()
        .map(|(digest, way, cpus)| {
            let way = format!("{way}, CPU {cpus}");
            Row { digest: (*digest).to_owned(), way, runs: Vec::new() }
        })
        .collect();
    for round in 0..rounds {
        for turn in 0..ROWS.len() {
            let number = (turn + round) % ROWS.len();
            let (digest, way, cpus) = ROWS[number];
            let received = if way == "iperf3" {
                iperf3(stand)?
            } else {
                let command = stand.client_on(Network::Veth, cpus, &stand.programs.receive);
                one(stand, command, (Network::Veth, &source), (way, digest), 1, |_| ())?
            };
            rows[number].runs.push(received);
        }
    }
    println!("\none connection over veth, from hawkerd:");
    for row in &rows {
        println!("{:>9}{:>18}{:>9.2}{:>9.3}", row.digest, row.way, row.gb_per_second(), row.cpu_per_gb());
    }
    let verdicts = judge(&rows);
    Ok((rows, verdicts))
}

fn judge(rows: &[Row]) -> Vec<Verdict> {
    let [iperf3, none_one, blake3_one, none_both, blake3_both, plain, discard, write, hash] = rows else {
        return Vec::new();
    };
    let ratio = |ours: &Row, theirs: &Row| {
        let rounds = ours.runs.iter().zip(&theirs.runs);
        median(&rounds.map(|(a, b)| a.gb_per_second / b.gb_per_second).collect::<Vec<_>>())
    };
    let most = |what: &str, write: &Row| {
        let rounds = iperf3.runs.iter().zip(least(discard, write));
        let most = rounds.map(|(iperf3, least)| 1.0 / least / iperf3.gb_per_second);
        Verdict::new(what, "anybody", median(&most.collect::<Vec<_>>()), Target::None)
    };
    let verdict = |what: &str, value, target| Verdict::new(what, "product", value, target);
    vec![
        verdict(
            "one stream into the store, BLAKE3, by iperf3",
            ratio(blake3_both, iperf3),
            Target::AtLeast(0.8),
        ),
        verdict("the same on one CPU", ratio(blake3_one, iperf3), Target::None),
        verdict("the same on one CPU without a digest", ratio(none_one, iperf3), Target::None),
        most("the most that one CPU could store, BLAKE3, by iperf3", hash),
        most("the same without a digest, by iperf3", write),
        verdict("BLAKE3 on another core, by no digest", ratio(blake3_both, none_both), Target::AtLeast(0.9)),
        verdict("one stream, BLAKE3, by plain tokio", ratio(blake3_both, plain), Target::None),
    ]
}

/// The blob's size from the server's namespace into nothing at the client's.
fn iperf3(stand: &Stand) -> Result<Received> {
    interrupt::check()?;
    let port = PORT.to_string();
    let mut receiver = stand.client_on(Network::Veth, ONE, "iperf3");
    receiver.args(["-s", "-1", "-p", &port]);
    let mut receiver = Process::start("iperf3", &mut receiver, &stand.dir.join("iperf3.log"))?;
    let namespace = Network::Veth.client_namespace();
    interrupt::poll("iperf3 listens", START_LIMIT, || {
        receiver.check()?;
        let filter = format!("sport = :{PORT}");
        let listed = check(netns::command(&namespace, "ss").args(["-tlnH", &filter]), LONG)?.stdout;
        anyhow::ensure!(!listed.trim().is_empty(), "not yet");
        Ok(())
    })?;
    let bytes = stand.warm.bytes.to_string();
    let mut sender = stand.server("iperf3");
    sender.args(["-c", &Network::Veth.first_source().to_string(), "-p", &port, "-n", &bytes, "-J"]);
    let told = check(&mut sender, LONG)?.stdout;
    // It ends by itself after one run.
    receiver.leave();
    let told: serde_json::Value = serde_json::from_str(&told).context("read what iperf3 says")?;
    let end = &told["end"];
    let number = |value: &serde_json::Value| value.as_f64().context("a number of iperf3");
    let rate = number(&end["sum_received"]["bits_per_second"])? / 8e9;
    let seconds = number(&end["sum_received"]["seconds"])?;
    let cpu = number(&end["cpu_utilization_percent"]["remote_total"])? / 100.0 / rate;
    Ok(Received { seconds, gb_per_second: rate, cpu_per_gb: cpu, peak_resident_kib: 0 })
}
