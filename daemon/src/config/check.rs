//! The rules a configuration must meet, and the one way from the raw file to the checked structs.
//!
//! Invariant: every refusal names the key and says what would be right.

use super::raw::{
    RawApi, RawCluster, RawConfig, RawHost, RawManager, RawMetrics, RawMirror, RawPeer, RawStorage,
    RawTelemetry,
};
use super::{
    ApiConfig, ClusterConfig, ClusterRegistries, Config, ConfigError, EngineChoice, Fallback, FilesConfig,
    HostConfig, LogFormat, ManagerConfig, MetricsConfig, MirrorConfig, PeerAuth, PeerConfig, PeerTls,
    SeedPeerConfig, SendMode, StorageConfig, TelemetryConfig, Verify, files, registry, shaper,
};
use hawker_api::join::MANAGER_KEY;
use hawker_api::policy::PolicyError;
use hawker_api::trace::TraceConfig;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Longest host name (RFC 1123) and longest IDC or element of a location, characters.
const MAX_HOSTNAME_CHARS: usize = 253;
const MAX_ELEMENT_CHARS: usize = 64;
/// Most elements of a location: `continent|country|city|building|row` and some to spare.
const MAX_LOCATION_ELEMENTS: usize = 8;
/// Longest socket path the kernel takes (`sun_path`, with its final zero), bytes.
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Shortest lifetime of an unused blob.
const MIN_TTL: Duration = Duration::from_secs(60);

/// A value refused, before it is known which file it came from.
#[derive(Debug)]
pub(super) struct Problem {
    key: String,
    problem: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

impl From<PolicyError> for Problem {
    fn from(PolicyError { key, problem }: PolicyError) -> Self {
        Self { key, problem }
    }
}

type Checked<T> = Result<T, Problem>;

pub(super) fn config(raw: &RawConfig, origin: &str) -> Result<Config, ConfigError> {
    sections(raw).map_err(|Problem { key, problem }| ConfigError::Invalid {
        origin: origin.to_owned(),
        key,
        problem,
    })
}

fn sections(raw: &RawConfig) -> Checked<Config> {
    Ok(Config {
        host: host(&raw.host)?,
        manager: manager(&raw.manager)?,
        cluster: cluster(&raw.cluster)?,
        seed_peer: SeedPeerConfig { enable: raw.seed_peer.enable, cluster_id: raw.seed_peer.cluster_id },
        mirror: mirror(&raw.mirror)?,
        files: FilesConfig { origins: files::origins(&raw.files.origins)? },
        peer: peer(&raw.peer, !raw.manager.addrs.is_empty())?,
        storage: storage(&raw.storage)?,
        storage_ttl: ttl(&raw.storage.ttl)?,
        engine: choice(
            "engine",
            &raw.engine,
            &[
                ("auto", EngineChoice::Auto),
                ("io_uring", EngineChoice::IoUring),
                ("portable", EngineChoice::Portable),
            ],
        )?,
        shaper: shaper::shaper(&raw.shaper)?,
        metrics: metrics(&raw.metrics)?,
        api: api(&raw.api)?,
        telemetry: telemetry(&raw.telemetry)?,
        verify: choice(
            "verify",
            &raw.verify,
            &[("streaming", Verify::Streaming), ("strict", Verify::Strict)],
        )?,
    })
}

fn host(raw: &RawHost) -> Checked<HostConfig> {
    let hostname = if raw.hostname.is_empty() { machine_hostname()? } else { raw.hostname.clone() };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if hostname.chars().count() > MAX_HOSTNAME_CHARS || !hostname.chars().all(legal) {
        return Err(Problem::new(
            "host.hostname",
            format!(
                "`{hostname}` is not a host name: letters, digits, `-`, `.` and `_`, at most {MAX_HOSTNAME_CHARS}"
            ),
        ));
    }
    Ok(HostConfig {
        hostname,
        advertise_ip: advertise_ip(&raw.advertise_ip)?,
        idc: idc(&raw.idc)?,
        location: location(&raw.location)?,
    })
}

fn machine_hostname() -> Checked<String> {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Problem::new("host.hostname", "not set, and this machine has no readable host name"))
}

