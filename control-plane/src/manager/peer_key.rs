//! The key that the nodes of one cluster share: what a peer proves when it asks another one for pieces.
//!
//! Not an identity: whoever may register as a node gets its cluster's key.
//!
//! Invariant: the keys of two clusters tell nothing about each other, and are the same on every manager
//! of one database.

use sha2::{Digest, Sha256};
use std::fmt;

/// Separates these hashes from all others; the secret and the id that follow have fixed lengths.
const DOMAIN: &[u8] = b"hawker peer key v1\0";

#[derive(Clone)]
pub(super) struct PeerKeys([u8; 32]);

impl PeerKeys {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The key of the nodes that the schedulers of this cluster serve.
    pub(super) fn of(&self, scheduler_cluster_id: u64) -> [u8; 32] {
        let hash = Sha256::new().chain_update(DOMAIN).chain_update(self.0);
        hash.chain_update(scheduler_cluster_id.to_be_bytes()).finalize().into()
    }
}

impl fmt::Debug for PeerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKeys(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_has_its_own_and_nobody_sees_it_printed() {
        let keys = PeerKeys::new([7; 32]);
        assert_eq!(keys.of(1), PeerKeys::new([7; 32]).of(1));
        assert_ne!(keys.of(1), keys.of(2));
        assert_ne!(keys.of(1), PeerKeys::new([8; 32]).of(1));
        assert_eq!(format!("{keys:?}"), "PeerKeys(hidden)");
    }
}
