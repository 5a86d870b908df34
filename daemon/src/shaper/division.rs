//! Dividing the total upload among the peers that want it: follows who sends how much and computes the water level
//! that the backends turn into each peer's rate. Pure: counters and time go in.
//!
//! A peer that takes much less than its part counts with what it takes and a margin, so that the others get the rest;
//! the moment it takes more it counts in full. The total itself is a clock of its own and holds whatever happens here.
//!
//! Invariant: the level is never 0 while there is a total.

use super::limits::Limits;
use hawker_abi::{PeerAddr, PeerState, Share, clock, water_level};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How often it is computed: a fifth of the time in which a change must hold.
pub(super) const EVERY: Duration = Duration::from_millis(50);
/// A peer that sent nothing for this long has no part.
const IDLE_AFTER: Duration = Duration::from_millis(200);
/// Below this part of its rate for [`SATISFIED_AFTER`] a peer counts with what it takes, times the margin.
const SATISFIED_BELOW: f64 = 0.8;
const SATISFIED_AFTER: Duration = Duration::from_millis(200);
const MARGIN: f64 = 1.25;
/// Weight of the newest measurement in a peer's rate.
const SMOOTHING: f64 = 0.4;

#[derive(Default)]
pub(super) struct Division {
    peers: HashMap<PeerAddr, Demand>,
    level: u64,
}

#[derive(Default)]
struct Demand {
    charged: u64,
    /// Bytes per second, smoothed.
    rate: f64,
    idle: Duration,
    below: Duration,
}

impl Division {
    /// The level after another `elapsed`, in which the peers' counters became `states`.
    pub(super) fn step(
        &mut self,
        limits: &Limits,
        states: &[(PeerAddr, PeerState)],
        elapsed: Duration,
    ) -> u64 {
        let seconds = elapsed.as_secs_f64().max(0.001);
        for (peer, state) in states {
            let limit = limits.of(peer);
            let allowed = clock::rate_of(limit.rate, limit.weight, self.level);
            let known = self.peers.contains_key(peer);
            let demand = self.peers.entry(*peer).or_default();
            let sent = if known { state.charged.saturating_sub(demand.charged) } else { 0 };
            // New, or forgotten and made anew by the kernel: not measured yet.
            let fresh = !known || state.charged < demand.charged;
            demand.charged = state.charged;
            let now = sent as f64 / seconds;
            demand.rate = if fresh { now } else { demand.rate + SMOOTHING * (now - demand.rate) };
            demand.idle = if sent == 0 && !fresh { demand.idle + elapsed } else { Duration::ZERO };
            let below = allowed != 0 && demand.rate < SATISFIED_BELOW * allowed as f64 && !fresh;
            demand.below = if below { demand.below + elapsed } else { Duration::ZERO };
        }
        let shown: HashSet<PeerAddr> = states.iter().map(|(peer, _)| *peer).collect();
        self.peers.retain(|peer, _| shown.contains(peer));
        let active = self.peers.iter().filter(|(_, demand)| demand.idle < IDLE_AFTER);
        let mut shares: Vec<Share> = active.map(|(peer, demand)| share(limits, peer, demand)).collect();
        self.level = water_level(limits.total, &mut shares);
        self.level
    }
}

fn share(limits: &Limits, peer: &PeerAddr, demand: &Demand) -> Share {
    let limit = limits.of(peer);
    let own = if limit.rate == 0 { u64::MAX } else { limit.rate };
    let cap = if demand.below >= SATISFIED_AFTER {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate; `as` saturates")]
        let taken = (demand.rate * MARGIN) as u64;
        own.min(taken.max(1))
    } else {
        own
    };
    Share { weight: limit.weight, cap }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerRule;
    use hawker_api::units::Rate;
    use std::net::IpAddr;

    const MBIT: u64 = 125_000;

    /// By index.
    const PEERS: [[u8; 4]; 3] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]];

    fn addr(index: usize) -> PeerAddr {
        IpAddr::from(PEERS[index]).into()
    }

    /// Peers 1, 2, 3 weighted 1:2:4, the third limited to 60 Mbit/s, 210 in all.
    fn limits() -> Limits {
        let rule = |index: usize, limit: u64, weight: u32| PeerRule {
            network: IpAddr::from(PEERS[index]).into(),
            limit: Rate(limit * MBIT),
            weight,
        };
        let rules = vec![rule(0, 0, 1), rule(1, 0, 2), rule(2, 60, 4)];
        Limits { total: 210 * MBIT, rules, ..Limits::default() }
    }

    /// Runs steps in which each peer takes what it wants, at most what it may.
    fn run(division: &mut Division, charged: &mut [u64; 3], wants: [u64; 3], steps: usize) -> [f64; 3] {
        let limits = limits();
        let mut rates = [0.0; 3];
        for step in 0..steps {
            for (index, charged) in charged.iter_mut().enumerate() {
                let limit = limits.of(&addr(index));
                let may = clock::rate_of(limit.rate, limit.weight, division.level.max(MBIT));
                let takes = may.min(wants[index]);
                *charged += takes / 20;
                // The mean of the last half.
                if step >= steps / 2 {
                    rates[index] += takes as f64 / MBIT as f64 / (steps - steps / 2) as f64;
                }
            }
            let states: Vec<_> = (0..3)
                .map(|index| (addr(index), PeerState { charged: charged[index], ..PeerState::default() }))
                .collect();
            division.step(&limits, &states, EVERY);
        }
        rates
    }

    fn near(rates: [f64; 3], wanted: [f64; 3]) {
        for (rate, wanted) in rates.iter().zip(wanted) {
            assert!((rate - wanted).abs() <= wanted * 0.03 + 0.1, "{rates:?}, not {wanted:?}");
        }
    }

    #[test]
    fn it_is_the_water_filling_answer_within_a_second_of_any_change() {
        let (mut division, mut charged) = (Division::default(), [0; 3]);
        let all = [u64::MAX >> 8; 3];
        near(run(&mut division, &mut charged, all, 20), [50.0, 100.0, 60.0]);
        // The second stops; then comes back.
        near(run(&mut division, &mut charged, [all[0], 0, all[2]], 20), [150.0, 0.0, 60.0]);
        near(run(&mut division, &mut charged, all, 20), [50.0, 100.0, 60.0]);
        // The second takes only 20: the first gets the rest, less the margin kept for the second.
        let rates = run(&mut division, &mut charged, [all[0], 20 * MBIT, all[2]], 20);
        assert!(rates[0] > 120.0 && rates[0] <= 130.0, "{rates:?}");
    }

    #[test]
    fn nobody_leaves_the_whole_to_whoever_comes() {
        assert_eq!(Division::default().step(&limits(), &[], EVERY), 210 * MBIT);
    }
}
