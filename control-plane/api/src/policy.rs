//! What a cluster wants of its nodes: the `config` object of a cluster, checked, and the rules that limits must meet
//! wherever they are written.
//!
//! Invariant: what [`ClusterPolicy::read`] accepted, and what [`ShaperPolicy::check`] let pass, a daemon can follow.

use crate::node_policy::NodePolicy;
use crate::prices::Prices;
use crate::units::Rate;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Smallest limit, bytes per second: below it connections stall longer than their other end waits.
pub const MIN_LIMIT: u64 = 8_000;
/// Largest limit, bytes per second: a thousand times the fastest card, and far from where arithmetic overflows.
pub const MAX_LIMIT: u64 = 1 << 47;
/// Most rules for peers.
pub const MAX_RULES: usize = 1024;

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct PolicyError {
    /// `shaper.peers[0].weight`
    pub key: String,
    pub problem: String,
}

pub(crate) fn refuse(key: impl Into<String>, problem: impl Into<String>) -> PolicyError {
    PolicyError { key: key.into(), problem: problem.into() }
}

/// The `config` of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterPolicy {
    pub shaper: ShaperPolicy,
    pub nodes: NodePolicy,
    /// What traffic costs; `None`: nobody said.
    pub prices: Option<Prices>,
}

/// Limits of every node of a cluster; a rate of 0 is none. A node's own file may only be stricter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ShaperPolicy {
    pub upload_limit: Rate,
    pub per_peer_limit: Rate,
    pub download_limit: Rate,
    pub origin_limit: Rate,
    /// Nodes give way to their other traffic, whatever their file says.
    #[serde(rename = "yield")]
    pub yield_to_others: bool,
    /// For nodes whose file has no such list.
    pub peers: Vec<PeerRule>,
}

/// Limit and weight of the peers in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRule {
    pub network: IpNet,
    /// 0: none, also where `perPeerLimit` is set.
    pub limit: Rate,
    /// Parts of `uploadLimit`, 1 to [`PeerRule::MAX_WEIGHT`].
    pub weight: u32,
}

impl PeerRule {
    /// A thousandth of the total is still something.
    pub const MAX_WEIGHT: u32 = 1000;

    /// A rule as people write it; the network is cut to its prefix.
    ///
    /// # Errors
    /// No network, or a limit or weight out of bounds; `key` names the rule.
    pub fn new(key: &str, network: &str, rate: Rate, weight: u32) -> Result<Self, PolicyError> {
        let parsed = network.parse::<IpNet>().or_else(|_| network.parse::<IpAddr>().map(IpNet::from));
        let parsed = parsed.map_err(|_| {
            let problem = format!("`{network}` is no network or address, for example 10.1.0.0/16 or fd00::7");
            refuse(format!("{key}.network"), problem)
        })?;
        let rule = Self { network: parsed.trunc(), limit: rate, weight };
        rule.check(key)?;
        Ok(rule)
    }

    fn check(&self, key: &str) -> Result<(), PolicyError> {
        if !(1..=Self::MAX_WEIGHT).contains(&self.weight) {
            let problem = format!("{} is no weight: 1 to {}", self.weight, Self::MAX_WEIGHT);
            return Err(refuse(format!("{key}.weight"), problem));
        }
        limit(&format!("{key}.limit"), self.limit).map(drop)
    }
}

/// A limit that can be held.
///
/// # Errors
/// It is neither 0 nor within [`MIN_LIMIT`] and [`MAX_LIMIT`].
pub fn limit(key: &str, rate: Rate) -> Result<Rate, PolicyError> {
    match rate.0 {
        0 | MIN_LIMIT..=MAX_LIMIT => Ok(rate),
        1..MIN_LIMIT => {
            let problem = format!("{rate} is too little to be of use: at least 64kbps, or 0 for no limit");
            Err(refuse(key, problem))
        }
        _ => Err(refuse(key, format!("{rate} is more than any link carries: 0 is no limit"))),
    }
}

