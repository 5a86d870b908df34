//! One blob of the store, open: its bytes, which pieces of it are verified, and who waits for more.
//!
//! Not the download (who fetches what is [`crate::swarm`]'s business) and not the directory.
//!
//! Invariant: `has(piece)` is true only for bytes that matched their digest; such bytes are never
//! written again while the piece is held, because they may be in a peer's socket by reference.

use super::StoreError;
use super::journal::Journal;
use super::writeback;
use crate::mapping::Window;
use crate::pipe::Pipe;
use hawker_api::pieces::{Geometry, PieceDigest, PieceSet};
use hawker_api::task::TaskId;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// Step in which bytes are read where they cannot be mapped.
const READ_STEP_BYTES: u64 = 256 << 10;

/// Pieces after which writing to the disk begins (1 GiB of the smallest). Beginning costs the receiver
/// 0.08 s of CPU per GB, which blobs that fit the page cache's slack are spared.
const WRITE_BACK_PIECES: u32 = 256;

/// An open blob, complete or not. Shared by everything that reads, writes or serves it.
#[derive(Debug)]
pub struct BlobFile {
    task: TaskId,
    geometry: Geometry,
    file: File,
    journal: Journal,
    pieces: Mutex<Pieces>,
    complete: AtomicBool,
    /// The store dropped it; whoever has it open still reads what it held.
    retired: AtomicBool,
    /// The directory is another daemon's: nothing is written any more.
    frozen: AtomicBool,
    /// Counts commits; children and readers wait on it.
    commits: watch::Sender<u64>,
}

#[derive(Debug)]
struct Pieces {
    held: PieceSet,
    /// Held and checked against its digest by this process.
    checked: PieceSet,
    digests: Vec<Option<PieceDigest>>,
}

impl BlobFile {
    pub(super) fn new(
        task: TaskId,
        geometry: Geometry,
        (file, journal): (File, Journal),
        digests: Vec<Option<PieceDigest>>,
        complete: bool,
    ) -> Self {
        let mut held = PieceSet::new();
        for (piece, digest) in (0..).zip(&digests) {
            if digest.is_some() {
                held.insert(piece);
            }
        }
        let pieces = Mutex::new(Pieces { held, checked: PieceSet::new(), digests });
        let (complete, [retired, frozen]) =
            (AtomicBool::new(complete), [const { AtomicBool::new(false) }; 2]);
        Self {
            task,
            geometry,
            file,
            journal,
            pieces,
            complete,
            retired,
            frozen,
            commits: watch::channel(0).0,
        }
    }

