//! The whole digest, computed in order while pieces arrive.
//!
//! Invariant: nothing else declares a blob complete.

use super::download::Download;
use crate::digest::WholeDigest;
use crate::store::{BlobFile, StoreError};
use hawker_api::pieces::PieceSet;
use std::sync::Arc;

/// Ends when all pieces are here: whether the whole matched the task's digest.
pub(super) async fn whole(download: Arc<Download>, blob: Arc<BlobFile>) -> Result<bool, StoreError> {
    let mut hasher = WholeDigest::new(&download.task);
    let mut commits = blob.watch();
    let mut piece = 0;
    while piece < blob.geometry().count() {
        commits.borrow_and_update();
        if !blob.has(piece) {
            // The sender lives in the blob, which lives here: this cannot fail.
            let _ = commits.changed().await;
            continue;
        }
        let reading = Arc::clone(&blob);
        let added = tokio::task::spawn_blocking(move || {
            let result = reading.check(piece).and_then(|()| add(&mut hasher, &reading, piece));
            (result, hasher)
        });
        let Ok((result, back)) = added.await else { return Ok(false) };
        hasher = back;
        match result {
            Ok(()) => piece += 1,
            // Damaged since it was written, in an earlier life of the daemon: fetch it again.
            Err(StoreError::Corrupt { task, piece }) => {
                tracing::warn!(%task, piece, "a stored piece was damaged; fetching it again");
                blob.forget(&PieceSet::from_iter([piece]))?;
                download.update(|_| ());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.matches(&download.task))
}

/// Adds a piece, where there is a digest to add it to.
fn add(hasher: &mut WholeDigest, blob: &BlobFile, piece: u32) -> Result<(), StoreError> {
    if matches!(hasher, WholeDigest::Nothing) {
        return Ok(()); // The pieces, each checked against the list, are all there is to go by.
    }
    let range = blob.geometry().range(piece);
    blob.show(range.clone(), range.end, &mut None, |bytes| hasher.update(bytes))
}
