//! The daemon's metrics: counted where it happens, exposed in OpenMetrics text.
//!
//! Invariant: labels never carry a peer, a task or a URL.

mod requests;
mod snapshot;

pub use requests::Asked;

use crate::status::Report;
use hawker_abi::Class;
use hawker_api::process::Process;
use hawker_api::trace::DroppedSpans;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use requests::Requests;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

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

/// What was answered from memory while a registry was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastKnown {
    /// What a tag means.
    Tag,
    /// Who may have what.
    Access,
}

impl LastKnown {
    /// Value of the `kind` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Access => "access",
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
    /// Names without our prefix.
    process: Registry,
    delivered: Family<BySource, Counter>,
    /// Series of `wire_bytes`, by class and direction: every answer counts here, and finding a series by its labels
    /// showed in profiles.
    wire: [[Counter; 2]; Class::ALL.len()],
    origin_requests: Counter,
    fallback: Family<Fallback, Counter>,
    last_known: Family<ByKind, Counter>,
    pieces_rejected: Counter,
    requests: Requests,
    engine: Family<EngineInfo, Gauge>,
    shaper: Family<ShaperInfo, Gauge>,
    /// Keeps "forget the last, set the new" of an info metric one step.
    info: Mutex<()>,
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("hawker");
        let wire = Family::<OnWire, Counter>::default();
        let requests = Requests::register(&mut registry);
        let inner = Inner {
            delivered: Family::default(),
            wire: wire_series(&wire),
            origin_requests: Counter::default(),
            fallback: Family::default(),
            last_known: Family::default(),
            pieces_rejected: Counter::default(),
            requests,
            engine: Family::default(),
            shaper: Family::default(),
            info: Mutex::new(()),
            registry: Registry::default(),
            process: Registry::default(),
        };
        registry.register_with_unit(
            "delivered",
            "Given to the runtime or a user, by where it came from",
            Unit::Bytes,
            inner.delivered.clone(),
        );
        registry.register_with_unit("wire", "On the wire of Hawker's own connections", Unit::Bytes, wire);
        registry.register("origin_requests", "Requests sent to origins", inner.origin_requests.clone());
        registry.register(
            "fallback",
            "Requests that left the peer-to-peer way, by reason",
            inner.fallback.clone(),
        );
        registry.register(
            "last_known",
            "Answers from memory while a registry was down, by what they say",
            inner.last_known.clone(),
        );
        registry.register(
            "pieces_rejected",
            "Pieces whose bytes did not match their digest",
            inner.pieces_rejected.clone(),
        );
        registry.register("engine_info", "The engine in use, and why", inner.engine.clone());
        registry.register("shaper_info", "The shaper in use, and why", inner.shaper.clone());
        let mut process = Registry::default();
        process.register_collector(Box::new(Process));
        process.register_collector(Box::new(DroppedSpans));
        let build = Family::<BuildInfo, Gauge>::default();
        build.get_or_create(&BuildInfo { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "This build", build);
        let metrics = Self(Arc::new(Inner { registry, process, ..inner }));
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
        self.0.wire[class as usize][direction as usize].inc_by(bytes);
    }

    pub fn origin_request(&self) {
        self.0.origin_requests.inc();
    }

    pub fn fallback(&self, reason: &'static str) {
        self.0.fallback.get_or_create(&Fallback { reason: Label(reason) }).inc();
    }

    pub fn last_known(&self, kind: LastKnown) {
        self.0.last_known.get_or_create(&ByKind { kind: Label(kind.label()) }).inc();
    }

    pub fn piece_rejected(&self) {
        self.0.pieces_rejected.inc();
    }

    /// A request of a runtime was answered, its head after so long.
    pub fn answered(&self, asked: Asked, status: u16, after: Duration) {
        self.0.requests.answered(asked, status, after);
    }

    /// A download ended.
    pub fn downloaded(&self, well: bool, took: Duration) {
        self.0.requests.downloaded(well, took);
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

    /// The document a scraper gets: what was counted, and what the report says.
    ///
    /// # Errors
    /// Never in practice: writing to a `String` does not fail.
    pub fn encode(&self, report: Report) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode_registry(&mut text, &self.0.registry)?;
        text::encode_registry(&mut text, &self.0.process)?;
        snapshot::encode(&mut text, report)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }

    /// A series that exists from the start can be rated from its first increment.
    fn create_known_series(&self) {
        for source in Source::ALL {
            self.delivered(source, 0);
        }
        for reason in requests::reasons() {
            self.0.fallback.get_or_create(&Fallback { reason: Label(reason) }).inc_by(0);
        }
    }
}

fn wire_series(wire: &Family<OnWire, Counter>) -> [[Counter; 2]; Class::ALL.len()] {
    Class::ALL.map(|class| {
        [Direction::Tx, Direction::Rx].map(|direction| {
            let labels = OnWire { class: Label(class.label()), direction: Label(direction.label()) };
            wire.get_or_create(&labels).clone()
        })
    })
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
struct ByKind {
    kind: Label,
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
        let text = metrics.encode(Report::default()).unwrap();
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
        let text = metrics.encode(Report::default()).unwrap();
        assert!(
            text.contains(r#"hawker_engine_info{engine="io_uring",reason="kernel '6.8' # EOF"} 1"#),
            "{text}"
        );
        assert!(!text.contains("portable"), "{text}");
    }
}
