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
pub(crate) mod containerd;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod images;
pub(crate) mod network;
pub(crate) mod nginx;
pub(crate) mod processes;
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

/// What to build.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Peers of each cluster; the first cluster is A, the second B.
    pub(crate) peers: Vec<usize>,
    /// One seed peer in each cluster.
    pub(crate) seeds: bool,
    /// Rate of the link to the registry, in tc's words.
    pub(crate) origin_rate: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self { peers: vec![2, 2], seeds: true, origin_rate: "100mbit".to_owned() }
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
        down()?;
        let built = Self::build(binaries, plan);
        if built.is_err()
            && let Err(error) = down()
        {
            eprintln!("take the lab down: {error:?}");
        }
        built
    }

    fn build(binaries: &Binaries, plan: &Plan) -> Result<Self> {
        for dir in [DATA, RUN] {
            std::fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
        }
        network::build(plan)?;
        let registry = Registry::start()?;
        let clusters: Vec<Cluster> = Cluster::ALL.into_iter().take(plan.peers.len()).collect();
        let control = Control::start(&binaries.control, &clusters)?;
        let mut nodes = Vec::new();
        for member in network::members(plan) {
            nodes.push(Node::start(binaries, member)?);
        }
        let lab = Self { binaries: binaries.clone(), registry, control, nodes, keep: false };
        for node in &lab.nodes {
            node.daemon.wait_ready()?;
        }
        Ok(lab)
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
    fn start(binaries: &Binaries, member: network::Member) -> Result<Self> {
        let network::Member { name, cluster, seed, ip } = member;
        let daemon = Daemon::start(&binaries.hawkerd, &name, cluster, ip, seed)?;
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
