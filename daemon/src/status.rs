//! What the daemon says of itself: `/status`, and the types of that document; `/metrics`, `/healthz`.
//!
//! Not how the figures come about: the daemon gives a function that makes the [`Report`].
//!
//! Invariant: reading it changes nothing, and no field holds credentials.

mod profile;
mod server;
mod socket;
mod stored;

pub use server::{ReportFn, StatusError, StatusServer};
pub(crate) use socket::listen_unix;
pub use stored::{RemoveError, Stored, StoredReport};

use crate::lifetime::Totals;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The whole document. Field names are a contract.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub host: HostReport,
    pub cluster: Option<ClusterReport>,
    pub manager: LinkReport,
    pub scheduler: LinkReport,
    pub engine: EngineReport,
    pub shaper: ShaperReport,
    pub store: StoreReport,
    pub delivered: BySource,
    /// Since the store was made, over restarts; everything else here is since the process began.
    pub lifetime: Totals,
    pub tasks: Vec<TaskReport>,
    pub peers: Vec<PeerReport>,
    pub bad_peers: Vec<BadPeerReport>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct HostReport {
    pub id: String,
    pub hostname: String,
    pub ip: String,
    pub piece_port: u16,
    pub idc: String,
    pub location: String,
    /// "peer" or "seed".
    pub kind: String,
    pub version: String,
    /// Of the contract with other daemons, schedulers and managers.
    pub protocol: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct ClusterReport {
    pub id: u64,
    pub name: String,
    pub reason: String,
    /// "manager" (told now), "cache" (last known) or "config".
    pub source: String,
    pub fell_back: bool,
    pub wants: WantsReport,
}

/// What the cluster wants of its nodes beside limits, whether the node's file lets it or not.
#[derive(Debug, Clone, Default, Serialize)]
pub struct WantsReport {
    /// Registries that may be asked; `None`: it does not say.
    pub registries: Option<Vec<String>>,
    /// `auto` or `portable`.
    pub engine: &'static str,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct LinkReport {
    pub connected: bool,
    pub addr: String,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct EngineReport {
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct ShaperReport {
    /// "ebpf", or "user": bytes are then what sockets took, not what crossed the wire.
    pub mode: String,
    pub reason: String,
    /// All peers together, by class.
    pub classes: Vec<ClassReport>,
    /// Everything that crossed the node's uplinks, by their own counters.
    pub uplinks: Vec<UplinkReport>,
    /// Of that, what is not Hawker's.
    pub others_sent_bytes: u64,
    pub others_received_bytes: u64,
    /// What the uplinks carry one way, all together: `configured`, by the `link`s' drivers, `learned`, or `unknown`.
    pub uplink_capacity: LimitReport,
    /// The limits in force, and whose they are.
    pub limits: LimitsReport,
    /// What uploads are limited to so that other traffic has what it wants, bytes per second; 0: nothing.
    pub yield_limit: u64,
    /// What the uplinks are taken to carry, bytes per second; 0: not known.
    pub yield_capacity: u64,
}

/// A limit in force: the stricter of the node's `file` and the `cluster`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LimitReport {
    /// 0: none.
    pub bytes_per_second: u64,
    pub from: &'static str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SwitchReport {
    pub on: bool,
    pub from: &'static str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LimitsReport {
    pub upload: LimitReport,
    pub per_peer: LimitReport,
    pub download: LimitReport,
    pub origin: LimitReport,
    /// Peers with limits and weights of their own.
    pub peer_rules: usize,
    pub peer_rules_from: &'static str,
    #[serde(rename = "yield")]
    pub yields: SwitchReport,
}

impl fmt::Display for LimitsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates = [
            ("upload", self.upload),
            ("per peer", self.per_peer),
            ("download", self.download),
            ("origin", self.origin),
        ];
        for (name, LimitReport { bytes_per_second, from }) in rates {
            if bytes_per_second == 0 {
                write!(f, "{name} none, ")?;
            } else {
                write!(f, "{name} {bytes_per_second} B/s ({from}), ")?;
            }
        }
        write!(f, "{} peer rules ({})", self.peer_rules, self.peer_rules_from)
    }
}

/// Traffic of one class since the start. With eBPF bytes and packets are those on the wire, frame headers and
/// retransmissions included.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ClassReport {
    pub class: &'static str,
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub sent_payload_bytes: u64,
    pub received_bytes: u64,
    pub received_packets: u64,
    pub received_payload_bytes: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct UplinkReport {
    pub name: String,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct StoreReport {
    pub dir: String,
    pub used_bytes: u64,
    pub capacity_bytes: u64,
    pub complete_blobs: u64,
    pub partial_blobs: u64,
    pub error: Option<String>,
}

/// Bytes by where they came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BySource {
    pub local: u64,
    pub peer_same_zone: u64,
    pub peer_cross_zone: u64,
    pub seed: u64,
    pub origin: u64,
}

impl BySource {
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            local: self.local.saturating_add(more.local),
            peer_same_zone: self.peer_same_zone.saturating_add(more.peer_same_zone),
            peer_cross_zone: self.peer_cross_zone.saturating_add(more.peer_cross_zone),
            seed: self.seed.saturating_add(more.seed),
            origin: self.origin.saturating_add(more.origin),
        }
    }
}

/// A download that is running, or one of the last that ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TaskReport {
    pub task: String,
    /// 0: not known yet.
    pub size: u64,
    pub pieces_held: u32,
    pub pieces_total: u32,
    pub state: String,
    /// Given to the runtime here.
    pub delivered: BySource,
    /// Fetched into the store here.
    pub fetched: BySource,
    pub started_unix_ms: u64,
    pub finished_unix_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct PeerReport {
    pub host_id: String,
    pub ip: String,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// From here on 0 without eBPF.
    pub received_packets: u64,
    pub sent_packets: u64,
    /// Payload that arrived, as the peer's acknowledgements tell; since the kernel last forgot the peer.
    pub acknowledged_bytes: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Smoothed round-trip time, microseconds.
    pub srtt_us: u32,
    /// Connections that stand, both ways; and ever opened.
    pub connections: u32,
    pub connections_opened: u64,
    /// Those with traffic.
    pub classes: Vec<ClassReport>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct BadPeerReport {
    pub host_id: String,
    pub ip: String,
    pub detail: String,
    pub until_unix_ms: u64,
}
