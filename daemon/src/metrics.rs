//! The daemon's metrics: counted where it happens, exposed as OpenMetrics text.
//!
//! Invariant: labels never carry a peer, a task or a URL.

use hawker_abi::Class;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::{Error, Write};
use std::sync::Arc;

/// Where delivered bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Local,
    PeerSameZone,
    PeerCrossZone,
    Seed,
    Origin,
}

impl Source {
    pub const ALL: [Self; 5] =
        [Self::Local, Self::PeerSameZone, Self::PeerCrossZone, Self::Seed, Self::Origin];

    /// Value of the `source` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::PeerSameZone => "peer_same_zone",
            Self::PeerCrossZone => "peer_cross_zone",
            Self::Seed => "seed",
            Self::Origin => "origin",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Tx,
    Rx,
}

impl EncodeLabelValue for Source {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        encoder.write_str(self.label())
    }
}

impl EncodeLabelValue for Direction {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        encoder.write_str(if *self == Self::Tx { "tx" } else { "rx" })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivered {
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Wire {
    class: &'static str,
    direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineLabels {
    engine: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShaperLabels {
    mode: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// Clones share the counters.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    delivered: Family<Delivered, Counter>,
    wire: Family<Wire, Counter>,
    fallback: Family<Reason, Counter>,
    origin_requests: Counter,
    pieces_rejected: Counter,
    engine: Family<EngineLabels, Gauge>,
    shaper: Family<ShaperLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let (delivered, wire, fallback) = (Family::default(), Family::default(), Family::default());
        let (origin_requests, pieces_rejected) = (Counter::default(), Counter::default());
        let (engine, shaper) = (Family::default(), Family::default());
        let mut registry = Registry::with_prefix("hawker");
        let r = &mut registry;
        r.register_with_unit("delivered", "Given to the runtime, by source", Unit::Bytes, delivered.clone());
        r.register_with_unit("wire", "On Hawker's own connections", Unit::Bytes, wire.clone());
        r.register("fallback", "Requests answered another way than through the swarm", fallback.clone());
        r.register("origin_requests", "Requests to registries", origin_requests.clone());
        r.register("pieces_rejected", "Pieces that did not match the piece list", pieces_rejected.clone());
        r.register("engine_info", "The serving engine in use and why", engine.clone());
        r.register("shaper_info", "What limits traffic and why", shaper.clone());
        let build: Family<Build, Gauge> = Family::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        r.register("build_info", "Version of the daemon", build);
        let registry = Arc::new(registry);
        Self { registry, delivered, wire, fallback, origin_requests, pieces_rejected, engine, shaper }
    }

    /// Bytes given to the runtime (or a user), by where they came from.
    pub fn delivered(&self, source: Source, bytes: u64) {
        self.delivered.get_or_create(&Delivered { source }).inc_by(bytes);
    }

    pub fn delivered_totals(&self) -> [(Source, u64); 5] {
        Source::ALL.map(|source| (source, self.delivered.get_or_create(&Delivered { source }).get()))
    }

    /// More bytes on Hawker's own connections.
    pub fn wire(&self, class: Class, direction: Direction, bytes: u64) {
        self.wire.get_or_create(&Wire { class: class.label(), direction }).inc_by(bytes);
    }

    pub fn origin_request(&self) {
        self.origin_requests.inc();
    }

    /// A request was answered another way than through the swarm.
    pub fn fallback(&self, reason: &'static str) {
        self.fallback.get_or_create(&Reason { reason }).inc();
    }

    pub fn piece_rejected(&self) {
        self.pieces_rejected.inc();
    }

    pub fn set_engine(&self, engine: &'static str, reason: &str) {
        self.engine.clear();
        self.engine.get_or_create(&EngineLabels { engine, reason: reason.to_owned() }).set(1);
    }

    pub fn set_shaper(&self, mode: &'static str, reason: &str) {
        self.shaper.clear();
        self.shaper.get_or_create(&ShaperLabels { mode, reason: reason.to_owned() }).set(1);
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.delivered(Source::PeerSameZone, 7);
        metrics.wire(Class::Upload, Direction::Tx, 9);
        metrics.fallback("no_space");
        metrics.origin_request();
        metrics.set_engine("portable", "a test");
        metrics.set_shaper("off", "a test");
        let text = metrics.encode();
        for line in [
            "hawker_delivered_bytes_total{source=\"peer_same_zone\"} 7",
            "hawker_wire_bytes_total{class=\"upload\",direction=\"tx\"} 9",
            "hawker_fallback_total{reason=\"no_space\"} 1",
            "hawker_origin_requests_total 1",
            "hawker_engine_info{engine=\"portable\",reason=\"a test\"} 1",
            "hawker_shaper_info{mode=\"off\",reason=\"a test\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
