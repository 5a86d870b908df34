//! How a blob is cut into pieces, and sets of pieces.
//!
//! Invariant: geometry is a function of the size alone, so all nodes of all versions cut the same.

use std::ops::Range;

/// Shortest piece, bytes.
pub const MIN_PIECE_LENGTH: u64 = 4 << 20;
/// A blob has at most this many pieces; the piece length doubles until that holds.
pub const MAX_PIECES: u32 = 4096;
/// Largest blob, bytes (1 TiB): what the announced sizes of others are checked against.
pub const MAX_TASK_SIZE: u64 = 1 << 40;
/// Bytes of a piece's digest (BLAKE3).
pub const PIECE_DIGEST_LEN: usize = 32;

/// BLAKE3 digest of one piece.
pub type PieceDigest = [u8; PIECE_DIGEST_LEN];

/// A size that no blob may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("blob of {size} bytes is larger than the limit of {MAX_TASK_SIZE} bytes")]
pub struct TooLarge {
    pub size: u64,
}

/// A blob's cut: `size` bytes in pieces of `piece_length`, the last one shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    piece_length: u64,
}

impl Geometry {
    /// The cut of a blob of `size` bytes.
    ///
    /// # Errors
    /// `TooLarge` above [`MAX_TASK_SIZE`].
    pub fn new(size: u64) -> Result<Self, TooLarge> {
        if size > MAX_TASK_SIZE {
            return Err(TooLarge { size });
        }
        let mut piece_length = MIN_PIECE_LENGTH;
        while size.div_ceil(piece_length) > u64::from(MAX_PIECES) {
            piece_length *= 2;
        }
        Ok(Self { size, piece_length })
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    #[must_use]
    pub fn piece_length(&self) -> u64 {
        self.piece_length
    }

    /// Number of pieces; 0 for an empty blob.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.piece_length)).unwrap_or(MAX_PIECES)
    }

    /// Byte range of a piece; empty past the end.
    #[must_use]
    pub fn range(&self, piece: u32) -> Range<u64> {
        let start = (u64::from(piece) * self.piece_length).min(self.size);
        start..(start + self.piece_length).min(self.size)
    }

    /// The piece that holds byte `offset`.
    #[must_use]
    pub fn piece_at(&self, offset: u64) -> u32 {
        u32::try_from(offset / self.piece_length).unwrap_or(u32::MAX)
    }
}

/// Piece length of a blob whose size is not known yet.
///
/// An origin lease handed out before the size is known covers pieces of this length; the size
/// then decides how many real pieces that is.
pub const UNKNOWN_SIZE_PIECE_LENGTH: u64 = MIN_PIECE_LENGTH;

/// A set of pieces as a bitmap: bit i (little endian within bytes) is piece i.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceSet {
    bits: Vec<u8>,
    len: u32,
}

impl PieceSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All of `count` pieces.
    #[must_use]
    pub fn full(count: u32) -> Self {
        (0..count).collect()
    }

    /// A set received from elsewhere; bits at and above `count` are ignored.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], count: u32) -> Self {
        let mut set = Self::new();
        for piece in 0..count.min(MAX_PIECES) {
            let byte = bytes.get((piece / 8) as usize).copied().unwrap_or(0);
            if byte & (1 << (piece % 8)) != 0 {
                set.insert(piece);
            }
        }
        set
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Adds a piece; false if it was there, or is above [`MAX_PIECES`].
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= MAX_PIECES || self.contains(piece) {
            return false;
        }
        let byte = (piece / 8) as usize;
        if self.bits.len() <= byte {
            self.bits.resize(byte + 1, 0);
        }
        self.bits[byte] |= 1 << (piece % 8);
        self.len += 1;
        true
    }

    /// Removes a piece; false if it was not there.
    pub fn remove(&mut self, piece: u32) -> bool {
        let present = self.contains(piece);
        if present {
            self.bits[(piece / 8) as usize] &= !(1 << (piece % 8));
            self.len -= 1;
        }
        present
    }

    #[must_use]
    pub fn contains(&self, piece: u32) -> bool {
        self.bits.get((piece / 8) as usize).is_some_and(|byte| byte & (1 << (piece % 8)) != 0)
    }

    /// Number of pieces in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.bits).flat_map(|(index, byte)| {
            (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| index * 8 + bit)
        })
    }
}

impl FromIterator<u32> for PieceSet {
    fn from_iter<I: IntoIterator<Item = u32>>(pieces: I) -> Self {
        let mut set = Self::new();
        for piece in pieces {
            set.insert(piece);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_blob_has_no_pieces() {
        assert_eq!(Geometry::new(0).unwrap().count(), 0);
    }

    #[test]
    fn a_blob_above_the_limit_is_refused() {
        assert!(Geometry::new(MAX_TASK_SIZE).is_ok());
        assert_eq!(Geometry::new(MAX_TASK_SIZE + 1), Err(TooLarge { size: MAX_TASK_SIZE + 1 }));
    }

    proptest! {
        #[test]
        fn pieces_tile_the_blob(size in 1..=MAX_TASK_SIZE) {
            let cut = Geometry::new(size).unwrap();
            prop_assert!(cut.count() <= MAX_PIECES);
            prop_assert!(cut.piece_length() == MIN_PIECE_LENGTH || cut.count() > MAX_PIECES / 2);
            let last = cut.count() - 1;
            prop_assert_eq!(cut.range(0).start, 0);
            prop_assert_eq!(cut.range(last).end, size);
            prop_assert!(!cut.range(last).is_empty());
            prop_assert!(cut.range(cut.count()).is_empty());
            prop_assert_eq!(cut.piece_at(size - 1), last);
        }

        #[test]
        fn a_set_behaves_like_a_set(pieces in proptest::collection::btree_set(0..MAX_PIECES, 0..64)) {
            let mut set = PieceSet::new();
            for piece in &pieces { prop_assert!(set.insert(*piece)); prop_assert!(!set.insert(*piece)); }
            prop_assert_eq!(set.len() as usize, pieces.len());
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), pieces.iter().copied().collect::<Vec<_>>());
            let copy = PieceSet::from_bytes(set.as_bytes(), MAX_PIECES);
            prop_assert_eq!(copy.iter().collect::<Vec<_>>(), set.iter().collect::<Vec<_>>());
            for piece in pieces { prop_assert!(set.remove(piece)); }
            prop_assert!(set.is_empty());
        }
    }
}
