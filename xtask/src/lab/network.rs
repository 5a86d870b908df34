//! The lab's network: one bridge a cluster, one for the services, a router between them that keeps the
//! clusters apart.
//!
//! Invariant: a peer of one cluster cannot reach a peer of another; both reach registry and control plane.

use super::Plan;
use crate::command::{SHORT, check};
use crate::netns;
use anyhow::Result;
use std::net::Ipv4Addr;

/// The registry's address, and the control plane's.
pub(crate) const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 71, 9, 2);
pub(crate) const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 71, 9, 3);
const SERVICES: (&str, u8) = ("br-s", 9);
const ROUTER: &str = "router";
/// Last byte of the router's address on every bridge.
const GATEWAY: u8 = 1;
/// A registry directly on a cluster's own bridge, for comparison.
const NEAR_REGISTRY: u8 = 250;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cluster {
    A,
    B,
}

impl Cluster {
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    /// Its id at the manager.
    pub(crate) fn id(self) -> u64 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "cluster-1",
            Self::B => "cluster-2",
        }
    }

    pub(crate) fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }

    fn bridge(self) -> String {
        format!("br-{}", self.letter())
    }

    pub(crate) fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 71, if self == Self::A { 1 } else { 2 }, host)
    }

    pub(crate) fn cidr(self) -> String {
        format!("{}/24", self.address(0))
    }

    pub(crate) fn near_registry(self) -> Ipv4Addr {
        self.address(NEAR_REGISTRY)
    }
}

/// A node to be.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) cluster: Cluster,
    pub(crate) seed: bool,
    pub(crate) ip: Ipv4Addr,
}

/// Nodes of a plan: `a-seed`, `a1`, `a2`, …
pub(crate) fn members(plan: &Plan) -> Vec<Member> {
    let mut members = Vec::new();
    for (cluster, peers) in Cluster::ALL.into_iter().zip(&plan.peers) {
        if plan.seeds {
            let name = format!("{}-seed", cluster.letter());
            members.push(Member { name, cluster, seed: true, ip: cluster.address(10) });
        }
        for number in 1..=u8::try_from(*peers).unwrap_or(u8::MAX).min(200) {
            let name = format!("{}{number}", cluster.letter());
            members.push(Member { name, cluster, seed: false, ip: cluster.address(10 + number) });
        }
    }
    members
}

pub(crate) fn build(plan: &Plan) -> Result<()> {
    let router = netns::name(ROUTER);
    netns::create(&router)?;
    check(netns::command(&router, "sysctl").args(["-qw", "net.ipv4.ip_forward=1"]), SHORT)?;
    netns::bridge(&router, SERVICES.0, Ipv4Addr::new(10, 71, SERVICES.1, GATEWAY))?;
    for cluster in Cluster::ALL.into_iter().take(plan.peers.len()) {
        netns::bridge(&router, &cluster.bridge(), cluster.address(GATEWAY))?;
    }
    let (a, b) = (Cluster::A.cidr(), Cluster::B.cidr());
    for (from, to) in [(&a, &b), (&b, &a)] {
        netns::ip(&["-n", &router, "rule", "add", "from", from, "to", to, "prohibit"])?;
    }
    for (name, ip) in [("origin", ORIGIN), ("control", CONTROL)] {
        connect(name, ip, SERVICES.0, Ipv4Addr::new(10, 71, SERVICES.1, GATEWAY))?;
    }
    netns::shape(&netns::name("origin"), "eth0", &plan.origin_rate)?;
    for member in members(plan) {
        connect(&member.name, member.ip, &member.cluster.bridge(), member.cluster.address(GATEWAY))?;
    }
    Ok(())
}

/// The bridge of a cluster that was not in the plan; the wall between the clusters stands already.
pub(crate) fn add_cluster(cluster: Cluster) -> Result<()> {
    netns::bridge(&netns::name(ROUTER), &cluster.bridge(), cluster.address(GATEWAY))
}

/// The namespace of a peer that was not in the plan, on its cluster's bridge.
pub(crate) fn add_peer(cluster: Cluster, number: u8) -> Result<Member> {
    let (name, ip) = (format!("{}{number}", cluster.letter()), cluster.address(10 + number));
    connect(&name, ip, &cluster.bridge(), cluster.address(GATEWAY))?;
    Ok(Member { name, cluster, seed: false, ip })
}

/// A namespace for a registry on the cluster's own bridge, not shaped.
pub(crate) fn build_near(cluster: Cluster) -> Result<String> {
    let name = format!("near-{}", cluster.letter());
    connect(&name, cluster.near_registry(), &cluster.bridge(), cluster.address(GATEWAY))?;
    Ok(name)
}

fn connect(name: &str, ip: Ipv4Addr, bridge: &str, gateway: Ipv4Addr) -> Result<()> {
    let namespace = netns::name(name);
    netns::create(&namespace)?;
    netns::plug(&namespace, ip, (&netns::name(ROUTER), bridge), &format!("p-{name}"))?;
    netns::route(&namespace, "default", gateway)
}
