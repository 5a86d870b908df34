//! What `yielding` wants to know, from the kernel's counters: how much is Hawker's, how much is everybody's, and whether
//! something on the way could not take what came.
//!
//! Signs of a full link, any one of them: bytes that wait in the uplink's own queue, or were dropped there; and, for a link
//! that is full farther on and only while somebody else sends, too: round trips of half the peers that became longer, or
//! segments sent again. Of one slow peer alone these speak as well, so alone they do not count. Where packets wait in `fq` for
//! the departure times that limits gave them, neither a queue nor a round trip says anything: that wait is our own.
//!
//! Invariant: pure; counters and time go in.

use super::backend::Reading;
use super::links::Backlog;
use super::netlink::LinkBytes;
use super::yielding::Measured;
use hawker_abi::{Counters, PeerAddr};
use std::collections::HashMap;
use std::time::Duration;

/// Longest wait in the uplink's queue that is no sign: pacing and segmentation make bursts of a millisecond or two.
const WAIT: Duration = Duration::from_millis(4);
/// The least backlog that is a sign, bytes: a few segments of 64 KiB that are handed over whole.
const MIN_BACKLOG: f64 = 128.0 * 1024.0;
/// A round trip is longer where it is by this much and by [`LONGER_PART`] of the shortest.
const LONGER_US: u32 = 5_000;
const LONGER_PART: u32 = 4;
/// The shortest round trip is that of the last one to two of these: routes change.
const SHORTEST_FOR: Duration = Duration::from_secs(30);
/// Part of the segments that is sent again on a link that polices and does not queue.
const LOSSY: f64 = 0.02;
/// Too few say nothing.
const MIN_PACKETS: u64 = 50;
/// Others with less than this part of what is sent are nobody.
const NOBODY: f64 = 0.02;
/// Of payload in what the uplink counts: a few steps' mean.
const SMOOTHING: f64 = 0.2;

#[derive(Default)]
pub(super) struct Gauge {
    last: Option<Last>,
    peers: HashMap<PeerAddr, RoundTrip>,
    age: Duration,
    payload: f64,
}

#[derive(Clone, Copy)]
struct Last {
    own: u64,
    total: u64,
    counters: Counters,
    retransmits: u64,
}

#[derive(Default)]
struct RoundTrip {
    acked: u64,
    shortest_us: u32,
    /// Of the period before.
    before_us: u32,
}

impl Gauge {
    /// What happened in `elapsed`, after which counters stand so; `held_back`: packets wait for departure times meanwhile. `None`
    /// the first time.
    pub(super) fn measure(
        &mut self,
        reading: &Reading,
        (all, own): (LinkBytes, LinkBytes),
        backlog: Backlog,
        held_back: bool,
        elapsed: Duration,
    ) -> Option<Measured> {
        let counters = reading.classes.iter().fold(Counters::default(), |sum, class| sum.plus(*class));
        let retransmits = reading.peers.iter().map(|(_, state)| state.retransmits).sum();
        let now = Last { own: own.sent, total: all.sent, counters, retransmits };
        let longer = self.longer(reading, elapsed);
        let last = self.last.replace(now)?;
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        let (own, total) = (rate(now.own, last.own), rate(now.total, last.total));
        let grown = counters.since(last.counters);
        if grown.tx_payload > 0 && own > 0.0 {
            let part = (grown.tx_payload as f64 / (own * seconds)).clamp(0.5, 1.0);
            self.payload =
                if self.payload == 0.0 { part } else { self.payload + SMOOTHING * (part - self.payload) };
        }
        let waits = backlog.bytes as f64 > (total * WAIT.as_secs_f64()).max(MIN_BACKLOG);
        let again = retransmits.saturating_sub(last.retransmits) as f64;
        let lossy = grown.tx_packets >= MIN_PACKETS && again > LOSSY * grown.tx_packets as f64;
        let others = total - own > NOBODY * total;
        let delayed = !held_back && (waits || others && longer);
        let full = delayed || backlog.drops > 0 || others && lossy;
        Some(Measured { own, total, full })
    }

    /// Part of what the uplink counts that is payload, which is what limits count.
    pub(super) fn payload(&self) -> f64 {
        if self.payload == 0.0 { 1.0 } else { self.payload }
    }

