//! Which cluster this node is in, and the file that remembers it for a start without the manager.
//!
//! Invariant: a remembered placement is used only by the node it was made for: same address, IDC,
//! location, name and pin.

use crate::peer::PeerKey;
use hawker_api::node_policy::{EnginePolicy, MAX_REGISTRIES, NodePolicy, RegistryRule};
use hawker_api::policy::{MAX_RULES, PeerRule, PolicyError, ShaperPolicy};
use hawker_api::units::Rate;
use hawker_api::v1;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest placement file read, bytes: with every list at its limit it has a third of that.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most schedulers taken from one placement.
const MAX_SCHEDULERS: usize = 64;

/// A placement, in our own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub cluster_id: u64,
    pub cluster_name: String,
    /// Why this cluster, for people.
    pub reason: String,
    pub scheduler_cluster_id: u64,
    /// `host:port`, lowest id first: all nodes of a cluster prefer the same one.
    pub schedulers: Vec<String>,
    /// The matched cluster had no scheduler; `cluster.fallback: default` allowed this one.
    pub fell_back: bool,
    /// What the cluster wants of its nodes.
    #[serde(default)]
    pub limits: ShaperPolicy,
    #[serde(default)]
    pub nodes: NodePolicy,
    /// What the cluster's nodes know each other by.
    #[serde(default)]
    pub peer_key: Option<PeerKey>,
    #[serde(skip)]
    pub source: PlacementSource,
}

/// Who says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlacementSource {
    Manager,
    /// What the manager said last, before this start.
    #[default]
    Cache,
}

impl PlacementSource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Cache => "cache",
        }
    }
}

impl Placed {
    /// What the manager says; what cannot be followed leaves the `last` in force.
    pub(super) fn new(placement: v1::Placement, last: (ShaperPolicy, NodePolicy)) -> Self {
        let mut config = placement.config.unwrap_or_default();
        let limits = limits(config.shaper.take().unwrap_or_default()).unwrap_or_else(|error| {
            tracing::warn!(%error, "keeping the last limits: the manager's cannot be followed");
            last.0
        });
        let nodes = nodes(config).unwrap_or_else(|error| {
            tracing::warn!(%error, "keeping the last registries and engine: the manager's cannot be followed");
            last.1
        });
        let mut schedulers = placement.schedulers;
        schedulers.sort_by_key(|scheduler| scheduler.id);
        schedulers.truncate(MAX_SCHEDULERS);
        Self {
            cluster_id: placement.cluster_id,
            cluster_name: placement.cluster_name,
            reason: placement.reason,
            scheduler_cluster_id: placement.scheduler_cluster_id,
            schedulers: schedulers.into_iter().map(|scheduler| scheduler.addr).collect(),
            fell_back: placement.fell_back,
            limits,
            nodes,
            peer_key: PeerKey::new(&placement.peer_key),
            source: PlacementSource::Manager,
        }
    }
}

fn limits(told: v1::ShaperPolicy) -> Result<ShaperPolicy, PolicyError> {
    let rule = |(index, peer): (usize, v1::PeerPolicy)| {
        PeerRule::new(&format!("shaper.peers[{index}]"), &peer.network, Rate(peer.limit), peer.weight)
    };
    let peers = told.peers.into_iter().take(MAX_RULES + 1).enumerate().map(rule);
    let policy = ShaperPolicy {
        upload_limit: Rate(told.upload_limit),
        per_peer_limit: Rate(told.per_peer_limit),
        download_limit: Rate(told.download_limit),
        origin_limit: Rate(told.origin_limit),
        yield_to_others: told.r#yield,
        peers: peers.collect::<Result<_, _>>()?,
    };
    policy.check()?;
    Ok(policy)
}

