//! The daemon's metrics: counted where it happens, exposed in OpenMetrics text.
//!
//! Invariant: labels never carry a peer, a task or a URL.

use hawker_abi::Class;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::{self, Write};
use std::sync::Arc;

/// Content type of [`Metrics::encode`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Longest reason shown as a label, characters: it comes from an error's text.
const MAX_REASON_CHARS: usize = 120;

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
    #[must_use]
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

impl Direction {
    /// Value of the `direction` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Rx => "rx",
        }
    }
}

/// Clones share the counters.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    delivered: Family<BySource, Counter>,
    wire: Family<OnWire, Counter>,
    origin_requests: Counter,
    fallback: Family<Fallback, Counter>,
    pieces_rejected: Counter,
    engine: Family<EngineInfo, Gauge>,
    shaper: Family<ShaperInfo, Gauge>,
    /// Keeps "forget the last, set the new" of an info metric one step.
    info: Mutex<()>,
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("hawker");
        let inner = Inner {
            delivered: Family::default(),
            wire: Family::default(),
            origin_requests: Counter::default(),
            fallback: Family::default(),
            pieces_rejected: Counter::default(),
            engine: Family::default(),
            shaper: Family::default(),
            info: Mutex::new(()),
            registry: Registry::default(),
        };
        registry.register_with_unit(
            "delivered",
            "Given to the runtime or a user, by where it came from",
            Unit::Bytes,
            inner.delivered.clone(),
        );
        registry.register_with_unit(
            "wire",
            "On the wire of Hawker's own connections",
            Unit::Bytes,
            inner.wire.clone(),
        );
        registry.register("origin_requests", "Requests sent to origins", inner.origin_requests.clone());
        registry.register(
            "fallback",
            "Requests that left the peer-to-peer way, by reason",
            inner.fallback.clone(),
        );
        registry.register(
            "pieces_rejected",
            "Pieces whose bytes did not match their digest",
            inner.pieces_rejected.clone(),
        );
        registry.register("engine_info", "The engine in use, and why", inner.engine.clone());
        registry.register("shaper_info", "The shaper in use, and why", inner.shaper.clone());
        let build = Family::<BuildInfo, Gauge>::default();
        build.get_or_create(&BuildInfo { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "This build", build);
        let metrics = Self(Arc::new(Inner { registry, ..inner }));
        metrics.create_known_series();
        metrics
    }

    /// Bytes given to the runtime (or a user), by where they came from.
    pub fn delivered(&self, source: Source, bytes: u64) {
        self.0.delivered.get_or_create(&BySource { source: Label(source.label()) }).inc_by(bytes);
    }

    #[must_use]
    pub fn delivered_totals(&self) -> [(Source, u64); 5] {
        Source::ALL.map(|source| {
            let counter = self.0.delivered.get_or_create(&BySource { source: Label(source.label()) });
            (source, counter.get())
        })
    }

    /// Adds bytes that crossed the wire on Hawker's own connections (the growth since the last call).
    pub fn wire(&self, class: Class, direction: Direction, bytes: u64) {
        let labels = OnWire { class: Label(class.label()), direction: Label(direction.label()) };
        self.0.wire.get_or_create(&labels).inc_by(bytes);
    }

    pub fn origin_request(&self) {
        self.0.origin_requests.inc();
    }

    pub fn fallback(&self, reason: &'static str) {
        self.0.fallback.get_or_create(&Fallback { reason: Label(reason) }).inc();
    }

    pub fn piece_rejected(&self) {
        self.0.pieces_rejected.inc();
    }

    pub fn set_engine(&self, engine: &'static str, reason: &str) {
        let _one_step = self.0.info.lock();
        self.0.engine.clear();
        self.0.engine.get_or_create(&EngineInfo { engine: Label(engine), reason: shortened(reason) }).set(1);
    }

    pub fn set_shaper(&self, mode: &'static str, reason: &str) {
        let _one_step = self.0.info.lock();
        self.0.shaper.clear();
        self.0.shaper.get_or_create(&ShaperInfo { mode: Label(mode), reason: shortened(reason) }).set(1);
    }

    /// The document a scraper gets.
    ///
    /// # Errors
    /// Never in practice: writing to a `String` does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// A series that exists from the start can be rated from its first increment.
    fn create_known_series(&self) {
        for source in Source::ALL {
            self.delivered(source, 0);
        }
        for class in Class::ALL {
            self.wire(class, Direction::Tx, 0);
            self.wire(class, Direction::Rx, 0);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("delivered", &self.delivered_totals()).finish_non_exhaustive()
    }
}

/// The encoder writes label values as they are: what would end one early is replaced.
fn shortened(reason: &str) -> String {
    let plain = |c: char| match c {
        '"' => '\'',
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    reason.chars().take(MAX_REASON_CHARS).map(plain).collect()
}

/// A label from a fixed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Label(&'static str);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySource {
    source: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OnWire {
    class: Label,
    direction: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fallback {
    reason: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineInfo {
    engine: Label,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShaperInfo {
    mode: Label,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildInfo {
    version: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_documented_ones() {
        let metrics = Metrics::new();
        metrics.delivered(Source::Seed, 7);
        metrics.wire(Class::Upload, Direction::Tx, 5);
        metrics.wire(Class::Upload, Direction::Tx, 6);
        metrics.origin_request();
        metrics.fallback("no_space");
        metrics.piece_rejected();
        let text = metrics.encode().unwrap();
        for line in [
            "hawker_delivered_bytes_total{source=\"seed\"} 7",
            "hawker_delivered_bytes_total{source=\"peer_cross_zone\"} 0",
            "hawker_wire_bytes_total{class=\"upload\",direction=\"tx\"} 11",
            "hawker_origin_requests_total 1",
            "hawker_fallback_total{reason=\"no_space\"} 1",
            "hawker_pieces_rejected_total 1",
            "hawker_build_info{version=\"",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(metrics.delivered_totals()[3], (Source::Seed, 7));
    }

    #[test]
    fn an_info_metric_has_one_series() {
        let metrics = Metrics::new();
        metrics.set_engine("portable", "still looking");
        metrics.set_engine("io_uring", "kernel \"6.8\"\n# EOF");
        let text = metrics.encode().unwrap();
        assert!(
            text.contains(r#"hawker_engine_info{engine="io_uring",reason="kernel '6.8' # EOF"} 1"#),
            "{text}"
        );
        assert!(!text.contains("portable"), "{text}");
    }
}