fn advertise_ip(text: &str) -> Checked<Option<IpAddr>> {
    const KEY: &str = "host.advertiseIP";
    if text.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = text.parse().map_err(|_| Problem::new(KEY, format!("`{text}` is not an IP address")))?;
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(Problem::new(KEY, format!("`{text}` is not an address other nodes can connect to")));
    }
    Ok(Some(ip))
}

fn idc(text: &str) -> Checked<String> {
    let text = text.trim();
    if text.contains('|') {
        let problem = format!("`{text}` names several: a node is in one (a cluster's scope may list more)");
        return Err(Problem::new("host.idc", problem));
    }
    if !text.is_empty() {
        element("host.idc", text)?;
    }
    Ok(text.to_owned())
}

fn location(text: &str) -> Checked<String> {
    const KEY: &str = "host.location";
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let elements: Vec<_> = text.split('|').map(str::trim).collect();
    if elements.len() > MAX_LOCATION_ELEMENTS {
        let problem = format!("`{text}` has {} elements, at most {MAX_LOCATION_ELEMENTS}", elements.len());
        return Err(Problem::new(KEY, problem));
    }
    elements.iter().try_for_each(|part| element(KEY, part))?;
    Ok(elements.join("|"))
}

fn element(key: &str, text: &str) -> Checked<()> {
    if text.is_empty() {
        return Err(Problem::new(key, "has an empty element: write for example `asia|cn|hangzhou`"));
    }
    if text.chars().count() > MAX_ELEMENT_CHARS || text.chars().any(char::is_control) {
        let problem =
            format!("`{}` is not a name of at most {MAX_ELEMENT_CHARS} characters", text.escape_debug());
        return Err(Problem::new(key, problem));
    }
    Ok(())
}

fn manager(raw: &RawManager) -> Checked<ManagerConfig> {
    let mut addrs = Vec::with_capacity(raw.addrs.len());
    for (index, text) in raw.addrs.iter().enumerate() {
        let key = format!("manager.addrs[{index}]");
        let url = base_url(&key, text)?;
        let addr = url.as_str().trim_end_matches('/').to_owned();
        if addrs.contains(&addr) {
            return Err(Problem::new(key, format!("`{text}` is listed twice")));
        }
        addrs.push(addr);
    }
    Ok(ManagerConfig { addrs, join_token_file: join_token_file(&raw.join_token_file)? })
}

/// Not whether it is there: without its manager a daemon starts, too.
fn join_token_file(file: &str) -> Checked<Option<PathBuf>> {
    match file {
        "" => Ok(None),
        _ if file.starts_with('/') => Ok(Some(PathBuf::from(file))),
        _ => Err(Problem::new(MANAGER_KEY, format!("`{file}` is no absolute path"))),
    }
}

fn cluster(raw: &RawCluster) -> Checked<ClusterConfig> {
    let known = [("origin", Fallback::Origin), ("default", Fallback::Default)];
    Ok(ClusterConfig { id: raw.id, fallback: choice("cluster.fallback", &raw.fallback, &known)? })
}

fn mirror(raw: &RawMirror) -> Checked<MirrorConfig> {
    Ok(MirrorConfig {
        addr: socket_addr("mirror.addr", &raw.addr)?,
        registries: registry::allow_list(&raw.registries)?,
        cluster_registries: choice(
            "mirror.clusterRegistries",
            &raw.cluster_registries,
            &[("narrow", ClusterRegistries::Narrow), ("extend", ClusterRegistries::Extend)],
        )?,
    })
}

