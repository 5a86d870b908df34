//! `cargo xtask bench pull`: pulls of one 64 MiB layer by real containerd, each way against its rival in
//! the same run.
//!
//! Invariant: a rival gets the same image kind, the same containerd, the same machine, in turns; nothing
//! of it is slowed down.

use crate::lab::containerd::Via;
use crate::lab::images::{self, Image};
use crate::lab::network::Cluster;
use crate::lab::nginx::Nginx;
use crate::lab::registry::Registry;
use crate::lab::{Lab, Plan};
use crate::setup::{self, Ability};
use crate::{binaries, workspace};
use anyhow::{Context, Result, bail};
use hawker_bench::{Comparison, Report};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

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
    let nginx = Nginx::start_near(Cluster::A)?;
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
    nginx.stop()?;
    let report = times.report();
    print!("{}", report.render());
    let path = workspace::root()?.join("bench/results/pull.json");
    report.write(&path).with_context(|| format!("write {}", path.display()))?;
    println!("written to bench/results/pull.json");
    Ok(ExitCode::SUCCESS)
}

/// One way of pulling, all its rounds: until `ctr` returned, and until containerd had the layer checked and
/// committed (`ctr` itself looks only every 100 ms, and unpacks).
#[derive(Default)]
struct Way {
    whole: Vec<Duration>,
    committed: Vec<Duration>,
}

#[derive(Default)]
struct Times {
    near: Way,
    nginx: Way,
    peer: Way,
    origin: Way,
    cold: Way,
    local: Way,
}

/// One round: six pulls, of images nobody has seen.
fn measure(lab: &Lab, round: u64, times: &mut Times) -> Result<()> {
    let make = |kind: &str, number: u64| {
        images::make(&lab.registry, &format!("{kind}-{round}"), &images::ONE_LAYER, 100 + round * 10 + number)
    };
    let (shared, direct) = (make("shared", 1)?, make("direct", 2)?);
    // Who goes first changes with the rounds.
    let ours_first = round.is_multiple_of(2);
    for ours in [ours_first, !ours_first] {
        if ours {
            pull(lab, "a1", &shared, Via::Hawker, &mut times.cold)?;
        } else {
            pull(lab, "a1", &direct, Via::Origin, &mut times.origin)?;
        }
    }
    for ours in [ours_first, !ours_first] {
        if ours {
            // From the peer that has it now; then again, containerd having forgotten it and the daemon not.
            pull(lab, "a2", &shared, Via::Hawker, &mut times.peer)?;
            pull(lab, "a2", &shared, Via::Hawker, &mut times.local)?;
        } else {
            pull(lab, "a2", &direct, Via::Near(Cluster::A), &mut times.near)?;
            pull(lab, "a2", &direct, Via::Nginx(Cluster::A), &mut times.nginx)?;
        }
    }
    Ok(())
}

/// Pulls, takes the times, and removes the image from containerd again.
fn pull(lab: &Lab, node: &str, image: &Image, via: Via<'_>, way: &mut Way) -> Result<()> {
    let node = lab.node(node)?;
    let started = SystemTime::now();
    let whole = node.containerd.pull(&image.reference, via)?;
    let committed = node.containerd.committed_at(&image.layers[0].digest)?.duration_since(started)?;
    node.containerd.remove(&image.reference)?;
    let (name, reference) = (&node.name, &image.reference);
    println!(
        "    {name} {via:?} {reference}: {:.3} s, layer committed after {:.3} s",
        whole.as_secs_f64(),
        committed.as_secs_f64()
    );
    way.whole.push(whole);
    way.committed.push(committed);
    Ok(())
}

impl Times {
    fn report(self) -> Report {
        let near = "registry on the node's own bridge";
        let nginx = "nginx with sendfile on the node's own bridge";
        let origin = "straight from the shaped origin";
        let pairs = [
            ("64 MiB from a remote peer", &self.peer, near, &self.near, 1.3),
            ("64 MiB from a remote peer", &self.peer, nginx, &self.nginx, 1.15),
            ("64 MiB cold", &self.cold, origin, &self.origin, 1.1),
            ("64 MiB from the own store", &self.local, near, &self.near, 1.0),
            ("64 MiB from the own store", &self.local, origin, &self.origin, 1.0),
        ];
        let mut comparisons = Vec::new();
        for (what, ours, rival, theirs, target) in pairs {
            comparisons.push(Comparison::new(what, rival, &ours.whole, &theirs.whole, target));
            let what = format!("{what}, until the layer is committed");
            comparisons.push(Comparison::new(&what, rival, &ours.committed, &theirs.committed, target));
        }
        Report::new("pull", comparisons)
    }
}