/// Refuses too many rules, and two for one network.
///
/// # Errors
/// `key` names the list.
pub fn distinct(key: &str, rules: &[PeerRule]) -> Result<(), PolicyError> {
    if rules.len() > MAX_RULES {
        return Err(refuse(key, format!("has {} entries, at most {MAX_RULES}", rules.len())));
    }
    let mut networks = std::collections::BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if !networks.insert(rule.network) {
            return Err(refuse(format!("{key}[{index}]"), format!("`{}` is listed twice", rule.network)));
        }
    }
    Ok(())
}

impl ClusterPolicy {
    /// Reads a cluster's `config` as people write it.
    ///
    /// # Errors
    /// An unknown key, a value of another type, or one that cannot be used; each by its key.
    pub fn read(config: &Map<String, Value>) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for (key, value) in config {
            match key.as_str() {
                "shaper" => policy.shaper = ShaperPolicy::read(object(key, value)?)?,
                "prices" => policy.prices = Some(Prices::read(object(key, value)?)?),
                "registries" => policy.nodes.read_registries(key, value)?,
                "engine" => policy.nodes.read_engine(key, value)?,
                _ => return Err(unknown(key, "shaper, registries, engine, prices")),
            }
        }
        Ok(policy)
    }
}

impl ShaperPolicy {
    fn read(config: &Map<String, Value>) -> Result<Self, PolicyError> {
        const KEYS: &str = "uploadLimit, perPeerLimit, downloadLimit, originLimit, yield, peers";
        let mut policy = Self::default();
        for (name, value) in config {
            let key = &format!("shaper.{name}");
            match name.as_str() {
                "uploadLimit" => policy.upload_limit = rate(key, value)?,
                "perPeerLimit" => policy.per_peer_limit = rate(key, value)?,
                "downloadLimit" => policy.download_limit = rate(key, value)?,
                "originLimit" => policy.origin_limit = rate(key, value)?,
                "yield" => {
                    let wanted = value.as_bool();
                    policy.yield_to_others = wanted.ok_or_else(|| wrong(key, value, "true or false"))?;
                }
                "peers" => policy.peers = rules(key, value)?,
                _ => return Err(unknown(key, KEYS)),
            }
        }
        policy.check()?;
        Ok(policy)
    }

    /// Whether a daemon can follow this, wherever it was read from.
    ///
    /// # Errors
    /// A limit, weight or list out of bounds; by its key.
    pub fn check(&self) -> Result<(), PolicyError> {
        limit("shaper.uploadLimit", self.upload_limit)?;
        limit("shaper.perPeerLimit", self.per_peer_limit)?;
        limit("shaper.downloadLimit", self.download_limit)?;
        limit("shaper.originLimit", self.origin_limit)?;
        distinct("shaper.peers", &self.peers)?;
        let mut rules = self.peers.iter().enumerate();
        rules.try_for_each(|(index, rule)| rule.check(&format!("shaper.peers[{index}]")))
    }
}

fn rules(key: &str, value: &Value) -> Result<Vec<PeerRule>, PolicyError> {
    let list = value.as_array().ok_or_else(|| wrong(key, value, "a list"))?;
    let rule = |(index, value): (usize, &Value)| {
        let key = format!("{key}[{index}]");
        let (mut network, mut limit, mut weight) = ("", Rate(0), 1);
        for (name, value) in object(&key, value)? {
            let key = format!("{key}.{name}");
            match name.as_str() {
                "network" => network = value.as_str().ok_or_else(|| wrong(&key, value, "a text"))?,
                "limit" => limit = rate(&key, value)?,
                "weight" => {
                    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                    weight = number.ok_or_else(|| wrong(&key, value, "1 to 1000"))?;
                }
                _ => return Err(unknown(&key, "network, limit, weight")),
            }
        }
        PeerRule::new(&key, network, limit, weight)
    };
    list.iter().enumerate().map(rule).collect()
}

fn rate(key: &str, value: &Value) -> Result<Rate, PolicyError> {
    let rate = match value {
        Value::String(text) => text.parse::<Rate>().map_err(|error| refuse(key, error.to_string()))?,
        _ => Rate(value.as_u64().ok_or_else(|| wrong(key, value, "a rate: 100Mbps, or bytes per second"))?),
    };
    limit(key, rate)
}

