//! Images on their way into the cluster: which nodes want one, which hold all of it, who is behind and why.
//!
//! Nothing is decided by it; it is told to the manager, for people.
//!
//! Invariants: bounded in images and stragglers; a node that once held all of an image is never counted as behind again.

use super::core::Core;
use super::messages::{HostId, Image, Rollout, Straggler};
use hawker_api::task::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Images remembered; the one that was wanted least recently makes room.
const MAX_IMAGES: usize = 256;
/// Stragglers told of one image: those with the fewest bytes.
pub(super) const MAX_STRAGGLERS: usize = 20;
/// A node that is not connected for this long does not want anything any more.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Longest name, characters.
const MAX_NAME_CHARS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Images {
    known: BTreeMap<TaskId, Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    parts: Vec<(TaskId, u64)>,
    since: Instant,
    wanted: Instant,
    done: BTreeSet<HostId>,
    behind: BTreeMap<HostId, Behind>,
    /// As last told.
    told: Option<Rollout>,
}

/// A node that wants it and does not hold all of it.
#[derive(Debug)]
struct Behind {
    bytes: u64,
    /// Bytes per second, averaged.
    rate: f64,
    looked: Instant,
    moved: Instant,
    connected: Instant,
}

impl Images {
    fn want(&mut self, host: &HostId, image: Image, now: Instant) {
        let Image { name, manifest, parts } = image;
        if !self.known.contains_key(&manifest) && self.known.len() >= MAX_IMAGES {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.wanted).map(|(id, _)| *id);
            oldest.and_then(|id| self.known.remove(&id));
        }
        let known = self.known.entry(manifest).or_insert_with(|| Known {
            name: String::new(),
            parts,
            since: now,
            wanted: now,
            done: BTreeSet::new(),
            behind: BTreeMap::new(),
            told: None,
        });
        known.name = name.chars().take(MAX_NAME_CHARS).collect();
        known.wanted = now;
        if !known.done.contains(host) {
            let behind = Behind { bytes: 0, rate: 0.0, looked: now, moved: now, connected: now };
            known.behind.entry(host.clone()).or_insert(behind);
        }
    }

    /// Everything is to be told again: to somebody who knows nothing.
    pub(super) fn anew(&mut self) {
        self.known.values_mut().for_each(|known| known.told = None);
    }
}

impl Core {
    pub(super) fn image(&mut self, host: &HostId, image: Image, now: Instant) {
        self.images.want(host, image, now);
    }

    /// What changed since it was last asked for, and how many nodes there are.
    pub(crate) fn rollouts(&mut self, now: Instant) -> (Vec<Rollout>, usize) {
        let mut images = std::mem::take(&mut self.images);
        let mut news = Vec::new();
        for (manifest, known) in &mut images.known {
            // Settled and told: nothing can have changed.
            if known.behind.is_empty() && known.told.is_some() {
                continue;
            }
            let rollout = self.rollout(*manifest, known, now);
            if known.told.as_ref().is_none_or(|told| told.differs(&rollout)) {
                known.told = Some(rollout.clone());
                news.push(rollout);
            }
        }
        self.images = images;
        (news, self.hosts.len())
    }

    /// The next answer of [`Self::rollouts`] has everything.
    pub(crate) fn rollouts_anew(&mut self) {
        self.images.anew();
    }

