//! The twin in user space: counts what the sockets took and gave, and paces uploads before they are written.
//!
//! Payload, not headers and not retransmissions: what crossed the wire is only the kernel's to tell, and the status
//! says so. Works everywhere, without any privilege.
//!
//! Invariant: at most [`MAX_PEERS`] peers are remembered one by one; totals by class are complete.

use super::backend::{Backend, BackendError, Direction, Grant, Orders, Reading, Scope};
use super::netlink::LinkBytes;
use crate::metrics::Metrics;
use hawker_abi::clock::{self, BURST_NS, NANOS};
use hawker_abi::{Class, Counters, PeerAddr, PeerState};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Peers × classes remembered one by one.
const MAX_PEERS: usize = 4096;
/// Time at the limit that one grant is worth: short enough that many connections share smoothly.
const GRANT_NS: u64 = NANOS / 50;
/// Bounds of a grant under a limit, bytes: not a packet each, not a whole piece.
const MIN_GRANT_BYTES: u64 = 4 << 10;
const MAX_GRANT_BYTES: u64 = 256 << 10;

/// Counters and clocks of this process.
pub(crate) struct Portable {
    started: Instant,
    metrics: Metrics,
    orders: RwLock<Orders>,
    counted: Mutex<Counted>,
    clocks: Mutex<Clocks>,
}

#[derive(Default)]
struct Counted {
    classes: [Counters; 4],
    flows: HashMap<(PeerAddr, Class), Counters>,
}

impl Counted {
    fn classes(&self) -> Reading {
        let all = self.classes.iter().fold(Counters::default(), |sum, class| sum.plus(*class));
        let whole = LinkBytes { sent: all.tx_bytes, received: all.rx_bytes };
        Reading { classes: self.classes, whole, ..Reading::default() }
    }
}

#[derive(Default)]
struct Clocks {
    peers: HashMap<PeerAddr, PeerState>,
    total_ns: u64,
}

impl Portable {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            started: Instant::now(),
            metrics,
            orders: RwLock::default(),
            counted: Mutex::default(),
            clocks: Mutex::default(),
        }
    }

    fn now_ns(&self) -> u64 {
        // Well after zero, so that "a burst ago" exists.
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2) + NANOS
    }
}

impl Backend for Portable {
    fn apply(&self, orders: &Orders) -> Result<(), BackendError> {
        *self.orders.write() = orders.clone();
        Ok(())
    }

    fn expect(&self, _far_end: SocketAddr, _class: Class) {}

    fn moved(&self, peer: IpAddr, class: Class, direction: Direction, bytes: u64) {
        self.metrics.wire(class, direction, bytes);
        let more = match direction {
            Direction::Tx => Counters { tx_bytes: bytes, tx_payload: bytes, ..Counters::default() },
            Direction::Rx => Counters { rx_bytes: bytes, rx_payload: bytes, ..Counters::default() },
        };
        let key = (PeerAddr::from(peer), class);
        let mut counted = self.counted.lock();
        counted.classes[class as usize] = counted.classes[class as usize].plus(more);
        if counted.flows.len() >= MAX_PEERS && !counted.flows.contains_key(&key) {
            return;
        }
        let counters = counted.flows.entry(key).or_default();
        *counters = counters.plus(more);
    }

    fn pace(&self, peer: IpAddr, bytes: u64) -> Grant {
        let (peer, orders) = (PeerAddr::from(peer), self.orders.read());
        let limit = orders.limit(&peer);
        let rate = clock::rate_of(limit.rate, limit.weight, orders.level);
        let slowest = match (rate, orders.total_rate) {
            (0, total) => total,
            (rate, 0) => rate,
            (rate, total) => rate.min(total),
        };
        let bytes = if slowest == 0 { bytes } else { bytes.min(worth(slowest)) };
        let (now, mut clocks) = (self.now_ns(), self.clocks.lock());
        let mut slot = 0;
        if clocks.peers.len() < MAX_PEERS || clocks.peers.contains_key(&peer) {
            let state = clocks.peers.entry(peer).or_default();
            state.charged += bytes;
            slot = reserve(&mut state.clock_ns, bytes, rate, now);
        }
        slot = slot.max(reserve(&mut clocks.total_ns, bytes, orders.total_rate, now));
        Grant { bytes, wait: Duration::from_nanos(slot.saturating_sub(now)) }
    }

