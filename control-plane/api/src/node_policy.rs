//! What a cluster says of its nodes beside limits: which registries they may ask, and which engine serves.
//!
//! Not what a node does with it: its own file has the last word (`docs/adr/0050-what-a-cluster-may-say.md`).
//!
//! Invariant: whatever passed [`NodePolicy::check`] names registries by host names, and servers by HTTPS alone.

use crate::policy::{PolicyError, refuse, wrong};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use url::{Host, Url};

/// Most registries: as many as a node's own file may have.
pub const MAX_REGISTRIES: usize = 256;
/// Of a host with its port: the longest name of DNS, a colon, five digits.
const MAX_HOST_BYTES: usize = 259;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NodePolicy {
    /// Those that nodes may ask; `None`: whatever their files allow.
    pub registries: Option<Vec<RegistryRule>>,
    pub engine: EnginePolicy,
}

/// A registry that nodes may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryRule {
    /// `host` or `host:port`, in lower case, as image references have it.
    pub host: String,
    /// Where it is, for nodes that let the cluster add registries.
    pub server: String,
}

/// Which engine serves pieces where a node's file says `auto`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnginePolicy {
    /// The best that a node has.
    #[default]
    Auto,
    /// No io_uring: for a kernel that is not trusted with it.
    Portable,
}

impl EnginePolicy {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Portable => "portable",
        }
    }

    /// # Errors
    /// It is no such policy. `io_uring` is none: a cluster cannot give a node what its kernel does not have.
    pub fn named(name: &str) -> Result<Self, PolicyError> {
        match name {
            "auto" | "" => Ok(Self::Auto),
            "portable" => Ok(Self::Portable),
            _ => {
                let shown: String = name.chars().take(64).collect();
                Err(refuse("engine", format!("`{shown}` is not `auto` or `portable`")))
            }
        }
    }
}

impl RegistryRule {
    /// `server` empty: HTTPS at the host.
    ///
    /// # Errors
    /// `key` names the entry.
    pub fn new(key: &str, host: &str, server: &str) -> Result<Self, PolicyError> {
        let host = host.to_ascii_lowercase();
        let shown: String = host.chars().take(64).collect();
        let as_host = format!("https://{host}").parse::<Url>().ok().filter(|url| is_plain(url, &host));
        if as_host.is_none() || host.len() > MAX_HOST_BYTES {
            return Err(refuse(format!("{key}.host"), format!("`{shown}` is not a `host` or `host:port`")));
        }
        let server = if server.is_empty() { format!("https://{host}") } else { server.to_owned() };
        let rule = Self { host, server };
        // Where it is the host itself it need not be a name: of those on a node's own list nothing else is used.
        if rule.server != format!("https://{}", rule.host) && rule.addable().is_none() {
            let shown: String = rule.server.chars().take(64).collect();
            let problem = format!("`{shown}` is not https:// and a host name, for example https://ghcr.io");
            return Err(refuse(format!("{key}.server"), problem));
        }
        Ok(rule)
    }

    /// Where a node may find it at the cluster's word alone: encrypted, and by name, as an address has no name that a
    /// certificate could prove. `None`: only a node's own file can lead there.
    #[must_use]
    pub fn addable(&self) -> Option<Url> {
        let bare = self.server.strip_prefix("https://")?.trim_end_matches('/').to_ascii_lowercase();
        let url = self.server.parse::<Url>().ok().filter(|url| is_plain(url, &bare) && is_name(url))?;
        (self.server.len() <= MAX_HOST_BYTES + 16).then_some(url)
    }
}

/// Whether an address is host and port alone, as written.
fn is_plain(url: &Url, text: &str) -> bool {
    let host = url.host_str().unwrap_or_default();
    let with_port = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    (with_port == text || format!("{host}:443") == text) && url.path() == "/" && url.query().is_none()
}

/// Whether the host is a name of more than this machine.
fn is_name(url: &Url) -> bool {
    matches!(url.host(), Some(Host::Domain(name)) if name != "localhost" && !name.ends_with(".localhost"))
}

impl NodePolicy {
    /// Takes in `registries` as people write them.
    pub(crate) fn read_registries(&mut self, key: &str, value: &Value) -> Result<(), PolicyError> {
        let list = value.as_array().ok_or_else(|| wrong(key, value, "a list of registries"))?;
        let rule = |(index, value): (usize, &Value)| {
            let key = format!("{key}[{index}]");
            if let Some(host) = value.as_str() {
                return RegistryRule::new(&key, host, "");
            }
            let entry = value
                .as_object()
                .ok_or_else(|| wrong(&key, value, "a registry: `ghcr.io`, or {host, server}"))?;
            let (mut host, mut server) = ("", "");
            for (name, value) in entry {
                let key = format!("{key}.{name}");
                let text = value.as_str().ok_or_else(|| wrong(&key, value, "a text"));
                match name.as_str() {
                    "host" => host = text?,
                    "server" => server = text?,
                    // In particular none that says who may have what: that is the node's.
                    _ => return Err(refuse(key, "is no key: host, server")),
                }
            }
            RegistryRule::new(&key, host, server)
        };
        let rules = list.iter().take(MAX_REGISTRIES + 1).enumerate().map(rule);
        self.registries = Some(rules.collect::<Result<_, _>>()?);
        self.check()
    }

