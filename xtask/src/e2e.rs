//! End-to-end cases in the lab: real containerd, real registry, real processes that really die.
//!
//! Invariant: each case says what it measured, and judges by the registry's log, containerd's content
//! store and the daemons' status.

mod crowd;
mod faults;
mod input;

use crate::binaries;
use crate::demo;
use crate::lab::images::{self, Image, LayerPlan};
use crate::lab::network::Cluster;
use crate::lab::{Lab, Node, Plan};
use crate::setup::Ability;
use crate::test::Tally;
use anyhow::{Result, ensure};

type Case = (&'static str, Group);

/// Cases that share a lab.
enum Group {
    /// The demo's two clusters.
    Demo(fn(&Lab) -> Result<()>),
    /// Eight peers of one cluster.
    Crowd { seeds: bool, run: fn(&Lab) -> Result<()> },
    /// Three peers of one cluster, no seed, to be broken.
    Trio(fn(&mut Lab) -> Result<()>),
}

const CASES: [Case; 12] = [
    ("demo: four pulls, one copy per cluster, second nodes from peers", Group::Demo(four_pulls)),
    ("input: configuration, scopes and requests that are wrong are named", Group::Demo(input::is_named)),
    ("crowd: eight nodes at once, without a seed", Group::Crowd { seeds: false, run: crowd::at_once }),
    ("crowd: eight nodes at once, with a seed", Group::Crowd { seeds: true, run: crowd::at_once }),
    ("faults: kill -9 of a daemon mid-pull, no piece fetched twice", Group::Trio(faults::daemon_crashes)),
    ("faults: the scheduler dies mid-pull", Group::Trio(faults::scheduler_crashes)),
    ("faults: the manager is down, daemons restart", Group::Trio(faults::manager_is_down)),
    ("faults: a peer serves a flipped byte", Group::Trio(faults::flipped_byte)),
    ("faults: the disk is full", Group::Trio(faults::full_disk)),
    ("faults: the daemon is dead", Group::Trio(faults::no_daemon)),
    ("faults: the daemon is frozen", Group::Trio(faults::frozen_daemon)),
    ("teardown: nothing of the lab is left", Group::Demo(nothing)),
];

pub(crate) fn run(ability: &Ability, only: Option<&str>, tally: &mut Tally) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let cases: Vec<&Case> = CASES.iter().filter(|(name, _)| wanted(name)).collect();
    if let Ability::NoLab(why) = ability {
        for (name, _) in cases {
            tally.skip(name, why);
        }
        return Ok(());
    }
    if cases.is_empty() {
        return Ok(());
    }
    let binaries = binaries::build()?;
    for (name, group) in cases {
        tally.run(name, || {
            let plan = match group {
                Group::Demo(_) => Plan::default(),
                Group::Crowd { seeds, .. } => Plan { peers: vec![8], seeds: *seeds, ..Plan::default() },
                Group::Trio(_) => Plan { peers: vec![3], seeds: false, ..Plan::default() },
            };
            let mut lab = Lab::up(&binaries, &plan)?;
            match group {
                Group::Demo(run) | Group::Crowd { run, .. } => run(&lab)?,
                Group::Trio(run) => run(&mut lab)?,
            }
            drop(lab);
            nothing_left()
        });
    }
    Ok(())
}

fn four_pulls(lab: &Lab) -> Result<()> {
    let image = images::make(&lab.registry, "demo", &images::DEMO, 1)?;
    let shown = demo::show(lab, &image)?;
    print!("{}", shown.text);
    ensure!(shown.problems.is_empty(), "{}", shown.problems.join("; "));
    Ok(())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a case like the others: what it checks comes after the lab is down"
)]
fn nothing(_lab: &Lab) -> Result<()> {
    Ok(())
}

/// After a lab is down, nothing of it stands.
fn nothing_left() -> Result<()> {
    let standing = crate::netns::standing()?;
    ensure!(standing.is_empty(), "namespaces left: {standing:?}");
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    ensure!(!mounts.contains("hawker-lab"), "mounts left:\n{mounts}");
    for dir in [crate::lab::DATA, crate::lab::RUN] {
        ensure!(!std::path::Path::new(dir).exists(), "{dir} is left");
    }
    Ok(())
}

const MIB: usize = 1 << 20;

/// An image of random layers of these sizes, MiB.
fn image(lab: &Lab, name: &str, layers: &[usize]) -> Result<Image> {
    let random = |mib: &usize| LayerPlan { bytes: mib * MIB, fill: images::Fill::Random };
    let seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    images::make(&lab.registry, name, &layers.iter().map(random).collect::<Vec<_>>(), seed % 100_000)
}

/// Origin bytes of cluster A since `before`, in sizes of `image`, printed.
fn origin_ratio(lab: &Lab, image: &Image, before: u64) -> Result<f64> {
    let bytes = lab.origin_bytes(Cluster::A)? - before;
    let ratio = bytes as f64 / image.bytes() as f64;
    println!("    origin bytes {bytes} = {ratio:.4} x image of {} bytes", image.bytes());
    Ok(ratio)
}

fn has_all(node: &Node, image: &Image) -> Result<()> {
    let missing = demo::missing(node, image)?;
    ensure!(missing.is_empty(), "{} lacks {}", node.name, missing.join(", "));
    Ok(())
}