fn peer(raw: &RawPeer, has_manager: bool) -> Checked<PeerConfig> {
    let auto = if has_manager { PeerAuth::Cluster } else { PeerAuth::Off };
    let auth = [("auto", auto), ("cluster", PeerAuth::Cluster), ("off", PeerAuth::Off)];
    Ok(PeerConfig {
        addr: socket_addr("peer.addr", &raw.addr)?,
        tls: choice("peer.tls", &raw.tls, &[("auto", PeerTls::Auto), ("off", PeerTls::Off)])?,
        auth: choice("peer.auth", &raw.auth, &auth)?,
        send: choice(
            "peer.send",
            &raw.send,
            &[("splice", SendMode::Splice), ("copy", SendMode::Copy), ("zc", SendMode::Zc)],
        )?,
    })
}

fn storage(raw: &RawStorage) -> Checked<StorageConfig> {
    if !raw.dir.starts_with('/') {
        return Err(Problem::new("storage.dir", format!("`{}` is not an absolute path", raw.dir)));
    }
    Ok(StorageConfig { dir: PathBuf::from(&raw.dir), capacity: raw.capacity })
}

fn metrics(raw: &RawMetrics) -> Checked<MetricsConfig> {
    Ok(MetricsConfig { addr: socket_addr("metrics.addr", &raw.addr)?, profile: raw.profile })
}

/// `0` is no limit; less than a minute is taken for a slip.
fn ttl(text: &str) -> Checked<Option<Duration>> {
    const KEY: &str = "storage.ttl";
    if text == "0" {
        return Ok(None);
    }
    let ttl = humantime::parse_duration(text)
        .map_err(|error| Problem::new(KEY, format!("`{text}` is not a time like `7d` or `12h`: {error}")))?;
    if ttl < MIN_TTL {
        return Err(Problem::new(KEY, format!("`{text}` is too short: at least 1m, or 0 for no limit")));
    }
    Ok(Some(ttl))
}

fn api(raw: &RawApi) -> Checked<ApiConfig> {
    const KEY: &str = "api.socket";
    if raw.socket.is_empty() {
        return Ok(ApiConfig { socket: None });
    }
    if !raw.socket.starts_with('/') || raw.socket.ends_with('/') {
        return Err(Problem::new(KEY, format!("`{}` is not an absolute path of a socket", raw.socket)));
    }
    if raw.socket.len() > MAX_SOCKET_PATH_BYTES {
        let problem = format!("`{}` is longer than {MAX_SOCKET_PATH_BYTES} bytes", raw.socket);
        return Err(Problem::new(KEY, problem));
    }
    Ok(ApiConfig { socket: Some(PathBuf::from(&raw.socket)) })
}

fn telemetry(raw: &RawTelemetry) -> Checked<TelemetryConfig> {
    let traces = TraceConfig::check(&raw.otlp_endpoint, &raw.otlp_protocol, raw.sample_ratio)
        .map_err(|(key, problem)| Problem::new(format!("telemetry.{key}"), problem))?;
    let known = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Ok(TelemetryConfig { traces, log_format: choice("telemetry.logFormat", &raw.log_format, &known)? })
}

/// `http(s)://host[:port]` and nothing more.
pub(super) fn base_url(key: &str, text: &str) -> Checked<Url> {
    let refuse = |why: &str| Problem::new(key, format!("`{text}` {why}"));
    if !text.contains("://") {
        return Err(refuse("has no scheme: write for example `https://ghcr.io`"));
    }
    let url = Url::parse(text).map_err(|error| refuse(&format!("is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("has another scheme than http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::new(key, "has a user or password in the URL: credentials don't belong here"));
    }
    if !matches!(url.path(), "" | "/") {
        return Err(refuse("has a path: host and port alone are allowed"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("has a query or fragment: host and port alone are allowed"));
    }
    Ok(url)
}

fn socket_addr(key: &str, text: &str) -> Checked<SocketAddr> {
    text.parse().map_err(|_| {
        Problem::new(key, format!("`{text}` is not IP:port, for example `127.0.0.1:4001` or `[::1]:4001`"))
    })
}

pub(super) fn choice<T: Copy>(key: &str, given: &str, known: &[(&str, T)]) -> Checked<T> {
    known.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Problem::new(key, format!("`{given}` is unknown: {}", names.join(", ")))
    })
}
