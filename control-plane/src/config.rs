//! `control.yaml`: the file as people write it ([`RawConfig`]) and the checked parts each component
//! is given ([`Config`]).
//!
//! Invariant: a [`Config`] holds only values its components can start with; what is wrong is named by
//! file and key before anything is bound.

use crate::health::MetricsConfig;
use crate::manager::ManagerConfig;
use crate::scheduler::SchedulerConfig;
use crate::telemetry::LogFormat;
use axum::http::Uri;
use hawker_api::config::{ConfigError, load};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Read where no `--config` is given, if it exists.
pub const DEFAULT_PATH: &str = "/etc/hawker/control.yaml";
/// Most manager addresses a scheduler tries.
const MAX_MANAGER_ADDRS: usize = 16;
/// The only database scheme so far.
const SQLITE_SCHEME: &str = "sqlite://";

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub manager: ManagerConfig,
    pub scheduler: SchedulerConfig,
    pub metrics: MetricsConfig,
    pub log_format: LogFormat,
}

/// `control.yaml`, key by key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawConfig {
    pub manager: RawManager,
    pub scheduler: RawScheduler,
    pub metrics: RawMetrics,
    pub telemetry: RawTelemetry,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawManager {
    pub rest: SocketAddr,
    pub grpc: SocketAddr,
    pub database: String,
    pub root_password_file: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawScheduler {
    pub grpc: SocketAddr,
    pub advertise_addr: String,
    #[serde(rename = "clusterID")]
    pub cluster_id: u64,
    pub manager_addrs: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawMetrics {
    pub addr: SocketAddr,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawTelemetry {
    pub log_format: LogFormat,
}

impl Default for RawManager {
    fn default() -> Self {
        Self {
            rest: SocketAddr::from(([0, 0, 0, 0], 8080)),
            grpc: SocketAddr::from(([0, 0, 0, 0], 65003)),
            database: "sqlite:///var/lib/hawker/manager.db".to_owned(),
            root_password_file: String::new(),
        }
    }
}

impl Default for RawScheduler {
    fn default() -> Self {
        Self {
            grpc: SocketAddr::from(([0, 0, 0, 0], 8002)),
            advertise_addr: String::new(),
            cluster_id: 1,
            manager_addrs: vec!["http://127.0.0.1:65003".to_owned()],
        }
    }
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { addr: SocketAddr::from(([0, 0, 0, 0], 8000)) }
    }
}

impl Config {
    /// Reads and checks `path`, or without one [`DEFAULT_PATH`] where that exists, else the defaults.
    ///
    /// `hostname` is the machine's name, for what is advertised where the file says nothing.
    ///
    /// # Errors
    /// The file cannot be read or parsed, a variable matches no key, or a value cannot be used.
    pub fn read(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        hostname: &str,
    ) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_PATH);
        let path = path.or_else(|| default.exists().then_some(default));
        let origin = path.map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
        Self::check(load(path, environment)?, &origin, hostname)
    }

    fn check(raw: RawConfig, origin: &str, hostname: &str) -> Result<Self, ConfigError> {
        let invalid = |key: &str, problem: String| ConfigError::Invalid {
            origin: origin.to_owned(),
            key: key.to_owned(),
            problem,
        };
        Ok(Self {
            manager: manager(raw.manager).map_err(|(key, problem)| invalid(key, problem))?,
            scheduler: scheduler(raw.scheduler, hostname).map_err(|(key, problem)| invalid(key, problem))?,
            metrics: MetricsConfig { addr: raw.metrics.addr },
            log_format: raw.telemetry.log_format,
        })
    }
}

