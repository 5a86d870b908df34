//! What a runtime is to be told: where the mirror listens, and for which registries. Plain values, checked.
//!
//! Invariant: a [`Registry`]'s host is lower case and free of anything that could leave its directory.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use url::Url;

/// The name of Docker Hub in image references, and the host that answers for it.
pub const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_SERVER: &str = "https://registry-1.docker.io";

/// A runtime whose files are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    Containerd,
    Crio,
    Podman,
    Docker,
}

impl Runtime {
    pub const ALL: [Self; 4] = [Self::Containerd, Self::Crio, Self::Podman, Self::Docker];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Runtime {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let found = Self::ALL.into_iter().find(|runtime| runtime.name() == text);
        found.ok_or_else(|| WantedError::Runtime { text: text.to_owned() })
    }
}

/// A word of the command line or configuration that means nothing here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WantedError {
    #[error("`{text}` is no runtime known here: containerd, crio, podman, docker")]
    Runtime { text: String },
    #[error(
        "`{text}` is no registry: write for example ghcr.io, https://ghcr.io or name=http://10.0.0.5:5000"
    )]
    Registry { text: String },
    #[error("`{text}` is no version: write for example 1.7.13 or containerd://2.1.4")]
    Version { text: String },
}

/// A registry by the name images carry, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    host: String,
    server: String,
}

impl Registry {
    /// `host[:port]` as images name it, and `http(s)://host[:port]` of the registry itself.
    ///
    /// # Errors
    /// [`WantedError::Registry`] names what is no host or no URL.
    pub fn new(host: &str, server: &str) -> Result<Self, WantedError> {
        let server = base_url(server).ok_or_else(|| WantedError::Registry { text: server.to_owned() })?;
        let lower = host.to_ascii_lowercase();
        let parsed = base_url(&format!("http://{lower}")).map(|url| authority(&url));
        let with_default_port = parsed.as_ref().map(|authority| format!("{authority}:80"));
        if parsed.as_ref() != Some(&lower) && with_default_port.as_ref() != Some(&lower) {
            return Err(WantedError::Registry { text: host.to_owned() });
        }
        let host = match lower.as_str() {
            "index.docker.io" | "registry-1.docker.io" | "www.docker.io" => DOCKER_HUB.to_owned(),
            _ => lower,
        };
        let hub =
            host == DOCKER_HUB && server.scheme() == "https" && authority(&server).ends_with(DOCKER_HUB);
        let server = if hub {
            DOCKER_HUB_SERVER.to_owned()
        } else {
            format!("{}://{}", server.scheme(), authority(&server))
        };
        Ok(Self { host, server })
    }

    /// The name in image references, `host[:port]`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http(s)://host[:port]`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// `host[:port]` of the server.
    #[must_use]
    pub fn server_authority(&self) -> &str {
        self.server.split_once("://").map_or(self.server.as_str(), |(_, authority)| authority)
    }

    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.server.starts_with("http://")
    }

    /// The name as an element of a repository's path, where a colon may not stand: `host_port`.
    #[must_use]
    pub fn path_element(&self) -> String {
        self.host.replacen(':', "_", 1)
    }
}

impl FromStr for Registry {
    type Err = WantedError;

    /// `ghcr.io`, `https://ghcr.io` or `name=http://10.0.0.5:5000`.
    fn from_str(text: &str) -> Result<Self, WantedError> {
        if let Some((host, server)) = text.split_once('=') {
            return Self::new(host, server);
        }
        match text.split_once("://") {
            Some((_, authority)) => Self::new(authority.trim_end_matches('/'), text),
            None => Self::new(text, &format!("https://{text}")),
        }
    }
}

/// `http(s)://host[:port]` and nothing more.
fn base_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && plain && nobody && url.has_host()).then_some(url)
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A runtime's version, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    /// Where pulls by the transfer service, and with them the trap of two roots, begin.
    pub const TRANSFER_SERVICE: Self = Self { major: 2, minor: 1 };
    /// Where configuration files are merged key by key.
    pub const DEEP_MERGE: Self = Self { major: 2, minor: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = WantedError;

    /// `1.7.13`, `v2.2.0`, `containerd://2.1.4`.
    fn from_str(text: &str) -> Result<Self, WantedError> {
        let bare = text.rsplit_once("://").map_or(text, |(_, version)| version).trim_start_matches('v');
        let mut parts = bare.split(|c: char| !c.is_ascii_digit());
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        number()
            .zip(number())
            .map(|(major, minor)| Self { major, minor })
            .ok_or_else(|| WantedError::Version { text: text.to_owned() })
    }
}

/// The settings to bring about.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where the mirror listens.
    pub mirror: SocketAddr,
    pub registries: Vec<Registry>,
    /// `None`: not known; then what works with all versions is written.
    pub containerd: Option<Version>,
}

impl Wanted {
    /// The address runtimes connect to: loopback where the mirror listens on all.
    #[must_use]
    pub fn mirror_addr(&self) -> SocketAddr {
        reachable(self.mirror)
    }

    /// `http://ip:port`.
    #[must_use]
    pub fn mirror_url(&self) -> String {
        format!("http://{}", self.mirror_addr())
    }
}

/// `addr`, or loopback with its port where it is "all addresses".
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        ip if !ip.is_unspecified() => addr,
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port())),
        IpAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, addr.port())),
    }
}

/// Whether `text`, `[http://]host[:port][/…]` in some runtime's file, is the mirror at `mirror`.
pub(crate) fn names_mirror(text: &str, mirror: SocketAddr) -> bool {
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let Ok(url) = url else { return false };
    let port = url.port_or_known_default();
    let same_host = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" && mirror.ip().is_loopback(),
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip) == mirror.ip(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip) == mirror.ip(),
        None => false,
    };
    same_host && port == Some(mirror.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_by_name_url_or_both() {
        let parsed = |text: &str| {
            let registry: Registry = text.parse().unwrap();
            format!("{} {}", registry.host(), registry.server())
        };
        assert_eq!(parsed("ghcr.io"), "ghcr.io https://ghcr.io");
        assert_eq!(parsed("https://GHCR.io/"), "ghcr.io https://ghcr.io");
        assert_eq!(parsed("docker.io"), "docker.io https://registry-1.docker.io");
        assert_eq!(parsed("https://registry-1.docker.io"), "docker.io https://registry-1.docker.io");
        assert_eq!(parsed("r.lab:5000=http://10.0.0.5:5000"), "r.lab:5000 http://10.0.0.5:5000");
        for bad in
            ["", "a b", "../etc", "a/b", "ghcr.io/x", "u:p@h", "ftp://x", "x=y", "h:port", "a=http://b/c"]
        {
            assert!(bad.parse::<Registry>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_as_they_are_printed() {
        for (text, major, minor) in
            [("1.6.20~ds1", 1, 6), ("v2.2.0", 2, 2), ("containerd://2.1.4-k3s1", 2, 1)]
        {
            assert_eq!(text.parse(), Ok(Version { major, minor }), "{text}");
        }
        assert!("latest".parse::<Version>().is_err());
    }

    #[test]
    fn the_mirror_by_any_of_its_names() {
        let mirror = "127.0.0.1:4001".parse().unwrap();
        for text in ["http://127.0.0.1:4001", "127.0.0.1:4001/docker.io", "http://localhost:4001/v2"] {
            assert!(names_mirror(text, mirror), "{text}");
        }
        for text in ["http://127.0.0.1:5000", "http://10.0.0.1:4001", "", "::", "https://ghcr.io"] {
            assert!(!names_mirror(text, mirror), "{text}");
        }
    }
}
