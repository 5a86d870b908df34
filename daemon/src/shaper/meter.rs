//! The shaper's figures as whoever reports them takes them: totals since the start, and what the uplinks can carry.
//!
//! Invariant: all of a sample is of the reading it names; taking one reads no counter anew.

use super::Shaper;
use super::totals::Totals;
use crate::shaper::policy::Enforcer;
use hawker_abi::{Class, Counters};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Totals since the start, at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When the counters were read.
    pub at: Instant,
    /// Bytes on the wire; else bytes that sockets took and gave.
    pub kernel: bool,
    /// In the order of [`Class::ALL`].
    pub classes: [Counters; 4],
    /// Bytes on the uplinks that are not Hawker's, sent and received; `None`: not seen.
    pub others: Option<(u64, u64)>,
    /// What the uplinks carry one way together, bytes per second, and who says so; `None`: nobody.
    pub capacity: Option<(u64, CapacitySource)>,
    /// Of all uploads together, bytes per second; 0: none.
    pub upload_limit: u64,
    /// Segments sent again, all peers together.
    pub retransmits: u64,
    /// Bytes uploaded, by far end; of those that are remembered.
    pub uploads: Vec<(IpAddr, u64)>,
}

/// Who says what the uplinks can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacitySource {
    /// `shaper.uplinkCapacity`
    Configured,
    /// The links' drivers.
    Link,
    /// What went through while the link was full, as giving way found out.
    Learned,
}

impl CapacitySource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Link => "link",
            Self::Learned => "learned",
        }
    }
}

impl Shaper {
    /// A function that gives the newest sample; `None` before the first reading.
    #[must_use]
    pub fn meter(&self) -> Arc<dyn Fn() -> Option<Sample> + Send + Sync> {
        let enforcer = Arc::clone(&self.enforcer);
        Arc::new(move || sample(&enforcer))
    }
}

fn sample(enforcer: &Enforcer) -> Option<Sample> {
    let (capacity, limit) = (capacity(enforcer), enforcer.report().upload.bytes_per_second);
    let (totals, links) = (enforcer.desk.totals.lock(), enforcer.desk.links.lock());
    let classes = Class::ALL.map(|class| totals.class(class));
    Some(Sample {
        at: totals.read_at()?,
        kernel: enforcer.desk.kernel.is_some(),
        others: enforcer.desk.kernel.as_ref().and_then(|_| totals.others(&links)),
        classes,
        capacity,
        upload_limit: limit,
        retransmits: totals.peers().map(|(_, peer)| peer.retransmits).sum(),
        uploads: uploads(&totals),
    })
}

fn uploads(totals: &Totals) -> Vec<(IpAddr, u64)> {
    let sent = totals.peers().map(|(addr, peer)| (*addr, peer.classes[Class::Upload as usize].tx_bytes));
    sent.filter(|(_, bytes)| *bytes > 0).map(|(addr, bytes)| (IpAddr::from(addr), bytes)).collect()
}

/// As configured; else what was found out, where that is less than the links say or they say nothing.
pub(super) fn capacity(enforcer: &Enforcer) -> Option<(u64, CapacitySource)> {
    let configured = enforcer.wanted.lock().file.uplink_capacity.0;
    if configured > 0 {
        return Some((configured, CapacitySource::Configured));
    }
    let speed = enforcer.desk.links.lock().speed().filter(|speed| *speed > 0);
    stated(speed, enforcer.desk.state.lock().yielded.capacity)
}

/// `learned`: 0 where nothing was.
fn stated(speed: Option<u64>, learned: u64) -> Option<(u64, CapacitySource)> {
    match speed {
        Some(speed) if learned == 0 || learned >= speed => Some((speed, CapacitySource::Link)),
        None if learned == 0 => None,
        _ => Some((learned, CapacitySource::Learned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_counts_where_links_say_nothing_or_too_much() {
        assert_eq!(stated(None, 0), None);
        assert_eq!(stated(None, 25), Some((25, CapacitySource::Learned)));
        assert_eq!(stated(Some(100), 0), Some((100, CapacitySource::Link)));
        assert_eq!(stated(Some(100), 100), Some((100, CapacitySource::Link)));
        assert_eq!(stated(Some(100), 40), Some((40, CapacitySource::Learned)));
    }
}