    fn read(&self, scope: Scope<'_>) -> Result<Reading, BackendError> {
        let clocks = self.clocks.lock();
        if let Scope::Peers(peers) = scope {
            let state = |peer: &PeerAddr| Some((*peer, *clocks.peers.get(peer)?));
            let peers = peers.iter().filter_map(state).collect();
            drop(clocks);
            return Ok(Reading { peers, ..self.counted.lock().classes() });
        }
        let peers = clocks.peers.iter().map(|(peer, state)| (*peer, *state)).collect();
        drop(clocks);
        let counted = self.counted.lock();
        let flows = counted.flows.iter().map(|((peer, class), counters)| (*peer, *class, *counters));
        Ok(Reading { flows: flows.collect(), peers, ..counted.classes() })
    }
}

/// What one grant at `rate` is.
fn worth(rate: u64) -> u64 {
    (rate / (NANOS / GRANT_NS)).clamp(MIN_GRANT_BYTES, MAX_GRANT_BYTES)
}

/// Reserves the slot of `bytes`; returns when it begins (0: at once).
fn reserve(clock_ns: &mut u64, bytes: u64, rate: u64, now: u64) -> u64 {
    if rate == 0 {
        return 0;
    }
    let begins = clock::adjusted(*clock_ns, now, BURST_NS);
    // Under a limit a grant is far below 4 GiB.
    *clock_ns = begins + clock::cost_ns(u32::try_from(bytes).unwrap_or(u32::MAX), rate);
    begins
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_abi::Limit;

    fn peer(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn limited(default: u64, total: u64) -> Portable {
        let portable = Portable::new(Metrics::new());
        let default_limit = Limit { rate: default, ..Limit::default() };
        portable.apply(&Orders { default_limit, total_rate: total, ..Orders::default() }).unwrap();
        portable
    }

    #[test]
    fn without_limits_everything_goes_at_once() {
        let portable = Portable::new(Metrics::new());
        assert_eq!(portable.pace(peer(1), 1 << 30), Grant::all(1 << 30));
    }

    #[test]
    fn grants_of_a_peer_follow_each_other_at_its_rate() {
        let portable = limited(1_000_000, 0);
        let waits: Vec<Grant> = (0..10).map(|_| portable.pace(peer(1), 1 << 20)).collect();
        let bytes: u64 = waits[..9].iter().map(|grant| grant.bytes).sum();
        let expected = Duration::from_micros(bytes);
        let got = waits[9].wait;
        assert!(got <= expected && got + Duration::from_millis(50) >= expected, "{got:?} of {expected:?}");
        assert!(portable.pace(peer(2), 1 << 20).wait < Duration::from_millis(1), "another peer's clock");
    }

    #[test]
    fn the_total_brakes_all_peers() {
        let portable = limited(0, 1_000_000);
        let last = (0..50).map(|number| portable.pace(peer(number), 1 << 20)).last().unwrap();
        assert!(last.wait > Duration::from_millis(700), "{last:?}");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_counted() {
        let portable = limited(1_000_000, 0);
        for address in 0..5000u32 {
            let peer = std::net::Ipv4Addr::from(address).into();
            portable.moved(peer, Class::Upload, Direction::Tx, 1);
            assert!(portable.pace(peer, 10).bytes > 0);
        }
        let reading = portable.read(Scope::All).unwrap();
        assert_eq!((reading.flows.len(), reading.peers.len()), (MAX_PEERS, MAX_PEERS));
        assert_eq!(reading.classes[Class::Upload as usize].tx_bytes, 5000);
    }
}
