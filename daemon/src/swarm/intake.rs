//! One piece on its way in: written and hashed as it arrives, held only when it matched.
//!
//! Invariant: nothing is written after the claim on the piece was taken over.

use super::state::Claim;
use crate::peer::client::Sink;
use crate::pipe::Pipe;
use crate::store::{BlobFile, StoreError};
use hawker_api::pieces::PieceDigest;
use std::sync::Arc;

pub(super) struct Intake {
    blob: Arc<BlobFile>,
    piece: u32,
    claim: Claim,
    hasher: blake3::Hasher,
    offset: u64,
    /// Where spliced bytes are read back to.
    scratch: Vec<u8>,
}

impl Intake {
    pub(super) fn new(blob: Arc<BlobFile>, piece: u32, claim: Claim) -> Self {
        let offset = blob.geometry().range(piece).start;
        let (hasher, scratch) = (blake3::Hasher::new(), Vec::new());
        Self { blob, piece, claim, hasher, offset, scratch }
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

impl Intake {
    /// Runs `step` on a thread that may block, with what it needs.
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&Place, &mut blake3::Hasher) -> (Result<u64, String>, T) + Send + 'static,
    ) -> Result<T, String> {
        let place = Place {
            blob: Arc::clone(&self.blob),
            claim: self.claim.clone(),
            piece: self.piece,
            offset: self.offset,
        };
        let mut hasher = std::mem::take(&mut self.hasher);
        let stepped = tokio::task::spawn_blocking(move || {
            let (written, back) = step(&place, &mut hasher);
            if written.as_ref().is_ok_and(|bytes| place.offset + bytes == place.end()) {
                place.blob.begin_write_back();
            }
            (written, back, hasher)
        });
        let (written, back, hasher) = stepped.await.map_err(|_| "shutting down".to_owned())?;
        self.hasher = hasher;
        self.offset += written?;
        Ok(back)
    }
}

/// Where the next bytes go.
struct Place {
    blob: Arc<BlobFile>,
    claim: Claim,
    piece: u32,
    offset: u64,
}

impl Place {
    fn end(&self) -> u64 {
        self.blob.geometry().range(self.piece).end
    }

    /// Does `work` under the claim, if it still stands. Nobody else writes there meanwhile: what is read
    /// back is what was written.
    fn with_claim(&self, work: impl FnOnce(&BlobFile) -> Result<(), StoreError>) -> Result<(), String> {
        let valid = self.claim.valid.lock();
        if *valid && !self.blob.has(self.piece) {
            work(&self.blob).map_err(|error| error.to_string())
        } else {
            Err("another source took the piece over".to_owned())
        }
    }
}

impl Sink for Intake {
    async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        self.step(move |place, hasher| {
            hasher.update(&bytes);
            let written = place.with_claim(|blob| blob.write(&bytes, place.offset));
            (written.map(|()| bytes.len() as u64), bytes)
        })
        .await
    }

    async fn splice(&mut self, mut pipe: Pipe) -> Result<Pipe, String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let stepped = self.step(move |place, hasher| {
            let bytes = pipe.held() as u64;
            let written = place.with_claim(|blob| {
                blob.write_from(&mut pipe, place.offset, &mut scratch, |bytes| {
                    hasher.update(bytes);
                })
            });
            (written.map(|()| bytes), (pipe, scratch))
        });
        let (pipe, scratch) = stepped.await?;
        self.scratch = scratch;
        Ok(pipe)
    }
}