fn object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, PolicyError> {
    value.as_object().ok_or_else(|| wrong(key, value, "an object"))
}

fn unknown(key: &str, known: &str) -> PolicyError {
    refuse(key, format!("is no key: {known}"))
}

pub(crate) fn wrong(key: &str, value: &Value, wanted: &str) -> PolicyError {
    let shown: String = value.to_string().chars().take(64).collect();
    refuse(key, format!("`{shown}` is not {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(config: &Value) -> Result<ClusterPolicy, String> {
        ClusterPolicy::read(config.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_people_write_is_understood() {
        let rule = json!({"network": "10.2.3.4/16", "limit": "80Mbps", "weight": 4});
        let policy = read(&json!({"shaper": {
            "uploadLimit": "100Mbps", "perPeerLimit": 0, "downloadLimit": 1_000_000, "yield": true,
            "peers": [rule, {"network": "fd00::7"}],
        }}));
        let shaper = policy.unwrap().shaper;
        assert_eq!((shaper.upload_limit, shaper.per_peer_limit), (Rate(12_500_000), Rate(0)));
        assert_eq!((shaper.download_limit, shaper.yield_to_others), (Rate(1_000_000), true));
        assert_eq!(shaper.peers[0].network.to_string(), "10.2.0.0/16");
        assert_eq!((shaper.peers[0].limit, shaper.peers[1].weight), (Rate(10_000_000), 1));
        assert_eq!(read(&json!({})), Ok(ClusterPolicy::default()));
    }

    #[test]
    fn nonsense_is_named_by_its_key() {
        for (shaper, says) in [
            (json!({"uploadlimit": 0}), "shaper.uploadlimit: is no key"),
            (json!({"uploadLimit": "1bit/s"}), "shaper.uploadLimit: 1B/s is too little"),
            (json!({"perPeerLimit": 1_u64 << 63}), "shaper.perPeerLimit: 9223372036854775808B/s is more"),
            (json!({"downloadLimit": -5}), "shaper.downloadLimit: `-5`"),
            (json!({"originLimit": "fast"}), "shaper.originLimit: `fast`"),
            (json!({"originLimit": 1.5}), "shaper.originLimit: `1.5`"),
            (json!({"yield": "yes"}), "shaper.yield: `\"yes\"`"),
            (json!({"peers": {}}), "shaper.peers: `{}`"),
            (json!({"peers": [{"network": "10.0.0.0/33"}]}), "shaper.peers[0].network: `10.0.0.0/33`"),
            (json!({"peers": [{"network": "::1", "weight": 0}]}), "shaper.peers[0].weight: 0"),
            (json!({"peers": [{"network": "::1", "wait": 0}]}), "shaper.peers[0].wait: is no key"),
            (
                json!({"peers": [{"network": "10.1.0.0/16"}, {"network": "10.1.2.3/16"}]}),
                "shaper.peers[1]: `10.1.0.0/16` is listed twice",
            ),
            (json!([]), "shaper: `[]`"),
        ] {
            let error = read(&json!({ "shaper": shaper })).unwrap_err();
            assert!(error.starts_with(says), "{shaper}: {error}");
        }
        assert!(read(&json!({"shape": {}})).unwrap_err().starts_with("shape: is no key: shaper"));
    }

    proptest! {
        #[test]
        fn what_is_accepted_passes_the_check_and_comes_back(rate: u64, weight: u32, network: u32) {
            let network = std::net::Ipv4Addr::from_bits(network).to_string();
            let peers = json!([{"network": network, "limit": rate, "weight": weight}]);
            if let Ok(policy) = read(&json!({"shaper": {"uploadLimit": rate, "peers": peers}})) {
                prop_assert_eq!(policy.shaper.check(), Ok(()));
                let text = serde_json::to_string(&policy.shaper).unwrap();
                prop_assert_eq!(serde_json::from_str::<ShaperPolicy>(&text).unwrap(), policy.shaper);
            }
        }
    }
}
