//! `cargo xtask bench pull`: pulls of one 64 MiB layer by real containerd, each way against its rival in
//! the same run.
//!
//! Invariant: a rival gets the same image kind, the same containerd, the same machine, in turns; nothing
//! of it is slowed down.

use crate::lab::containerd::Via;
use crate::lab::images::{self, Image};
use crate::lab::network::Cluster;
use crate::lab::registry::Registry;
use crate::lab::{Lab, Plan};
use crate::setup::{self, Ability};
use crate::{binaries, workspace};
use anyhow::{Context, Result, bail};
use hawker_bench::{Comparison, Report};
use std::process::ExitCode;
use std::time::Duration;

/// Rounds; the median of these is what counts.
const ROUNDS: u64 = 5;

pub(crate) fn run() -> Result<ExitCode> {
    if let Ability::NoLab(why) = setup::run()? {
        bail!("the benchmark needs the lab: {why}");
    }
    let binaries = binaries::build()?;
    let plan = Plan { peers: vec![2], seeds: false, ..Plan::default() };
    let lab = Lab::up(&binaries, &plan)?;
    let near = Registry::start_near(Cluster::A)?;
    println!(
        "registry on the node's own bridge: {}; behind {}: {}",
        near.url(),
        plan.origin_rate,
        lab.registry.url()
    );
    let mut times = Times::default();
    for round in 0..ROUNDS {
        measure(&lab, round, &mut times)?;
    }
    let report = times.report();
    print!("{}", report.render());
    let path = workspace::root()?.join("bench/results/pull.json");
    report.write(&path).with_context(|| format!("write {}", path.display()))?;
    println!("written to bench/results/pull.json");
    Ok(ExitCode::SUCCESS)
}

#[derive(Default)]
struct Times {
    near: Vec<Duration>,
    peer: Vec<Duration>,
    origin: Vec<Duration>,
    cold: Vec<Duration>,
    local: Vec<Duration>,
}

/// One round: five pulls, of images nobody has seen.
fn measure(lab: &Lab, round: u64, times: &mut Times) -> Result<()> {
    let make = |kind: &str, number: u64| {
        images::make(&lab.registry, &format!("{kind}-{round}"), &images::ONE_LAYER, 100 + round * 10 + number)
    };
    let (shared, direct) = (make("shared", 1)?, make("direct", 2)?);
    // Cold through Hawker, and the same straight from the origin; who goes first changes with the rounds.
    let cold = || pull(lab, "a1", &shared, Via::Hawker);
    let straight = || pull(lab, "a1", &direct, Via::Origin);
    if round.is_multiple_of(2) {
        times.cold.push(cold()?);
        times.origin.push(straight()?);
    } else {
        times.origin.push(straight()?);
        times.cold.push(cold()?);
    }
    // From the peer that has it now, and from the registry on the own bridge.
    let peer = || pull(lab, "a2", &shared, Via::Hawker);
    let near = || pull(lab, "a2", &direct, Via::Near(Cluster::A));
    if round.is_multiple_of(2) {
        times.peer.push(peer()?);
        times.near.push(near()?);
    } else {
        times.near.push(near()?);
        times.peer.push(peer()?);
    }
    // Again from the own store: containerd has forgotten it, the daemon has not.
    times.local.push(pull(lab, "a2", &shared, Via::Hawker)?);
    Ok(())
}

/// Pulls, and removes the image from containerd again.
fn pull(lab: &Lab, node: &str, image: &Image, via: Via) -> Result<Duration> {
    let node = lab.node(node)?;
    let took = node.containerd.pull(&image.reference, via)?;
    node.containerd.remove(&image.reference)?;
    println!("    {} {via:?} {}: {:.3} s", node.name, image.reference, took.as_secs_f64());
    Ok(took)
}

impl Times {
    fn report(self) -> Report {
        let comparison = |what: &str, rival: &str, ours: &[Duration], theirs: &[Duration], target: f64| {
            Comparison::new(what, rival, ours, theirs, target)
        };
        Report::new(
            "pull",
            vec![
                comparison(
                    "64 MiB from a remote peer",
                    "registry on the node's own bridge",
                    &self.peer,
                    &self.near,
                    1.3,
                ),
                comparison("64 MiB cold", "straight from the shaped origin", &self.cold, &self.origin, 1.1),
                comparison(
                    "64 MiB from the own store",
                    "registry on the node's own bridge",
                    &self.local,
                    &self.near,
                    1.0,
                ),
                comparison(
                    "64 MiB from the own store",
                    "straight from the shaped origin",
                    &self.local,
                    &self.origin,
                    1.0,
                ),
            ],
        )
    }
}
