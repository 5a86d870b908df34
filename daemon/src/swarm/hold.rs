//! Having a blob here although nobody here reads it: what jobs want.
//!
//! Invariant: it returns well only once the store holds the blob whole.

use super::Swarm;
use super::download::{Download, Interest};
use super::failure::Failure;
use super::orders::Notice;
use super::state::Outcome;
use crate::mirror::blobs::{BlobRequest, OpenError};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked how far a download is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After the whole matched, the store syncs it and gives it its name.
const SEAL_LOOK: Duration = Duration::from_millis(20);

/// The interest of somebody who may change their mind: a download that nobody else here wants ends with it, at once.
struct Wish(Interest);

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.0.update(|state| {
            if state.interest == 1 && state.outcome.is_none() {
                state.end(Outcome::Failed(Failure::Abandoned));
            }
        });
    }
}

impl Swarm {
    /// Waits until the blob is held; `seen` is told its size and how many bytes of it are here. Returns the size.
    /// Dropping the future leaves the download to others here who want it, and ends it where nobody does.
    ///
    /// # Errors
    /// As for a reader: [`OpenError`].
    pub async fn hold(&self, request: BlobRequest, seen: impl Fn(u64, u64)) -> Result<u64, OpenError> {
        let BlobRequest { task, object, credentials } = request;
        if let Some(size) = self.whole(&task).await {
            return Ok(size);
        }
        if self.inner.wrong.lock().get(&task, tokio::time::Instant::now()).is_some() {
            return Err(OpenError::Wrong { task });
        }
        let download = self.join(task, object, credentials)?;
        let _wish = Wish(Interest::new(&download));
        let mut changes = download.changes();
        loop {
            changes.borrow_and_update();
            let (outcome, blob) = {
                let state = download.state();
                (state.outcome.clone(), state.blob.clone())
            };
            if let Some(blob) = blob {
                let (geometry, held) = (blob.geometry(), blob.held());
                let lengths =
                    held.iter().map(|piece| geometry.range(piece)).map(|range| range.end - range.start);
                seen(geometry.size(), lengths.sum());
            }
            match outcome {
                Some(Outcome::Failed(failure)) => return Err(failure.open_error()),
                Some(Outcome::Verified) => break,
                None => {}
            }
            let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            tokio::time::sleep(LOOK_EVERY / 5).await;
        }
        self.sealed(&download).await
    }

    /// Tells the scheduler something.
    pub(crate) fn tell(&self, notice: Notice) {
        self.inner.context.announce.tell(notice);
    }

    async fn sealed(&self, download: &Arc<Download>) -> Result<u64, OpenError> {
        let task = download.task;
        while self.download(&task).is_some_and(|current| Arc::ptr_eq(&current, download)) {
            tokio::time::sleep(SEAL_LOOK).await;
        }
        let lost = || OpenError::Unavailable(format!("{task} came whole and could not be kept"));
        self.whole(&task).await.ok_or_else(lost)
    }

    /// Size of a blob that is held whole.
    async fn whole(&self, task: &hawker_api::task::TaskId) -> Option<u64> {
        let (store, task) = (self.inner.context.store.clone(), *task);
        let stored = tokio::task::spawn_blocking(move || store.get(&task)).await.ok()?.ok()??;
        stored.is_complete().then(|| stored.geometry().size())
    }
}
