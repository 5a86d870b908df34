//! `daemon.yaml` as it is written: every key with its default, nothing checked but its type.

use hawker_api::units::{ByteSize, Rate};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Config {
    pub(super) host: Host,
    pub(super) manager: Manager,
    pub(super) cluster: Cluster,
    pub(super) seed_peer: SeedPeer,
    pub(super) mirror: Mirror,
    pub(super) peer: Peer,
    pub(super) storage: Storage,
    pub(super) engine: Engine,
    pub(super) shaper: Shaper,
    pub(super) metrics: Metrics,
    pub(super) api: Api,
    pub(super) telemetry: Telemetry,
    pub(super) verify: Verify,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Host {
    pub(super) hostname: String,
    #[serde(rename = "advertiseIP")]
    pub(super) advertise_ip: String,
    pub(super) idc: String,
    pub(super) location: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Manager {
    pub(super) addrs: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Cluster {
    pub(super) id: u64,
    pub(super) fallback: Fallback,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fallback {
    #[default]
    Origin,
    Default,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SeedPeer {
    pub(super) enable: bool,
    #[serde(rename = "clusterID")]
    pub(super) cluster_id: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mirror {
    pub(super) addr: String,
    pub(super) registries: Vec<Registry>,
}

/// `"https://ghcr.io"`, or a name of its own for where it really is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "a URL, or {host: NAME, server: URL}")]
pub(super) enum Registry {
    Url(String),
    Named(NamedRegistry),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NamedRegistry {
    pub(super) host: String,
    pub(super) server: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Peer {
    pub(super) addr: String,
    pub(super) tls: Tls,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tls {
    #[default]
    Auto,
    Off,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Storage {
    pub(super) dir: String,
    pub(super) capacity: ByteSize,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Engine {
    #[default]
    Auto,
    IoUring,
    Portable,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Shaper {
    pub(super) mode: ShaperMode,
    pub(super) upload_limit: Rate,
    pub(super) per_peer_limit: Rate,
    pub(super) download_limit: Rate,
    pub(super) origin_limit: Rate,
    #[serde(rename = "yield")]
    pub(super) yield_to_others: bool,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShaperMode {
    #[default]
    Auto,
    Off,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Metrics {
    pub(super) addr: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Api {
    pub(super) socket: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Telemetry {
    pub(super) otlp_endpoint: String,
    pub(super) log_format: LogFormat,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verify {
    #[default]
    Streaming,
    Strict,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { addr: "127.0.0.1:4001".to_owned(), registries: Vec::new() }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self { addr: "0.0.0.0:4000".to_owned(), tls: Tls::Auto }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { dir: "/var/lib/hawker".to_owned(), capacity: ByteSize(80 << 30) }
    }
}

impl Default for Shaper {
    fn default() -> Self {
        let none = Rate::default();
        Self {
            mode: ShaperMode::Auto,
            upload_limit: none,
            per_peer_limit: none,
            download_limit: none,
            origin_limit: none,
            yield_to_others: true,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { addr: "127.0.0.1:4003".to_owned() }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: "/run/hawker/hawkerd.sock".to_owned() }
    }
}
