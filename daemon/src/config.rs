//! The daemon's configuration, checked: bad states cannot be written here.
//!
//! Not the file's form (that is `config/raw.rs`) and not the rules a value must meet (`config/check.rs`).
//!
//! Invariant: a [`Config`] that exists was read completely and every value in it was checked.

mod check;
mod raw;
mod registry;
mod shaper;

pub use hawker_api::config::ConfigError;
pub use registry::canonical_host;

use hawker_api::units::{ByteSize, Rate};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Everything; each component is given its own part.
#[derive(Debug, Clone)]
pub struct Config {
    pub host: HostConfig,
    pub manager: ManagerConfig,
    pub cluster: ClusterConfig,
    pub seed_peer: SeedPeerConfig,
    pub mirror: MirrorConfig,
    pub peer: PeerConfig,
    pub storage: StorageConfig,
    pub engine: EngineChoice,
    pub shaper: ShaperConfig,
    pub metrics: MetricsConfig,
    pub api: ApiConfig,
    pub telemetry: TelemetryConfig,
    pub verify: Verify,
}

impl Config {
    /// Reads `path` (`None`: the defaults), applies `HAWKER_…` variables of `environment`, checks.
    ///
    /// # Errors
    /// [`ConfigError`]; it names the file or variable, and the key.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let raw = hawker_api::config::load(path, environment)?;
        let origin = path.map_or_else(|| "of the environment".to_owned(), |path| path.display().to_string());
        check::config(&raw, &origin)
    }
}

#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Never empty: the machine's own where the file has none.
    pub hostname: String,
    /// `None`: found by asking the kernel which address leads to the manager.
    pub advertise_ip: Option<IpAddr>,
    pub idc: String,
    pub location: String,
}

#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// `http://host:port`; empty: no manager, the daemon works alone with its origin.
    pub addrs: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Not 0: pinned.
    pub id: u64,
    pub fallback: Fallback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    Origin,
    Default,
}

#[derive(Debug, Clone)]
pub struct SeedPeerConfig {
    pub enable: bool,
    pub cluster_id: u64,
}

#[derive(Debug, Clone)]
pub struct MirrorConfig {
    pub addr: SocketAddr,
    pub registries: Vec<Registry>,
}

/// An origin that may be proxied: the name the runtime uses, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Canonical: lower case, `docker.io` for Docker Hub under any of its names.
    pub host: String,
    /// `http` or `https`, host and port alone.
    pub server: url::Url,
}

#[derive(Debug, Clone)]
pub struct PeerConfig {
    pub addr: SocketAddr,
    pub tls: PeerTls,
    pub send: SendMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerTls {
    Auto,
    Off,
}

#[derive(Debug, Clone)]
pub struct StorageConfig {
    pub dir: PathBuf,
    /// 0: no limit but the disk's.
    pub capacity: ByteSize,
}

/// How the io_uring engine gets bytes from files into sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendMode {
    /// By reference, from the page cache.
    Splice,
    /// Through buffers of the daemon, where something must be done to the bytes.
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    Auto,
    IoUring,
    Portable,
}

#[derive(Debug, Clone)]
pub struct ShaperConfig {
    pub mode: ShaperMode,
    pub upload_limit: Rate,
    pub per_peer_limit: Rate,
    pub download_limit: Rate,
    pub origin_limit: Rate,
    pub yield_to_others: bool,
    /// Peers with limits and weights of their own; the longest prefix decides.
    pub peers: Vec<PeerRule>,
}

/// Limit and weight of the peers in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRule {
    pub network: ipnet::IpNet,
    /// 0: none, also where `perPeerLimit` is set.
    pub limit: Rate,
    /// Parts of `uploadLimit`, 1 to [`PeerRule::MAX_WEIGHT`].
    pub weight: u32,
}

impl PeerRule {
    /// A thousandth of the total is still something.
    pub const MAX_WEIGHT: u32 = 1000;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShaperMode {
    /// eBPF where it can be had.
    Auto,
    /// eBPF or no start.
    Require,
    /// Never eBPF; limits are kept in user space.
    Off,
}

#[derive(Debug, Clone)]
pub struct MetricsConfig {
    pub addr: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// `None`: no local API.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    pub otlp_endpoint: String,
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// When bytes of a cold pull go to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// As verified pieces arrive; the last one after the whole digest matched.
    Streaming,
    /// Only after the whole digest matched.
    Strict,
}
