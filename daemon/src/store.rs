//! The node's piece store: blobs by digest in one directory, whole or in part, kept over restarts.
//!
//! Not a cache of names or tags, and it knows nothing of peers. Blocking file work; callers on
//! the runtime use `spawn_blocking` where it is more than a few system calls.
//!
//! Invariant: a blob is held (`complete`) only after its whole digest matched here, and the
//! directory says so only after its bytes were synced.

mod blob;
mod care;
mod digesting;
mod inlet;
mod journal;
mod layout;
mod space;
mod writeback;

pub use blob::BlobFile;
pub use digesting::PieceHash;
pub use inlet::{Inlet, Permit};
pub use space::Shelved;

use crate::config::StorageConfig;
use hawker_api::pieces::{Geometry, TooLarge};
use hawker_api::task::TaskId;
use journal::Journal;
use layout::Layout;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;
use space::Shelf;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What can go wrong in the store. Every message names the act and the object.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("open store {dir}: {source}", dir = .dir.display())]
    Open { dir: PathBuf, source: io::Error },
    #[error("{act} blob {task}: {source}")]
    Blob { task: TaskId, act: &'static str, source: io::Error },
    #[error("no space for blob {task}: {detail}")]
    NoSpace { task: TaskId, detail: String },
    #[error("piece {piece} of blob {task} no longer matches its digest on disk")]
    Corrupt { task: TaskId, piece: u32 },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("{act} blob {task}: the store was handed over to another daemon")]
    HandedOver { task: TaskId, act: &'static str },
}

impl StoreError {
    fn blob(task: TaskId, act: &'static str, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace { task, detail: format!("{act}: {source}") };
        }
        Self::Blob { task, act, source }
    }

    /// The disk or the configured capacity is exhausted; the bytes may still be streamed through.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

/// Figures for `/status`.
#[derive(Debug, Clone, Default)]
pub struct StoreReport {
    pub used_bytes: u64,
    pub complete_blobs: u64,
    pub partial_blobs: u64,
    /// The last failure to store something, until something as large was stored again.
    pub error: Option<String>,
}

/// Handle to the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    capacity_bytes: u64,
    shelf: Mutex<Shelf>,
    trouble: Mutex<Option<Trouble>>,
    evicted: Mutex<Vec<TaskId>>,
    /// Another daemon has the directory: it is only read here.
    given_up: AtomicBool,
}

/// What could not be stored, and how large it was: on a full disk small blobs still fit, and are no sign that it is over.
#[derive(Debug)]
struct Trouble {
    error: String,
    bytes: u64,
}

