//! `control.yaml`: the file as people write it ([`RawConfig`]) and the checked parts each component
//! is given ([`Config`]).
//!
//! Invariant: a [`Config`] holds only values its components can start with; what is wrong is named by
//! file and key before anything is bound.

use crate::health::MetricsConfig;
use crate::manager::{Database, DatabaseError, ManagerConfig, OidcConfig, RawOidc, WebConfig};
use crate::scheduler::SchedulerConfig;
use crate::telemetry::{LogFormat, TelemetryConfig};
use axum::http::Uri;
use hawker_api::config::{ConfigError, load};
use hawker_api::trace::TraceConfig;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use url::Url;

/// Read where no `--config` is given, if it exists.
pub const DEFAULT_PATH: &str = "/etc/hawker/control.yaml";
/// Most manager addresses a scheduler tries.
const MAX_MANAGER_ADDRS: usize = 16;

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub manager: ManagerConfig,
    pub scheduler: SchedulerConfig,
    pub metrics: MetricsConfig,
    pub telemetry: TelemetryConfig,
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
    pub advertise_addr: String,
    pub database: String,
    pub root_password_file: String,
    pub join_token_file: String,
    #[serde(rename = "publicURL")]
    pub public_url: String,
    pub trusted_proxies: Vec<String>,
    pub oidc: Vec<RawOidc>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawScheduler {
    pub grpc: SocketAddr,
    pub advertise_addr: String,
    #[serde(rename = "clusterID")]
    pub cluster_id: u64,
    pub manager_addrs: Vec<String>,
    pub join_token_file: String,
    pub use_reports: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawMetrics {
    pub addr: SocketAddr,
    pub profile: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RawTelemetry {
    pub otlp_endpoint: String,
    pub otlp_protocol: String,
    pub sample_ratio: f64,
    pub log_format: LogFormat,
}

impl Default for RawManager {
    fn default() -> Self {
        Self {
            rest: SocketAddr::from(([0, 0, 0, 0], 8080)),
            grpc: SocketAddr::from(([0, 0, 0, 0], 65003)),
            advertise_addr: String::new(),
            database: "sqlite:///var/lib/hawker/manager.db".to_owned(),
            root_password_file: String::new(),
            join_token_file: String::new(),
            public_url: String::new(),
            trusted_proxies: Vec::new(),
            oidc: Vec::new(),
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
            join_token_file: String::new(),
            use_reports: true,
        }
    }
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { addr: SocketAddr::from(([0, 0, 0, 0], 8000)), profile: false }
    }
}

impl Default for RawTelemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            otlp_protocol: "grpc".to_owned(),
            sample_ratio: 1.0,
            log_format: LogFormat::default(),
        }
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
            manager: manager(raw.manager, hostname).map_err(|(key, problem)| invalid(key, problem))?,
            scheduler: scheduler(raw.scheduler, hostname).map_err(|(key, problem)| invalid(key, problem))?,
            metrics: MetricsConfig { addr: raw.metrics.addr, profile: raw.metrics.profile },
            telemetry: telemetry(&raw.telemetry)
                .map_err(|(key, problem)| invalid(&format!("telemetry.{key}"), problem))?,
        })
    }
}

/// The key that is wrong, and what is wrong with it.
type Problem = (&'static str, String);

fn manager(raw: RawManager, hostname: &str) -> Result<ManagerConfig, Problem> {
    // A manager on a port that the kernel chooses is one of tests: its address is known when it is bound.
    let advertise_addr = match raw.grpc.port() {
        0 if raw.advertise_addr.is_empty() => String::new(),
        port => advertised("manager.advertiseAddr", "manager.grpc", (&raw.advertise_addr, port), hostname)?,
    };
    let wrong = |error: DatabaseError| ("manager.database", error.to_string());
    let database: Database = raw.database.parse().map_err(wrong)?;
    let (root_password_file, join_token_file) = (file(raw.root_password_file), file(raw.join_token_file));
    let web = web(&raw.public_url, &raw.trusted_proxies)?;
    let config = ManagerConfig::new(raw.rest, raw.grpc, database, root_password_file);
    let oidc = oidc(raw.oidc, web.public_url.as_ref())?;
    Ok(ManagerConfig { advertise_addr, join_token_file, web, oidc, ..config })
}

fn file(name: String) -> Option<PathBuf> {
    (!name.is_empty()).then(|| PathBuf::from(name))
}

fn oidc(raw: Vec<RawOidc>, public_url: Option<&Url>) -> Result<Vec<OidcConfig>, Problem> {
    let mut checked: Vec<OidcConfig> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let wrong = |(key, problem): (&str, String)| ("manager.oidc", format!("[{index}].{key}: {problem}"));
        let one = OidcConfig::check(raw, public_url).map_err(wrong)?;
        if checked.iter().any(|other| other.name == one.name) {
            return Err(wrong(("name", format!("`{}` is there twice", one.name))));
        }
        checked.push(one);
    }
    Ok(checked)
}

fn web(public_url: &str, trusted_proxies: &[String]) -> Result<WebConfig, Problem> {
    const URL: &str = "manager.publicURL";
    let public_url = if public_url.is_empty() {
        None
    } else {
        let url = public_url.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let plain = url.filter(|url| url.path() == "/" && url.query().is_none() && url.username().is_empty());
        Some(plain.ok_or_else(|| (URL, format!("`{public_url}` is not of the form https://host")))?)
    };
    let network = |text: &String| {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| ("manager.trustedProxies", format!("`{text}` is no network such as 10.0.0.0/8")))
    };
    let trusted_proxies = trusted_proxies.iter().map(network).collect::<Result<_, _>>()?;
    Ok(WebConfig { public_url, trusted_proxies })
}

