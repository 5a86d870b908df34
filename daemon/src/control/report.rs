//! What the scheduler is told of this node's links: once a second while there is traffic, seldom else.
//!
//! Pure but for the meter it is given. Invariant: what moved is told once: growth that was not sent goes with the next
//! report.

use crate::shaper::{CapacitySource, Sample};
use crate::status::BySource;
use hawker_abi::{Class, Counters};
use hawker_api::v1;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether there is something to tell.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// A node where nothing changes tells that this often; the scheduler believes a report for three times this.
const QUIET_FOR: Duration = Duration::from_secs(5);
/// Other traffic of more than this part of the uplink is told each second, and so is its end.
const NEWS: f64 = 1.0 / 16.0;
/// Where nobody knows what the uplinks carry: an ordinary card's 1 Gbit/s, bytes per second.
const ASSUMED_CAPACITY: u64 = 125_000_000;

/// Peers told of one by one: a node serves a few at a time, a seed peer some dozens.
const MAX_PEERS_TOLD: usize = 64;

/// What was measured, and what the runtimes were given; `None` before the first reading.
pub type Meter = Arc<dyn Fn() -> Option<(Sample, BySource)> + Send + Sync>;

/// Remembers what was told; outlives sessions.
pub(super) struct Reports {
    meter: Meter,
    told: Mutex<Told>,
}

struct Told {
    sample: Option<(Sample, BySource)>,
    /// Other traffic sent, bytes per second, as it was told.
    others: f64,
    /// The most the uplinks were seen to carry one way, bytes per second.
    most: u64,
    started: Instant,
    uploads: HashMap<IpAddr, u64>,
    /// A scheduler that knows nothing yet.
    anew: bool,
}

impl Reports {
    pub(super) fn new(meter: Meter) -> Self {
        let told = Told {
            sample: None,
            others: 0.0,
            most: 0,
            started: Instant::now(),
            uploads: HashMap::new(),
            anew: true,
        };
        Self { meter, told: Mutex::new(told) }
    }

    /// A session begins.
    pub(super) fn anew(&self) {
        self.told.lock().anew = true;
    }

    /// The report that is due now, if any; it counts as told.
    pub(super) fn due(&self) -> Option<v1::Report> {
        let (sample, delivered) = (self.meter)()?;
        self.told.lock().next(sample, delivered)
    }
}

impl Told {
    fn next(&mut self, sample: Sample, delivered: BySource) -> Option<v1::Report> {
        let since = self.sample.as_ref().map_or(self.started, |(before, _)| before.at);
        let elapsed = sample.at.checked_duration_since(since).filter(|elapsed| !elapsed.is_zero())?;
        let usage = usage(self.sample.as_ref(), &sample, delivered);
        let seconds = elapsed.as_secs_f64();
        let others = usage.others.map_or(0.0, |others| others.sent as f64 / seconds);
        let (capacity, source) = self.capacity(&sample, &usage, seconds);
        let swarm = [usage.upload, usage.download, usage.origin].into_iter().flatten();
        let works = swarm.map(|traffic| traffic.sent | traffic.received).any(|bytes| bytes > 0);
        // Also while it lasts: the scheduler believes what it hears more than once.
        let news = others.max(self.others) > NEWS * capacity as f64;
        if !(self.anew || works || news || elapsed >= QUIET_FOR) {
            return None;
        }
        let before = self.sample.as_ref().map_or(0, |(before, _)| before.retransmits);
        let report = v1::Report {
            interval_ms: u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX).max(1),
            kernel: sample.kernel,
            usage: Some(usage),
            uplink_capacity: capacity,
            capacity_source: source.into(),
            upload_limit: sample.upload_limit,
            retransmits: sample.retransmits.saturating_sub(before),
            peers: self.uploads(&sample),
        };
        (self.others, self.anew, self.sample) = (others, false, Some((sample, delivered)));
        Some(report)
    }

    /// What grew by far end, the largest first, and the rest without a name.
    fn uploads(&mut self, sample: &Sample) -> Vec<v1::PeerTraffic> {
        let before = std::mem::take(&mut self.uploads);
        let growth = |(addr, now): &(IpAddr, u64)| {
            let was = before.get(addr).copied().unwrap_or(0);
            // A peer that was forgotten and came again begins anew.
            (*addr, if *now < was { *now } else { now - was })
        };
        let mut grown: Vec<_> = sample.uploads.iter().map(growth).filter(|(_, bytes)| *bytes > 0).collect();
        self.uploads = sample.uploads.iter().copied().collect();
        grown.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let rest: u64 = grown.iter().skip(MAX_PEERS_TOLD).map(|(_, bytes)| bytes).sum();
        let named = grown.into_iter().take(MAX_PEERS_TOLD);
        let named = named.map(|(addr, sent)| v1::PeerTraffic { ip: addr.to_canonical().to_string(), sent });
        let rest = (rest > 0).then(|| v1::PeerTraffic { ip: String::new(), sent: rest });
        named.chain(rest).collect()
    }

    fn capacity(&mut self, sample: &Sample, usage: &v1::Usage, seconds: f64) -> (u64, v1::CapacitySource) {
        let all = [usage.upload, usage.download, usage.origin, usage.control, usage.others];
        let sent: u64 = all.into_iter().flatten().map(|traffic| traffic.sent).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate; `as` saturates")]
        let rate = (sent as f64 / seconds) as u64;
        // Less than half a second measures bursts, not links.
        self.most = if seconds < 0.5 { self.most } else { self.most.max(rate) };
        match sample.capacity {
            Some((capacity, CapacitySource::Configured)) => (capacity, v1::CapacitySource::Configured),
            Some((capacity, CapacitySource::Link)) => (capacity, v1::CapacitySource::Link),
            Some((capacity, CapacitySource::Learned)) => (capacity, v1::CapacitySource::Measured),
            None => (self.most.max(ASSUMED_CAPACITY), v1::CapacitySource::Measured),
        }
    }
}

