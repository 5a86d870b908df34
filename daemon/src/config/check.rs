//! From what is written to what can be run. Every refusal names the file, the key and the value.

use super::{
    ApiConfig, ClusterConfig, Config, EngineChoice, Fallback, HostConfig, LogFormat, ManagerConfig,
    MetricsConfig, MirrorConfig, PeerConfig, PeerTls, Registry, SeedPeerConfig, ShaperConfig, ShaperMode,
    StorageConfig, TelemetryConfig, Verify, raw,
};
use hawker_api::config::ConfigError;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use url::Url;

/// Longest hostname, IDC or location.
const MAX_NAME_BYTES: usize = 255;
/// Most registries on the allow-list.
const MAX_REGISTRIES: usize = 256;
/// The name runtimes use for Docker Hub, and where its registry really is.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://registry-1.docker.io");

pub(super) struct Checker {
    /// File that is being checked, for messages.
    pub(super) origin: String,
}

impl Checker {
    pub(super) fn config(&self, raw: raw::Config) -> Result<Config, ConfigError> {
        self.limits(&raw.shaper)?;
        Ok(Config {
            host: self.host(raw.host)?,
            manager: ManagerConfig { addrs: self.managers(raw.manager.addrs)? },
            cluster: ClusterConfig {
                id: raw.cluster.id,
                fallback: match raw.cluster.fallback {
                    raw::Fallback::Origin => Fallback::Origin,
                    raw::Fallback::Default => Fallback::Default,
                },
            },
            seed_peer: SeedPeerConfig { enable: raw.seed_peer.enable, cluster_id: raw.seed_peer.cluster_id },
            mirror: MirrorConfig {
                addr: self.socket_addr("mirror.addr", &raw.mirror.addr)?,
                registries: self.registries(raw.mirror.registries)?,
            },
            peer: PeerConfig {
                addr: self.socket_addr("peer.addr", &raw.peer.addr)?,
                tls: match raw.peer.tls {
                    raw::Tls::Auto => PeerTls::Auto,
                    raw::Tls::Off => PeerTls::Off,
                },
            },
            storage: StorageConfig {
                dir: self.storage_dir(&raw.storage.dir)?,
                capacity: raw.storage.capacity,
            },
            engine: match raw.engine {
                raw::Engine::Auto => EngineChoice::Auto,
                raw::Engine::IoUring => EngineChoice::IoUring,
                raw::Engine::Portable => EngineChoice::Portable,
            },
            shaper: ShaperConfig {
                mode: match raw.shaper.mode {
                    raw::ShaperMode::Auto => ShaperMode::Auto,
                    raw::ShaperMode::Off => ShaperMode::Off,
                },
                upload_limit: raw.shaper.upload_limit,
                per_peer_limit: raw.shaper.per_peer_limit,
                download_limit: raw.shaper.download_limit,
                origin_limit: raw.shaper.origin_limit,
                yield_to_others: raw.shaper.yield_to_others,
            },
            metrics: MetricsConfig { addr: self.socket_addr("metrics.addr", &raw.metrics.addr)? },
            api: ApiConfig { socket: (!raw.api.socket.is_empty()).then(|| PathBuf::from(raw.api.socket)) },
            telemetry: TelemetryConfig {
                otlp_endpoint: raw.telemetry.otlp_endpoint,
                log_format: match raw.telemetry.log_format {
                    raw::LogFormat::Text => LogFormat::Text,
                    raw::LogFormat::Json => LogFormat::Json,
                },
            },
            verify: match raw.verify {
                raw::Verify::Streaming => Verify::Streaming,
                raw::Verify::Strict => Verify::Strict,
            },
        })
    }

    fn invalid(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { origin: self.origin.clone(), key: key.to_owned(), problem: problem.into() }
    }

