//! One piece on its way in: hashed and written as it arrives, held only when it matched.
//!
//! Invariant: nothing is written after the claim on the piece was taken over.

use super::state::Claim;
use crate::peer::client::Sink;
use crate::store::{BlobFile, StoreError};
use hawker_api::pieces::PieceDigest;
use std::sync::Arc;

pub(super) struct Intake {
    blob: Arc<BlobFile>,
    piece: u32,
    claim: Claim,
    hasher: blake3::Hasher,
    offset: u64,
}

/// What one step needs on the thread that may block.
type Step = (Result<(), String>, Vec<u8>, blake3::Hasher);

impl Intake {
    pub(super) fn new(blob: Arc<BlobFile>, piece: u32, claim: Claim) -> Self {
        let offset = blob.geometry().range(piece).start;
        Self { blob, piece, claim, hasher: blake3::Hasher::new(), offset }
    }

    pub(super) fn piece(&self) -> u32 {
        self.piece
    }

    pub(super) fn blob(&self) -> &Arc<BlobFile> {
        &self.blob
    }

    /// Digest of all that was put.
    pub(super) fn digest(&self) -> PieceDigest {
        *self.hasher.finalize().as_bytes()
    }

    /// Declares the piece held. False: another source took it over or had it first.
    pub(super) fn commit(&self) -> Result<bool, StoreError> {
        // Whoever takes the piece over waits for this lock, and then finds it held.
        let valid = self.claim.valid.lock();
        if *valid { self.blob.commit(self.piece, self.digest()) } else { Ok(false) }
    }
}

impl Sink for Intake {
    async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let (blob, claim) = (Arc::clone(&self.blob), self.claim.clone());
        let (piece, offset) = (self.piece, self.offset);
        let mut hasher = std::mem::take(&mut self.hasher);
        let step = tokio::task::spawn_blocking(move || -> Step {
            hasher.update(&bytes);
            let valid = claim.valid.lock();
            let written = if *valid && !blob.has(piece) {
                blob.write(&bytes, offset).map_err(|error| error.to_string())
            } else {
                Err("another source took the piece over".to_owned())
            };
            drop(valid);
            (written, bytes, hasher)
        });
        let (written, bytes, hasher) = step.await.map_err(|_| "shutting down".to_owned())?;
        self.hasher = hasher;
        written?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }
}