    pub fn task(&self) -> TaskId {
        self.task
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The data file, for engines that send from it by reference.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The whole digest matched on this node.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    pub(super) fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// No more of it will come: the store dropped it.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// From now on it is only read: whoever writes at this moment is waited for.
    pub(super) fn freeze(&self) {
        let _pieces = self.pieces.lock();
        self.frozen.store(true, Ordering::Release);
    }

    fn may_write(&self, act: &'static str) -> Result<(), StoreError> {
        let frozen = self.frozen.load(Ordering::Acquire);
        if frozen { Err(StoreError::HandedOver { task: self.task, act }) } else { Ok(()) }
    }

    pub fn has(&self, piece: u32) -> bool {
        self.pieces.lock().held.contains(piece)
    }

    pub fn held(&self) -> PieceSet {
        self.pieces.lock().held.clone()
    }

    pub fn digest(&self, piece: u32) -> Option<PieceDigest> {
        self.pieces.lock().digests.get(piece as usize).copied().flatten()
    }

    /// Held pieces with their digests.
    pub fn digests(&self) -> Vec<(u32, PieceDigest)> {
        let pieces = self.pieces.lock();
        (0..).zip(&pieces.digests).filter_map(|(piece, digest)| Some((piece, (*digest)?))).collect()
    }

    /// Held pieces that are not in `told`, at most `limit`, with their digests.
    pub fn news(&self, told: &PieceSet, limit: usize) -> Vec<(u32, PieceDigest)> {
        let pieces = self.pieces.lock();
        let news = pieces.held.iter().filter(|piece| !told.contains(*piece)).take(limit);
        news.filter_map(|piece| Some((piece, (*pieces.digests.get(piece as usize)?)?))).collect()
    }

    /// Wakes at every commit and at completion.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Writes bytes of a piece that is not held yet.
    ///
    /// # Errors
    /// The write's own; `NoSpace` where the disk is full.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        debug_assert!(!self.has(self.geometry.piece_at(offset)), "a held piece is immutable");
        self.may_write("write")?;
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed("write", source))
    }

    /// Writes all that is in a pipe into a piece that is not held yet.
    ///
    /// # Errors
    /// The write's own; `NoSpace` where the disk is full.
    pub fn write_from(&self, pipe: &mut Pipe, mut offset: u64) -> Result<(), StoreError> {
        debug_assert!(!self.has(self.geometry.piece_at(offset)), "a held piece is immutable");
        self.may_write("write")?;
        while pipe.held() > 0 {
            let written = pipe.drain_to_file(&self.file, offset, pipe.held());
            offset += written.map_err(|source| self.failed("write", source))? as u64;
        }
        Ok(())
    }

    /// Declares a piece held: its bytes are written and matched `digest`. False: it was held before.
    ///
    /// # Errors
    /// The journal could not be written; the piece is not held then.
    pub fn commit(&self, piece: u32, digest: PieceDigest) -> Result<bool, StoreError> {
        let mut pieces = self.pieces.lock();
        if pieces.held.contains(piece) {
            return Ok(false);
        }
        self.may_write("journal")?;
        self.journal.record(piece, &digest).map_err(|source| self.failed("journal", source))?;
        if let Some(slot) = pieces.digests.get_mut(piece as usize) {
            *slot = Some(digest);
        }
        pieces.held.insert(piece);
        pieces.checked.insert(piece);
        drop(pieces);
        self.commits.send_modify(|commits| *commits += 1);
        Ok(true)
    }

    /// Begins to write to the disk what has come, once in [`WRITE_BACK_PIECES`]: sealing a large blob then
    /// finds little left to wait for, and a small one is not bothered. May wait for the disk's queue.
    pub fn begin_write_back(&self) {
        let held = self.pieces.lock().held.len();
        if held > 0 && held.is_multiple_of(WRITE_BACK_PIECES) {
            writeback::begin(&self.file, &(0..self.geometry.size()));
        }
    }

    /// Takes pieces back: what they were checked against turned out wrong.
    ///
    /// # Errors
    /// The journal could not be written.
    pub fn forget(&self, pieces: &PieceSet) -> Result<(), StoreError> {
        let mut state = self.pieces.lock();
        self.may_write("journal")?;
        for piece in pieces.iter() {
            self.journal.erase(piece).map_err(|source| self.failed("journal", source))?;
            state.held.remove(piece);
            state.checked.remove(piece);
            if let Some(slot) = state.digests.get_mut(piece as usize) {
                *slot = None;
            }
        }
        Ok(())
    }

    /// Reads exactly `buffer.len()` bytes. Blocks on the disk.
    ///
    /// # Errors
    /// The read's own; a file shorter than it should be is `UnexpectedEof`, never zeros.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file.read_exact_at(buffer, offset).map_err(|source| self.failed("read", source))
    }

    /// Shows a range, from a mapping where there can be one. `window` is what is mapped, kept between calls for
    /// ranges that follow each other up to `until`. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Self::read`]; what was shown before counts for nothing then.
    pub fn show(
        &self,
        range: Range<u64>,
        until: u64,
        window: &mut Option<Window>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        let mut offset = range.start;
        while offset < range.end {
            if !window.as_ref().is_some_and(|window| window.range().contains(&offset)) {
                // First the old one goes: they count as memory of this process.
                *window = None;
                *window = Window::of(&self.file, offset..until.max(range.end)).ok();
            }
            let Some(window) = window else { return self.read_steps(offset..range.end, each) };
            let part = offset..range.end.min(window.range().end);
            if let Err(source) = window.look(&part, &mut each) {
                // Reading tells why, if it is still so.
                self.read_steps(part, |_| ())?;
                return Err(self.failed("read", source));
            }
            offset = part.end;
        }
        Ok(())
    }

    fn read_steps(&self, range: Range<u64>, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let (mut buffer, mut offset) = (Vec::new(), range.start);
        while offset < range.end {
            let step = (range.end - offset).min(READ_STEP_BYTES);
            buffer.resize(usize::try_from(step).unwrap_or_default(), 0);
            self.read(&mut buffer, offset)?;
            each(&buffer);
            offset += step;
        }
        Ok(())
    }

    /// Whether [`Self::check`] would return at once.
    pub fn is_checked(&self, piece: u32) -> bool {
        self.pieces.lock().checked.contains(piece)
    }

    /// Makes sure that a held piece still matches its digest, once per process. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt` where it does not: the caller drops the blob from the store.
    pub fn check(&self, piece: u32) -> Result<(), StoreError> {
        let expected = {
            let pieces = self.pieces.lock();
            if pieces.checked.contains(piece) {
                return Ok(());
            }
            pieces.digests.get(piece as usize).copied().flatten()
        };
        let mut hasher = blake3::Hasher::new();
        let range = self.geometry.range(piece);
        self.show(range.clone(), range.end, &mut None, |bytes| {
            hasher.update(bytes);
        })?;
        if expected != Some(*hasher.finalize().as_bytes()) {
            return Err(StoreError::Corrupt { task: self.task, piece });
        }
        self.pieces.lock().checked.insert(piece);
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let synced = self.file.sync_data().and_then(|()| self.journal.sync());
        synced.map_err(|source| self.failed("sync", source))
    }

    fn failed(&self, act: &'static str, source: io::Error) -> StoreError {
        StoreError::blob(self.task, act, source)
    }
}
