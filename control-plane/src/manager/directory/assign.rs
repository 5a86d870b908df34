//! From a node and its wish to the cluster and schedulers it is told: placement, pins and fallback. Pure.
//!
//! Invariant: another cluster than the matched one serves only where the daemon accepted the default one,
//! and then the answer says so.

use crate::manager::cluster::Cluster;
use crate::manager::host::{Pin, Wish};
use crate::placement::{ClusterScopes, Node, place};

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

/// The clusters, in both forms.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// By ascending id.
    pub(super) clusters: Vec<Cluster>,
    scopes: Vec<ClusterScopes>,
}

impl Map {
    pub(super) fn new(clusters: Vec<Cluster>) -> Self {
        let scopes = clusters.iter().map(Cluster::placement).collect();
        Self { clusters, scopes }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.id == id)
    }

    pub(super) fn without(&self, id: u64) -> Self {
        Self::new(self.clusters.iter().filter(|cluster| cluster.id != id).cloned().collect())
    }

    /// `live` gives the live schedulers of a scheduler cluster.
    pub(super) fn assign(
        &self,
        node: &Node,
        wish: &Wish,
        live: impl Fn(u64) -> Vec<Endpoint>,
    ) -> Result<Assigned, AssignError> {
        let (matched, reason) = self.matched(node, wish.pin)?;
        let schedulers = live(matched.scheduler_cluster_id());
        if schedulers.is_empty() && wish.accept_default && !matched.spec.is_default {
            let default = self.clusters.iter().find(|cluster| cluster.spec.is_default);
            let served = default.map(|cluster| (cluster, live(cluster.scheduler_cluster_id())));
            if let Some((default, schedulers)) = served.filter(|(_, schedulers)| !schedulers.is_empty()) {
                let reason = format!("{reason}; no live scheduler there: default cluster");
                return Ok(Assigned {
                    fell_back: true,
                    matched_cluster_id: matched.id,
                    ..answer(default, reason, schedulers)
                });
            }
        }
        Ok(answer(matched, reason, schedulers))
    }

    fn matched(&self, node: &Node, pin: Option<Pin>) -> Result<(&Cluster, String), AssignError> {
        match pin {
            Some(Pin::Cluster(id)) => {
                let cluster = self.get(id).ok_or(AssignError::UnknownCluster { id })?;
                Ok((cluster, format!("pinned by cluster.id {id}")))
            }
            Some(Pin::SeedPeerCluster(id)) => {
                let of_seed = |cluster: &&Cluster| cluster.seed_peer_cluster_id() == id;
                let cluster = self.clusters.iter().find(of_seed);
                let cluster = cluster.ok_or(AssignError::UnknownSeedPeerCluster { id })?;
                Ok((cluster, format!("pinned by seedPeer.clusterID {id}")))
            }
            None => {
                let placed = place(&self.scopes, node).ok_or(AssignError::NoCluster)?;
                let cluster = self.get(placed.cluster_id).ok_or(AssignError::NoCluster)?;
                Ok((cluster, placed.reason))
            }
        }
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
    }
}
