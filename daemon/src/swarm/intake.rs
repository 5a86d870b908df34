//! One piece on its way in: written and hashed as it arrives, held only when it matched.
//!
//! Invariant: nothing is written after the claim on the piece was taken over or given back.

use super::claim::Claim;
use crate::peer::client::Sink;
use crate::peer::flow::Flow;
use crate::store::{BlobFile, Inlet, Permit, StoreError};
use hawker_api::pieces::PieceDigest;
use std::sync::Arc;

pub(super) struct Intake {
    blob: Arc<BlobFile>,
    piece: u32,
    claim: Claim,
    inlet: Inlet<blake3::Hasher, Claim>,
}

/// All of a piece, written and hashed, not yet held.
pub(super) struct Arrived {
    blob: Arc<BlobFile>,
    piece: u32,
    claim: Claim,
    digest: PieceDigest,
}

impl Intake {
    pub(super) fn new(blob: Arc<BlobFile>, piece: u32, claim: Claim) -> Self {
        let inlet = Inlet::new(Arc::clone(&blob), piece, claim.clone(), blake3::Hasher::new());
        Self { blob, piece, claim, inlet }
    }

    pub(super) fn piece(&self) -> u32 {
        self.piece
    }

    /// All that was put, with its digest.
    pub(super) async fn finish(self) -> Result<Arrived, String> {
        let hasher = self.inlet.finish().await?;
        let Self { blob, piece, claim, .. } = self;
        Ok(Arrived { blob, piece, claim, digest: *hasher.finalize().as_bytes() })
    }
}

impl Sink for Intake {
    async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        self.inlet.put(bytes).await
    }

    async fn pump(&mut self, flow: Flow) -> Result<Flow, String> {
        self.inlet.pump(flow).await
    }
}

impl Arrived {
    pub(super) fn piece(&self) -> u32 {
        self.piece
    }

    pub(super) fn blob(&self) -> &Arc<BlobFile> {
        &self.blob
    }

    pub(super) fn digest(&self) -> PieceDigest {
        self.digest
    }

    /// Declares the piece held. False: another source took it over or had it first.
    pub(super) fn commit(&self) -> Result<bool, StoreError> {
        // Whoever takes the piece over waits for this lock, and then finds it held.
        self.claim.under(0, || self.blob.commit(self.piece, self.digest)).unwrap_or(Ok(false))
    }
}
