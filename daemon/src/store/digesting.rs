//! The digest of a piece that is being written: computed behind the writer, on another core where one is idle.
//!
//! Invariant: bytes are hashed once, in order, and only after they were written.

use super::{BlobFile, StoreError};
use crate::mapping::Window;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A digest of pieces.
pub trait PieceHash: Send + 'static {
    fn update(&mut self, bytes: &[u8]);
}

impl PieceHash for blake3::Hasher {
    fn update(&mut self, bytes: &[u8]) {
        blake3::Hasher::update(self, bytes);
    }
}

/// Threads that write or hash pieces now.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Counts this thread among those that write or hash.
pub(super) struct Busy;

impl Busy {
    pub(super) fn enter() -> Self {
        BUSY.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// If a core is left over. Two may see the same one: nothing is lost by it but a bit of time.
    fn enter_if_idle() -> Option<Self> {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
        (BUSY.load(Ordering::Relaxed) < cores).then(Self::enter)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) struct Digesting<H> {
    blob: Arc<BlobFile>,
    /// End of what was written.
    written: AtomicU64,
    /// Somebody else hashes.
    helped: AtomicBool,
    hashed: Mutex<Hashed<H>>,
}

struct Hashed<H> {
    /// Gone when it was taken.
    hasher: Option<H>,
    at: u64,
    end: u64,
    window: Option<Window>,
}

impl<H: PieceHash> Digesting<H> {
    pub(super) fn new(blob: Arc<BlobFile>, piece: Range<u64>, hasher: H) -> Self {
        let hashed = Hashed { hasher: Some(hasher), at: piece.start, end: piece.end, window: None };
        let (written, helped) = (AtomicU64::new(piece.start), AtomicBool::new(false));
        Self { blob, written, helped, hashed: Mutex::new(hashed) }
    }

    /// Hashes bytes that were written at `offset` and are at hand.
    pub(super) fn add(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let mut hashed = self.hashed.lock();
        hashed.catch_up(&self.blob, offset)?;
        if let Some(hasher) = &mut hashed.hasher {
            hasher.update(bytes);
        }
        hashed.at = offset + bytes.len() as u64;
        Ok(())
    }

    /// Everything up to `end` is written. If `more` is waiting to be written, another core hashes, if one is idle.
    pub(super) fn go_on(self: &Arc<Self>, end: u64, more: bool) -> Result<(), String> {
        self.written.store(end, Ordering::Release);
        if self.helped.load(Ordering::Acquire) {
            return Ok(());
        }
        match if more { Busy::enter_if_idle() } else { None } {
            Some(busy) => {
                self.helped.store(true, Ordering::Release);
                let helping = Arc::clone(self);
                tokio::task::spawn_blocking(move || {
                    helping.help();
                    drop(busy);
                });
                Ok(())
            }
            None => self.hashed.lock().catch_up(&self.blob, end),
        }
    }

    fn help(&self) {
        let mut hashed = self.hashed.lock();
        while hashed.at < self.written.load(Ordering::Acquire) {
            let end = self.written.load(Ordering::Acquire);
            // What fails here fails again when the digest is asked for.
            if hashed.catch_up(&self.blob, end).is_err() {
                break;
            }
        }
        drop(hashed);
        self.helped.store(false, Ordering::Release);
    }

    /// The hasher, if nobody works on it and it is at `end` already.
    pub(super) fn take_if_at(&self, end: u64) -> Option<H> {
        let mut hashed = self.hashed.try_lock()?;
        if hashed.at == end { hashed.hasher.take() } else { None }
    }

    /// The hasher, with everything up to `end`.
    pub(super) fn finish(&self, end: u64) -> Result<H, String> {
        let mut hashed = self.hashed.lock();
        hashed.catch_up(&self.blob, end)?;
        hashed.hasher.take().ok_or_else(|| "the digest was taken before".to_owned())
    }
}

impl<H: PieceHash> Hashed<H> {
    fn catch_up(&mut self, blob: &BlobFile, end: u64) -> Result<(), String> {
        if self.at >= end {
            return Ok(());
        }
        let Some(hasher) = &mut self.hasher else { return Ok(()) };
        let shown = blob.show(self.at..end, self.end, &mut self.window, |bytes| hasher.update(bytes));
        if let Err(error) = shown {
            // What was hashed since counts for nothing.
            self.hasher = None;
            return Err(StoreError::to_string(&error));
        }
        self.at = end;
        if self.at == self.end {
            self.window = None;
        }
        Ok(())
    }
}
