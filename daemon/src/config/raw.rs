//! The configuration file as it is written: every key optional, every key serialised (so that each
//! has its environment variable), unknown keys refused.
//!
//! Invariant: nothing is checked here beyond YAML types; an empty text means "not set".

use super::registry::RawRegistry;
use hawker_api::units::{ByteSize, Rate};
use serde::{Deserialize, Serialize};

/// Defaults are those of the documented `daemon.yaml`.
macro_rules! section {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "camelCase")]
        pub(super) struct $name {
            $($(#[$meta])* pub(super) $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section!(RawConfig {
    host: RawHost = RawHost::default(),
    manager: RawManager = RawManager::default(),
    cluster: RawCluster = RawCluster::default(),
    seed_peer: RawSeedPeer = RawSeedPeer::default(),
    mirror: RawMirror = RawMirror::default(),
    files: RawFiles = RawFiles::default(),
    peer: RawPeer = RawPeer::default(),
    storage: RawStorage = RawStorage::default(),
    engine: String = "auto".to_owned(),
    shaper: RawShaper = RawShaper::default(),
    metrics: RawMetrics = RawMetrics::default(),
    api: RawApi = RawApi::default(),
    telemetry: RawTelemetry = RawTelemetry::default(),
    verify: String = "streaming".to_owned(),
});

section!(RawHost {
    hostname: String = String::new(),
    #[serde(rename = "advertiseIP")]
    advertise_ip: String = String::new(),
    idc: String = String::new(),
    location: String = String::new(),
});

section!(RawManager { addrs: Vec<String> = Vec::new(), join_token_file: String = String::new() });

section!(RawCluster { id: u64 = 0, fallback: String = "origin".to_owned() });

section!(RawSeedPeer {
    enable: bool = false,
    #[serde(rename = "clusterID")]
    cluster_id: u64 = 0,
});

section!(RawMirror {
    addr: String = "127.0.0.1:4001".to_owned(),
    registries: Vec<RawRegistry> = Vec::new(),
    cluster_registries: String = "narrow".to_owned(),
});

section!(RawFiles { origins: Vec<RawRegistry> = Vec::new() });

section!(RawPeer {
    addr: String = "0.0.0.0:4000".to_owned(),
    tls: String = "auto".to_owned(),
    auth: String = "auto".to_owned(),
    send: String = "splice".to_owned()
});

section!(RawStorage {
    dir: String = "/var/lib/hawker".to_owned(),
    capacity: ByteSize = ByteSize(80 << 30),
    ttl: String = "0".to_owned(),
});

section!(RawShaper {
    mode: String = "auto".to_owned(),
    upload_limit: Rate = Rate(0),
    per_peer_limit: Rate = Rate(0),
    download_limit: Rate = Rate(0),
    origin_limit: Rate = Rate(0),
    uplink_capacity: Rate = Rate(0),
    #[serde(rename = "yield")]
    yield_to_others: bool = true,
    yield_target: f64 = 0.95,
    yield_floor: Rate = Rate(0),
    peers: Vec<RawPeerRule> = Vec::new(),
});

section!(RawPeerRule { network: String = String::new(), limit: Rate = Rate(0), weight: u32 = 1 });

section!(RawMetrics { addr: String = "127.0.0.1:4003".to_owned(), profile: bool = false });

section!(RawApi { socket: String = "/run/hawker/hawkerd.sock".to_owned() });

section!(RawTelemetry {
    otlp_endpoint: String = String::new(),
    otlp_protocol: String = "grpc".to_owned(),
    sample_ratio: f64 = 1.0,
    log_format: String = "text".to_owned(),
});
