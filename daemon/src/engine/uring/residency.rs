//! Whether bytes of a file can be sent without waiting for the disk.
//!
//! `cachestat(2)` also counts pages that are still being read, so a blob that was lately found cold is
//! taken for cold, whatever it says: whoever waits for its pages then is a kernel thread, not the loop.
//!
//! Small steps ask for a window around them, and its answer stands for a moment: at 64 KiB a step the system call was
//! 4 % of the CPU. Pages that are evicted in that moment cost the loop one wait for the disk.
//!
//! Invariant: what is not known is cold.

use super::ring;
use crate::store::BlobFile;
use hawker_api::task::TaskId;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a blob stays cold after a page of it was missing: longer than a disk takes for the pages
/// that are read ahead.
const COLD_FOR: Duration = Duration::from_secs(1);

/// How long a window that was wholly in memory is taken for that: far shorter than pages just used stay.
const WARM_FOR: Duration = Duration::from_millis(200);
const WINDOW_BYTES: u64 = 1 << 20;
/// Windows remembered (of 1 GiB, 64 KiB of memory); one takes the place of another.
const WINDOWS: usize = 2048;

#[derive(Debug)]
pub(super) struct Residency {
    cold: HashMap<TaskId, Instant>,
    warm: Vec<Option<Warm>>,
    /// Off: everything is cold, for the mode that copies anyway.
    look: bool,
}

#[derive(Debug)]
struct Warm {
    /// Also keeps the address from becoming another blob's.
    blob: Weak<BlobFile>,
    window: u64,
    until: Instant,
}

impl Residency {
    pub(super) fn new(look: bool) -> Self {
        Self { cold: HashMap::new(), warm: std::iter::repeat_with(|| None).take(WINDOWS).collect(), look }
    }

    pub(super) fn is_resident(&mut self, blob: &Arc<BlobFile>, bytes: Range<u64>, now: Instant) -> bool {
        if !self.look {
            return false;
        }
        if !self.cold.is_empty() && self.cold.get(&blob.task()).is_some_and(|until| *until > now) {
            return false;
        }
        if self.is_warm(blob, &bytes, now) {
            return true;
        }
        let cached = ring::is_cached(blob.file(), bytes.start, bytes.end - bytes.start).unwrap_or(false);
        if !cached {
            self.cold.insert(blob.task(), now + COLD_FOR);
        }
        cached
    }

    /// Whether the window around a small step is in memory, or was a moment ago.
    fn is_warm(&mut self, blob: &Arc<BlobFile>, bytes: &Range<u64>, now: Instant) -> bool {
        let window = bytes.start / WINDOW_BYTES;
        let start = window * WINDOW_BYTES;
        if bytes.end > start + WINDOW_BYTES || bytes.end - bytes.start > WINDOW_BYTES / 2 {
            return false;
        }
        let place = usize::try_from(window).unwrap_or(0).wrapping_add(Arc::as_ptr(blob).addr() >> 6);
        let Some(place) = self.warm.get_mut(place % WINDOWS) else { return false };
        let known = place.as_ref().is_some_and(|warm| {
            warm.window == window && warm.until > now && std::ptr::eq(warm.blob.as_ptr(), Arc::as_ptr(blob))
        });
        if known {
            return true;
        }
        let length = WINDOW_BYTES.min(blob.geometry().size().saturating_sub(start));
        if !ring::is_cached(blob.file(), start, length).unwrap_or(false) {
            return false;
        }
        *place = Some(Warm { blob: Arc::downgrade(blob), window, until: now + WARM_FOR });
        true
    }

    /// Forgets what is no longer cold, or warm.
    pub(super) fn tick(&mut self, now: Instant) {
        self.cold.retain(|_, until| *until > now);
        for place in &mut self.warm {
            place.take_if(|warm| warm.until <= now);
        }
    }
}
