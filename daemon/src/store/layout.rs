//! Where things lie in the store's directory. Names are made of validated digests only.
//!
//! ```text
//! DIR/host-id                       who this daemon is, kept over restarts
//! DIR/partial/sha256-<hex>.data     a blob being assembled
//! DIR/partial/sha256-<hex>.pieces   its journal
//! DIR/blobs/sha256-<hex>.data       a blob whose whole digest matched
//! DIR/blobs/sha256-<hex>.pieces
//! DIR/pins/sha256-<hex>             empty: this one is never evicted
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
        let layout = Self { dir: dir.to_owned() };
        layout.restore()?;
        Ok(layout)
    }

    /// Makes directories that are missing.
    pub(super) fn restore(&self) -> io::Result<()> {
        let dir = &self.dir;
        for dir in [dir.clone(), dir.join("partial"), dir.join("blobs"), dir.join("pins")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
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

    pub(super) fn pin(&self, task: &TaskId) -> PathBuf {
        self.dir.join("pins").join(stem(task))
    }

    /// Removes journals whose data is not there: what a crash between two steps leaves.
    pub(super) fn remove_orphans(&self) -> io::Result<()> {
        for dir in [self.dir.join("blobs"), self.dir.join("partial")] {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|kind| kind == "pieces")
                    && !path.with_extension("data").exists()
                {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
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
    let stem = stem(task);
    Paths { data: dir.join(format!("{stem}.data")), pieces: dir.join(format!("{stem}.pieces")) }
}

fn stem(task: &TaskId) -> String {
    format!("{}-{}", task.algorithm().name(), task.hex())
}

fn task_of(name: &str) -> Option<TaskId> {
    name.strip_suffix(".data")?.replacen('-', ":", 1).parse().ok()
}
