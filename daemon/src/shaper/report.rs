//! What the shaper says in `/status`.
//!
//! Invariant: figures are those of the moment of asking, not of the last regular reading.

use super::Shaper;
use super::totals::Peer;
use crate::status::{ClassReport, PeerReport, ShaperReport, UplinkReport};
use hawker_abi::{Class, Counters, PeerAddr};
use std::net::IpAddr;

impl Shaper {
    /// Mode, reason and totals; and every peer remembered.
    #[must_use]
    pub fn report(&self) -> (ShaperReport, Vec<PeerReport>) {
        if let Err(error) = self.desk.read() {
            tracing::warn!(%error, "read the counters for the status");
        }
        let (info, totals) = (self.info(), self.desk.totals.lock());
        let classes = Class::ALL.map(|class| class_report(class, totals.class(class)));
        let own = Class::ALL.iter().fold(Counters::default(), |sum, class| sum.plus(totals.class(*class)));
        let uplinks = totals.uplinks().iter().map(|(name, all)| UplinkReport {
            name: name.clone(),
            sent_bytes: all.tx_bytes,
            received_bytes: all.rx_bytes,
        });
        let uplinks: Vec<_> = uplinks.collect();
        let sent: u64 = uplinks.iter().map(|uplink| uplink.sent_bytes).sum();
        let received: u64 = uplinks.iter().map(|uplink| uplink.received_bytes).sum();
        let report = ShaperReport {
            mode: info.mode.to_owned(),
            reason: info.reason,
            classes: classes.into(),
            others_sent_bytes: sent.saturating_sub(own.tx_bytes),
            others_received_bytes: received.saturating_sub(own.rx_bytes),
            uplinks,
        };
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
