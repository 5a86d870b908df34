//! Entries of `mirror.registries`: the allow-list of origins.
//!
//! Invariant: two entries never answer for the same name, so a name leads to one server.

use super::Registry;
use super::check::{Problem, base_url};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use url::Url;

/// Most entries of the allow-list.
const MAX_REGISTRIES: usize = 256;
/// The name of Docker Hub in image references, and the host that answers for it.
const DOCKER_HUB: &str = "docker.io";
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
#[serde(deny_unknown_fields)]
pub(super) struct NamedRegistry {
    host: String,
    server: String,
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

fn checked(key: &str, entry: &RawRegistry) -> Result<Registry, Problem> {
    let (host, server) = match entry {
        RawRegistry::Url(text) => {
            let server = base_url(key, text)?;
            (authority(&server), server)
        }
        RawRegistry::Named(named) => {
            let server = base_url(&format!("{key}.server"), &named.server)?;
            (host_name(&format!("{key}.host"), &named.host)?, server)
        }
    };
    let host = canonical_host(&host);
    // Docker Hub's website answers on `docker.io`; its registry is elsewhere.
    let server = if canonical_host(&authority(&server)) == DOCKER_HUB && server.scheme() == "https" {
        Url::parse(DOCKER_HUB_SERVER).map_err(|error| Problem::new(key, error.to_string()))?
    } else {
        server
    };
    Ok(Registry { host, server })
}

/// `host[:port]` as the runtime writes it in `ns`.
fn host_name(key: &str, text: &str) -> Result<String, Problem> {
    let refuse = || Problem::new(key, format!("`{text}` is not a registry's `host` or `host:port`"));
    let url = Url::parse(&format!("http://{text}")).map_err(|_| refuse())?;
    // Whatever the URL parser cut off, decoded or dropped was no part of a host.
    let port_80 = format!("{}:80", authority(&url));
    let lower = text.to_ascii_lowercase();
    if authority(&url) != lower && port_80 != lower { Err(refuse()) } else { Ok(lower) }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