    /// Whether the round trips of half the peers that send became longer.
    fn longer(&mut self, reading: &Reading, elapsed: Duration) -> bool {
        self.age += elapsed;
        if self.age > SHORTEST_FOR {
            self.age = Duration::ZERO;
            for peer in self.peers.values_mut() {
                (peer.before_us, peer.shortest_us) = (peer.shortest_us, 0);
            }
            self.peers.retain(|_, peer| peer.before_us != 0);
        }
        let (mut sending, mut longer) = (0, 0);
        for (addr, state) in &reading.peers {
            let peer = self.peers.entry(*addr).or_default();
            // Without new acknowledgements the figure is an old one.
            let news = state.acked != std::mem::replace(&mut peer.acked, state.acked);
            if !news || state.srtt_us == 0 {
                continue;
            }
            let least = |a: u32, b: u32| if a == 0 || b != 0 && b < a { b } else { a };
            peer.shortest_us = least(peer.shortest_us, state.srtt_us);
            let shortest = least(peer.shortest_us, peer.before_us);
            let rise = state.srtt_us.saturating_sub(shortest);
            sending += 1;
            longer += usize::from(rise > LONGER_US && rise > shortest / LONGER_PART);
        }
        sending > 0 && longer * 2 >= sending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_abi::PeerState;
    use std::net::IpAddr;

    const STEP: Duration = Duration::from_millis(50);

    /// Counters after `steps` of 50 ms: 10 MB/s of Hawker's in 15 MB/s.
    struct Stand {
        gauge: Gauge,
        steps: u64,
        others: u64,
        held_back: bool,
    }

    impl Stand {
        fn new() -> Self {
            Self { gauge: Gauge::default(), steps: 0, others: 250_000, held_back: false }
        }

        fn step(&mut self, srtt_ms: [u32; 2], retransmits: u64, backlog: Backlog) -> Option<Measured> {
            self.steps += 1;
            let own = self.steps * 500_000;
            let mut reading = Reading::default();
            reading.classes[0] = Counters {
                tx_bytes: own,
                tx_packets: self.steps * 334,
                tx_payload: self.steps * 475_000,
                ..Counters::default()
            };
            reading.peers = srtt_ms
                .into_iter()
                .enumerate()
                .map(|(index, ms)| {
                    let addr = IpAddr::from([10, 0, 0, u8::try_from(index).unwrap()]).into();
                    let acked = own / 2;
                    (addr, PeerState { acked, srtt_us: ms * 1000, retransmits, ..PeerState::default() })
                })
                .collect();
            let link = |sent| LinkBytes { sent, received: 0 };
            let all = link(own + self.steps * self.others);
            self.gauge.measure(&reading, (all, link(own)), backlog, self.held_back, STEP)
        }
    }

    #[test]
    fn rates_are_the_growth_by_time() {
        let mut stand = Stand::new();
        assert_eq!(stand.step([1, 1], 0, Backlog::default()), None);
        let measured = stand.step([1, 1], 0, Backlog::default()).unwrap();
        assert_eq!(measured, Measured { own: 1e7, total: 1.5e7, full: false });
        assert!((stand.gauge.payload() - 0.95).abs() < 1e-9);
    }

    #[test]
    fn each_sign_of_a_full_link_is_seen() {
        let (none, mut stand) = (Backlog::default(), Stand::new());
        stand.step([20, 1], 0, none);
        let mut full = |srtt, retransmits, backlog| stand.step(srtt, retransmits, backlog).unwrap().full;
        assert!(!full([20, 1], 0, Backlog { bytes: 100_000, drops: 0 }), "a burst");
        assert!(full([20, 1], 0, Backlog { bytes: 200_000, drops: 0 }));
        assert!(full([20, 1], 0, Backlog { bytes: 0, drops: 1 }));
        assert!(full([20, 9], 0, none), "one of two peers");
        assert!(!full([24, 1], 0, none), "within what varies");
        assert!(full([20, 1], 10, none), "6 % sent again, by each of two");
        assert!(!full([20, 1], 10, none));
    }

    #[test]
    fn a_wait_that_is_our_own_is_no_sign() {
        let (none, mut stand) = (Backlog::default(), Stand::new());
        stand.held_back = true;
        stand.step([1, 1], 0, none);
        assert!(!stand.step([100, 100], 0, Backlog { bytes: 1 << 20, drops: 0 }).unwrap().full);
        assert!(stand.step([1, 1], 10, none).unwrap().full, "sent again all the same");
        assert!(stand.step([1, 1], 10, Backlog { bytes: 0, drops: 1 }).unwrap().full);
    }

    #[test]
    fn what_one_slow_peer_says_is_nothing_where_nobody_else_sends() {
        let (none, mut stand) = (Backlog::default(), Stand::new());
        stand.others = 0;
        stand.step([1, 1], 0, none);
        assert!(!stand.step([100, 100], 500, none).unwrap().full);
        assert!(stand.step([1, 1], 500, Backlog { bytes: 0, drops: 3 }).unwrap().full);
    }
}
