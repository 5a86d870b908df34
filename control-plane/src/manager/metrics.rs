//! The manager's metrics: live registrations by kind, requests by API.
//!
//! Invariant: label values come from fixed sets (kinds, routes, codes), never from a request.

use super::directory::Directory;
use super::gate::Refusals;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::Duration;

/// Seconds for a request: reads are to take less than 50 ms.
const REQUEST_SECONDS: [f64; 9] = [0.001, 0.0025, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    took: Histogram,
    refusals: Refusals,
    directory: Arc<Directory>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    api: &'static str,
    route: String,
    code: u32,
}

impl Metrics {
    pub(super) fn new(directory: Arc<Directory>, refusals: Refusals) -> Self {
        Self { requests: Family::default(), took: Histogram::new(REQUEST_SECONDS), refusals, directory }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests answered, by API, route and status code";
        registry.register("hawker_manager_requests", help, self.requests.clone());
        let help = "Time to answer a request to the REST API";
        registry.register_with_unit("hawker_manager_request", help, Unit::Seconds, self.took.clone());
        let help = "Calls of daemons and schedulers refused for their join token, by what was wrong with it";
        registry.register("hawker_manager_join_refused", help, self.refusals.clone());
        registry.register_collector(Box::new(Registrations { directory: Arc::clone(&self.directory) }));
    }

    pub(super) fn rest(&self, route: &str, status: u16, took: Duration) {
        self.took.observe(took.as_secs_f64());
        let labels = RequestLabels { api: "rest", route: route.to_owned(), code: u32::from(status) };
        self.requests.get_or_create(&labels).inc();
    }

    pub(super) fn grpc(&self, route: &str, code: tonic::Code) {
        // A gRPC code is 0 to 16.
        let labels = RequestLabels {
            api: "grpc",
            route: route.to_owned(),
            code: u32::try_from(i32::from(code)).unwrap_or(2),
        };
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
