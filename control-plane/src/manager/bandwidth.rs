//! The history of bandwidth: what schedulers tell is gathered in memory and written every few seconds.
//!
//! Not where it lies (that is `store`) and not how it is shown (`rest`).
//!
//! Invariant: memory and database are bounded; a database that is away for a while loses nothing of what fits.

use super::store::{Store, StoreError};
use super::tasks::KnownTask;
use super::unix_seconds;
use crate::usage::Usage;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The finest step kept, seconds.
pub(super) const STEP_S: i64 = 10;
/// How long a figure may be on its way from memory to the database.
const WRITE_EVERY: Duration = Duration::from_secs(2);
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Rows gathered while the database does not take them: 10,000 hosts for more than a minute and a half.
const MAX_PENDING: usize = 100_000;

/// The step of the live view, seconds; kept for [`LIVE_FOR_S`], and only of whole clusters.
pub(super) const LIVE_STEP_S: i64 = 1;
pub(super) const LIVE_FOR_S: i64 = 900;
/// Steps of lists, seconds.
pub(super) const LIST_STEP_S: i64 = 300;
/// Entries of lists, and tasks, gathered at most.
const MAX_PENDING_LISTS: usize = 50_000;
const MAX_PENDING_TASKS: usize = 20_000;
/// Hosts of a cluster that one flush puts on the list of the busiest.
const BUSIEST_HOSTS: usize = 64;

/// One host in one step, or, without a name, a whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Seconds.
    pub(super) step: i64,
    /// Where the step begins, seconds since 1970.
    pub(super) at: i64,
    pub(super) cluster_id: u64,
    pub(super) host: String,
}

pub(super) type Rows = BTreeMap<Key, Usage>;

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ListKind {
    /// From zone to zone.
    Zone = 0,
    Host = 1,
    Task = 2,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListKey {
    pub(super) at: i64,
    pub(super) cluster_id: u64,
    pub(super) kind: ListKind,
    /// Zone that the bytes left, host, or task.
    pub(super) name: String,
    /// Zone that they went to; else empty.
    pub(super) other: String,
}

/// Bytes, and of these from the origin.
pub(super) type ListRows = BTreeMap<ListKey, (u64, u64)>;

/// What is asked of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListQuery {
    /// Seconds since 1970.
    pub(super) since: i64,
    pub(super) kind: ListKind,
    /// `None`: all clusters.
    pub(super) cluster_id: Option<u64>,
    pub(super) skip: i64,
    pub(super) limit: i64,
}

/// What is asked of the history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    /// Seconds since 1970, a multiple of `step`.
    pub(super) since: i64,
    /// Seconds.
    pub(super) step: i64,
    /// `None`: all clusters.
    pub(super) cluster_id: Option<u64>,
    /// One row per host, not only per cluster.
    pub(super) by_host: bool,
    pub(super) skip: i64,
    pub(super) limit: i64,
}

/// Handle; clones share what is pending.
#[derive(Debug, Clone, Default)]
pub(super) struct Bandwidth {
    pending: Arc<Mutex<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    rows: Rows,
    lists: ListRows,
    tasks: BTreeMap<(u64, String), KnownTask>,
}

impl Bandwidth {
    /// Takes in what a host of a cluster moved just now. `false`: there is no room for it.
    pub(super) fn add(&self, cluster_id: u64, host: String, usage: &Usage, now: SystemTime) -> bool {
        let now = unix_seconds(now);
        let key = |step, host| Key { step, at: now - now.rem_euclid(step), cluster_id, host };
        let of_host = key(STEP_S, host);
        let mut pending = self.pending.lock();
        if pending.rows.len() >= MAX_PENDING && !pending.rows.contains_key(&of_host) {
            return false;
        }
        for key in [of_host, key(STEP_S, String::new()), key(LIVE_STEP_S, String::new())] {
            pending.rows.entry(key).or_default().add(usage);
        }
        true
    }

    /// Takes in what was uploaded from a zone to a zone.
    pub(super) fn add_zones(&self, cluster_id: u64, from: String, to: String, bytes: u64, now: SystemTime) {
        let at = list_step(now);
        let key = ListKey { at, cluster_id, kind: ListKind::Zone, name: from, other: to };
        self.pending.lock().list(key, bytes, 0);
    }

    /// Takes in a task as its scheduler knows it.
    pub(super) fn add_task(&self, task: KnownTask, now: SystemTime) {
        let key = (task.cluster_id, task.task.clone());
        let mut pending = self.pending.lock();
        if task.moved_bytes > 0 {
            let (cluster_id, name) = key.clone();
            let (at, kind) = (list_step(now), ListKind::Task);
            let entry = ListKey { at, cluster_id, kind, name, other: String::new() };
            pending.list(entry, task.moved_bytes, task.origin_bytes);
        }
        let earlier = pending.tasks.remove(&key);
        if earlier.is_some() || pending.tasks.len() < MAX_PENDING_TASKS {
            pending.tasks.insert(
                key,
                match earlier {
                    Some(earlier) => task.after(&earlier),
                    None => task,
                },
            );
        }
    }

    async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let mut taken = std::mem::take(&mut *self.pending.lock());
        taken.rank_hosts();
        let written = async {
            if !taken.rows.is_empty() {
                store.add_bandwidth(&taken.rows).await?;
                taken.rows.clear();
            }
            if !taken.lists.is_empty() {
                store.add_to_lists(&taken.lists).await?;
                taken.lists.clear();
            }
            if !taken.tasks.is_empty() {
                let tasks: Vec<_> = taken.tasks.values().cloned().collect();
                store.put_tasks(&tasks).await?;
                taken.tasks.clear();
            }
            Ok(())
        };
        let written = written.await;
        if written.is_err() {
            self.pending.lock().put_back(taken);
        }
        written
    }
}

