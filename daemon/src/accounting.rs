//! The data path's handle on the shaper: tells what it moves and connects to, and asks for leave to send and to read.
//!
//! Invariant: no call blocks; those that wait are async and lose nothing when cancelled.

use crate::metrics::Metrics;
use crate::shaper::{Backend, Bucket, Direction, Grant, Portable, Scope};
use hawker_abi::{Class, Counters, PeerAddr};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Time for a name service to answer; the connection that follows has limits of its own.
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);
/// Most addresses taken of one name.
const MAX_ADDRESSES: usize = 16;

type Asks = Arc<dyn Fn(IpAddr) + Send + Sync>;

/// Clones share everything.
#[derive(Clone)]
pub struct Accounting {
    backend: Arc<dyn Backend>,
    inbound: Inbound,
    asks: Asks,
}

/// Limits of what is received.
#[derive(Clone, Default)]
pub(crate) struct Inbound {
    pub(crate) download: Bucket,
    pub(crate) origin: Bucket,
}

impl Inbound {
    fn of(&self, class: Class) -> Option<&Bucket> {
        match class {
            Class::Download => Some(&self.download),
            Class::Origin => Some(&self.origin),
            Class::Upload | Class::Control => None,
        }
    }
}

impl Accounting {
    /// Counts in user space, limits nothing; for tests and tools without a [`crate::shaper::Shaper`].
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self::over(Arc::new(Portable::new(metrics)), Inbound::default(), Arc::new(|_| {}))
    }

    pub(crate) fn over(backend: Arc<dyn Backend>, inbound: Inbound, asks: Asks) -> Self {
        Self { backend, inbound, asks }
    }

    /// Bytes that a socket took.
    pub fn sent(&self, peer: IpAddr, class: Class, bytes: u64) {
        self.backend.moved(peer, class, Direction::Tx, bytes);
    }

    /// Bytes that a socket gave.
    pub fn received(&self, peer: IpAddr, class: Class, bytes: u64) {
        self.backend.moved(peer, class, Direction::Rx, bytes);
        if let Some(bucket) = self.inbound.of(class) {
            bucket.charge(bytes);
        }
    }

    /// For reading from one far end.
    #[must_use]
    pub fn inflow(&self, peer: IpAddr, class: Class) -> Inflow {
        Inflow { accounting: self.clone(), peer, class }
    }

    /// A peer asks for something: from now on it takes part when the total is divided.
    pub fn asks(&self, peer: IpAddr) {
        (self.asks)(peer);
    }

    /// How many of `bytes` of pieces may be sent to `peer`, and when. They count as sent: send them all before
    /// asking again.
    #[must_use]
    pub fn pace(&self, peer: IpAddr, bytes: u64) -> Grant {
        self.backend.pace(peer, bytes)
    }

    /// Before connecting to `far_end`, so that the connection is counted in its class.
    pub fn expect(&self, far_end: SocketAddr, class: Class) {
        self.backend.expect(far_end, class);
    }

    /// As [`Self::expect`], for whatever the host of `url` resolves to now; not at all where it does not.
    pub async fn expect_host(&self, url: &str, class: Class) {
        let Ok(url) = url::Url::parse(url) else { return };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return };
        let host = host.trim_matches(['[', ']']).to_owned();
        let resolved = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, port))).await;
        if let Ok(Ok(addrs)) = resolved {
            addrs.take(MAX_ADDRESSES).for_each(|addr| self.expect(addr, class));
        }
    }

    /// Waits until the limit of `class` allows to read.
    async fn ready_to_read(&self, class: Class) {
        if let Some(bucket) = self.inbound.of(class) {
            bucket.ready().await;
        }
    }

    /// Totals by peer, all classes together, as the backend has them.
    #[must_use]
    pub fn peers(&self) -> Vec<(IpAddr, Counters)> {
        let reading = self.backend.read(Scope::All).unwrap_or_default();
        let mut totals: HashMap<PeerAddr, Counters> = HashMap::new();
        for (peer, _, counters) in reading.flows {
            let total = totals.entry(peer).or_default();
            *total = total.plus(counters);
        }
        totals.into_iter().map(|(peer, counters)| (IpAddr::from(peer), counters)).collect()
    }
}

/// What comes from one far end, counted and limited: wait until [`Self::ready`], read, [`Self::count`].
#[derive(Clone)]
pub struct Inflow {
    accounting: Accounting,
    peer: IpAddr,
    class: Class,
}

impl Inflow {
    /// Waits until the limit allows to read.
    pub async fn ready(&self) {
        self.accounting.ready_to_read(self.class).await;
    }

    /// Whether [`Self::ready`] would return at once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.accounting.inbound.of(self.class).is_none_or(Bucket::is_ready)
    }

    /// Bytes that the far end should send ahead at most; `None`: as many as it likes.
    #[must_use]
    pub fn ahead(&self) -> Option<u32> {
        self.accounting.inbound.of(self.class).and_then(Bucket::ahead)
    }

    /// Counts what was read.
    pub fn count(&self, bytes: u64) {
        self.accounting.received(self.peer, self.class, bytes);
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
        let expected =
            Counters { tx_bytes: 5, tx_payload: 5, rx_bytes: 7, rx_payload: 7, ..Counters::default() };
        assert_eq!(accounting.peers(), [(peer, expected)]);
    }
}
