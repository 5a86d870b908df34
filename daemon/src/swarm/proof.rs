//! The whole digest, computed in order while pieces arrive.
//!
//! Invariant: nothing else declares a blob complete.

use super::download::Download;
use crate::store::{BlobFile, StoreError};
use hawker_api::pieces::PieceSet;
use hawker_api::task::{Algorithm, TaskId};
use sha2::{Digest, Sha256, Sha512};
use std::sync::Arc;

/// Step in which a piece is read back, bytes.
const READ_STEP_BYTES: usize = 256 << 10;

/// Ends when all pieces are here: whether the whole matched the task's digest.
pub(super) async fn whole(download: Arc<Download>, blob: Arc<BlobFile>) -> Result<bool, StoreError> {
    let mut hasher = Hasher::new(&download.task);
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
            let result = reading.check(piece).and_then(|()| hasher.add(&reading, piece));
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
    Ok(hasher.finish() == download.task.digest())
}

/// Whichever algorithm the task is named by.
enum Hasher {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
}

impl Hasher {
    fn new(task: &TaskId) -> Self {
        match task.algorithm() {
            Algorithm::Sha256 => Self::Sha256(Box::default()),
            Algorithm::Sha512 => Self::Sha512(Box::default()),
        }
    }

    fn add(&mut self, blob: &BlobFile, piece: u32) -> Result<(), StoreError> {
        blob.read_steps(blob.geometry().range(piece), READ_STEP_BYTES, |bytes| self.update(bytes))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
        }
    }
}