/// What grew since `before`.
fn usage(before: Option<&(Sample, BySource)>, now: &Sample, delivered: BySource) -> v1::Usage {
    let class = |class: Class| {
        let zero = Counters::default();
        let before = before.map_or(zero, |(before, _)| before.classes[class as usize]);
        let growth = now.classes[class as usize].since(before);
        Some(v1::Traffic { sent: growth.tx_bytes, received: growth.rx_bytes })
    };
    let others = now.others.map(|(sent, received)| {
        let (sent_before, received_before) = before.and_then(|(before, _)| before.others).unwrap_or_default();
        let (sent, received) = (sent.saturating_sub(sent_before), received.saturating_sub(received_before));
        v1::Traffic { sent, received }
    });
    let was = before.map_or_else(BySource::default, |(_, before)| *before);
    v1::Usage {
        upload: class(Class::Upload),
        download: class(Class::Download),
        origin: class(Class::Origin),
        control: class(Class::Control),
        others,
        delivered: Some(v1::Delivered {
            local: delivered.local.saturating_sub(was.local),
            peer_same_zone: delivered.peer_same_zone.saturating_sub(was.peer_same_zone),
            peer_cross_zone: delivered.peer_cross_zone.saturating_sub(was.peer_cross_zone),
            seed: delivered.seed.saturating_sub(was.seed),
            origin: delivered.origin.saturating_sub(was.origin),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A node whose counters a test moves.
    struct Node {
        told: Told,
        sample: Sample,
        delivered: BySource,
    }

    impl Node {
        fn new() -> Self {
            let started = Instant::now();
            let told =
                Told { sample: None, others: 0.0, most: 0, started, uploads: HashMap::new(), anew: true };
            let sample = Sample {
                at: started,
                kernel: true,
                classes: [Counters::default(); 4],
                others: Some((0, 0)),
                capacity: Some((25_000_000, CapacitySource::Configured)),
                upload_limit: 0,
                retransmits: 0,
                uploads: Vec::new(),
            };
            Self { told, sample, delivered: BySource::default() }
        }

        /// A second passes in which this much was uploaded and sent by others.
        fn second(&mut self, upload: u64, others: u64) -> Option<v1::Report> {
            self.sample.at += SECOND;
            self.sample.classes[Class::Upload as usize].tx_bytes += upload;
            // The reports themselves.
            self.sample.classes[Class::Control as usize].tx_bytes += 200;
            self.sample.others = self.sample.others.map(|(sent, received)| (sent + others, received));
            self.told.next(self.sample.clone(), self.delivered)
        }
    }

    fn sent(report: &v1::Report) -> (u64, u64) {
        let usage = report.usage.unwrap();
        (usage.upload.unwrap().sent, usage.others.map_or(0, |others| others.sent))
    }

    #[test]
    fn growth_is_told_once_each_second_while_there_is_traffic() {
        let mut node = Node::new();
        let told: Vec<_> = [5000, 7000].map(|upload| node.second(upload, 0).unwrap()).to_vec();
        assert_eq!((sent(&told[0]), sent(&told[1])), ((5000, 0), (7000, 0)));
        assert_eq!((told[1].interval_ms, told[1].uplink_capacity), (1000, 25_000_000));
        node.delivered.seed += 9;
        assert_eq!(node.second(1, 0).unwrap().usage.unwrap().delivered.unwrap().seed, 9);
    }

    #[test]
    fn uploads_are_told_by_far_end_and_no_byte_twice() {
        let mut node = Node::new();
        let peers = |report: &v1::Report| -> Vec<(String, u64)> {
            report.peers.iter().map(|peer| (peer.ip.clone(), peer.sent)).collect()
        };
        let addr = |last: u8| IpAddr::from([10, 0, 0, last]);
        node.sample.uploads = vec![(addr(1), 5), (addr(2), 70)];
        let told = peers(&node.second(75, 0).unwrap());
        assert_eq!(told, [("10.0.0.2".to_owned(), 70), ("10.0.0.1".to_owned(), 5)]);
        node.sample.uploads = vec![(addr(1), 9), (addr(2), 70)];
        assert_eq!(peers(&node.second(4, 0).unwrap()), [("10.0.0.1".to_owned(), 4)]);
        node.sample.uploads = (0..100).map(|last| (addr(last), 1000)).collect();
        let told = peers(&node.second(100_000, 0).unwrap());
        assert_eq!((told.len(), told[MAX_PEERS_TOLD].0.as_str()), (MAX_PEERS_TOLD + 1, ""));
        assert_eq!(told.iter().map(|(_, sent)| sent).sum::<u64>(), 100_000 - 79);
    }

    #[test]
    fn an_idle_node_is_quiet_and_says_so_now_and_then() {
        let mut node = Node::new();
        assert!(node.second(0, 0).is_some(), "a new session is told at once");
        let told: Vec<bool> = (0..10).map(|_| node.second(0, 1000).is_some()).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 2, "{told:?}");
        // Other traffic begins, goes on and ends: news each second.
        let report = node.second(0, 20_000_000).unwrap();
        assert_eq!(sent(&report), (0, 20_000_000));
        assert!(node.second(0, 20_100_000).is_some() && node.second(0, 0).is_some());
        // A new scheduler knows nothing.
        node.told.anew = true;
        assert!(node.second(0, 0).is_some());
    }

    #[test]
    fn nothing_is_lost_by_being_quiet() {
        let mut node = Node::new();
        let mut all = 0;
        for second in 0..23 {
            let quiet = if second % 3 == 0 { 10_000 } else { 0 };
            all += node.second(0, quiet).map_or(0, |report| sent(&report).1);
        }
        let pending = node.sample.others.unwrap().0 - node.told.sample.as_ref().unwrap().0.others.unwrap().0;
        assert_eq!(all + pending, 80_000);
    }

    #[test]
    fn clocks_and_counters_that_go_back_give_no_nonsense() {
        let mut node = Node::new();
        node.second(5000, 5000).unwrap();
        node.sample.at -= SECOND;
        assert!(node.told.next(node.sample.clone(), node.delivered).is_none());
        node.sample.others = Some((0, 0));
        node.sample.at += SECOND;
        assert_eq!(sent(&node.second(1, 0).unwrap()), (1, 0));
        node.sample.others = None;
        assert!(node.second(1, 0).unwrap().usage.unwrap().others.is_none());
    }

    #[test]
    fn without_a_known_capacity_it_is_what_was_seen_and_no_less_than_a_gigabit() {
        let mut node = Node::new();
        node.sample.capacity = None;
        assert_eq!(node.second(1, 0).unwrap().uplink_capacity, ASSUMED_CAPACITY);
        let report = node.second(300_000_000, 0).unwrap();
        assert_eq!(report.uplink_capacity, 300_000_200);
        assert_eq!(report.capacity_source(), v1::CapacitySource::Measured);
        assert_eq!(node.second(1, 0).unwrap().uplink_capacity, 300_000_200);
    }
}