    /// A limit that nothing enforces is worse than none: it is refused until something does.
    fn limits(&self, shaper: &raw::Shaper) -> Result<(), ConfigError> {
        let limits = [
            ("shaper.uploadLimit", shaper.upload_limit),
            ("shaper.perPeerLimit", shaper.per_peer_limit),
            ("shaper.downloadLimit", shaper.download_limit),
            ("shaper.originLimit", shaper.origin_limit),
        ];
        match limits.iter().find(|(_, rate)| rate.0 != 0) {
            Some((key, rate)) => {
                Err(self.invalid(key, format!("{rate}: this build cannot enforce limits; use 0")))
            }
            None => Ok(()),
        }
    }

    fn host(&self, raw: raw::Host) -> Result<HostConfig, ConfigError> {
        let hostname = if raw.hostname.is_empty() {
            let name = nix::unistd::gethostname().map_err(|error| {
                self.invalid("host.hostname", format!("not set, and the machine has none: {error}"))
            })?;
            name.to_string_lossy().into_owned()
        } else {
            raw.hostname
        };
        let advertise_ip = if raw.advertise_ip.is_empty() {
            None
        } else {
            let ip: IpAddr = raw.advertise_ip.parse().map_err(|_| {
                self.invalid("host.advertiseIP", format!("`{}` is not an IP address", raw.advertise_ip))
            })?;
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(self.invalid("host.advertiseIP", format!("{ip} is no address of one node")));
            }
            Some(ip.to_canonical())
        };
        for (key, value) in
            [("host.hostname", &hostname), ("host.idc", &raw.idc), ("host.location", &raw.location)]
        {
            if value.len() > MAX_NAME_BYTES || value.chars().any(char::is_control) {
                return Err(self
                    .invalid(key, format!("longer than {MAX_NAME_BYTES} bytes or has control characters")));
            }
        }
        if raw.idc.contains('|') {
            return Err(self.invalid("host.idc", format!("`{}`: a node is in one IDC", raw.idc)));
        }
        if raw.location.split('|').any(str::is_empty) && !raw.location.is_empty() {
            return Err(self.invalid("host.location", format!("`{}` has an empty element", raw.location)));
        }
        Ok(HostConfig { hostname, advertise_ip, idc: raw.idc, location: raw.location })
    }

    fn managers(&self, addrs: Vec<String>) -> Result<Vec<String>, ConfigError> {
        for addr in &addrs {
            let url = self.url("manager.addrs", addr)?;
            if url.scheme() != "http" {
                return Err(self.invalid("manager.addrs", format!("`{addr}`: only http:// is supported")));
            }
        }
        Ok(addrs)
    }

    fn registries(&self, raw: Vec<raw::Registry>) -> Result<Vec<Registry>, ConfigError> {
        const KEY: &str = "mirror.registries";
        if raw.len() > MAX_REGISTRIES {
            return Err(self.invalid(KEY, format!("{} entries, at most {MAX_REGISTRIES}", raw.len())));
        }
        let mut registries: Vec<Registry> = Vec::with_capacity(raw.len());
        for entry in raw {
            let registry = match entry {
                raw::Registry::Url(text) => {
                    let server = self.url(KEY, &text)?;
                    registry_at(server)
                }
                raw::Registry::Named(named) => {
                    Registry { server: self.url(KEY, &named.server)?, host: named.host }
                }
            };
            let odd = |c: char| !(c.is_ascii_alphanumeric() || ".-:[]_".contains(c));
            if registry.host.is_empty() || registry.host.contains(odd) {
                return Err(self.invalid(KEY, format!("`{}` is no registry name", registry.host)));
            }
            if registries.iter().any(|other| other.host == registry.host) {
                return Err(self.invalid(KEY, format!("`{}` is there twice", registry.host)));
            }
            registries.push(registry);
        }
        Ok(registries)
    }

    fn url(&self, key: &str, text: &str) -> Result<Url, ConfigError> {
        let url = Url::parse(text).map_err(|error| self.invalid(key, format!("`{text}`: {error}")))?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
            return Err(self.invalid(key, format!("`{text}` is not http(s)://HOST[:PORT]")));
        }
        Ok(url)
    }

    fn storage_dir(&self, dir: &str) -> Result<PathBuf, ConfigError> {
        let path = PathBuf::from(dir);
        if !path.is_absolute() {
            return Err(self.invalid("storage.dir", format!("`{dir}` is not an absolute path")));
        }
        Ok(path)
    }

    fn socket_addr(&self, key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
        text.parse().map_err(|_| self.invalid(key, format!("`{text}` is not IP:PORT")))
    }
}