fn list_step(now: SystemTime) -> i64 {
    let now = unix_seconds(now);
    now - now.rem_euclid(LIST_STEP_S)
}

impl Pending {
    fn list(&mut self, key: ListKey, bytes: u64, origin: u64) {
        if self.lists.len() < MAX_PENDING_LISTS || self.lists.contains_key(&key) {
            let sums = self.lists.entry(key).or_default();
            *sums = (sums.0.saturating_add(bytes), sums.1.saturating_add(origin));
        }
    }

    /// Puts the busiest hosts of each cluster on their list.
    fn rank_hosts(&mut self) {
        let mut clusters = BTreeMap::<_, Vec<_>>::new();
        for (key, usage) in self.rows.iter().filter(|(key, _)| !key.host.is_empty()) {
            let Usage { upload, download, origin, .. } = usage;
            let all = [upload.sent, download.received, origin.received];
            let moved = all.into_iter().fold(0, u64::saturating_add);
            if moved > 0 {
                let at = key.at - key.at.rem_euclid(LIST_STEP_S);
                clusters.entry((at, key.cluster_id)).or_default().push((moved, origin.received, &key.host));
            }
        }
        let mut ranked = Vec::new();
        for ((at, cluster_id), mut hosts) in clusters {
            hosts.sort_unstable_by_key(|(moved, ..)| std::cmp::Reverse(*moved));
            for (moved, origin, host) in hosts.into_iter().take(BUSIEST_HOSTS) {
                let (kind, name, other) = (ListKind::Host, host.clone(), String::new());
                ranked.push((ListKey { at, cluster_id, kind, name, other }, moved, origin));
            }
        }
        for (key, moved, origin) in ranked {
            self.list(key, moved, origin);
        }
    }

    /// What could not be written waits; where there is too much the oldest goes.
    fn put_back(&mut self, taken: Self) {
        // The list of hosts is made of their rows: anew where these come back.
        let ranked_again = !taken.rows.is_empty();
        for (key, usage) in taken.rows {
            self.rows.entry(key).or_default().add(&usage);
        }
        while self.rows.len() > MAX_PENDING {
            self.rows.pop_first();
        }
        for (key, (bytes, origin)) in taken.lists {
            if key.kind != ListKind::Host || !ranked_again {
                self.list(key, bytes, origin);
            }
        }
        for (key, earlier) in taken.tasks {
            let task = match self.tasks.remove(&key) {
                Some(task) => task.after(&earlier),
                None => earlier,
            };
            self.tasks.insert(key, task);
        }
    }
}

/// Writes and prunes until cancelled; the last figures are written then.
pub(super) async fn run(bandwidth: Bandwidth, store: Store, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut pruned, mut failing) = (None::<Instant>, false);
    loop {
        let last = tokio::select! {
            () = cancel.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let mut result = bandwidth.write(&store).await;
        if result.is_ok() && pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
            pruned = Some(Instant::now());
            result = prune(&store, unix_seconds(SystemTime::now())).await;
        }
        if let (Err(error), false) = (&result, failing) {
            tracing::warn!(%error, "keep the history of bandwidth");
        }
        failing = result.is_err();
        if last {
            return;
        }
    }
}

async fn prune(store: &Store, now: i64) -> Result<(), StoreError> {
    store.prune_bandwidth(now).await?;
    store.prune_lists(now).await?;
    store.prune_tasks(now).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Moved;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_step_gathers_and_memory_is_bounded() {
        let bandwidth = Bandwidth::default();
        let usage = Usage { upload: Moved { sent: 3, received: 0 }, ..Usage::default() };
        for second in [100, 109, 110] {
            assert!(bandwidth.add(1, "a".into(), &usage, UNIX_EPOCH + Duration::from_secs(second)));
        }
        {
            let pending = bandwidth.pending.lock();
            let of_host = pending.rows.iter().filter(|(key, _)| key.host == "a");
            let sums: Vec<_> = of_host.map(|(key, usage)| (key.at, usage.upload.sent)).collect();
            assert_eq!(sums, [(100, 6), (110, 3)]);
            let of_cluster = pending.rows.iter().filter(|(key, _)| key.host.is_empty());
            let sums: Vec<_> = of_cluster.map(|(key, usage)| (key.step, key.at, usage.upload.sent)).collect();
            assert_eq!(sums, [(1, 100, 3), (1, 109, 3), (1, 110, 3), (10, 100, 6), (10, 110, 3)]);
        }
        for host in 0..MAX_PENDING {
            bandwidth.add(1, host.to_string(), &usage, UNIX_EPOCH);
        }
        let gathered = bandwidth.pending.lock().rows.len();
        assert!((MAX_PENDING..MAX_PENDING + 3).contains(&gathered), "{gathered}");
        assert!(!bandwidth.add(1, "one too many".into(), &usage, UNIX_EPOCH));
    }

    #[test]
    fn the_busiest_hosts_are_ranked_and_what_was_not_written_is_ranked_once() {
        let bandwidth = Bandwidth::default();
        for host in 0..100_u64 {
            let usage = Usage { upload: Moved { sent: host, received: 0 }, ..Usage::default() };
            bandwidth.add(1, host.to_string(), &usage, UNIX_EPOCH);
        }
        let mut taken = std::mem::take(&mut *bandwidth.pending.lock());
        taken.rank_hosts();
        assert_eq!(taken.lists.len(), BUSIEST_HOSTS);
        assert!(taken.lists.values().all(|(bytes, _)| *bytes >= 36));
        let mut again = Pending::default();
        again.put_back(taken);
        assert!(again.lists.is_empty());
        again.rank_hosts();
        assert_eq!(again.lists.values().map(|(bytes, _)| bytes).max(), Some(&99));
    }
}
