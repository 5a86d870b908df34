//! Bytes by peer and class, counted where the daemon itself sends and receives.
//!
//! Payload as the sockets took it: not headers, not retransmissions. What crossed the wire is the
//! kernel's to tell; this is its portable twin, and says so in the status.
//!
//! Invariant: at most [`MAX_PEERS`] addresses are remembered; the bytes of forgotten ones stay in the metrics.

use crate::metrics::{Direction, Metrics};
use hawker_abi::{Class, Counters, PeerAddr};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Peers remembered one by one.
const MAX_PEERS: usize = 4096;

/// Handle to the counters; clones share them.
#[derive(Clone)]
pub struct Accounting {
    metrics: Metrics,
    peers: Arc<Mutex<HashMap<(PeerAddr, Class), Counters>>>,
}

impl Accounting {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, peers: Arc::default() }
    }

    pub fn sent(&self, peer: IpAddr, class: Class, bytes: u64) {
        self.metrics.wire(class, Direction::Tx, bytes);
        self.add(peer, class, Counters { tx_bytes: bytes, ..Counters::default() });
    }

    pub fn received(&self, peer: IpAddr, class: Class, bytes: u64) {
        self.metrics.wire(class, Direction::Rx, bytes);
        self.add(peer, class, Counters { rx_bytes: bytes, ..Counters::default() });
    }

    /// Totals by peer, all classes together.
    pub fn peers(&self) -> Vec<(IpAddr, Counters)> {
        let mut totals: HashMap<PeerAddr, Counters> = HashMap::new();
        for ((peer, _), counters) in self.peers.lock().iter() {
            let total = totals.entry(*peer).or_default();
            total.tx_bytes += counters.tx_bytes;
            total.rx_bytes += counters.rx_bytes;
        }
        totals.into_iter().map(|(peer, counters)| (IpAddr::from(peer), counters)).collect()
    }

    fn add(&self, peer: IpAddr, class: Class, more: Counters) {
        let key = (PeerAddr::from(peer), class);
        let mut peers = self.peers.lock();
        if peers.len() >= MAX_PEERS && !peers.contains_key(&key) {
            return;
        }
        let counters = peers.entry(key).or_default();
        counters.tx_bytes += more.tx_bytes;
        counters.rx_bytes += more.rx_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_by_peer_over_all_classes() {
        let accounting = Accounting::new(Metrics::new());
        let peer: IpAddr = "10.0.0.7".parse().unwrap();
        accounting.sent(peer, Class::Upload, 5);
        accounting.received("::ffff:10.0.0.7".parse().unwrap(), Class::Download, 7);
        assert_eq!(
            accounting.peers(),
            [(peer, Counters { tx_bytes: 5, rx_bytes: 7, ..Counters::default() })]
        );
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let accounting = Accounting::new(Metrics::new());
        for address in 0..5000u32 {
            accounting.sent(std::net::Ipv4Addr::from(address).into(), Class::Upload, 1);
        }
        assert_eq!(accounting.peers().len(), MAX_PEERS);
    }
}
