//! What the shaper says in `/status`.
//!
//! Invariant: figures are those of the moment of asking, not of the last regular reading.

use super::totals::Peer;
use super::{Shaper, meter};
use crate::status::{ClassReport, LimitReport, PeerReport, ShaperReport, UplinkReport};
use hawker_abi::{Class, Counters, PeerAddr};
use std::net::IpAddr;

impl Shaper {
    /// Mode, reason and totals; and every peer remembered.
    #[must_use]
    pub fn report(&self) -> (ShaperReport, Vec<PeerReport>) {
        let desk = &self.enforcer.desk;
        if let Err(error) = desk.read() {
            tracing::warn!(%error, "read the counters for the status");
        }
        let (capacity, capacity_from) =
            meter::capacity(&self.enforcer).map_or((0, "unknown"), |(rate, source)| (rate, source.name()));
        let (info, limits, totals) = (self.info(), self.enforcer.report(), desk.totals.lock());
        let classes = Class::ALL.map(|class| class_report(class, totals.class(class)));
        let (links, yielded) = (desk.links.lock(), desk.state.lock().yielded);
        let (others_sent_bytes, others_received_bytes) = totals.others(&links).unwrap_or_default();
        let uplinks = links.links().iter().map(|link| UplinkReport {
            name: link.name.clone(),
            sent_bytes: link.total.sent,
            received_bytes: link.total.received,
        });
        let report = ShaperReport {
            mode: info.mode.to_owned(),
            reason: info.reason,
            classes: classes.into(),
            others_sent_bytes,
            others_received_bytes,
            uplinks: uplinks.collect(),
            uplink_capacity: LimitReport { bytes_per_second: capacity, from: capacity_from },
            limits,
            yield_limit: yielded.limit,
            yield_capacity: yielded.capacity,
        };
        drop(links);
        (report, totals.peers().map(|(addr, peer)| peer_report(*addr, peer)).collect())
    }
}

fn class_report(class: Class, counters: Counters) -> ClassReport {
    ClassReport {
        class: class.label(),
        sent_bytes: counters.tx_bytes,
        sent_packets: counters.tx_packets,
        sent_payload_bytes: counters.tx_payload,
        received_bytes: counters.rx_bytes,
        received_packets: counters.rx_packets,
        received_payload_bytes: counters.rx_payload,
    }
}

fn peer_report(addr: PeerAddr, peer: &Peer) -> PeerReport {
    let total = peer.total();
    let with_traffic = Class::ALL.into_iter().zip(peer.classes);
    let with_traffic = with_traffic.filter(|(_, counters)| *counters != Counters::default());
    PeerReport {
        host_id: String::new(),
        ip: IpAddr::from(addr).to_string(),
        received_bytes: total.rx_bytes,
        sent_bytes: total.tx_bytes,
        sent_packets: total.tx_packets,
        received_packets: total.rx_packets,
        acknowledged_bytes: peer.state.acked,
        retransmits: peer.retransmits,
        srtt_us: peer.state.srtt_us,
        connections: peer.state.connections,
        connections_opened: peer.state.opened,
        classes: with_traffic.map(|(class, counters)| class_report(class, counters)).collect(),
    }
}
