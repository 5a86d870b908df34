//! Where things lie in the store's directory. Names are made of validated digests only.
//!
//! ```text
//! DIR/host-id                       who this daemon is, kept over restarts
//! DIR/partial/sha256-<hex>.data     a blob being assembled
//! DIR/partial/sha256-<hex>.pieces   its journal
//! DIR/blobs/sha256-<hex>.data       a blob whose whole digest matched
//! DIR/blobs/sha256-<hex>.pieces
//! ```
//!
//! Invariant: a data file in `blobs/` was complete, verified and on disk before it got its name.

use hawker_api::task::TaskId;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The two files of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) data: PathBuf,
    pub(super) pieces: PathBuf,
}

#[derive(Debug, Clone)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Makes the directories, readable by the daemon alone also where they existed before.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        for dir in [dir.to_owned(), dir.join("partial"), dir.join("blobs")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn partial(&self, task: &TaskId) -> Paths {
        paths(&self.dir.join("partial"), task)
    }

    pub(super) fn held(&self, task: &TaskId) -> Paths {
        paths(&self.dir.join("blobs"), task)
    }

    /// Tasks with a data file in `blobs/` (`true`) or `partial/` (`false`).
    pub(super) fn scan(&self, held: bool) -> io::Result<Vec<TaskId>> {
        let dir = self.dir.join(if held { "blobs" } else { "partial" });
        let mut tasks = Vec::new();
        for entry in fs::read_dir(dir)? {
            tasks.extend(entry?.file_name().to_str().and_then(task_of));
        }
        Ok(tasks)
    }
}

impl Paths {
    /// Removes both files, data first: a journal alone is nothing.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in [&self.data, &self.pieces] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives both files their new names, journal first: data in the new place has its journal there.
    pub(super) fn rename(&self, to: &Self) -> io::Result<()> {
        fs::rename(&self.pieces, &to.pieces)?;
        fs::rename(&self.data, &to.data)?;
        if let Some(parent) = to.data.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

fn paths(dir: &Path, task: &TaskId) -> Paths {
    let stem = format!("{}-{}", task.algorithm().name(), task.hex());
    Paths { data: dir.join(format!("{stem}.data")), pieces: dir.join(format!("{stem}.pieces")) }
}

fn task_of(name: &str) -> Option<TaskId> {
    name.strip_suffix(".data")?.replacen('-', ":", 1).parse().ok()
}
