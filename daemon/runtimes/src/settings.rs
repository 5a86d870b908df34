//! What the doctor needs of `daemon.yaml`, read leniently: a file the daemon would refuse must not keep the doctor
//! from looking at the rest. The daemon's own reading is the strict one.
//!
//! Invariant: what is missing or not understood has the daemon's default.

use crate::wanted::Registry;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;

/// Where `hawkerd` is configured.
pub const DAEMON_CONFIG: &str = "/etc/hawker/daemon.yaml";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    pub mirror: SocketAddr,
    pub status: SocketAddr,
    pub registries: Vec<Registry>,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { mirror: loopback(4001), status: loopback(4003), registries: Vec::new() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("read {path}: {source}", path = .path.display())]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = .path.display())]
    Parse { path: std::path::PathBuf, source: serde_yaml_ng::Error },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    mirror: MirrorPart,
    metrics: MetricsPart,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MirrorPart {
    addr: Option<SocketAddr>,
    registries: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MetricsPart {
    addr: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Url(String),
    Named { host: String, server: Option<String> },
}

impl DaemonSettings {
    /// # Errors
    /// [`SettingsError`] names the file.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file: File = serde_yaml_ng::from_str(&text)
            .map_err(|source| SettingsError::Parse { path: path.to_owned(), source })?;
        let default = Self::default();
        let registry = |entry: &Entry| match entry {
            Entry::Url(text) => text.parse().ok(),
            Entry::Named { host, server: Some(server) } => Registry::new(host, server).ok(),
            Entry::Named { host, server: None } => host.parse().ok(),
        };
        Ok(Self {
            mirror: file.mirror.addr.unwrap_or(default.mirror),
            status: file.metrics.addr.unwrap_or(default.status),
            registries: file.mirror.registries.iter().filter_map(registry).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_the_doctor_needs_of_any_daemon_yaml() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "host: { idc: x }\nmetrics: { addr: \"127.0.0.1:9\" }\nmirror:\n  registries:\n  - https://ghcr.io\n  \
                    - { host: \"r.lab:5000\", server: \"http://10.0.0.5:5000\", mode: trust-node }\n";
        file.write_all(text.as_bytes()).unwrap();
        let settings = DaemonSettings::read(file.path()).unwrap();
        assert_eq!((settings.mirror.port(), settings.status.port()), (4001, 9));
        let hosts: Vec<_> = settings.registries.iter().map(Registry::host).collect();
        assert_eq!(hosts, ["ghcr.io", "r.lab:5000"]);
        let missing = DaemonSettings::read(Path::new("/nowhere/daemon.yaml")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/daemon.yaml"), "{missing}");
    }
}
