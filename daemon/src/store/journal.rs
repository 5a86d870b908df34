//! The record of which pieces of a blob are on disk, and their digests: one small file per blob.
//!
//! Fixed-size slots written after the piece's bytes, so a process killed at any moment leaves
//! nothing worse than a piece that is there but not recorded. After a power failure a slot may be
//! recorded whose bytes never reached the disk; [`super::BlobFile`] therefore checks a piece against
//! its digest before the first use in this process.
//!
//! Invariant: a slot is set only after the piece's bytes were written and matched the digest in it.

use hawker_api::pieces::{Geometry, MAX_PIECES, PIECE_DIGEST_LEN, PieceDigest};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 8] = b"HAWKER1\n";
const HEADER_BYTES: usize = 16;
/// State byte and digest.
const SLOT_BYTES: usize = 1 + PIECE_DIGEST_LEN;
const HELD: u8 = 1;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Starts a journal for a blob of `size` bytes in an empty file.
    pub(super) fn create(file: File, size: u64) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&size.to_le_bytes());
        file.write_all_at(&header, 0)?;
        Ok(Self { file })
    }

    /// Reads a journal back: the blob's geometry and the digest of every recorded piece.
    ///
    /// A file that is not a journal of this version, or is longer than one can be, is
    /// `InvalidData`: nothing in it is trusted.
    pub(super) fn load(file: File) -> io::Result<(Self, Geometry, Vec<Option<PieceDigest>>)> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let longest = (HEADER_BYTES + SLOT_BYTES * MAX_PIECES as usize) as u64;
        if file.metadata()?.len() > longest {
            return Err(invalid("piece journal is too long"));
        }
        let bytes = read_all(&file)?;
        let (header, slots) =
            bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| invalid("piece journal has no header"))?;
        let (magic, size) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(invalid("not a piece journal of this version"));
        }
        let size = u64::from_le_bytes(size.try_into().map_err(|_| invalid("piece journal header"))?);
        let geometry = Geometry::new(size).map_err(|error| invalid(&error.to_string()))?;
        let digest = |slot: &[u8]| match slot.split_first() {
            Some((&HELD, digest)) => digest.try_into().ok(),
            _ => None,
        };
        let mut digests: Vec<_> = slots.chunks_exact(SLOT_BYTES).map(digest).collect();
        digests.resize(geometry.count() as usize, None);
        Ok((Self { file }, geometry, digests))
    }

    pub(super) fn record(&self, piece: u32, digest: &PieceDigest) -> io::Result<()> {
        let mut slot = [HELD; SLOT_BYTES];
        slot[1..].copy_from_slice(digest);
        self.file.write_all_at(&slot, slot_offset(piece))
    }

    pub(super) fn erase(&self, piece: u32) -> io::Result<()> {
        self.file.write_all_at(&[0], slot_offset(piece))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn slot_offset(piece: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(piece) * SLOT_BYTES as u64
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &*file, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_recorded_is_read_back() {
        let file = tempfile::tempfile().unwrap();
        let journal = Journal::create(file.try_clone().unwrap(), 9 << 20).unwrap();
        journal.record(2, &[7; 32]).unwrap();
        journal.record(0, &[5; 32]).unwrap();
        journal.erase(0).unwrap();
        io::Seek::rewind(&mut &file).unwrap();
        let (_, geometry, digests) = Journal::load(file).unwrap();
        assert_eq!(geometry.size(), 9 << 20);
        assert_eq!(digests, [None, None, Some([7; 32])]);
    }

    proptest! {
        #[test]
        fn no_file_content_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() >= 8 { bytes[..8].copy_from_slice(MAGIC); }
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            if let Ok((_, geometry, digests)) = Journal::load(file) {
                prop_assert_eq!(digests.len(), geometry.count() as usize);
            }
        }
    }
}
