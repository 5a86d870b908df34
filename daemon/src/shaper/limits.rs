//! What the configuration asks for, peer by peer. Pure.
//!
//! Invariant: of several rules that fit a peer the one with the longest prefix decides, alone.

use super::backend::Orders;
use crate::config::{PeerRule, ShaperConfig};
use hawker_abi::{Limit, PeerAddr};
use std::net::IpAddr;

/// Limits of uploads; those of downloads are [`super::bucket`]'s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) total: u64,
    pub(super) default: Limit,
    pub(super) rules: Vec<PeerRule>,
}

impl From<&ShaperConfig> for Limits {
    fn from(config: &ShaperConfig) -> Self {
        let default = Limit { rate: config.per_peer_limit.0, weight: 1, reserved: 0 };
        Self { total: config.upload_limit.0, default, rules: config.peers.clone() }
    }
}

impl Limits {
    /// Whether anything is limited.
    pub(super) fn any(&self) -> bool {
        self.total != 0 || self.default.rate != 0 || self.rules.iter().any(|rule| rule.limit.0 != 0)
    }

    /// With no more than `total` in all; 0: as they are.
    pub(super) fn within(&self, total: u64) -> Self {
        let own = self.total;
        let total = if total == 0 || own != 0 && own < total { own } else { total };
        Self { total, ..self.clone() }
    }

    /// Each limit as a part of what it was.
    pub(super) fn divided_by(mut self, parts: u64) -> Self {
        // Where there is one there stays one: 0 is none.
        let divided = |rate: u64| if rate == 0 { 0 } else { (rate / parts).max(1) };
        (self.total, self.default.rate) = (divided(self.total), divided(self.default.rate));
        self.rules.iter_mut().for_each(|rule| rule.limit.0 = divided(rule.limit.0));
        self
    }

    /// Whether the total has to be divided: without weights it is shared by connections.
    pub(super) fn divides(&self) -> bool {
        self.total != 0
    }

    pub(super) fn of(&self, peer: &PeerAddr) -> Limit {
        let ip = IpAddr::from(*peer);
        let fitting = self.rules.iter().filter(|rule| rule.network.contains(&ip));
        fitting.max_by_key(|rule| rule.network.prefix_len()).map_or(self.default, |rule| Limit {
            rate: rule.limit.0,
            weight: rule.weight,
            reserved: 0,
        })
    }

    /// Orders for these peers, but for mode, port and level.
    pub(super) fn orders(&self, peers: impl Iterator<Item = PeerAddr>) -> Orders {
        let own = |peer| {
            let limit = self.of(&peer);
            (limit != self.default).then_some((peer, limit))
        };
        Orders {
            total_rate: self.total,
            default_limit: self.default,
            peers: peers.filter_map(own).collect(),
            ..Orders::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_api::units::Rate;

    fn rule(network: &str, limit: u64, weight: u32) -> PeerRule {
        PeerRule { network: network.parse().unwrap(), limit: Rate(limit), weight }
    }

    fn addr(text: &str) -> PeerAddr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let limits = Limits {
            total: 0,
            default: Limit { rate: 7, weight: 1, reserved: 0 },
            rules: vec![rule("10.0.0.0/8", 10, 2), rule("10.1.0.0/16", 0, 4), rule("fd00::/8", 3, 1)],
        };
        assert_eq!((limits.of(&addr("10.9.9.9")).rate, limits.of(&addr("10.1.9.9")).weight), (10, 4));
        assert_eq!(limits.of(&addr("::ffff:10.1.0.1")).rate, 0);
        assert_eq!((limits.of(&addr("fd00::1")).rate, limits.of(&addr("192.168.0.1")).rate), (3, 7));
        let orders = limits.orders([addr("10.9.9.9"), addr("192.168.0.1")].into_iter());
        assert_eq!(orders.peers.len(), 1, "the default needs no entry");
        assert!(limits.any() && !limits.divides());
        assert!(limits.within(5).divides() && limits.within(0) == limits);
        assert_eq!(limits.within(5).within(9).total, 5);
        let parts = limits.within(64).divided_by(16);
        let rates: Vec<u64> = parts.rules.iter().map(|rule| rule.limit.0).collect();
        assert_eq!((parts.total, parts.default.rate, rates), (4, 1, vec![1, 0, 1]), "no limit stays none");
    }
}
