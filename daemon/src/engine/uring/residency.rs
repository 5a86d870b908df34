//! Whether bytes of a file can be sent without waiting for the disk.
//!
//! `cachestat(2)` also counts pages that are still being read, so a blob that was lately found cold is
//! taken for cold, whatever it says: whoever waits for its pages then is a kernel thread, not the loop.
//!
//! Invariant: what is not known is cold.

use super::ring;
use crate::store::BlobFile;
use hawker_api::task::TaskId;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long a blob stays cold after a page of it was missing: longer than a disk takes for the pages
/// that are read ahead.
const COLD_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Residency {
    cold: HashMap<TaskId, Instant>,
    /// Off: everything is cold, for the mode that copies anyway.
    look: bool,
}

impl Residency {
    pub(super) fn new(look: bool) -> Self {
        Self { cold: HashMap::new(), look }
    }

    pub(super) fn is_resident(&mut self, blob: &BlobFile, bytes: Range<u64>, now: Instant) -> bool {
        if !self.look {
            return false;
        }
        if !self.cold.is_empty() && self.cold.get(&blob.task()).is_some_and(|until| *until > now) {
            return false;
        }
        let cached = ring::is_cached(blob.file(), bytes.start, bytes.end - bytes.start).unwrap_or(false);
        if !cached {
            self.cold.insert(blob.task(), now + COLD_FOR);
        }
        cached
    }

    /// Forgets what is no longer cold.
    pub(super) fn tick(&mut self, now: Instant) {
        self.cold.retain(|_, until| *until > now);
    }
}
