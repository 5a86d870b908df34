//! The daemon's configuration, checked: bad states cannot be written here.
//!
//! Not the file's form (that is `config/raw.rs`) and not the rules a value must meet (`config/check.rs`).
//!
//! Invariant: a [`Config`] that exists was read completely and every value in it was checked.

mod check;
mod files;
mod raw;
mod registry;
mod shaper;

pub use hawker_api::config::ConfigError;
pub use hawker_api::policy::PeerRule;
pub use registry::{DOCKER_HUB, authority, canonical_host};

use hawker_api::trace::TraceConfig;
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
    pub files: FilesConfig,
    pub peer: PeerConfig,
    pub storage: StorageConfig,
    /// Blobs that nobody used for so long are removed; `None`: only for room.
    pub storage_ttl: Option<std::time::Duration>,
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
    /// The join tokens that managers are shown; `None`: none is.
    pub join_token_file: Option<PathBuf>,
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
    pub cluster_registries: ClusterRegistries,
}

/// What the cluster's list of registries may do to this node's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClusterRegistries {
    /// Take entries off it.
    #[default]
    Narrow,
    /// And add some: HTTPS, by name, asked with the caller's own credentials.
    Extend,
}

/// An origin that may be proxied: the name the runtime uses, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Canonical: lower case, `docker.io` for Docker Hub under any of its names.
    pub host: String,
    /// `http` or `https`, host and port alone.
    pub server: url::Url,
    pub policy: RegistryPolicy,
}

impl Registry {
    /// An entry with the default policy.
    #[must_use]
    pub fn new(host: &str, server: url::Url) -> Self {
        Self { host: canonical_host(host), server, policy: RegistryPolicy::default() }
    }
}

/// Who gets what of a registry's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryPolicy {
    pub access: AccessMode,
    /// Show the registry's challenge to callers, so that they send their credentials to this node.
    pub relay_challenge: bool,
    pub references: References,
    pub outage: Outage,
    /// Requests carry the trace they belong to (`traceparent`).
    pub propagate_trace: bool,
    /// Docker's `config.json`, or a secret like it, with the account that jobs have at this registry.
    pub job_account: Option<PathBuf>,
    /// Where the registry may redirect to, or have its realm, though it is further inside than itself.
    pub redirect_networks: Vec<ipnet::IpNet>,
}

/// Who may have content that is in the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// Whom the registry itself lets have it.
    #[default]
    Authorize,
    /// What the registry gives to everybody is shared; the rest comes from the registry alone.
    PublicOnly,
    /// Whoever reaches the mirror.
    TrustNode,
}

/// What proves that content is in a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum References {
    /// A manifest of the repository refers to it: registries look, when it is pushed.
    #[default]
    Manifest,
    /// A HEAD of each digest, for registries that do not look.
    Head,
}

/// What is answered while the registry is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outage {
    #[default]
    Refuse,
    /// What it said last, for at most a day, and marked.
    LastKnown,
}

/// Where files that are no images may come from.
#[derive(Debug, Clone, Default)]
pub struct FilesConfig {
    pub origins: Vec<FileOrigin>,
}

/// Hosts of an entry of `files.origins`, and where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOrigin {
    /// `host[:port]`, lower case; `*.example.com` is every host below `example.com`.
    pub host: String,
    /// `http` or `https`, host and port alone; of a pattern only the scheme and port count.
    pub server: url::Url,
    /// The entry is a URL: a caller's must have its scheme.
    pub scheme_counts: bool,
}

#[derive(Debug, Clone)]
pub struct PeerConfig {
    pub addr: SocketAddr,
    pub tls: PeerTls,
    pub auth: PeerAuth,
    pub send: SendMode,
}

/// Who may have pieces from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAuth {
    /// Nodes of the same cluster: they prove the key the manager gave them.
    Cluster,
    /// Whoever reaches the port.
    Off,
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
    /// By reference to a mapping, for interfaces that send from it; where the kernel copies, by splice.
    Zc,
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
    /// Of all uplinks together, one way; 0: found out.
    pub uplink_capacity: Rate,
    pub yield_to_others: bool,
    /// Part of the uplink that uploads leave full, others' traffic included: 0.5 to 0.99.
    pub yield_target: f64,
    /// What uploads may have whatever others want; 0: a twentieth of the uplink.
    pub yield_floor: Rate,
    /// Peers with limits and weights of their own; the longest prefix decides.
    pub peers: Vec<PeerRule>,
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
    /// `/debug/pprof/profile` answers.
    pub profile: bool,
}

#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// `None`: no local API.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// `None`: no traces.
    pub traces: Option<TraceConfig>,
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