fn nodes(told: v1::ClusterConfig) -> Result<NodePolicy, PolicyError> {
    let rule = |(index, rule): (usize, v1::RegistryRule)| {
        RegistryRule::new(&format!("registries[{index}]"), &rule.host, &rule.server)
    };
    let rules = |list: v1::RegistryList| {
        list.rules.into_iter().take(MAX_REGISTRIES + 1).enumerate().map(rule).collect::<Result<Vec<_>, _>>()
    };
    let registries = told.registries.map(rules).transpose()?;
    let policy = NodePolicy { registries, engine: EnginePolicy::named(&told.engine)? };
    policy.check()?;
    Ok(policy)
}

const FILE: &str = "placement.json";

/// What the cluster of the daemon that had this store wanted last: whoever follows it on the same store goes by that until it
/// knows where it belongs itself.
pub(crate) fn last_limits(dir: &Path) -> ShaperPolicy {
    read(&dir.join(FILE)).map(|contents| contents.placement.limits).unwrap_or_default()
}

/// Limits that cannot be followed are none.
fn read(path: &Path) -> Option<Contents> {
    if fs::metadata(path).ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    let mut contents: Contents = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    if let Err(error) = contents.placement.limits.check() {
        tracing::warn!(path = %path.display(), %error, "ignoring the remembered limits");
        contents.placement.limits = ShaperPolicy::default();
    }
    if let Err(error) = contents.placement.nodes.check() {
        tracing::warn!(path = %path.display(), %error, "ignoring the remembered registries");
        contents.placement.nodes = NodePolicy::default();
    }
    Some(contents)
}

/// `placement.json` in the store's directory.
#[derive(Debug, Clone)]
pub(super) struct PlacementFile {
    path: PathBuf,
    key: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// What the placement was made for.
    node: Vec<String>,
    placement: Placed,
}

impl PlacementFile {
    pub(super) fn new(dir: &Path, request: &v1::PlaceRequest) -> Self {
        let host = request.host.clone().unwrap_or_default();
        let (pin, seed) = (request.cluster_id.to_string(), request.seed_peer_cluster_id.to_string());
        let key = vec![host.ip, host.idc, host.location, host.hostname, pin, seed];
        Self { path: dir.join(FILE), key }
    }

    /// The last known placement of this very node.
    pub(super) fn load(&self) -> Option<Placed> {
        let contents = read(&self.path)?;
        (contents.node == self.key).then_some(contents.placement)
    }

