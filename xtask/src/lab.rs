//! The lab: nodes as network namespaces on one bridge per cluster, each with its own `hawkerd` and its
//! own containerd; a registry behind a shaped link; the control plane; no way between the clusters.
//!
//! ```text
//!   hwk-a1 … hwk-aN ── br-a ┐             ┌ hwk-origin   10.71.9.2  docker-registry, shaped
//!                           ├ hwk-router ─┤
//!   hwk-b1 … hwk-bN ── br-b ┘   (A ✗ B)   └ hwk-control  10.71.9.3  manager, schedulers
//! ```
//!
//! Invariant: whatever happens, `down` finds everything the lab made by the prefix of its namespaces
//! and its two directories, and removes it.

pub(crate) mod cli;
pub(crate) mod collector;
pub(crate) mod containerd;
pub(crate) mod control;
pub(crate) mod cri;
pub(crate) mod daemon;
pub(crate) mod docker;
pub(crate) mod faulty;
pub(crate) mod guarded;
pub(crate) mod images;
pub(crate) mod network;
pub(crate) mod nginx;
pub(crate) mod processes;
pub(crate) mod prometheus;
pub(crate) mod registry;
mod teardown;

use crate::binaries::Binaries;
use anyhow::{Context, Result};
use containerd::Containerd;
use control::Control;
use daemon::Daemon;
use network::Cluster;
use registry::Registry;
use std::path::{Path, PathBuf};

pub(crate) use teardown::down;

/// Data of everything in the lab.
pub(crate) const DATA: &str = "/var/lib/hawker-lab";
/// Sockets: the path of a unix socket has at most 107 bytes.
pub(crate) const RUN: &str = "/run/hawker-lab";
/// The name images are pulled under; only `hosts.toml` and the daemons know where it is.
pub(crate) const REGISTRY_NAME: &str = "registry.lab:5000";
/// The host that files are fetched from: the nginx near the cluster, where it was started.
pub(crate) const FILES_NAME: &str = "files.lab";

/// What to build.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Peers of each cluster; the first cluster is A, the second B.
    pub(crate) peers: Vec<usize>,
    /// One seed peer in each cluster.
    pub(crate) seeds: bool,
    /// Rate of the link to the registry, in tc's words.
    pub(crate) origin_rate: String,
    /// `shaper` of every daemon, in YAML.
    pub(crate) shaper: String,
    /// `scheduler.useReports`
    pub(crate) use_reports: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let (origin_rate, shaper) = ("100mbit".to_owned(), "{}".to_owned());
        Self { peers: vec![2, 2], seeds: true, origin_rate, shaper, use_reports: true }
    }
}

/// A standing lab; dropping it takes it down.
pub(crate) struct Lab {
    pub(crate) binaries: Binaries,
    pub(crate) registry: Registry,
    pub(crate) control: Control,
    pub(crate) nodes: Vec<Node>,
    keep: bool,
}

/// One node: a namespace, a daemon, a containerd.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) cluster: Cluster,
    pub(crate) seed: bool,
    pub(crate) ip: std::net::Ipv4Addr,
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd,
}

impl Lab {
    /// Builds the lab, after clearing away what an earlier one left.
    pub(crate) fn up(binaries: &Binaries, plan: &Plan) -> Result<Self> {
        Self::up_with(binaries, plan, false)
    }

    /// As [`Self::up`], with one manager or two on one PostgreSQL.
    pub(crate) fn up_with(binaries: &Binaries, plan: &Plan, two: bool) -> Result<Self> {
        down()?;
        let built = Self::build(binaries, plan, two);
        if built.is_err()
            && let Err(error) = down()
        {
            eprintln!("take the lab down: {error:?}");
        }
        built
    }

    fn build(binaries: &Binaries, plan: &Plan, two: bool) -> Result<Self> {
        for dir in [DATA, RUN] {
            std::fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
        }
        network::build(plan)?;
        let registry = Registry::start()?;
        let clusters: Vec<Cluster> = Cluster::ALL.into_iter().take(plan.peers.len()).collect();
        let control = Control::start(&binaries.control, &clusters, plan.use_reports, two)?;
        let mut nodes = Vec::new();
        for member in network::members(plan) {
            nodes.push(Node::start(binaries, member, &plan.shaper, two)?);
        }
        let lab = Self { binaries: binaries.clone(), registry, control, nodes, keep: false };
        for node in &lab.nodes {
            node.daemon.wait_ready()?;
        }
        Ok(lab)
    }

    /// Starts a peer of a cluster that the manager has but the lab was built without, and the cluster's scheduler.
    pub(crate) fn join(&mut self, cluster: Cluster) -> Result<&Node> {
        network::add_cluster(cluster)?;
        self.control.add_scheduler(cluster)?;
        let node = Node::start(&self.binaries, network::add_peer(cluster, 1)?, "{}", false)?;
        node.daemon.wait_ready()?;
        self.nodes.push(node);
        self.nodes.last().context("a node was added")
    }

    /// Leaves everything running when this value goes.
    pub(crate) fn keep(mut self) {
        self.keep = true;
        self.registry.leave();
        self.control.leave();
        for node in &mut self.nodes {
            node.daemon.leave();
            node.containerd.leave();
        }
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node {name} in the lab"))
    }

    pub(crate) fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.with_context(|| format!("no node {name} in the lab"))
    }

    /// The nodes that are no seeds, in order.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.seed)
    }

    /// Bytes the origin sent to the nodes of a cluster, by the registry's own log.
    pub(crate) fn origin_bytes(&self, cluster: Cluster) -> Result<u64> {
        let nodes = self.nodes.iter().filter(|node| node.cluster == cluster);
        let ips: Vec<_> = nodes.map(|node| node.ip).collect();
        self.registry.sent_to(&ips)
    }
}

impl Node {
    /// The user's tool on this node.
    pub(crate) fn tool(&self, binaries: &Binaries) -> std::process::Command {
        let mut tool = crate::netns::command(&crate::netns::name(&self.name), &binaries.tool);
        tool.arg("--socket").arg(run_dir(&self.name).join("hawkerd.sock"));
        tool
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = down()
        {
            eprintln!("take the lab down: {error:?}");
        }
    }
}

impl Node {
    fn start(binaries: &Binaries, member: network::Member, shaper: &str, two: bool) -> Result<Self> {
        let network::Member { name, cluster, seed, ip } = member;
        let daemon = Daemon::start(&binaries.hawkerd, &name, cluster, (ip, seed), (shaper, two))?;
        let containerd = Containerd::start(&name)?;
        Ok(Self { name, cluster, seed, ip, daemon, containerd })
    }
}

/// A node's directory under [`DATA`].
pub(crate) fn data_dir(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

/// A node's directory under [`RUN`].
pub(crate) fn run_dir(name: &str) -> PathBuf {
    Path::new(RUN).join(name)
}
