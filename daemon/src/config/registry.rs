//! Entries of `mirror.registries`: the allow-list of origins.
//!
//! Invariant: two entries never answer for the same name, so a name leads to one server.

use super::check::{Problem, base_url, choice};
use super::shaper::network;
use super::{AccessMode, Outage, References, Registry, RegistryPolicy};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Most entries of the allow-list.
const MAX_REGISTRIES: usize = 256;
/// Most networks a registry may lead into.
const MAX_NETWORKS: usize = 64;
/// The name of Docker Hub in image references, and the host that answers for it.
pub const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_SERVER: &str = "https://registry-1.docker.io";

/// The name a registry is looked up by: lower case, and Docker Hub's aliases are `docker.io`.
#[must_use]
pub fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "www.docker.io" => DOCKER_HUB.to_owned(),
        _ => host,
    }
}

/// As written: a URL, or a name and where it is.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum RawRegistry {
    Url(String),
    Named(NamedRegistry),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NamedRegistry {
    host: String,
    /// Empty: `https://` and the host.
    #[serde(default)]
    server: String,
    #[serde(default = "authorize")]
    access: String,
    #[serde(default)]
    relay_challenge: bool,
    #[serde(default = "manifest")]
    references: String,
    #[serde(default = "refuse")]
    outage: String,
    #[serde(default)]
    redirect_networks: Vec<String>,
    #[serde(default)]
    propagate_trace: bool,
    /// Empty: jobs are nobody there.
    #[serde(default)]
    job_account: String,
}

impl RawRegistry {
    /// Whether it says who may have what: a matter of registries alone.
    pub(super) fn has_policy(&self) -> bool {
        let plain = |named: &NamedRegistry| {
            let texts = (named.access.as_str(), named.references.as_str(), named.outage.as_str());
            texts == ("authorize", "manifest", "refuse")
                && !named.relay_challenge
                && !named.propagate_trace
                && named.job_account.is_empty()
                && named.redirect_networks.is_empty()
        };
        matches!(self, Self::Named(named) if !plain(named))
    }
}

fn authorize() -> String {
    "authorize".to_owned()
}

fn manifest() -> String {
    "manifest".to_owned()
}

fn refuse() -> String {
    "refuse".to_owned()
}

/// By hand: serde's untagged enums hide which key is unknown.
impl<'de> Deserialize<'de> for RawRegistry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = RawRegistry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a URL like `https://ghcr.io` or {host: ghcr.io, server: \"http://10.0.0.5:5000\"}",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<RawRegistry, E> {
                Ok(RawRegistry::Url(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawRegistry, A::Error> {
                NamedRegistry::deserialize(MapAccessDeserializer::new(map)).map(RawRegistry::Named)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

pub(super) fn allow_list(raw: &[RawRegistry]) -> Result<Vec<Registry>, Problem> {
    if raw.len() > MAX_REGISTRIES {
        let problem = format!("has {} entries, at most {MAX_REGISTRIES}", raw.len());
        return Err(Problem::new("mirror.registries", problem));
    }
    let mut list: Vec<Registry> = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        let key = format!("mirror.registries[{index}]");
        let registry = checked(&key, entry)?;
        if list.iter().any(|other| other.host == registry.host) {
            return Err(Problem::new(key, format!("registry `{}` is listed twice", registry.host)));
        }
        list.push(registry);
    }
    Ok(list)
}

/// The name an entry is for, and where that is.
pub(super) fn host_and_server(key: &str, entry: &RawRegistry) -> Result<(String, Url), Problem> {
    match entry {
        RawRegistry::Url(text) => {
            let server = base_url(key, text)?;
            Ok((authority(&server), server))
        }
        RawRegistry::Named(named) => {
            let host = host_name(&format!("{key}.host"), &named.host)?;
            let server =
                if named.server.is_empty() { format!("https://{host}") } else { named.server.clone() };
            Ok((host, base_url(&format!("{key}.server"), &server)?))
        }
    }
}

fn checked(key: &str, entry: &RawRegistry) -> Result<Registry, Problem> {
    let (host, server) = host_and_server(key, entry)?;
    let host = canonical_host(&host);
    // Docker Hub's website answers on `docker.io`; its registry is elsewhere.
    let server = if canonical_host(&authority(&server)) == DOCKER_HUB && server.scheme() == "https" {
        Url::parse(DOCKER_HUB_SERVER).map_err(|error| Problem::new(key, error.to_string()))?
    } else {
        server
    };
    Ok(Registry { host, server, policy: policy(key, entry)? })
}

fn policy(key: &str, entry: &RawRegistry) -> Result<RegistryPolicy, Problem> {
    let RawRegistry::Named(named) = entry else { return Ok(RegistryPolicy::default()) };
    let access = [
        ("authorize", AccessMode::Authorize),
        ("public-only", AccessMode::PublicOnly),
        ("trust-node", AccessMode::TrustNode),
    ];
    let references = [("manifest", References::Manifest), ("head", References::Head)];
    let outage = [("refuse", Outage::Refuse), ("last-known", Outage::LastKnown)];
    if named.redirect_networks.len() > MAX_NETWORKS {
        let problem = format!("has {} entries, at most {MAX_NETWORKS}", named.redirect_networks.len());
        return Err(Problem::new(format!("{key}.redirectNetworks"), problem));
    }
    let access = choice(&format!("{key}.access"), &named.access, &access)?;
    let networks = named.redirect_networks.iter().enumerate();
    let networks = networks.map(|(index, text)| network(&format!("{key}.redirectNetworks[{index}]"), text));
    Ok(RegistryPolicy {
        access,
        relay_challenge: named.relay_challenge,
        references: choice(&format!("{key}.references"), &named.references, &references)?,
        outage: choice(&format!("{key}.outage"), &named.outage, &outage)?,
        redirect_networks: networks.collect::<Result<_, _>>()?,
        propagate_trace: named.propagate_trace,
        job_account: job_account(&format!("{key}.jobAccount"), &named.job_account, access)?,
    })
}

fn job_account(key: &str, file: &str, access: AccessMode) -> Result<Option<PathBuf>, Problem> {
    match file {
        "" => Ok(None),
        _ if !file.starts_with('/') => Err(Problem::new(key, format!("`{file}` is no absolute path"))),
        _ if access == AccessMode::PublicOnly => Err(Problem::new(
            key,
            "has no use with `access: public-only`, which keeps nothing that is private",
        )),
        _ => Ok(Some(PathBuf::from(file))),
    }
}

/// `host[:port]` as the runtime writes it in `ns`.
fn host_name(key: &str, text: &str) -> Result<String, Problem> {
    let refuse = || Problem::new(key, format!("`{text}` is not a `host` or `host:port`"));
    let url = Url::parse(&format!("http://{text}")).map_err(|_| refuse())?;
    // Whatever the URL parser cut off, decoded or dropped was no part of a host.
    let port_80 = format!("{}:80", authority(&url));
    let lower = text.to_ascii_lowercase();
    if authority(&url) != lower && port_80 != lower { Err(refuse()) } else { Ok(lower) }
}

/// `host[:port]` of a URL, without the port that goes without saying.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
