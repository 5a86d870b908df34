//! Which registries may be asked: those of the node's own file, of these the ones that its cluster lists, and what the
//! cluster adds where the file lets it.
//!
//! Invariants: a registry of the file is where the file says and treated as the file says, whatever a cluster lists under
//! its name; without `mirror.clusterRegistries: extend` nothing is asked that the file does not name.

use super::OriginLimits;
use super::account::Account;
use super::upstream::Upstream;
use crate::accounting::Accounting;
use crate::config::{ClusterRegistries, MirrorConfig, canonical_host};
use hawker_api::node_policy::RegistryRule;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Upstreams = BTreeMap<String, Arc<Upstream>>;

pub(super) struct AllowList {
    own: Upstreams,
    policy: ClusterRegistries,
    cluster: RwLock<Listed>,
    accounting: Accounting,
    limits: OriginLimits,
}

/// What the cluster lists.
#[derive(Default)]
struct Listed {
    /// `None`: it says nothing.
    only: Option<BTreeSet<String>>,
    added: Upstreams,
}

impl AllowList {
    pub(super) fn new(config: &MirrorConfig, accounting: &Accounting, limits: OriginLimits) -> Self {
        let upstream = |entry: &crate::config::Registry| {
            let networks = &entry.policy.redirect_networks;
            let mut upstream = Upstream::new(&entry.host, &entry.server, networks, accounting, limits);
            upstream.traced = entry.policy.propagate_trace;
            let account = entry.policy.job_account.as_deref();
            upstream.account = account.map(|file| Account::new(file, &entry.host));
            Arc::new(upstream)
        };
        Self {
            own: config.registries.iter().map(|entry| (entry.host.clone(), upstream(entry))).collect(),
            policy: config.cluster_registries,
            cluster: RwLock::default(),
            accounting: accounting.clone(),
            limits,
        }
    }

    pub(super) fn get(&self, registry: &str) -> Option<Arc<Upstream>> {
        let host = canonical_host(registry);
        let cluster = self.cluster.read();
        if !cluster.only.as_ref().is_none_or(|only| only.contains(&host)) {
            return None;
        }
        self.own.get(&host).or_else(|| cluster.added.get(&host)).map(Arc::clone)
    }

    /// The registry that may be asked, where there is exactly one.
    pub(super) fn only(&self) -> Option<String> {
        let cluster = self.cluster.read();
        let listed = |host: &&String| cluster.only.as_ref().is_none_or(|only| only.contains(*host));
        let mut hosts = self.own.keys().chain(cluster.added.keys()).filter(listed);
        hosts.next().filter(|_| hosts.next().is_none()).cloned()
    }

    /// Takes over what the cluster lists; `None`: it says nothing any more. Requests under way go on.
    pub(super) fn follow(&self, rules: Option<&[RegistryRule]>) {
        let before = self.cluster.read().added.clone();
        let only = rules.map(|rules| rules.iter().map(|rule| canonical_host(&rule.host)).collect());
        let mut added = Upstreams::new();
        for rule in rules.unwrap_or_default() {
            let host = canonical_host(&rule.host);
            if self.own.contains_key(&host) {
                continue;
            }
            match (self.policy, rule.addable()) {
                (ClusterRegistries::Extend, Some(server)) => {
                    // What is known of one that stays, as its connections, stays too.
                    let known = before.get(&host).filter(|known| known.server == server).cloned();
                    let anew = || Arc::new(Upstream::new(&host, &server, &[], &self.accounting, self.limits));
                    added.insert(host.clone(), known.unwrap_or_else(anew));
                }
                _ => tracing::debug!(registry = host, "not asked: only the cluster lists it"),
            }
        }
        *self.cluster.write() = Listed { only, added };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Registry;
    use crate::metrics::Metrics;

    fn list(policy: ClusterRegistries) -> AllowList {
        let own = |host: &str, server: &str| Registry::new(host, server.parse().unwrap());
        let registries =
            vec![own("docker.io", "https://registry-1.docker.io"), own("a.test", "http://10.0.0.5:5000")];
        let config =
            MirrorConfig { addr: ([127, 0, 0, 1], 0).into(), registries, cluster_registries: policy };
        AllowList::new(&config, &Accounting::new(Metrics::new()), OriginLimits::default())
    }

    fn rules(hosts: &[(&str, &str)]) -> Vec<RegistryRule> {
        hosts.iter().map(|(host, server)| RegistryRule::new("r", host, server).unwrap()).collect()
    }

    fn server(list: &AllowList, host: &str) -> Option<String> {
        list.get(host).map(|upstream| upstream.server.to_string())
    }

    #[test]
    fn a_cluster_takes_away_and_adds_nothing() {
        let list = list(ClusterRegistries::Narrow);
        assert!(list.get("a.test").is_some() && list.get("index.docker.io").is_some());
        assert_eq!(list.only(), None);
        list.follow(Some(&rules(&[("A.test", "https://elsewhere.test"), ("b.test", "")])));
        assert_eq!(server(&list, "a.test").as_deref(), Some("http://10.0.0.5:5000/"), "where the file says");
        assert!(list.get("docker.io").is_none() && list.get("b.test").is_none());
        assert_eq!(list.only().as_deref(), Some("a.test"));
        list.follow(Some(&[]));
        assert!(list.get("a.test").is_none() && list.only().is_none());
        list.follow(None);
        assert!(list.get("a.test").is_some() && list.get("docker.io").is_some());
    }

    #[test]
    fn where_the_file_lets_it_a_cluster_adds_names_over_https() {
        let list = list(ClusterRegistries::Extend);
        list.follow(Some(&rules(&[
            ("b.test", ""),
            ("c.test:5000", "https://cache.test"),
            ("10.0.0.9:5000", ""),
            ("a.test", ""),
        ])));
        assert_eq!(server(&list, "b.test").as_deref(), Some("https://b.test/"));
        assert_eq!(server(&list, "c.test:5000").as_deref(), Some("https://cache.test/"));
        assert!(list.get("10.0.0.9:5000").is_none(), "an address is for the node's file alone");
        assert_eq!(server(&list, "a.test").as_deref(), Some("http://10.0.0.5:5000/"));
        let first = list.get("b.test").unwrap();
        list.follow(Some(&rules(&[("b.test", "")])));
        assert!(Arc::ptr_eq(&first, &list.get("b.test").unwrap()), "one that stays is the same one");
        assert!(list.get("c.test:5000").is_none());
        list.follow(None);
        assert!(list.get("b.test").is_none(), "what was added goes with the list");
    }
}