    fn rollout(&self, manifest: TaskId, known: &mut Known, now: Instant) -> Rollout {
        let bytes: u64 = known.parts.iter().map(|(_, size)| size).sum();
        let parts = &known.parts;
        let mut finished = Vec::new();
        for (host, behind) in &mut known.behind {
            behind.look(self.bytes_of(host, parts), now);
            if self.hosts.contains_key(host) {
                behind.connected = now;
            }
            if self.holds(host, parts) {
                finished.push(host.clone());
            }
        }
        for host in finished {
            known.behind.remove(&host);
            known.done.insert(host);
        }
        known.behind.retain(|_, behind| now.duration_since(behind.connected) < FORGET_AFTER);
        let left = |behind: &Behind| bytes.saturating_sub(behind.bytes) as f64 / behind.rate;
        let moving = known.behind.values().filter(|behind| behind.rate > 1.0);
        let eta = moving.map(left).max_by(f64::total_cmp);
        let mut slowest: Vec<_> = known.behind.iter().collect();
        slowest.sort_by_key(|(host, behind)| (behind.bytes, (*host).clone()));
        let straggler = |(host, behind): (&HostId, &Behind)| Straggler {
            host: host.clone(),
            bytes_done: behind.bytes,
            reason: self.reason(host, behind, parts, now),
        };
        Rollout {
            name: known.name.clone(),
            manifest,
            bytes,
            nodes_done: known.done.len(),
            nodes_wanted: known.done.len() + known.behind.len(),
            age: now.duration_since(known.since),
            eta: eta.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            stragglers: slowest.into_iter().take(MAX_STRAGGLERS).map(straggler).collect(),
        }
    }

    fn holds(&self, host: &HostId, parts: &[(TaskId, u64)]) -> bool {
        parts.iter().all(|(id, _)| self.tasks.get(id).is_some_and(|task| task.complete.contains(host)))
    }

    fn bytes_of(&self, host: &HostId, parts: &[(TaskId, u64)]) -> u64 {
        let of_part = |(id, size): &(TaskId, u64)| {
            let Some(task) = self.tasks.get(id) else { return 0 };
            if task.complete.contains(host) {
                return *size;
            }
            let (Some(held), Some(geometry)) = (task.partial.get(host), task.geometry) else { return 0 };
            held.iter()
                .filter(|piece| *piece < geometry.count())
                .map(|piece| geometry.range(piece))
                .map(|range| range.end - range.start)
                .sum()
        };
        parts.iter().map(of_part).sum()
    }

    fn reason(&self, host: &HostId, behind: &Behind, parts: &[(TaskId, u64)], now: Instant) -> String {
        if !self.hosts.contains_key(host) {
            return format!("not connected for {} s", now.duration_since(behind.connected).as_secs());
        }
        let open = || {
            parts.iter().filter_map(|(id, _)| self.tasks.get(id)).filter(|task| !task.complete.contains(host))
        };
        let waiting: Vec<_> = open().filter_map(|task| task.wants.get(host)).collect();
        if waiting.is_empty() {
            return "does not ask for what it lacks".to_owned();
        }
        if waiting.iter().any(|waiting| waiting.refused) {
            return "nobody can serve it: it asks the origin itself".to_owned();
        }
        let parents: BTreeSet<&HostId> = waiting.iter().flat_map(|waiting| &waiting.parents).collect();
        let fetches = open().any(|task| task.leases.values().any(|lease| lease.host == *host));
        let from = match (fetches, parents.len()) {
            (true, 0) => "the origin".to_owned(),
            (true, count) => format!("the origin and {count} peers"),
            (false, 1) => "one peer".to_owned(),
            (false, count) => format!("{count} peers"),
        };
        let still = now.duration_since(behind.moved).as_secs();
        if still >= 4 {
            return format!("no piece for {still} s from {from}");
        }
        format!("downloading from {from}, {:.1} MB/s", behind.rate / 1e6)
    }
}

impl Behind {
    fn look(&mut self, bytes: u64, now: Instant) {
        let elapsed = now.duration_since(self.looked).as_secs_f64();
        if elapsed > 0.0 {
            let rate = bytes.saturating_sub(self.bytes) as f64 / elapsed;
            // Half the weight to the last look: two or three of them decide.
            self.rate = if self.rate == 0.0 { rate } else { f64::midpoint(self.rate, rate) };
            self.looked = now;
        }
        if bytes != self.bytes {
            (self.bytes, self.moved) = (bytes, now);
        }
    }
}

impl Rollout {
    /// Whether there is more news than that time went by.
    fn differs(&self, other: &Self) -> bool {
        let known = |rollout: &Self| {
            (rollout.name.clone(), rollout.nodes_done, rollout.nodes_wanted, rollout.stragglers.clone())
        };
        known(self) != known(other)
    }
}