/// The key that is wrong, and what is wrong with it.
type Problem = (&'static str, String);

fn manager(raw: RawManager) -> Result<ManagerConfig, Problem> {
    let file = raw.database.strip_prefix(SQLITE_SCHEME).filter(|file| !file.is_empty());
    let Some(file) = file else {
        let problem = format!("`{}` is no SQLite database: write {SQLITE_SCHEME}/path/to/file", raw.database);
        return Err(("manager.database", problem));
    };
    let root_password_file =
        (!raw.root_password_file.is_empty()).then(|| PathBuf::from(raw.root_password_file));
    Ok(ManagerConfig::new(raw.rest, raw.grpc, PathBuf::from(file), root_password_file))
}

fn scheduler(raw: RawScheduler, hostname: &str) -> Result<SchedulerConfig, Problem> {
    if raw.cluster_id == 0 {
        return Err(("scheduler.clusterID", "must be a cluster's id, 1 or more".to_owned()));
    }
    let advertise_addr = advertised(&raw, hostname)?;
    if raw.manager_addrs.is_empty() || raw.manager_addrs.len() > MAX_MANAGER_ADDRS {
        let problem = format!("needs 1 to {MAX_MANAGER_ADDRS} addresses, not {}", raw.manager_addrs.len());
        return Err(("scheduler.managerAddrs", problem));
    }
    if let Some(bad) = raw.manager_addrs.iter().find(|addr| !is_manager_uri(addr)) {
        let problem = format!("`{bad}` is not of the form http://host:port");
        return Err(("scheduler.managerAddrs", problem));
    }
    let (grpc, cluster_id, manager_addrs) = (raw.grpc, raw.cluster_id, raw.manager_addrs);
    Ok(SchedulerConfig { grpc, advertise_addr, cluster_id, manager_addrs })
}

/// What daemons reach the scheduler at: as configured, else this machine's name and the port.
fn advertised(raw: &RawScheduler, hostname: &str) -> Result<String, Problem> {
    const KEY: &str = "scheduler.advertiseAddr";
    if !raw.advertise_addr.is_empty() {
        return if is_host_port(&raw.advertise_addr) {
            Ok(raw.advertise_addr.clone())
        } else {
            Err((KEY, format!("`{}` is not of the form host:port", raw.advertise_addr)))
        };
    }
    if raw.grpc.port() == 0 {
        return Err((KEY, "is needed where scheduler.grpc has port 0".to_owned()));
    }
    let addr = format!("{hostname}:{}", raw.grpc.port());
    if is_host_port(&addr) { Ok(addr) } else { Err((KEY, "is needed: this machine has no name".to_owned())) }
}

/// `10.0.0.2:8002`, `[2001:db8::2]:8002`, `scheduler-0.scheduler:8002`.
pub(crate) fn is_host_port(text: &str) -> bool {
    let Ok(authority) = text.parse::<axum::http::uri::Authority>() else { return false };
    !authority.as_str().contains('@')
        && !authority.host().is_empty()
        && authority.port_u16().is_some_and(|port| port != 0)
}

fn is_manager_uri(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    uri.scheme_str() == Some("http")
        && uri.path() == "/"
        && uri.query().is_none()
        && uri.authority().is_some_and(|authority| is_host_port(authority.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control.yaml");
        std::fs::write(&file, text).unwrap();
        let variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::read(Some(&file), variables, "box").map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_documented_defaults() {
        let config = read("", &[]).unwrap();
        assert_eq!(config.manager.rest.to_string(), "0.0.0.0:8080");
        assert_eq!(config.manager.grpc.to_string(), "0.0.0.0:65003");
        assert_eq!(config.manager.database, Path::new("/var/lib/hawker/manager.db"));
        assert_eq!(config.manager.root_password_file, None);
        assert_eq!(config.scheduler.grpc.to_string(), "0.0.0.0:8002");
        assert_eq!(config.scheduler.advertise_addr, "box:8002");
        assert_eq!(config.scheduler.cluster_id, 1);
        assert_eq!(config.scheduler.manager_addrs, ["http://127.0.0.1:65003"]);
        assert_eq!(config.metrics.addr.to_string(), "0.0.0.0:8000");
    }

    #[test]
    fn the_example_in_deploy_is_the_defaults() {
        let text = include_str!("../../deploy/config/control.yaml");
        let example: RawConfig = load_text(text);
        let (example, defaults) =
            (serde_json::to_value(example).unwrap(), serde_json::to_value(RawConfig::default()).unwrap());
        assert_eq!(example, defaults);
    }

    fn load_text(text: &str) -> RawConfig {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control.yaml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), []).unwrap()
    }

    #[test]
    fn what_cannot_be_used_is_named_by_key() {
        for (text, wanted) in [
            ("manager:\n  dtabase: x\n", ["dtabase", "line 2"]),
            ("manager: { database: \"postgres://db/hawker\" }", ["manager.database", "postgres://db/hawker"]),
            ("manager: { database: \"sqlite://\" }", ["manager.database", "sqlite://"]),
            ("manager: { rest: nowhere }", ["rest", "control.yaml"]),
            ("scheduler: { clusterID: 0 }", ["scheduler.clusterID", "control.yaml"]),
            ("scheduler: { advertiseAddr: \"10.0.0.2\" }", ["scheduler.advertiseAddr", "10.0.0.2"]),
            ("scheduler: { advertiseAddr: \":8002\" }", ["scheduler.advertiseAddr", ":8002"]),
            ("scheduler: { grpc: \"0.0.0.0:0\" }", ["scheduler.advertiseAddr", "port 0"]),
            ("scheduler: { managerAddrs: [] }", ["scheduler.managerAddrs", "1 to 16"]),
            ("scheduler: { managerAddrs: [\"manager:65003\"] }", ["scheduler.managerAddrs", "manager:65003"]),
            ("scheduler: { managerAddrs: [\"http://m\"] }", ["scheduler.managerAddrs", "http://m"]),
            ("telemetry: { logFormat: xml }", ["xml", "json"]),
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(wanted.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn every_part_can_be_set_by_file_and_environment() {
        let config = read(
            "manager: { database: \"sqlite:///data/m.db\", rootPasswordFile: /run/secret }\n\
             scheduler: { advertiseAddr: \"[2001:db8::2]:8002\", clusterID: 7 }\n\
             telemetry: { logFormat: json }\n",
            &[("HAWKER_SCHEDULER_CLUSTER_ID", "9"), ("HAWKER_MANAGER_REST", "127.0.0.1:1234")],
        )
        .unwrap();
        assert_eq!(config.manager.database, Path::new("/data/m.db"));
        assert_eq!(config.manager.root_password_file.as_deref(), Some(Path::new("/run/secret")));
        assert_eq!(config.manager.rest.port(), 1234);
        assert_eq!(config.scheduler.advertise_addr, "[2001:db8::2]:8002");
        assert_eq!(config.scheduler.cluster_id, 9);
        assert_eq!(config.log_format, LogFormat::Json);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::read(Some(Path::new("/nonexistent/control.yaml")), [], "box").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/control.yaml"), "{error}");
    }
}
