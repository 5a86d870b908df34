//! Totals that outlive what the kernel's bounded maps forget: built from the growth between readings.
//!
//! Invariant: an entry that was forgotten and made anew is neither lost nor counted twice; at most [`MAX_PEERS`]
//! peers are remembered, those that were quiet longest go first.

use super::backend::Reading;
use super::links::Links;
use super::netlink::LinkBytes;
use hawker_abi::{Class, Counters, PeerAddr, PeerState};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Instant;

/// Peers remembered one by one.
const MAX_PEERS: usize = 16_384;
/// Peers kept where there were too many, so that not every new one costs a search.
const KEPT_PEERS: usize = MAX_PEERS / 4 * 3;

#[derive(Default)]
pub(super) struct Totals {
    readings: u64,
    classes: [Counters; 4],
    peers: HashMap<PeerAddr, Peer>,
    read_at: Option<Instant>,
    whole: LinkBytes,
    wire: LinkBytes,
}

/// One peer since the daemon started.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// By class, in the order of [`Class::ALL`].
    pub(super) classes: [Counters; 4],
    raw: [Counters; 4],
    pub(super) state: PeerState,
    raw_retransmits: u64,
    pub(super) retransmits: u64,
    changed: u64,
}

impl Peer {
    /// All classes together.
    pub(super) fn total(&self) -> Counters {
        self.classes.iter().fold(Counters::default(), |sum, class| sum.plus(*class))
    }
}

impl Totals {
    /// Takes a reading in; returns the growth by class.
    pub(super) fn absorb(&mut self, reading: Reading, now: Instant) -> [Counters; 4] {
        self.readings += 1;
        self.read_at = Some(now);
        (self.whole, self.wire) = (reading.whole, reading.wire());
        let mut growth = [Counters::default(); 4];
        for (index, now) in reading.classes.into_iter().enumerate() {
            growth[index] = now.since(self.classes[index]);
            self.classes[index] = now;
        }
        for (addr, class, now) in reading.flows {
            let peer = self.peers.entry(addr).or_default();
            let more = now.since(peer.raw[class as usize]);
            if more != Counters::default() {
                peer.classes[class as usize] = peer.classes[class as usize].plus(more);
                (peer.raw[class as usize], peer.changed) = (now, self.readings);
            }
        }
        for (addr, state) in reading.peers {
            // Somebody who connected and sent nothing yet has no flow.
            let Some(peer) = self.peers.get_mut(&addr) else { continue };
            let anew = state.retransmits < peer.raw_retransmits;
            peer.retransmits += state.retransmits - if anew { 0 } else { peer.raw_retransmits };
            (peer.raw_retransmits, peer.state) = (state.retransmits, state);
        }
        self.forget();
        growth
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = (&PeerAddr, &Peer)> {
        self.peers.iter()
    }

    pub(super) fn class(&self, class: Class) -> Counters {
        self.classes[class as usize]
    }

    /// All classes together, as `links` count.
    pub(super) fn own(&self, links: &Links) -> LinkBytes {
        if links.count_whole() { self.whole } else { self.wire }
    }

    /// Of what crossed `links`, what is not Hawker's, sent and received; `None`: there are none.
    pub(super) fn others(&self, links: &Links) -> Option<(u64, u64)> {
        let (all, own) = (links.total(), self.own(links));
        let others = (all.sent.saturating_sub(own.sent), all.received.saturating_sub(own.received));
        (!links.links().is_empty()).then_some(others)
    }

    /// When the last reading was made.
    pub(super) fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    fn forget(&mut self) {
        if self.peers.len() <= MAX_PEERS {
            return;
        }
        let mut changes: Vec<u64> = self.peers.values().map(|peer| peer.changed).collect();
        let (_, oldest_kept, _) = changes.select_nth_unstable_by(KEPT_PEERS, |a, b| b.cmp(a));
        let oldest_kept = *oldest_kept;
        let newer = self.peers.values().filter(|peer| peer.changed > oldest_kept).count();
        let mut room = KEPT_PEERS.saturating_sub(newer);
        self.peers.retain(|_, peer| match peer.changed.cmp(&oldest_kept) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => {
                let keep = room > 0;
                room = room.saturating_sub(1);
                keep
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn addr(number: u32) -> PeerAddr {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    fn counters(packets: u64) -> Counters {
        Counters { tx_bytes: packets * 1500, tx_packets: packets, ..Counters::default() }
    }

    fn reading(flows: Vec<(PeerAddr, u64)>) -> Reading {
        let sum = flows.iter().map(|(_, packets)| packets).sum();
        let flows = flows.into_iter().map(|(peer, packets)| (peer, Class::Upload, counters(packets)));
        let classes = [counters(sum), Counters::default(), Counters::default(), Counters::default()];
        Reading { classes, flows: flows.collect(), ..Reading::default() }
    }

    #[test]
    fn growth_is_reported_once() {
        let mut totals = Totals::default();
        assert_eq!(totals.absorb(reading(vec![(addr(1), 5)]), Instant::now())[0].tx_packets, 5);
        assert_eq!(totals.absorb(reading(vec![(addr(1), 7)]), Instant::now())[0].tx_packets, 2);
        assert_eq!(totals.absorb(reading(vec![(addr(1), 7)]), Instant::now())[0].tx_packets, 0);
        assert_eq!(totals.class(Class::Upload).tx_packets, 7);
    }

    #[test]
    fn what_the_kernel_forgot_stays_counted() {
        let mut totals = Totals::default();
        totals.absorb(reading(vec![(addr(1), 100)]), Instant::now());
        totals.absorb(reading(vec![]), Instant::now());
        totals.absorb(reading(vec![(addr(1), 3)]), Instant::now());
        totals.absorb(reading(vec![(addr(1), 4)]), Instant::now());
        let (_, peer) = totals.peers().next().unwrap();
        assert_eq!(peer.total().tx_packets, 104);
    }

    #[test]
    fn retransmissions_survive_forgetting_too() {
        let mut totals = Totals::default();
        for (packets, retransmits) in [(1, 5), (2, 8), (3, 2)] {
            let mut reading = reading(vec![(addr(1), packets)]);
            reading.peers = vec![(addr(1), PeerState { retransmits, ..PeerState::default() })];
            totals.absorb(reading, Instant::now());
        }
        assert_eq!(totals.peers().next().unwrap().1.retransmits, 10);
    }

    #[test]
    fn the_quiet_are_forgotten_first() {
        let mut totals = Totals::default();
        totals.absorb(reading((0..16_384).map(|number| (addr(number), 1)).collect()), Instant::now());
        totals.absorb(reading((0..100).map(|number| (addr(1 << 24 | number), 1)).collect()), Instant::now());
        assert!(totals.peers().count() <= MAX_PEERS);
        let recent = |number: u32| totals.peers().any(|(peer, _)| *peer == addr(1 << 24 | number));
        assert!((0..100).all(recent));
    }
}