/// The registry behind a URL, under the name that runtimes use for it.
fn registry_at(server: Url) -> Registry {
    let host = match (server.host_str(), server.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let is_hub = [DOCKER_HUB.0, "registry-1.docker.io", "index.docker.io"].contains(&host.as_str());
    if is_hub && let Ok(server) = Url::parse(DOCKER_HUB.1) {
        return Registry { host: DOCKER_HUB.0.to_owned(), server };
    }
    Registry { host, server }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(text: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Config::load(Some(file.path()), []).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = load("").unwrap();
        assert_eq!(config.mirror.addr.to_string(), "127.0.0.1:4001");
        assert_eq!(config.peer.addr.to_string(), "0.0.0.0:4000");
        assert_eq!(config.metrics.addr.to_string(), "127.0.0.1:4003");
        assert_eq!(config.storage.capacity.0, 80 << 30);
        assert_eq!(config.cluster.fallback, Fallback::Origin);
        assert!(!config.host.hostname.is_empty() && config.shaper.yield_to_others);
    }

    #[test]
    fn the_example_of_the_design_is_understood() {
        let config = load(include_str!("../../../deploy/config/daemon.yaml")).unwrap();
        assert_eq!(config.mirror.registries[0].host, "docker.io");
        let named = "mirror: { registries: ['https://quay.io', {host: 'r.lan:5000', server: 'http://10.0.0.1:5000'}] }";
        let registries = load(named).unwrap().mirror.registries;
        assert_eq!(
            registries[0],
            Registry { host: "quay.io".into(), server: "https://quay.io".parse().unwrap() }
        );
        assert_eq!(registries[1].server.as_str(), "http://10.0.0.1:5000/");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("mirror: { adr: x }", "adr"),
            ("mirror: { addr: here }", "mirror.addr: `here` is not IP:PORT"),
            ("host: { advertiseIP: 10.0.0.300 }", "host.advertiseIP: `10.0.0.300`"),
            ("host: { advertiseIP: 0.0.0.0 }", "no address of one node"),
            ("host: { location: 'a||b' }", "host.location"),
            ("host: { idc: 'a|b' }", "host.idc"),
            ("mirror: { registries: ['ftp://x'] }", "mirror.registries: `ftp://x`"),
            ("mirror: { registries: ['https://x/path'] }", "not http(s)://HOST"),
            ("mirror: { registries: ['https://u:p@x'] }", "not http(s)://HOST"),
            ("mirror: { registries: ['https://x', 'https://x'] }", "twice"),
            ("storage: { dir: here }", "storage.dir"),
            ("storage: { capacity: 3 sheep }", "3 sheep"),
            ("engine: warp", "warp"),
            ("shaper: { uploadLimit: 10Mbps }", "shaper.uploadLimit"),
            ("manager: { addrs: ['https://m:1'] }", "only http://"),
        ];
        for (text, expected) in cases {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn every_key_has_its_variable() {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = [variable("HAWKER_HOST_IDC", "dc-7"), variable("HAWKER_STORAGE_CAPACITY", "1GiB")];
        let config = Config::load(None, environment).unwrap();
        assert_eq!((config.host.idc.as_str(), config.storage.capacity.0), ("dc-7", 1 << 30));
    }
}
