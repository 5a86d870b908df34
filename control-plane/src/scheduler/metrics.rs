//! The scheduler's metrics: what it knows, what it orders, how long it thinks.
//!
//! Invariant: label values come from fixed sets (kinds of orders), never from a daemon.

use super::core::Stats;
use super::messages::Order;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Seconds for one event: the core is held for that long.
const EVENT_SECONDS: [f64; 8] = [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1];
const KINDS: [&str; 7] = ["parents", "digests", "refused", "lease", "revoked", "list", "replaced"];

#[derive(Clone)]
pub(super) struct Metrics {
    orders: Family<OfKind, Counter>,
    event: Histogram,
    dropped: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let orders = Family::<OfKind, Counter>::default();
        for kind in KINDS {
            orders.get_or_create(&OfKind { kind }).inc_by(0);
        }
        Self { orders, event: Histogram::new(EVENT_SECONDS), dropped: Counter::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry, stats: Arc<dyn Fn() -> Stats + Send + Sync>) {
        let help = "Orders sent to daemons, by kind";
        registry.register("hawker_scheduler_orders", help, self.orders.clone());
        let help = "Time for one message of a daemon, waiting for the core included";
        registry.register_with_unit("hawker_scheduler_event", help, Unit::Seconds, self.event.clone());
        let help = "Streams ended because a daemon did not read what it was sent";
        registry.register("hawker_scheduler_streams_dropped", help, self.dropped.clone());
        registry.register_collector(Box::new(Known(stats)));
    }

    pub(super) fn ordered(&self, order: &Order) {
        self.orders.get_or_create(&OfKind { kind: kind(order) }).inc();
    }

    pub(super) fn handled(&self, took: Duration) {
        self.event.observe(took.as_secs_f64());
    }

    pub(super) fn dropped(&self) {
        self.dropped.inc();
    }
}

fn kind(order: &Order) -> &'static str {
    match order {
        Order::Assignment(told) if !told.digests.is_empty() => "digests",
        Order::Assignment(told) if !told.refused.is_empty() => "refused",
        Order::Assignment(told) if told.parents.is_some() => "parents",
        Order::Assignment(_) => "digests",
        Order::Lease { .. } => "lease",
        Order::LeaseRevoked { .. } => "revoked",
        Order::AskPieceList { .. } | Order::ListReset { .. } => "list",
        Order::Replaced => "replaced",
        Order::Silent => "silent",
    }
}

/// Counted when scraped.
struct Known(Arc<dyn Fn() -> Stats + Send + Sync>);

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl Collector for Known {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Stats { hosts, tasks, leases } = (self.0)();
        for (name, help, count) in [
            ("hawker_scheduler_hosts", "Connected daemons", hosts),
            ("hawker_scheduler_tasks", "Tasks that somebody holds or wants", tasks),
            ("hawker_scheduler_leases", "Ranges that somebody fetches from an origin now", leases),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn every_kind_is_there_from_the_start() {
        let (metrics, mut registry) = (Metrics::new(), Registry::default());
        metrics.register(&mut registry, Arc::new(|| Stats { hosts: 3, ..Stats::default() }));
        metrics.ordered(&Order::Replaced);
        metrics.handled(Duration::from_micros(20));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "hawker_scheduler_orders_total{kind=\"replaced\"} 1",
            "hawker_scheduler_orders_total{kind=\"lease\"} 0",
            "hawker_scheduler_event_seconds_count 1",
            "hawker_scheduler_hosts 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
