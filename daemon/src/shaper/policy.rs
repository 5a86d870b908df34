//! Which limits are in force: the node's own file and the cluster's policy, combined.
//!
//! The rule: of two limits the stricter one holds, and a node gives way to its other traffic where either says so. Rules
//! for single peers are the file's where it has any, else the cluster's: their prefixes were made to fit together.
//!
//! Invariant: no cluster can lift what the node's owner wrote down, and the status says where each limit comes from.

use super::controller::{Desk, Event};
use super::limits::Limits;
use crate::accounting::Inbound;
use crate::config::ShaperConfig;
use crate::status::{LimitReport, LimitsReport, SwitchReport};
use hawker_api::policy::ShaperPolicy;
use hawker_api::units::Rate;
use parking_lot::Mutex;
use std::sync::{Arc, mpsc};

/// Who set a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum From {
    #[default]
    Nobody,
    File,
    Cluster,
}

impl From {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::File => "file",
            Self::Cluster => "cluster",
        }
    }
}

/// What each of the two wants.
pub(super) struct Wanted {
    pub(super) file: ShaperConfig,
    pub(super) cluster: ShaperPolicy,
}

impl Wanted {
    /// What holds, and where it comes from.
    pub(super) fn combined(&self) -> (ShaperConfig, LimitsReport) {
        let Self { file, cluster } = self;
        let mut report = LimitsReport::default();
        let both = |file: Rate, cluster: Rate, report: &mut LimitReport| {
            let (rate, from) = stricter(file, cluster);
            *report = LimitReport { bytes_per_second: rate.0, from: from.name() };
            rate
        };
        let (peers, from) = match (file.peers.is_empty(), cluster.peers.is_empty()) {
            (false, _) => (&file.peers, From::File),
            (true, false) => (&cluster.peers, From::Cluster),
            (true, true) => (&file.peers, From::Nobody),
        };
        let config = ShaperConfig {
            upload_limit: both(file.upload_limit, cluster.upload_limit, &mut report.upload),
            per_peer_limit: both(file.per_peer_limit, cluster.per_peer_limit, &mut report.per_peer),
            download_limit: both(file.download_limit, cluster.download_limit, &mut report.download),
            origin_limit: both(file.origin_limit, cluster.origin_limit, &mut report.origin),
            yield_to_others: file.yield_to_others || cluster.yield_to_others,
            peers: peers.clone(),
            ..file.clone()
        };
        report.peer_rules = peers.len();
        report.peer_rules_from = from.name();
        let forced = cluster.yield_to_others && !file.yield_to_others;
        let from = if forced { From::Cluster } else { From::File };
        report.yields = SwitchReport { on: config.yield_to_others, from: from.name() };
        (config, report)
    }
}

/// Where they are equal it is the file's.
fn stricter(file: Rate, cluster: Rate) -> (Rate, From) {
    match (file.0, cluster.0) {
        (0, 0) => (file, From::Nobody),
        (own, other) if other == 0 || (own != 0 && own <= other) => (file, From::File),
        _ => (cluster, From::Cluster),
    }
}

/// Puts limits into force, whoever changes them.
pub(super) struct Enforcer {
    pub(super) desk: Arc<Desk>,
    pub(super) inbound: Inbound,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) wanted: Mutex<Wanted>,
}

impl Enforcer {
    /// Takes over a change of what is wanted, from this moment on also for what is under way.
    pub(super) fn change(&self, change: impl FnOnce(&mut Wanted)) {
        // Held to the end: of two changes the later one is the one that stays.
        let mut wanted = self.wanted.lock();
        change(&mut wanted);
        let (config, report) = wanted.combined();
        self.inbound.download.set(config.download_limit.0);
        self.inbound.origin.set(config.origin_limit.0);
        let (limits, wish) = (Limits::from(&config), super::wish(&config));
        let result =
            self.desk.update(|state| state.set_limits(limits, wish)).and_then(|()| self.desk.probe());
        match result {
            Ok(()) => tracing::info!(%report, "limits in force"),
            Err(error) => tracing::error!(%error, "set the limits"),
        }
        let _ = self.events.send(Event::Look);
    }

    pub(super) fn report(&self) -> LimitsReport {
        self.wanted.lock().combined().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use hawker_api::policy::PeerRule;
    use proptest::prelude::*;

    fn file() -> ShaperConfig {
        Config::load(None, []).unwrap().shaper
    }

    fn rule(network: &str) -> PeerRule {
        PeerRule::new("", network, Rate(0), 2).unwrap()
    }

    #[test]
    fn the_stricter_limit_holds_and_says_whose_it_is() {
        for (file, cluster, holds, from) in [
            (0, 0, 0, "none"),
            (5, 0, 5, "file"),
            (0, 7, 7, "cluster"),
            (5, 7, 5, "file"),
            (9, 7, 7, "cluster"),
        ] {
            let (rate, whose) = stricter(Rate(file), Rate(cluster));
            assert_eq!((rate.0, whose.name()), (holds, from), "{file} {cluster}");
        }
    }

    #[test]
    fn rules_are_taken_whole_and_yielding_can_only_be_added() {
        let mut wanted = Wanted { file: file(), cluster: ShaperPolicy::default() };
        wanted.file.yield_to_others = false;
        wanted.cluster.peers = vec![rule("10.0.0.0/8"), rule("10.1.0.0/16")];
        let (config, report) = wanted.combined();
        assert_eq!((config.peers.len(), report.peer_rules_from), (2, "cluster"));
        assert_eq!((config.yield_to_others, report.yields.from), (false, "file"));
        wanted.file.peers = vec![rule("10.1.0.0/16")];
        wanted.cluster.yield_to_others = true;
        let (config, report) = wanted.combined();
        assert_eq!((config.peers.len(), report.peer_rules_from), (1, "file"));
        assert_eq!((config.yield_to_others, report.yields.from), (true, "cluster"));
    }

    proptest! {
        #[test]
        fn nothing_is_looser_than_either(own in any::<[u64; 4]>(), other in any::<[u64; 4]>()) {
            let mut wanted = Wanted { file: file(), cluster: ShaperPolicy::default() };
            let limits = |[upload, per_peer, download, origin]: [u64; 4]| {
                (Rate(upload), Rate(per_peer), Rate(download), Rate(origin))
            };
            let file = &mut wanted.file;
            (file.upload_limit, file.per_peer_limit, file.download_limit, file.origin_limit) = limits(own);
            let cluster = &mut wanted.cluster;
            (cluster.upload_limit, cluster.per_peer_limit, cluster.download_limit, cluster.origin_limit) =
                limits(other);
            let (held, _) = wanted.combined();
            let held = [held.upload_limit, held.per_peer_limit, held.download_limit, held.origin_limit];
            for ((held, own), other) in held.into_iter().zip(own).zip(other) {
                for limit in [own, other] {
                    prop_assert!(limit == 0 || (held.0 != 0 && held.0 <= limit));
                }
            }
        }
    }
}