impl Store {
    /// Opens the store, making its directories, and takes stock of what it holds.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(config: &StorageConfig) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { dir: config.dir.clone(), source };
        let layout = Layout::create(&config.dir).map_err(failed)?;
        let mut shelf = Shelf::default();
        for held in [true, false] {
            for task in layout.scan(held).map_err(failed)? {
                let paths = if held { layout.held(&task) } else { layout.partial(&task) };
                match load(&paths).map(|(_, _, geometry, _)| geometry) {
                    Ok(geometry) => {
                        shelf.found(task, geometry.size(), held, modified(&paths.data));
                        shelf.pin(&task, layout.pin(&task).exists());
                    }
                    Err(error) => {
                        tracing::warn!(%task, %error, "dropping a blob that cannot be used");
                        paths.remove().map_err(failed)?;
                    }
                }
            }
        }
        layout.remove_orphans().map_err(failed)?;
        let capacity_bytes = config.capacity.0;
        let (shelf, trouble, evicted) = (Mutex::new(shelf), Mutex::default(), Mutex::default());
        let given_up = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { layout, capacity_bytes, shelf, trouble, evicted, given_up }) })
    }

    pub fn dir(&self) -> &Path {
        self.inner.layout.dir()
    }

    /// Writes nothing from now on: the directory is another daemon's. What is open can still be read.
    pub fn give_up(&self) {
        // Under the shelf's lock: no blob is opened without being frozen.
        let shelf = self.inner.shelf.lock();
        self.inner.given_up.store(true, Ordering::Release);
        shelf.freeze();
    }

    fn may_write(&self, task: &TaskId, act: &'static str) -> Result<(), StoreError> {
        let given_up = self.inner.given_up.load(Ordering::Acquire);
        if given_up { Err(StoreError::HandedOver { task: *task, act }) } else { Ok(()) }
    }

    /// The blob, whole or in part, if there is anything of it.
    ///
    /// # Errors
    /// Its files exist and cannot be opened.
    pub fn get(&self, task: &TaskId) -> Result<Option<Arc<BlobFile>>, StoreError> {
        let mut shelf = self.inner.shelf.lock();
        if let Some(blob) = shelf.opened(task) {
            return Ok(Some(blob));
        }
        let Some(complete) = shelf.state(task) else { return Ok(None) };
        let paths = if complete { self.inner.layout.held(task) } else { self.inner.layout.partial(task) };
        let (file, journal, geometry, digests) = match load(&paths) {
            Ok(loaded) => loaded,
            Err(source) if is_lost(&source) => {
                let lost = StoreError::blob(*task, "open", source);
                tracing::warn!(error = %lost, "a blob's files are no longer there, or no longer its own");
                self.take_off(&mut shelf, task)?;
                self.inner.evicted.lock().push(*task);
                self.note_error(&lost);
                return Ok(None);
            }
            Err(source) => return Err(StoreError::blob(*task, "open", source)),
        };
        let blob = Arc::new(BlobFile::new(*task, geometry, (file, journal), digests, complete));
        shelf.keep_open(Arc::clone(&blob));
        if self.may_write(task, "touch").is_ok() {
            care::touch(blob.file());
        } else {
            blob.freeze();
        }
        Ok(Some(blob))
    }

    /// Starts a blob of `size` bytes (or goes on with what is there of it), with its space reserved.
    ///
    /// # Errors
    /// `NoSpace` where neither the disk nor the capacity, after eviction, has room; `TooLarge`.
    pub fn create(&self, task: &TaskId, size: u64) -> Result<Arc<BlobFile>, StoreError> {
        if let Some(blob) = self.get(task)? {
            if blob.geometry().size() == size {
                return Ok(blob);
            }
            self.remove(task)?;
        }
        self.may_write(task, "create")?;
        let geometry = Geometry::new(size)?;
        let result = self.reserve(task, size).and_then(|()| self.start(task, geometry));
        let mut trouble = self.inner.trouble.lock();
        match &result {
            Err(error) => *trouble = Some(Trouble { error: error.to_string(), bytes: size }),
            Ok(_) if trouble.as_ref().is_some_and(|trouble| trouble.bytes <= size) => *trouble = None,
            Ok(_) => {}
        }
        drop(trouble);
        result
    }

    /// Records that the whole digest matched: the blob is held from now on, synced and renamed.
    ///
    /// # Errors
    /// Syncing or renaming failed; it stays a partial blob on disk.
    pub fn seal(&self, blob: &BlobFile) -> Result<(), StoreError> {
        let task = blob.task();
        self.may_write(&task, "seal")?;
        blob.set_complete();
        blob.sync()?;
        let (partial, held) = (self.inner.layout.partial(&task), self.inner.layout.held(&task));
        let mut shelf = self.inner.shelf.lock();
        partial.rename(&held).map_err(|source| StoreError::blob(task, "seal", source))?;
        shelf.completed(&task);
        Ok(())
    }

    /// Removes a blob; readers that have it open keep what they have.
    ///
    /// # Errors
    /// Its files cannot be deleted.
    pub fn remove(&self, task: &TaskId) -> Result<(), StoreError> {
        self.take_off(&mut self.inner.shelf.lock(), task)
    }

    fn take_off(&self, shelf: &mut Shelf, task: &TaskId) -> Result<(), StoreError> {
        self.may_write(task, "remove")?;
        shelf.forget(task);
        let failed = |source| StoreError::blob(*task, "remove", source);
        for paths in [self.inner.layout.held(task), self.inner.layout.partial(task)] {
            paths.remove().map_err(failed)?;
        }
        unlink(&self.inner.layout.pin(task)).map_err(failed)
    }

    /// Complete blobs with their sizes.
    pub fn held(&self) -> Vec<(TaskId, u64)> {
        self.inner.shelf.lock().complete().collect()
    }

    /// Blobs evicted since the last call, for those who were told that they are held.
    pub fn take_evicted(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.inner.evicted.lock())
    }

    pub fn report(&self) -> StoreReport {
        let mut report = self.inner.shelf.lock().report();
        report.error = self.inner.trouble.lock().as_ref().map(|trouble| trouble.error.clone());
        report
    }

    /// Remembers a failure for the status page.
    pub fn note_error(&self, error: &StoreError) {
        let mut trouble = self.inner.trouble.lock();
        let bytes = trouble.as_ref().map_or(0, |trouble| trouble.bytes);
        *trouble = Some(Trouble { error: error.to_string(), bytes });
    }

    fn reserve(&self, task: &TaskId, size: u64) -> Result<(), StoreError> {
        let capacity = self.inner.capacity_bytes;
        if capacity == 0 {
            return Ok(());
        }
        loop {
            let mut shelf = self.inner.shelf.lock();
            if shelf.used_bytes().saturating_add(size) <= capacity {
                return Ok(());
            }
            let Some(victim) = shelf.least_recently_used() else {
                let detail = format!("{size} bytes do not fit the capacity of {capacity} bytes");
                return Err(StoreError::NoSpace { task: *task, detail });
            };
            tracing::info!(task = %victim, "evicting the least recently used blob");
            self.take_off(&mut shelf, &victim)?;
            self.inner.evicted.lock().push(victim);
        }
    }

    fn start(&self, task: &TaskId, geometry: Geometry) -> Result<Arc<BlobFile>, StoreError> {
        let paths = self.inner.layout.partial(task);
        let made = || -> io::Result<(File, Journal)> {
            let data = create(&paths.data)?;
            allocate(&data, geometry.size())?;
            Ok((data, Journal::create(create(&paths.pieces)?, geometry.size())?))
        };
        let files = made().or_else(|source| {
            // Somebody removed the directories under our feet.
            if source.kind() == io::ErrorKind::NotFound {
                self.inner.layout.restore().and_then(|()| made())
            } else {
                Err(source)
            }
        });
        let files = files.map_err(|source| {
            if let Err(error) = paths.remove() {
                tracing::warn!(%task, %error, "remove what a failed start left");
            }
            StoreError::blob(*task, "create", source)
        })?;
        let digests = vec![None; geometry.count() as usize];
        let blob = Arc::new(BlobFile::new(*task, geometry, files, digests, false));
        let mut shelf = self.inner.shelf.lock();
        shelf.found(*task, geometry.size(), false, std::time::SystemTime::now());
        shelf.keep_open(Arc::clone(&blob));
        Ok(blob)
    }
}

/// What was there is not, or is something else: nothing that trying again would change.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

type Loaded = (File, Journal, Geometry, Vec<Option<hawker_api::pieces::PieceDigest>>);

fn load(paths: &layout::Paths) -> io::Result<Loaded> {
    let open = |path| OpenOptions::new().read(true).write(true).open(path);
    let data = open(&paths.data)?;
    let (journal, geometry, digests) = Journal::load(open(&paths.pieces)?)?;
    if data.metadata()?.len() != geometry.size() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "data file has another length than its journal says",
        ));
    }
    Ok((data, journal, geometry, digests))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Reserves the space now, so that a full disk shows before the first byte and not after the last.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    let length = i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if length > 0 {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            // Not every file system can; there the writes will tell.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(size)
}

/// Removes a file that may not be there.
fn unlink(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn modified(path: &Path) -> std::time::SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(std::time::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
