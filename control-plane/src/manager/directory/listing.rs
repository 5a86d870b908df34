//! Reading the directory: pages of live hosts, counts, and who keeps a cluster from being deleted.

use super::assign::scheduler_id;
use super::{Assigned, Directory, State};
use crate::manager::cluster::Cluster;
use crate::manager::host::{Peer, PeerKind, SchedulerHost};
use crate::manager::jobs::part::Live;
use std::collections::HashMap;
use std::fmt;
use std::time::SystemTime;

/// Hosts named in a refusal; the others are counted.
const NAMED_HOSTS: usize = 5;

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// Of all pages.
    pub total: usize,
}

#[derive(Debug, Clone)]
pub struct LivePeer {
    pub peer: Peer,
    pub assigned: Assigned,
    pub registered_at: SystemTime,
}

#[derive(Debug, Clone)]
pub struct LiveScheduler {
    pub id: u64,
    pub host: SchedulerHost,
    pub registered_at: SystemTime,
}

/// Live registrations by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub peers: usize,
    pub seed_peers: usize,
    pub schedulers: usize,
}

/// Why a cluster cannot be deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InUse {
    pub cluster_id: u64,
    pub cluster_name: String,
    pub hosts: usize,
    /// The first few, with their kind.
    pub named: Vec<String>,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, name, hosts) = (self.cluster_id, &self.cluster_name, self.hosts);
        let noun = if hosts == 1 { "host" } else { "hosts" };
        write!(f, "cluster {id} `{name}` has {hosts} live {noun}: {}", self.named.join(", "))?;
        match hosts - self.named.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Directory {
    /// All clusters by ascending id.
    pub fn clusters(&self) -> Vec<Cluster> {
        self.state().map.clusters.clone()
    }

    /// A live daemon.
    pub fn peer(&self, id: &str) -> Option<Peer> {
        self.state().peers.get(id).map(|entry| entry.peer.clone())
    }

    pub fn hostname(&self, id: &str) -> Option<String> {
        self.state().peers.get(id).map(|entry| entry.peer.hostname.clone())
    }

    pub fn cluster(&self, id: u64) -> Option<Cluster> {
        self.state().map.get(id).cloned()
    }

    /// Live daemons of a kind that are `wanted`, by host id, leaving out the first `skip`.
    pub fn peers(
        &self,
        kind: PeerKind,
        wanted: impl Fn(&Peer, &Assigned) -> bool,
        skip: usize,
        limit: usize,
    ) -> Listed<LivePeer> {
        let state = self.state();
        let of_kind = || {
            let of_kind = state.peers.values().filter(|entry| entry.peer.kind == kind);
            of_kind.filter(|entry| wanted(&entry.peer, &entry.assigned.borrow()))
        };
        let live = of_kind().skip(skip).take(limit).map(|entry| LivePeer {
            peer: entry.peer.clone(),
            assigned: entry.assigned.borrow().clone(),
            registered_at: entry.alive.registered_at,
        });
        Listed { items: live.collect(), total: of_kind().count() }
    }

    /// Live schedulers that are `wanted`, by address, leaving out the first `skip`.
    pub fn schedulers(
        &self,
        wanted: impl Fn(&SchedulerHost) -> bool,
        skip: usize,
        limit: usize,
    ) -> Listed<LiveScheduler> {
        let state = self.state();
        let of_those = || state.schedulers.values().filter(|entry| wanted(&entry.host));
        let live = of_those().skip(skip).take(limit).map(|entry| LiveScheduler {
            id: scheduler_id(&entry.host.addr),
            host: entry.host.clone(),
            registered_at: entry.alive.registered_at,
        });
        Listed { items: live.collect(), total: of_those().count() }
    }

    /// What is alive in each cluster that has anything: daemons where they are served, schedulers where they serve.
    pub fn counts_by_cluster(&self) -> HashMap<u64, Counts> {
        let state = self.state();
        let mut counts = HashMap::<u64, Counts>::new();
        for entry in state.peers.values() {
            let of = counts.entry(entry.assigned.borrow().cluster_id).or_default();
            match entry.peer.kind {
                PeerKind::Peer => of.peers += 1,
                PeerKind::Seed => of.seed_peers += 1,
            }
        }
        for entry in state.schedulers.values() {
            // A cluster's schedulers have its id (see `cluster`).
            counts.entry(entry.host.scheduler_cluster_id).or_default().schedulers += 1;
        }
        counts
    }

    /// The live daemons that a cluster serves.
    pub(crate) fn nodes_of(&self, cluster_id: u64) -> Vec<Live> {
        let state = self.state();
        let served = state.peers.values().filter(|entry| entry.assigned.borrow().cluster_id == cluster_id);
        let node = |entry: &super::PeerEntry| Live {
            host_id: entry.peer.id.clone(),
            hostname: entry.peer.hostname.clone(),
            seed: entry.peer.kind == PeerKind::Seed,
        };
        served.map(node).collect()
    }

    pub fn counts(&self) -> Counts {
        let state = self.state();
        let seed_peers = state.peers.values().filter(|entry| entry.peer.kind == PeerKind::Seed).count();
        Counts { peers: state.peers.len() - seed_peers, seed_peers, schedulers: state.schedulers.len() }
    }
}

/// Refuses where a live daemon matched or is served by the cluster, or a live scheduler serves it.
pub(super) fn unused(state: &State, cluster_id: u64) -> Result<(), InUse> {
    let Some(cluster) = state.map.get(cluster_id) else { return Ok(()) };
    let schedulers = state
        .schedulers
        .values()
        .filter(|entry| entry.host.scheduler_cluster_id == cluster.scheduler_cluster_id())
        .map(|entry| format!("{} (scheduler {})", entry.host.hostname, entry.host.addr));
    let peers = state.peers.values().filter(|entry| {
        let assigned = entry.assigned.borrow();
        assigned.cluster_id == cluster_id || assigned.matched_cluster_id == cluster_id
    });
    let peers = peers.map(|entry| match entry.peer.kind {
        PeerKind::Peer => format!("{} (peer)", entry.peer.hostname),
        PeerKind::Seed => format!("{} (seed peer)", entry.peer.hostname),
    });
    let mut hosts = 0;
    let mut named = Vec::new();
    for host in schedulers.chain(peers) {
        hosts += 1;
        if named.len() < NAMED_HOSTS {
            named.push(host);
        }
    }
    if hosts == 0 {
        return Ok(());
    }
    Err(InUse { cluster_id, cluster_name: cluster.spec.name.clone(), hosts, named })
}
