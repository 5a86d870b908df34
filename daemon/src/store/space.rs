//! What lies on the shelf: every blob's size and state, which are open, and who goes first.
//!
//! Bookkeeping only; the files belong to [`super::Store`].
//!
//! Invariant: a blob that anybody has open is never the one to evict.

use super::{BlobFile, StoreReport};
use hawker_api::task::TaskId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// Blobs kept open although nobody uses them right now; bounds the file descriptors.
const MAX_IDLE_OPEN: usize = 128;

#[derive(Debug)]
struct Entry {
    size: u64,
    complete: bool,
    last_used: SystemTime,
    open: Weak<BlobFile>,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    entries: HashMap<TaskId, Entry>,
    used_bytes: u64,
    recent: VecDeque<Arc<BlobFile>>,
}

impl Shelf {
    pub(super) fn found(&mut self, task: TaskId, size: u64, complete: bool, last_used: SystemTime) {
        self.forget(&task);
        self.used_bytes += size;
        self.entries.insert(task, Entry { size, complete, last_used, open: Weak::new() });
    }

    /// Whether the task is complete; `None` where there is nothing of it.
    pub(super) fn state(&self, task: &TaskId) -> Option<bool> {
        self.entries.get(task).map(|entry| entry.complete)
    }

    pub(super) fn opened(&mut self, task: &TaskId) -> Option<Arc<BlobFile>> {
        let blob = self.entries.get(task)?.open.upgrade()?;
        self.keep_open(Arc::clone(&blob));
        Some(blob)
    }

    pub(super) fn keep_open(&mut self, blob: Arc<BlobFile>) {
        if let Some(entry) = self.entries.get_mut(&blob.task()) {
            entry.open = Arc::downgrade(&blob);
            entry.last_used = SystemTime::now();
        }
        self.recent.retain(|other| other.task() != blob.task());
        self.recent.push_front(blob);
        self.recent.truncate(MAX_IDLE_OPEN);
    }

    pub(super) fn completed(&mut self, task: &TaskId) {
        if let Some(entry) = self.entries.get_mut(task) {
            entry.complete = true;
        }
    }

    pub(super) fn forget(&mut self, task: &TaskId) {
        self.recent.retain(|blob| blob.task() != *task);
        if let Some(entry) = self.entries.remove(task) {
            if let Some(blob) = entry.open.upgrade() {
                blob.retire();
            }
            self.used_bytes -= entry.size;
        }
    }

    pub(super) fn complete(&self) -> impl Iterator<Item = (TaskId, u64)> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.complete).map(|(task, entry)| (*task, entry.size))
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The blob nobody has open that was used longest ago.
    pub(super) fn least_recently_used(&self) -> Option<TaskId> {
        let in_use = |task: &TaskId, entry: &Entry| {
            // One reference may be our own, in `recent`.
            let own = usize::from(self.recent.iter().any(|blob| blob.task() == *task));
            entry.open.strong_count() > own
        };
        let idle = self.entries.iter().filter(|(task, entry)| !in_use(task, entry));
        idle.min_by_key(|(task, entry)| (entry.last_used, **task)).map(|(task, _)| *task)
    }

    pub(super) fn report(&self) -> StoreReport {
        let complete = self.entries.values().filter(|entry| entry.complete).count() as u64;
        StoreReport {
            used_bytes: self.used_bytes,
            complete_blobs: complete,
            partial_blobs: self.entries.len() as u64 - complete,
            error: None,
        }
    }
}
