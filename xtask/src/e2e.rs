//! End-to-end cases in the lab: real containerd, real registry, real processes that really die.
//!
//! Invariant: each case says what it measured, and judges by the registry's log, containerd's content
//! store and the daemons' status.

mod bandwidth;
mod clients;
mod conformance;
mod console;
mod containerd_two;
mod crowd;
mod faults;
mod files;
mod full_disk;
mod input;
mod managers;
mod misbehaving;
mod observability;
mod pod;
mod preheat;
mod private;
mod runtimes;
mod upgrade;

use crate::binaries;
use crate::demo;
use crate::lab::cri;
use crate::lab::images::{self, Image, LayerPlan};
use crate::lab::network::Cluster;
use crate::lab::{Lab, Node, Plan};
use crate::setup::Ability;
use crate::test::Tally;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

type Case = (&'static str, Group);
/// Where a program is, or why it is not.
type Program = fn() -> Result<PathBuf, String>;

/// Cases that share a lab.
enum Group {
    /// The demo's two clusters.
    Demo(fn(&Lab) -> Result<()>),
    /// Eight peers of one cluster.
    Crowd { seeds: bool, run: fn(&Lab) -> Result<()> },
    /// Two parents and their children, with a rate to the parents' links.
    Bandwidth { reports: bool, run: fn(&Lab) -> Result<()> },
    /// Three peers of one cluster, no seed, to be broken.
    Trio(fn(&mut Lab) -> Result<()>),
    /// Two peers and a seed of one cluster.
    Seeded(fn(&mut Lab) -> Result<()>),
    /// Two peers of one cluster, no seed.
    Pair(fn(&mut Lab) -> Result<()>),
    /// Two peers and a seed of one cluster, two managers on one PostgreSQL.
    Managers(fn(&mut Lab) -> Result<()>),
    /// Two peers of one cluster and a browser; the second cluster comes by the console.
    Console,
    /// As a pair, where helm can be had.
    Pod(fn(&mut Lab) -> Result<()>),
    /// As a pair, where these programs can be had, which Debian has not.
    With(&'static [Program], fn(&mut Lab, &[PathBuf]) -> Result<()>),
    /// One node.
    Solo(fn(&mut Lab) -> Result<()>),
}

const CASES: &[Case] = &[
    ("demo: four pulls, one copy per cluster, second nodes from peers", Group::Demo(four_pulls)),
    ("input: configuration, scopes and requests that are wrong are named", Group::Demo(input::is_named)),
    ("crowd: eight nodes at once, without a seed", Group::Crowd { seeds: false, run: crowd::at_once }),
    ("crowd: eight nodes at once, with a seed", Group::Crowd { seeds: true, run: crowd::at_once }),
    (
        "bandwidth: of two parents the one busy with its pods is spared",
        Group::Bandwidth { reports: true, run: bandwidth::spares_the_busy },
    ),
    (
        "bandwidth: without reports both serve",
        Group::Bandwidth { reports: false, run: bandwidth::uses_both_without_reports },
    ),
    (
        "bandwidth: a limit of the cluster holds while traffic flows, the manager knows what was moved",
        Group::Crowd { seeds: false, run: bandwidth::cluster_limits },
    ),
    ("faults: kill -9 of a daemon mid-pull, no piece fetched twice", Group::Trio(faults::daemon_crashes)),
    ("faults: the scheduler dies mid-pull", Group::Trio(faults::scheduler_crashes)),
    ("faults: the manager is down, daemons restart", Group::Trio(faults::manager_is_down)),
    ("faults: a peer serves a flipped byte", Group::Trio(faults::flipped_byte)),
    ("faults: the disk is full", Group::Trio(faults::full_disk)),
    (
        "managers: two on one PostgreSQL, one is killed; the database vanishes and returns",
        Group::Managers(managers::one_dies),
    ),
    ("faults: the manager's disk is full", Group::Solo(full_disk::under_sqlite)),
    ("faults: the daemon is dead", Group::Trio(faults::no_daemon)),
    ("faults: the daemon is frozen", Group::Trio(faults::frozen_daemon)),
    ("upgrade: every program one version up and back while all nodes pull", Group::Trio(upgrade::rolling)),
    ("runtimes: set up, reverted, and examined by the doctor", Group::Solo(runtimes::set_up_and_reverted)),
    (
        "private: by password, containerd, skopeo and podman; who has no right gets nothing",
        Group::Pair(private::by_password),
    ),
    ("private: by token, and public images without credentials", Group::Pair(private::by_token)),
    (
        "clients: crictl, public and private images; a second user is refused",
        Group::With(&[cri::crictl], clients::by_cri),
    ),
    (
        "clients: containerd 2, two directories in its config_path, before and after init-runtime",
        Group::With(&[cri::crictl, cri::containerd_two], containerd_two::set_up),
    ),
    ("clients: Docker's daemon, with Hawker for its registry mirror", Group::Pair(clients::by_docker)),
    ("misbehaving: origins, pulls end within direct + 5 s", Group::Pair(misbehaving::origins)),
    ("misbehaving: peers, pulls end within direct + 5 s", Group::Pair(misbehaving::peers)),
    ("files: hawker get, one copy, private ones stay private", Group::Trio(files::by_the_tool)),
    (console::NAME, Group::Console),
    (
        "observability: one trace for a containerd pull, Prometheus, data for every panel",
        Group::Seeded(observability::traces_and_metrics),
    ),
    (
        "preheat: onto all nodes, pulled from their stores; cancelled; over a dead manager",
        Group::Trio(preheat::all),
    ),
    (
        "preheat: a private image, by the nodes' own account; who has no right gets nothing",
        Group::Pair(preheat::of_private),
    ),
    (
        "pod: Hawker's own image, through Hawker, is the next node's daemon, as the chart's DaemonSet has it",
        Group::Pod(pod::next_nodes_daemon),
    ),
    ("teardown: nothing of the lab is left", Group::Demo(nothing)),
];

pub(crate) fn run(ability: &Ability, only: Option<&str>, tally: &mut Tally) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let cases: Vec<&Case> = CASES.iter().filter(|(name, _)| wanted(name)).collect();
    let suite = wanted(conformance::NAME);
    if let Ability::NoLab(why) = ability {
        for name in cases.iter().map(|(name, _)| *name).chain(suite.then_some(conformance::NAME)) {
            tally.skip(name, why);
        }
        return Ok(());
    }
    if cases.is_empty() && !suite {
        return Ok(());
    }
    let binaries = binaries::build()?;
    if suite {
        match conformance::program() {
            Err(why) => tally.skip(conformance::NAME, &why),
            Ok(program) => tally.run(conformance::NAME, || {
                let plan = Plan { peers: vec![1], seeds: false, ..Plan::default() };
                conformance::run(&Lab::up(&binaries, &plan)?, &program)
            }),
        }
    }
    for (name, group) in cases {
        if let Some(why) = obstacle(group)? {
            tally.skip(name, &why);
            continue;
        }
        tally.run_timed(name, || {
            let plan = match group {
                Group::Demo(_) => Plan::default(),
                Group::Crowd { seeds, .. } => Plan { peers: vec![8], seeds: *seeds, ..Plan::default() },
                Group::Bandwidth { reports, .. } => bandwidth::plan(*reports),
                Group::Trio(_) => Plan { peers: vec![3], seeds: false, ..Plan::default() },
                Group::Managers(_) => managers::plan(),
                Group::Seeded(_) => Plan { peers: vec![2], seeds: true, ..Plan::default() },
                Group::Pair(_) | Group::Pod(_) | Group::Console | Group::With(..) => {
                    Plan { peers: vec![2], seeds: false, ..Plan::default() }
                }
                Group::Solo(_) => Plan { peers: vec![1], seeds: false, ..Plan::default() },
            };
            let two = matches!(group, Group::Managers(_));
            let mut lab = Lab::up_with(&binaries, &plan, two)?;
            match group {
                Group::Demo(run) | Group::Crowd { run, .. } | Group::Bandwidth { run, .. } => run(&lab)?,
                Group::Console => console::run(&mut lab)?,
                Group::With(programs, run) => {
                    let found: Result<Vec<_>, _> = programs.iter().map(|program| program()).collect();
                    run(&mut lab, &found.map_err(anyhow::Error::msg)?)?;
                }
                Group::Trio(run)
                | Group::Seeded(run)
                | Group::Managers(run)
                | Group::Pair(run)
                | Group::Pod(run)
                | Group::Solo(run) => run(&mut lab)?,
            }
            drop(lab);
            nothing_left()
        });
    }
    Ok(())
}

/// Why a case cannot run on this machine.
fn obstacle(group: &Group) -> Result<Option<String>> {
    Ok(match group {
        Group::Console => console::can_run().err(),
        Group::Pod(_) => pod::missing()?,
        Group::With(programs, _) => programs.iter().find_map(|program| program().err()),
        _ => None,
    })
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
        ensure!(!Path::new(dir).exists(), "{dir} is left");
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
