//! What lies on the shelf: every blob's size and state, which are open, and who goes first.
//!
//! Bookkeeping only; the files belong to [`super::Store`].
//!
//! Invariant: a blob that anybody has open, or that is pinned, is never the one to evict.

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
    pinned: bool,
    last_used: SystemTime,
    open: Weak<BlobFile>,
}

/// A blob on the shelf, for those who list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    pub task: TaskId,
    pub size: u64,
    /// The whole digest matched.
    pub complete: bool,
    pub pinned: bool,
    /// Somebody has it open: it is being read, served or fetched.
    pub in_use: bool,
    pub last_used: SystemTime,
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
        self.entries.insert(task, Entry { size, complete, pinned: false, last_used, open: Weak::new() });
    }

    /// Whether the task is complete; `None` where there is nothing of it.
    pub(super) fn state(&self, task: &TaskId) -> Option<bool> {
        self.entries.get(task).map(|entry| entry.complete)
    }

    pub(super) fn opened(&mut self, task: &TaskId) -> Option<Arc<BlobFile>> {
        let entry = self.entries.get_mut(task)?;
        let blob = entry.open.upgrade()?;
        if self.recent.front().is_some_and(|first| Arc::ptr_eq(first, &blob)) {
            entry.last_used = SystemTime::now();
        } else {
            self.keep_open(Arc::clone(&blob));
        }
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

    /// Whoever has a blob open only reads it from now on.
    pub(super) fn freeze(&self) {
        self.entries.values().filter_map(|entry| entry.open.upgrade()).for_each(|blob| blob.freeze());
    }

    pub(super) fn complete(&self) -> impl Iterator<Item = (TaskId, u64)> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.complete).map(|(task, entry)| (*task, entry.size))
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// `false` where there is no such blob, or only a part of it.
    pub(super) fn pin(&mut self, task: &TaskId, pinned: bool) -> bool {
        let entry = self.entries.get_mut(task).filter(|entry| entry.complete);
        entry.map(|entry| entry.pinned = pinned).is_some()
    }

    /// The blob nobody has open or pinned that was used longest ago.
    pub(super) fn least_recently_used(&self) -> Option<TaskId> {
        let evictable = self.entries.iter().filter(|(task, entry)| self.is_evictable(task, entry));
        evictable.min_by_key(|(task, entry)| (entry.last_used, **task)).map(|(task, _)| *task)
    }

    /// Those nobody has open or pinned that were used last before `then`.
    pub(super) fn unused_since(&self, then: SystemTime) -> Vec<TaskId> {
        let old = |entry: &Entry| entry.last_used < then;
        let entries =
            self.entries.iter().filter(|(task, entry)| old(entry) && self.is_evictable(task, entry));
        entries.map(|(task, _)| *task).collect()
    }

    pub(super) fn list(&self) -> Vec<Shelved> {
        let shelved = |(task, entry): (&TaskId, &Entry)| Shelved {
            task: *task,
            size: entry.size,
            complete: entry.complete,
            pinned: entry.pinned,
            in_use: self.is_in_use(task, entry),
            last_used: entry.last_used,
        };
        self.entries.iter().map(shelved).collect()
    }

    fn is_evictable(&self, task: &TaskId, entry: &Entry) -> bool {
        !entry.pinned && !self.is_in_use(task, entry)
    }

    fn is_in_use(&self, task: &TaskId, entry: &Entry) -> bool {
        // One reference may be our own, in `recent`.
        let own = usize::from(self.recent.iter().any(|blob| blob.task() == *task));
        entry.open.strong_count() > own
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