    /// Takes in `engine` as people write it.
    pub(crate) fn read_engine(&mut self, key: &str, value: &Value) -> Result<(), PolicyError> {
        let name = value.as_str().ok_or_else(|| wrong(key, value, "`auto` or `portable`"))?;
        self.engine = EnginePolicy::named(name)?;
        Ok(())
    }

    /// Whether a node can follow this, wherever it was read from.
    ///
    /// # Errors
    /// Too many registries, one twice, or one that cannot be; by its key.
    pub fn check(&self) -> Result<(), PolicyError> {
        let rules = self.registries.as_deref().unwrap_or_default();
        if rules.len() > MAX_REGISTRIES {
            return Err(refuse("registries", format!("has more than {MAX_REGISTRIES} entries")));
        }
        let mut hosts = BTreeSet::new();
        for (index, rule) in rules.iter().enumerate() {
            let key = format!("registries[{index}]");
            if RegistryRule::new(&key, &rule.host, &rule.server)?.host != rule.host {
                return Err(refuse(key, format!("`{}` is not in lower case", rule.host)));
            }
            if !hosts.insert(&rule.host) {
                return Err(refuse(key, format!("`{}` is listed twice", rule.host)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ClusterPolicy;
    use serde_json::json;

    fn read(config: &Value) -> Result<NodePolicy, String> {
        let policy = ClusterPolicy::read(config.as_object().unwrap());
        policy.map(|policy| policy.nodes).map_err(|error| error.to_string())
    }

    #[test]
    fn what_people_write_is_understood() {
        let own = json!({"host": "registry.example:5000", "server": "https://cache.example"});
        let policy =
            read(&json!({"registries": ["GHCR.io", own, "10.0.0.5:5000"], "engine": "portable"})).unwrap();
        let rules = policy.registries.clone().unwrap();
        let shown: Vec<_> = rules.iter().map(|rule| format!("{} {}", rule.host, rule.server)).collect();
        let wanted = [
            "ghcr.io https://ghcr.io",
            "registry.example:5000 https://cache.example",
            "10.0.0.5:5000 https://10.0.0.5:5000",
        ];
        assert_eq!(shown, wanted);
        let addable: Vec<_> = rules.iter().map(|rule| rule.addable().is_some()).collect();
        assert_eq!(addable, [true, true, false], "an address narrows, and is never added");
        assert_eq!(policy.engine, EnginePolicy::Portable);
        assert_eq!(policy.check(), Ok(()));
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<NodePolicy>(&text).unwrap(), policy);
        assert_eq!(read(&json!({})), Ok(NodePolicy::default()));
        assert_eq!(read(&json!({"registries": []})).unwrap().registries, Some(Vec::new()), "none at all");
    }

    #[test]
    fn nonsense_is_named_by_its_key() {
        let entry = |server: &str| json!({"registries": [{"host": "a.example", "server": server}]});
        for (config, says) in [
            (json!({"registries": "ghcr.io"}), "registries: `\"ghcr.io\"` is not a list"),
            (json!({"registries": [7]}), "registries[0]: `7`"),
            (json!({"registries": ["a b"]}), "registries[0].host: `a b`"),
            (json!({"registries": [""]}), "registries[0].host: ``"),
            (json!({"registries": ["https://ghcr.io"]}), "registries[0].host"),
            (json!({"registries": ["ghcr.io/library"]}), "registries[0].host"),
            (json!({"registries": ["user@ghcr.io"]}), "registries[0].host"),
            (json!({"registries": ["ghcr.io", "GHCR.io"]}), "registries[1]: `ghcr.io` is listed twice"),
            (json!({"registries": vec!["a.example"; 257]}), "registries: has more than 256"),
            (
                json!({"registries": [{"host": "a.example", "access": "trust-node"}]}),
                "registries[0].access: is no key",
            ),
            (entry("http://a.example"), "registries[0].server: `http://a.example` is not https"),
            (entry("https://10.0.0.5"), "registries[0].server"),
            (entry("https://[::1]:5000"), "registries[0].server"),
            (entry("https://localhost:5000"), "registries[0].server"),
            (entry("https://a.example/path"), "registries[0].server"),
            (entry("https://user@a.example"), "registries[0].server"),
            (entry("https://2130706433"), "registries[0].server"),
            (json!({"engine": "io_uring"}), "engine: `io_uring` is not `auto` or `portable`"),
            (json!({"engine": true}), "engine: `true`"),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.starts_with(says), "{config}: {error}");
        }
    }
}
