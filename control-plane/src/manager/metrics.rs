//! The manager's metrics: live registrations by kind, requests by API.
//!
//! Invariant: label values come from fixed sets (kinds, routes, codes), never from a request.

use super::directory::Directory;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    directory: Arc<Directory>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    api: &'static str,
    route: &'static str,
    code: u32,
}

impl Metrics {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self { requests: Family::default(), directory }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests answered, by API, route and status code";
        registry.register("hawker_manager_requests", help, self.requests.clone());
        registry.register_collector(Box::new(Registrations { directory: Arc::clone(&self.directory) }));
    }

    pub(super) fn rest(&self, route: &'static str, status: u16) {
        let labels = RequestLabels { api: "rest", route, code: u32::from(status) };
        self.requests.get_or_create(&labels).inc();
    }

    pub(super) fn grpc(&self, route: &'static str, code: tonic::Code) {
        // A gRPC code is 0 to 16.
        let labels = RequestLabels { api: "grpc", route, code: u32::try_from(i32::from(code)).unwrap_or(2) };
        self.requests.get_or_create(&labels).inc();
    }
}

/// Counted when scraped.
#[derive(Debug)]
struct Registrations {
    directory: Arc<Directory>,
}

impl Collector for Registrations {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let counts = self.directory.counts();
        let help = "Live registrations, by kind";
        let mut metric =
            encoder.encode_descriptor("hawker_manager_registrations", help, None, MetricType::Gauge)?;
        let kinds = [("peer", counts.peers), ("seed", counts.seed_peers), ("scheduler", counts.schedulers)];
        for (kind, count) in kinds {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(metric.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}
