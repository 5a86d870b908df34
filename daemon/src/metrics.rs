//! The daemon's metrics: counted where it happens, exposed in OpenMetrics text.
//!
//! Invariant: labels never carry a peer, a task or a URL.

use hawker_abi::Class;

/// Where delivered bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Local,
    PeerSameZone,
    PeerCrossZone,
    Seed,
    Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Tx,
    Rx,
}

/// Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct Metrics {}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }
    /// Bytes given to the runtime (or a user), by where they came from.
    pub fn delivered(&self, _source: Source, _bytes: u64) {}
    pub fn delivered_totals(&self) -> [(Source, u64); 5] {
        [Source::Local, Source::PeerSameZone, Source::PeerCrossZone, Source::Seed, Source::Origin]
            .map(|s| (s, 0))
    }
    /// Bytes on the wire of Hawker's own connections; set by the accounting (monotonic totals).
    pub fn wire(&self, _class: Class, _direction: Direction, _bytes: u64) {}
    pub fn origin_request(&self) {}
    pub fn fallback(&self, _reason: &'static str) {}
    pub fn piece_rejected(&self) {}
    pub fn set_engine(&self, _engine: &'static str, _reason: &str) {}
    pub fn set_shaper(&self, _mode: &'static str, _reason: &str) {}
}
