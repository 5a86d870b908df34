//! Digests of pieces, to see what each costs the receiver.
//!
//! Invariant: both sides of a comparison use the same implementation.

use hawker_api::pieces::PieceDigest;
use sha2::Digest;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    None,
    Crc32c,
    /// What hawkerd uses for pieces.
    Blake3,
    Sha256,
}

pub enum Hasher {
    None,
    Crc32c(crc_fast::Digest),
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Hasher {
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::None => Self::None,
            Kind::Crc32c => Self::Crc32c(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)),
            Kind::Blake3 => Self::Blake3(Box::new(blake3::Hasher::new())),
            Kind::Sha256 => Self::Sha256(sha2::Sha256::new()),
        }
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32c(digest) => digest.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The digest, in the room of the longest.
    #[must_use]
    pub fn finish(self) -> PieceDigest {
        let mut digest = PieceDigest::default();
        match self {
            Self::None => {}
            Self::Crc32c(crc) => digest[..8].copy_from_slice(&crc.finalize().to_le_bytes()),
            Self::Blake3(hasher) => digest = *hasher.finalize().as_bytes(),
            Self::Sha256(hasher) => digest.copy_from_slice(&hasher.finalize()),
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_known_ones() {
        let of = |kind| {
            let mut hasher = Hasher::new(kind);
            hasher.update(b"1234");
            hasher.update(b"56789");
            hasher.finish()
        };
        // The check value of CRC-32C.
        assert_eq!(of(Kind::Crc32c)[..4], 0xE306_9283_u32.to_le_bytes());
        assert_eq!(of(Kind::Blake3), *blake3::hash(b"123456789").as_bytes());
        assert_eq!(of(Kind::Sha256)[..], sha2::Sha256::digest(b"123456789")[..]);
    }
}
