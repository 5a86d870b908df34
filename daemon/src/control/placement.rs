//! Which cluster this node is in, and the file that remembers it for a start without the manager.
//!
//! Invariant: a remembered placement is used only by the node it was made for: same address, IDC,
//! location, name and pin.

use hawker_api::v1;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest placement file read, bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
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

impl From<v1::Placement> for Placed {
    fn from(placement: v1::Placement) -> Self {
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
            source: PlacementSource::Manager,
        }
    }
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
        Self { path: dir.join("placement.json"), key }
    }

    /// The last known placement of this very node.
    pub(super) fn load(&self) -> Option<Placed> {
        let length = fs::metadata(&self.path).ok()?.len();
        if length > MAX_FILE_BYTES {
            return None;
        }
        let contents: Contents = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
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
        let mut placed =
            Placed::from(v1::Placement { cluster_id: 3, schedulers, ..v1::Placement::default() });
        assert_eq!(placed.schedulers, ["a:8002", "b:8002"]);
        file.save(&placed).unwrap();
        placed.source = PlacementSource::Cache;
        assert_eq!(file.load(), Some(placed));
        // Schedulers that are gone for now are remembered; another cluster's are not.
        let without = |cluster_id| Placed::from(v1::Placement { cluster_id, ..v1::Placement::default() });
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
