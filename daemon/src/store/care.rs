//! What people and time do to the store: list, pin, expire.
//!
//! Invariant: nothing that is pinned, or that anybody has open, is ever removed here.

use super::space::Shelved;
use super::{Store, StoreError, create, unlink};
use hawker_api::task::TaskId;
use std::fs::File;
use std::time::{Duration, SystemTime};

/// A blob's time of last use is written down this often at most: for the order after a restart.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

impl Store {
    /// Everything on the shelf, in no order.
    pub fn list(&self) -> Vec<Shelved> {
        self.inner.shelf.lock().list()
    }

    /// Keeps a blob from being evicted (or lets it go again), over restarts. `false`: it is not held.
    ///
    /// # Errors
    /// The mark cannot be made or removed.
    pub fn pin(&self, task: &TaskId, pinned: bool) -> Result<bool, StoreError> {
        self.may_write(task, "pin")?;
        let failed = |source| StoreError::blob(*task, "pin", source);
        let mut shelf = self.inner.shelf.lock();
        if !shelf.pin(task, pinned) {
            return Ok(false);
        }
        let mark = self.inner.layout.pin(task);
        let marked = if pinned { create(&mark).map(drop) } else { unlink(&mark) };
        if marked.is_err() {
            shelf.pin(task, !pinned);
        }
        marked.map(|()| true).map_err(failed)
    }

    /// Removes what was last used before `then`; whoever was told that it is held must be told again.
    ///
    /// # Errors
    /// Files that cannot be deleted; the others are gone.
    pub fn expire(&self, then: SystemTime) -> Result<Vec<TaskId>, StoreError> {
        // Under one lock: what somebody opens meanwhile is in use.
        let mut shelf = self.inner.shelf.lock();
        let old = shelf.unused_since(then);
        for task in &old {
            self.take_off(&mut shelf, task)?;
        }
        Ok(old)
    }
}

/// Writes down that the blob is used now.
pub(super) fn touch(file: &File) {
    let stale = file
        .metadata()
        .and_then(|meta| meta.modified())
        .is_ok_and(|last| last.elapsed().is_ok_and(|passed| passed > TOUCH_INTERVAL));
    if stale && let Err(error) = file.set_modified(SystemTime::now()) {
        tracing::debug!(%error, "write down when a blob was used");
    }
}
