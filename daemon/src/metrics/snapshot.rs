//! Metrics of what [`Report`] says anyway: links, limits, store, downloads, uplinks. Made when scraped.
//!
//! Invariant: labels come from fixed sets; the detail by peer and task stays in the report.

use super::shortened;
use crate::status::{ClassReport, LinkReport, Report};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;

/// Adds the report's metrics to an exposition that has no end yet.
pub(super) fn encode(text: &mut String, report: Report) -> fmt::Result {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(report)));
    encode_registry(text, &registry)
}

#[derive(Debug)]
struct Snapshot(Report);

/// One metric: its values by labels.
type Series<'a> = Vec<(Vec<(&'static str, &'a str)>, u64)>;

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let report = &self.0;
        let mut to = Encoder(&mut encoder);
        links(&mut to, report)?;
        store(&mut to, report)?;
        limits(&mut to, report)?;
        traffic(&mut to, report)?;
        let running = report.tasks.iter().filter(|task| task.finished_unix_ms.is_none()).count();
        to.gauge("hawker_downloads_running", "Downloads under way", running as u64)?;
        to.gauge(
            "hawker_bad_peers",
            "Peers that are shunned for what they sent",
            report.bad_peers.len() as u64,
        )?;
        to.gauge("hawker_peers", "Peers known to the accounting", report.peers.len() as u64)?;
        let connections = report.peers.iter().map(|peer| u64::from(peer.connections)).sum();
        to.gauge("hawker_peer_connections", "Connections to and from peers that stand", connections)?;
        let (cluster, zone) = (report.cluster.as_ref(), [&report.host.idc, &report.host.location]);
        let zone = shortened(&zone.map(String::as_str).join("/"));
        let name = shortened(cluster.map_or("", |cluster| &cluster.name));
        let labels = vec![("cluster", name.as_str()), ("zone", &zone), ("kind", &report.host.kind)];
        let help = "Where this node is placed";
        to.gauges("hawker_node_info", help, vec![(labels, 1)])
    }
}

fn links(to: &mut Encoder<'_, '_>, report: &Report) -> fmt::Result {
    let connected = |link: &LinkReport| u64::from(link.connected);
    let series = vec![
        (vec![("link", "manager")], connected(&report.manager)),
        (vec![("link", "scheduler")], connected(&report.scheduler)),
    ];
    to.gauges("hawker_connected", "Whether the link to the control plane stands", series)
}

fn store(to: &mut Encoder<'_, '_>, report: &Report) -> fmt::Result {
    let store = &report.store;
    to.gauge("hawker_store_used_bytes", "Bytes of blobs on disk", store.used_bytes)?;
    to.gauge(
        "hawker_store_capacity_bytes",
        "Most bytes of blobs; 0: no limit but the disk's",
        store.capacity_bytes,
    )?;
    let blobs = vec![
        (vec![("state", "complete")], store.complete_blobs),
        (vec![("state", "partial")], store.partial_blobs),
    ];
    to.gauges("hawker_store_blobs", "Blobs on disk", blobs)?;
    to.gauge("hawker_store_failing", "1 while the disk refuses", u64::from(store.error.is_some()))
}

fn limits(to: &mut Encoder<'_, '_>, report: &Report) -> fmt::Result {
    let (shaper, limits) = (&report.shaper, &report.shaper.limits);
    let series = [
        ("upload", limits.upload),
        ("per_peer", limits.per_peer),
        ("download", limits.download),
        ("origin", limits.origin),
    ];
    let series = series.map(|(limit, report)| (vec![("limit", limit)], report.bytes_per_second)).to_vec();
    to.gauges("hawker_limit_bytes_per_second", "The limits in force; 0: none", series)?;
    let help = "What the uplinks are taken to carry one way; 0: not known";
    let capacity = shaper.uplink_capacity.bytes_per_second.max(shaper.yield_capacity);
    to.gauge("hawker_uplink_capacity_bytes_per_second", help, capacity)?;
    let help = "What uploads are held to so that other traffic has what it wants; 0: nothing";
    to.gauge("hawker_yield_limit_bytes_per_second", help, shaper.yield_limit)
}

