//! From a node and its wish to the cluster and schedulers it is told: placement, pins and fallback. Pure.
//!
//! Invariant: another cluster than the matched one serves only where the daemon accepted the default one,
//! and then the answer says so.

use crate::manager::cluster::Cluster;
use crate::manager::host::{Pin, SchedulerHost};
use crate::placement::{ClusterScopes, Node, place};
use hawker_api::policy::ClusterPolicy;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What a daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    pub cluster_id: u64,
    pub cluster_name: String,
    pub reason: String,
    pub scheduler_cluster_id: u64,
    pub seed_peer_cluster_id: u64,
    /// Live ones, by address. Empty: the cluster has none now.
    pub schedulers: Vec<Endpoint>,
    pub fell_back: bool,
    pub matched_cluster_id: u64,
    /// Of the cluster that serves.
    pub policy: Arc<ClusterPolicy>,
}

/// Where a scheduler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: u64,
    pub hostname: String,
    pub addr: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    #[error("unknown cluster {id}, asked for by cluster.id")]
    UnknownCluster { id: u64 },
    #[error("unknown seed peer cluster {id}, asked for by seedPeer.clusterID")]
    UnknownSeedPeerCluster { id: u64 },
    #[error("unknown scheduler cluster {id}, asked for by scheduler.clusterID")]
    UnknownSchedulerCluster { id: u64 },
    #[error("no cluster matches and none is the default")]
    NoCluster,
    #[error("{limit} hosts are registered: no room for another")]
    Full { limit: usize },
}

/// The cluster a node belongs to, whoever serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) cluster_id: u64,
    pub(super) reason: String,
}

/// The clusters, in both forms.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// By ascending id.
    pub(super) clusters: Vec<Cluster>,
    scopes: Vec<ClusterScopes>,
}

impl Endpoint {
    pub(super) fn of(host: &SchedulerHost) -> Self {
        Self { id: scheduler_id(&host.addr), hostname: host.hostname.clone(), addr: host.addr.clone() }
    }
}

/// A number for a scheduler that outlives restarts of it and of the manager; 53 bits, exact in JSON.
pub(super) fn scheduler_id(addr: &str) -> u64 {
    const BITS_TO_DROP: u32 = 64 - 53;
    let digest = Sha256::digest(addr.as_bytes());
    digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte)) >> BITS_TO_DROP
}

impl Map {
    pub(super) fn new(clusters: Vec<Cluster>) -> Self {
        let scopes = clusters.iter().map(Cluster::placement).collect();
        Self { clusters, scopes }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Cluster> {
        let at = self.clusters.binary_search_by_key(&id, |cluster| cluster.id).ok()?;
        self.clusters.get(at)
    }

    pub(super) fn without(&self, id: u64) -> Self {
        Self::new(self.clusters.iter().filter(|cluster| cluster.id != id).cloned().collect())
    }

    /// The cluster a node belongs to, by its pin or by the scopes.
    pub(super) fn matched(&self, node: &Node, pin: Option<Pin>) -> Result<Match, AssignError> {
        match pin {
            Some(Pin::Cluster(id)) => {
                self.get(id).ok_or(AssignError::UnknownCluster { id })?;
                Ok(Match { cluster_id: id, reason: format!("pinned by cluster.id {id}") })
            }
            Some(Pin::SeedPeerCluster(id)) => {
                let of_seed = |cluster: &&Cluster| cluster.seed_peer_cluster_id() == id;
                let cluster = self.clusters.iter().find(of_seed);
                let cluster_id = cluster.ok_or(AssignError::UnknownSeedPeerCluster { id })?.id;
                Ok(Match { cluster_id, reason: format!("pinned by seedPeer.clusterID {id}") })
            }
            None => {
                let placed = place(&self.scopes, node).ok_or(AssignError::NoCluster)?;
                Ok(Match { cluster_id: placed.cluster_id, reason: placed.reason })
            }
        }
    }

    /// Who serves a node of the matched cluster; `live` gives the live schedulers of a scheduler cluster.
    pub(super) fn served(
        &self,
        matched: &Match,
        accept_default: bool,
        live: impl Fn(u64) -> Vec<Endpoint>,
    ) -> Result<Assigned, AssignError> {
        let cluster = self.get(matched.cluster_id).ok_or(AssignError::NoCluster)?;
        let schedulers = live(cluster.scheduler_cluster_id());
        if schedulers.is_empty() && accept_default && !cluster.spec.is_default {
            let default = self.clusters.iter().find(|cluster| cluster.spec.is_default);
            let served = default.map(|default| (default, live(default.scheduler_cluster_id())));
            if let Some((default, schedulers)) = served.filter(|(_, schedulers)| !schedulers.is_empty()) {
                let reason = format!("{}; no live scheduler there: default cluster", matched.reason);
                return Ok(Assigned {
                    fell_back: true,
                    matched_cluster_id: cluster.id,
                    ..answer(default, reason, schedulers)
                });
            }
        }
        Ok(answer(cluster, matched.reason.clone(), schedulers))
    }
}

fn answer(cluster: &Cluster, reason: String, schedulers: Vec<Endpoint>) -> Assigned {
    Assigned {
        cluster_id: cluster.id,
        cluster_name: cluster.spec.name.clone(),
        reason,
        scheduler_cluster_id: cluster.scheduler_cluster_id(),
        seed_peer_cluster_id: cluster.seed_peer_cluster_id(),
        schedulers,
        fell_back: false,
        matched_cluster_id: cluster.id,
        policy: Arc::clone(&cluster.spec.policy),
    }
}