fn telemetry(raw: &RawTelemetry) -> Result<TelemetryConfig, Problem> {
    let traces = TraceConfig::check(&raw.otlp_endpoint, &raw.otlp_protocol, raw.sample_ratio)?;
    Ok(TelemetryConfig { log_format: raw.log_format, traces })
}

fn scheduler(raw: RawScheduler, hostname: &str) -> Result<SchedulerConfig, Problem> {
    if raw.cluster_id == 0 {
        return Err(("scheduler.clusterID", "must be a cluster's id, 1 or more".to_owned()));
    }
    let asked = (raw.advertise_addr.as_str(), raw.grpc.port());
    let advertise_addr = advertised("scheduler.advertiseAddr", "scheduler.grpc", asked, hostname)?;
    if raw.manager_addrs.is_empty() || raw.manager_addrs.len() > MAX_MANAGER_ADDRS {
        let problem = format!("needs 1 to {MAX_MANAGER_ADDRS} addresses, not {}", raw.manager_addrs.len());
        return Err(("scheduler.managerAddrs", problem));
    }
    if let Some(bad) = raw.manager_addrs.iter().find(|addr| !is_manager_uri(addr)) {
        let problem = format!("`{bad}` is not of the form http://host:port");
        return Err(("scheduler.managerAddrs", problem));
    }
    let RawScheduler { grpc, cluster_id, manager_addrs, use_reports, join_token_file, .. } = raw;
    let join_token_file = file(join_token_file);
    Ok(SchedulerConfig { grpc, advertise_addr, cluster_id, manager_addrs, join_token_file, use_reports })
}

/// What others reach a service at: as configured (`key`), else this machine's name and the port it listens on (`listen_key`).
fn advertised(
    key: &'static str,
    listen_key: &str,
    (configured, port): (&str, u16),
    hostname: &str,
) -> Result<String, Problem> {
    if !configured.is_empty() {
        let refused = || (key, format!("`{configured}` is not of the form host:port"));
        return is_host_port(configured).then(|| configured.to_owned()).ok_or_else(refused);
    }
    if port == 0 {
        return Err((key, format!("is needed where {listen_key} has port 0")));
    }
    let addr = format!("{hostname}:{port}");
    if is_host_port(&addr) { Ok(addr) } else { Err((key, "is needed: this machine has no name".to_owned())) }
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
        assert_eq!(config.manager.database, Database::Sqlite("/var/lib/hawker/manager.db".into()));
        assert_eq!(config.manager.advertise_addr, "box:65003");
        assert_eq!(config.manager.root_password_file, None);
        assert_eq!((config.manager.join_token_file, config.scheduler.join_token_file), (None, None));
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
            ("manager: { database: \"mysql://db/hawker\" }", ["manager.database", "sqlite:///path"]),
            ("manager: { database: \"sqlite://\" }", ["manager.database", "postgres://user"]),
            ("manager: { rest: nowhere }", ["rest", "control.yaml"]),
            ("manager: { publicURL: hawker.example }", ["manager.publicURL", "hawker.example"]),
            ("manager: { trustedProxies: [ingress] }", ["manager.trustedProxies", "ingress"]),
            ("manager: { advertiseAddr: manager }", ["manager.advertiseAddr", "`manager`"]),
            ("scheduler: { clusterID: 0 }", ["scheduler.clusterID", "control.yaml"]),
            ("scheduler: { advertiseAddr: \"10.0.0.2\" }", ["scheduler.advertiseAddr", "10.0.0.2"]),
            ("scheduler: { advertiseAddr: \":8002\" }", ["scheduler.advertiseAddr", ":8002"]),
            ("scheduler: { grpc: \"0.0.0.0:0\" }", ["scheduler.advertiseAddr", "port 0"]),
            ("scheduler: { managerAddrs: [] }", ["scheduler.managerAddrs", "1 to 16"]),
            ("scheduler: { managerAddrs: [\"manager:65003\"] }", ["scheduler.managerAddrs", "manager:65003"]),
            ("scheduler: { managerAddrs: [\"http://m\"] }", ["scheduler.managerAddrs", "http://m"]),
            ("telemetry: { logFormat: xml }", ["xml", "json"]),
            ("telemetry: { otlpProtocol: http/json }", ["telemetry.otlpProtocol", "http/protobuf"]),
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(wanted.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn every_part_can_be_set_by_file_and_environment() {
        let config = read(
            "manager: { database: \"sqlite:///data/m.db\", rootPasswordFile: /run/secret, joinTokenFile: /run/join }\n\
             scheduler: { joinTokenFile: /run/own, advertiseAddr: \"[2001:db8::2]:8002\", clusterID: 7, useReports: false }\n\
             telemetry: { logFormat: json }\n",
            &[("HAWKER_SCHEDULER_CLUSTER_ID", "9"), ("HAWKER_MANAGER_REST", "127.0.0.1:1234")],
        )
        .unwrap();
        assert_eq!(config.manager.database, Database::Sqlite("/data/m.db".into()));
        assert_eq!(config.manager.root_password_file.as_deref(), Some(Path::new("/run/secret")));
        assert_eq!(config.manager.join_token_file.as_deref(), Some(Path::new("/run/join")));
        assert_eq!(config.scheduler.join_token_file.as_deref(), Some(Path::new("/run/own")));
        assert_eq!(config.manager.rest.port(), 1234);
        assert_eq!(config.scheduler.advertise_addr, "[2001:db8::2]:8002");
        assert_eq!((config.scheduler.cluster_id, config.scheduler.use_reports), (9, false));
        assert_eq!(config.telemetry.log_format, LogFormat::Json);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::read(Some(Path::new("/nonexistent/control.yaml")), [], "box").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/control.yaml"), "{error}");
    }
}
