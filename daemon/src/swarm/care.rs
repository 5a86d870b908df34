//! The store's content as people see it: listed, removed, pinned, expired; the cluster hears what goes.
//!
//! Invariant: what is being downloaded is not removed from under the download.

use super::Swarm;
use super::orders::{LeaseOutcome, Notice};
use super::state::Outcome;
use crate::status::{RemoveError, Stored, StoredReport};
use crate::store::StoreError;
use hawker_api::task::TaskId;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A process that sleeps this long and wakes so much later stood still; the scheduler waits 3 s.
const PULSE: Duration = Duration::from_millis(250);
const STOOD_STILL: Duration = Duration::from_millis(2500);
/// How long a removal waits for a download that has everything already and writes it to the disk; the tool waits for 10 s.
const ENDS_WITHIN: Duration = Duration::from_secs(8);
/// Expired blobs are looked for this often, and never more often than their lifetime.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

impl Stored for Swarm {
    fn list(&self) -> Vec<StoredReport> {
        let report = |blob: crate::store::Shelved| StoredReport {
            task: blob.task.to_string(),
            size: blob.size,
            complete: blob.complete,
            pinned: blob.pinned,
            in_use: blob.in_use,
            last_used_unix_ms: unix_ms(blob.last_used),
        };
        let mut list: Vec<_> = self.inner.context.store.list().into_iter().map(report).collect();
        list.sort_by(|a, b| b.last_used_unix_ms.cmp(&a.last_used_unix_ms).then(a.task.cmp(&b.task)));
        list
    }

    fn remove(&self, task: &TaskId, pinned_too: bool) -> Result<(), RemoveError> {
        let store = &self.inner.context.store;
        let Some(blob) = store.list().into_iter().find(|blob| blob.task == *task) else {
            return Err(RemoveError::NotHere);
        };
        if blob.pinned && !pinned_too {
            return Err(RemoveError::Pinned);
        }
        if !self.ends_soon(task) {
            return Err(RemoveError::Downloading);
        }
        store.remove(task)?;
        self.inner.context.announce.tell(Notice::Dropped(vec![*task]));
        Ok(())
    }

    fn pin(&self, task: &TaskId, pinned: bool) -> Result<bool, StoreError> {
        self.inner.context.store.pin(task, pinned)
    }
}

impl Swarm {
    /// Whether there is no download, or one that has proven all its bytes, given them to whoever waited, and has written
    /// them by then. Blocks meanwhile.
    fn ends_soon(&self, task: &TaskId) -> bool {
        let until = Instant::now() + ENDS_WITHIN;
        while let Some(download) = self.download(task) {
            let proven = matches!(download.state().outcome, Some(Outcome::Verified));
            if !proven || Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// From now on removes what nobody used for `lifetime`.
    pub fn expire_after(&self, lifetime: Duration) {
        let swarm = self.clone();
        self.inner.tracker.spawn(async move {
            let cancelled = swarm.inner.context.cancel.clone();
            loop {
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    () = tokio::time::sleep(SWEEP_INTERVAL.min(lifetime)) => swarm.sweep(lifetime).await,
                }
            }
        });
    }

    /// Whether anything is being downloaded.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.inner.active.lock().is_empty()
    }

    /// From now on gives leases back after this process stood still (a stopped process, a suspended machine): others
    /// fetch what it was to fetch, long since.
    pub fn give_back_after_a_stop(&self) {
        let swarm = self.clone();
        self.inner.tracker.spawn(async move {
            let cancelled = swarm.inner.context.cancel.clone();
            loop {
                let before = Instant::now();
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    () = tokio::time::sleep(PULSE) => {}
                }
                if before.elapsed() > STOOD_STILL {
                    swarm.give_back();
                }
            }
        });
    }

    fn give_back(&self) {
        for download in self.downloads() {
            let (task, leases) = (download.task, download.update(|state| std::mem::take(&mut state.leases)));
            for id in leases.into_keys() {
                tracing::warn!(%task, "this process stood still: giving a lease back");
                let outcome = LeaseOutcome::Declined { detail: "this node stood still".to_owned() };
                self.inner.context.announce.tell(Notice::LeaseEnded { task, id, outcome });
            }
        }
    }

    async fn sweep(&self, lifetime: Duration) {
        let store = self.inner.context.store.clone();
        let then = SystemTime::now().checked_sub(lifetime).unwrap_or(UNIX_EPOCH);
        match tokio::task::spawn_blocking(move || store.expire(then)).await {
            Ok(Ok(gone)) if !gone.is_empty() => {
                tracing::info!(blobs = gone.len(), "removed what nobody used within storage.ttl");
                self.inner.context.announce.tell(Notice::Dropped(gone));
            }
            Ok(Err(error)) => tracing::warn!(%error, "remove what nobody used"),
            _ => {}
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
