//! What the cluster's hosts moved since the manager was last told: host by host, and from zone to zone.
//!
//! Invariant: without a manager it stays bounded, and waits.

use super::messages::{HostId, HostInfo};
use crate::usage::Usage;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Hosts remembered: as many as a scheduler serves.
const MAX_HOSTS: usize = 200_000;
/// Pairs of zones remembered: 64 zones in all directions. What is beyond counts as unknown.
const MAX_CELLS: usize = 4096;

/// Where from and where to.
pub(super) type Cell = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    hosts: Mutex<BTreeMap<HostId, Usage>>,
    zones: Mutex<Zones>,
}

#[derive(Debug, Default)]
struct Zones {
    /// By address; of hosts that share one the last to come.
    of: HashMap<String, (HostId, Arc<str>)>,
    cells: BTreeMap<Cell, u64>,
}

impl Ledger {
    /// A host has a session from now on.
    pub(super) fn joined(&self, host: &HostInfo) {
        let mut zones = self.zones.lock();
        if zones.of.len() < MAX_HOSTS {
            zones.of.insert(host.ip.clone(), (host.id.clone(), zone(host).into()));
        }
    }

    pub(super) fn left(&self, host: &HostInfo) {
        let mut zones = self.zones.lock();
        if zones.of.get(&host.ip).is_some_and(|(id, _)| *id == host.id) {
            zones.of.remove(&host.ip);
        }
    }

    pub(super) fn add(&self, host: &HostId, usage: &Usage) {
        let mut hosts = self.hosts.lock();
        if hosts.len() < MAX_HOSTS || hosts.contains_key(host) {
            hosts.entry(host.clone()).or_default().add(usage);
        }
    }

    /// What a host uploaded, by the address of the far end.
    pub(super) fn uploaded(&self, host: &HostInfo, peers: impl Iterator<Item = (String, u64)>) {
        let mut zones = self.zones.lock();
        let from: Arc<str> = zone(host).into();
        for (ip, bytes) in peers {
            let to = zones.of.get(&ip).map_or_else(|| Arc::from(""), |(_, zone)| Arc::clone(zone));
            let mut cell = (Arc::clone(&from), to);
            if zones.cells.len() >= MAX_CELLS && !zones.cells.contains_key(&cell) {
                cell = Cell::default();
            }
            let sum = zones.cells.entry(cell).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Takes out at most `most` hosts.
    pub(super) fn take(&self, most: usize) -> Vec<(HostId, Usage)> {
        let mut hosts = self.hosts.lock();
        std::iter::from_fn(|| hosts.pop_first()).take(most).collect()
    }

    /// Takes out at most `most` pairs of zones.
    pub(super) fn take_cells(&self, most: usize) -> Vec<(Cell, u64)> {
        let mut zones = self.zones.lock();
        std::iter::from_fn(|| zones.cells.pop_first()).take(most).collect()
    }
}

/// What makes two hosts near each other: location and IDC, whatever their case.
fn zone(host: &HostInfo) -> String {
    let parts = [host.location.as_str(), host.idc.as_str()];
    let named: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    named.join(" / ").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Moved;

    #[test]
    fn what_is_taken_is_told_once() {
        let ledger = Ledger::default();
        let usage = |sent| Usage { upload: Moved { sent, received: 0 }, ..Usage::default() };
        for (host, sent) in [("a", 5), ("b", 1), ("a", 7), ("c", 1)] {
            ledger.add(&host.into(), &usage(sent));
        }
        assert_eq!(ledger.take(2), [("a".into(), usage(12)), ("b".into(), usage(1))]);
        assert_eq!(ledger.take(2).len(), 1);
        assert!(ledger.take(2).is_empty());
    }

    fn host(id: &str, ip: &str, location: &str, idc: &str) -> HostInfo {
        HostInfo {
            id: id.into(),
            ip: ip.to_owned(),
            piece_port: 4000,
            idc: idc.to_owned(),
            location: location.to_owned(),
            seed: false,
        }
    }

    #[test]
    fn uploads_add_up_from_zone_to_zone() {
        let ledger = Ledger::default();
        let (near, far) = (host("a", "10.0.0.1", "asia|cn", "H1"), host("b", "10.0.0.2", "", "h2"));
        ledger.joined(&near);
        ledger.joined(&far);
        let to = |ip: &str, bytes| (ip.to_owned(), bytes);
        ledger.uploaded(&near, [to("10.0.0.1", 1), to("10.0.0.2", 5), to("10.0.0.9", 7)].into_iter());
        ledger.uploaded(&near, [to("10.0.0.2", 5)].into_iter());
        let cells = ledger.take_cells(10);
        let shown: Vec<_> = cells.iter().map(|((from, to), bytes)| (&**from, &**to, *bytes)).collect();
        let wanted =
            [("asia|cn / h1", "", 7), ("asia|cn / h1", "asia|cn / h1", 1), ("asia|cn / h1", "h2", 10)];
        assert_eq!(shown, wanted);
        assert!(ledger.take_cells(10).is_empty());
        // Another host took over the address: who leaves late takes nothing with it.
        ledger.joined(&host("c", "10.0.0.2", "", "h3"));
        ledger.left(&far);
        ledger.uploaded(&near, [to("10.0.0.2", 1)].into_iter());
        assert_eq!(&*ledger.take_cells(10)[0].0.1, "h3");
    }
}