    /// Remembers `placement`, all of it or nothing. Where it names no scheduler, those its cluster had last
    /// are kept: without a manager it is better to ask them than nobody.
    pub(super) fn save(&self, placement: &Placed) -> std::io::Result<()> {
        let mut placement = placement.clone();
        if placement.schedulers.is_empty()
            && let Some(last) = self.load().filter(|last| last.cluster_id == placement.cluster_id)
        {
            placement.schedulers = last.schedulers;
        }
        let contents = Contents { node: self.key.clone(), placement };
        let new = self.path.with_extension("json.new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&contents)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(placement: v1::Placement) -> Placed {
        Placed::new(placement, Default::default())
    }

    #[test]
    fn limits_are_remembered_and_those_that_cannot_be_followed_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = PlacementFile::new(dir.path(), &v1::PlaceRequest::default());
        let told = |upload_limit, network: &str| {
            let peers = vec![v1::PeerPolicy { network: network.into(), limit: 0, weight: 3 }];
            let shaper = Some(v1::ShaperPolicy { upload_limit, peers, ..v1::ShaperPolicy::default() });
            let config = Some(v1::ClusterConfig { shaper, ..v1::ClusterConfig::default() });
            v1::Placement { config, ..v1::Placement::default() }
        };
        let good = from(told(1_000_000, "10.0.0.0/8"));
        file.save(&good).unwrap();
        let loaded = file.load().unwrap();
        assert_eq!((loaded.limits.upload_limit, &loaded.limits), (Rate(1_000_000), &good.limits));
        for (limit, network) in [(1, "10.0.0.0/8"), (1 << 63, "10.0.0.0/8"), (0, "nowhere")] {
            let last = (good.limits.clone(), good.nodes.clone());
            assert_eq!(Placed::new(told(limit, network), last).limits, good.limits);
        }
        // For who follows on the same store, whoever it is.
        assert_eq!(last_limits(dir.path()), good.limits);
        // Somebody edited the file.
        let path = dir.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("1000000B/s", "1B/s")).unwrap();
        assert_eq!(file.load().unwrap().limits, ShaperPolicy::default());
        assert_eq!(last_limits(dir.path()), ShaperPolicy::default());
    }

    #[test]
    fn registries_and_engine_are_remembered_and_nonsense_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = PlacementFile::new(dir.path(), &v1::PlaceRequest::default());
        let told = |hosts: &[String], engine: &str| {
            let rules =
                hosts.iter().map(|host| v1::RegistryRule { host: host.clone(), server: String::new() });
            let registries = Some(v1::RegistryList { rules: rules.collect() });
            let config = v1::ClusterConfig { registries, engine: engine.to_owned(), shaper: None };
            v1::Placement { config: Some(config), ..v1::Placement::default() }
        };
        // At its limit, with the longest names, and as many rules for peers: the file is still read.
        let hosts: Vec<_> =
            (0..MAX_REGISTRIES).map(|n| format!("{n}.{}.test", "a.".repeat(120) + "a")).collect();
        let mut good = from(told(&hosts, "portable"));
        let network = |n: usize| format!("10.{}.{}.0/24", n / 256, n % 256);
        let rule = |n| PeerRule::new("peers", &network(n), Rate(1_000_000), 1000).unwrap();
        good.limits.peers = (0..MAX_RULES).map(rule).collect();
        file.save(&good).unwrap();
        let loaded = file.load().unwrap();
        assert_eq!((&loaded.nodes, &loaded.limits), (&good.nodes, &good.limits));
        assert_eq!(loaded.nodes.registries.as_ref().map(Vec::len), Some(MAX_REGISTRIES));
        for (host, engine) in [("a b", "auto"), ("a.test", "io_uring")] {
            let last = (good.limits.clone(), good.nodes.clone());
            assert_eq!(Placed::new(told(&[host.to_owned()], engine), last).nodes, good.nodes);
        }
        // A manager that knows of no such thing.
        assert_eq!(from(v1::Placement::default()).nodes, NodePolicy::default());
    }

    #[test]
    fn only_the_same_node_uses_what_was_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let host = v1::Host { ip: "10.1.0.7".into(), idc: "a".into(), ..v1::Host::default() };
        let request = v1::PlaceRequest { host: Some(host), ..v1::PlaceRequest::default() };
        let file = PlacementFile::new(dir.path(), &request);
        assert_eq!(file.load(), None);
        let endpoint =
            |id, addr: &str| v1::SchedulerEndpoint { id, addr: addr.into(), hostname: String::new() };
        let schedulers = vec![endpoint(2, "b:8002"), endpoint(1, "a:8002")];
        let mut three = from(v1::Placement { cluster_id: 3, schedulers, ..v1::Placement::default() });
        assert_eq!(three.schedulers, ["a:8002", "b:8002"]);
        file.save(&three).unwrap();
        three.source = PlacementSource::Cache;
        assert_eq!(file.load(), Some(three));
        // Schedulers that are gone for now are remembered; another cluster's are not.
        let without = |cluster_id| from(v1::Placement { cluster_id, ..v1::Placement::default() });
        file.save(&without(3)).unwrap();
        assert_eq!(file.load().unwrap().schedulers, ["a:8002", "b:8002"]);
        file.save(&without(4)).unwrap();
        assert!(file.load().unwrap().schedulers.is_empty());
        let moved = v1::PlaceRequest { cluster_id: 9, ..request };
        assert_eq!(PlacementFile::new(dir.path(), &moved).load(), None);
        fs::write(dir.path().join("placement.json"), "junk").unwrap();
        assert_eq!(file.load(), None);
    }
}