fn traffic(to: &mut Encoder<'_, '_>, report: &Report) -> fmt::Result {
    let shaper = &report.shaper;
    let both = |name: fn(&ClassReport) -> (u64, u64)| {
        shaper.classes.iter().flat_map(move |class| {
            let (tx, rx) = name(class);
            [
                (vec![("class", class.class), ("direction", "tx")], tx),
                (vec![("class", class.class), ("direction", "rx")], rx),
            ]
        })
    };
    let packets = both(|class| (class.sent_packets, class.received_packets)).collect();
    to.counters("hawker_wire_packets", "Packets of Hawker's own connections; 0 without eBPF", packets)?;
    let others = vec![
        (vec![("direction", "tx")], shaper.others_sent_bytes),
        (vec![("direction", "rx")], shaper.others_received_bytes),
    ];
    to.counters("hawker_others_bytes", "On the node's uplinks and not Hawker's", others)?;
    let uplinks = |direction, bytes: fn(&crate::status::UplinkReport) -> u64| {
        (vec![("direction", direction)], shaper.uplinks.iter().map(bytes).sum())
    };
    let uplinks = vec![uplinks("tx", |link| link.sent_bytes), uplinks("rx", |link| link.received_bytes)];
    to.counters("hawker_uplink_bytes", "On all of the node's uplinks, by their own counters", uplinks)
}

/// Writes metrics one by one.
struct Encoder<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Encoder<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(signed(value)).encode(metric)
    }

    fn gauges(&mut self, name: &str, help: &str, series: Series<'_>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            ConstGauge::new(signed(value)).encode(metric.encode_family(&labels.as_slice())?)?;
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, help: &str, series: Series<'_>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            ConstCounter::new(value).encode(metric.encode_family(&labels.as_slice())?)?;
        }
        Ok(())
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ClusterReport, HostReport, LimitReport, PeerReport, StoreReport, TaskReport};

    #[test]
    fn what_the_report_says_is_there_and_no_name_of_a_peer_or_a_task() {
        let mut report = Report {
            host: HostReport { idc: "c\"1".into(), kind: "seed".into(), ..HostReport::default() },
            cluster: Some(ClusterReport { name: "main".into(), ..ClusterReport::default() }),
            scheduler: LinkReport { connected: true, ..LinkReport::default() },
            store: StoreReport { used_bytes: 7, error: Some("no".into()), ..StoreReport::default() },
            tasks: vec![TaskReport { task: "sha256:secret".into(), ..TaskReport::default() }],
            peers: vec![PeerReport { host_id: "peer-id".into(), connections: 3, ..PeerReport::default() }],
            ..Report::default()
        };
        report.shaper.limits.upload = LimitReport { bytes_per_second: 125, from: "file" };
        report.shaper.classes =
            vec![ClassReport { class: "upload", sent_packets: 9, ..ClassReport::default() }];
        let mut text = String::new();
        encode(&mut text, report).unwrap();
        for line in [
            "hawker_connected{link=\"scheduler\"} 1",
            "hawker_connected{link=\"manager\"} 0",
            "hawker_store_used_bytes 7",
            "hawker_store_failing 1",
            "hawker_limit_bytes_per_second{limit=\"upload\"} 125",
            "hawker_downloads_running 1",
            "hawker_peer_connections 3",
            "hawker_wire_packets_total{class=\"upload\",direction=\"tx\"} 9",
            "hawker_others_bytes_total{direction=\"rx\"} 0",
            "hawker_node_info{cluster=\"main\",zone=\"c'1/\",kind=\"seed\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("secret") && !text.contains("peer-id"), "{text}");
    }
}
