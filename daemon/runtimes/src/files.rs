//! How planners see a node's files: whole small files and the names in a directory, by the paths the runtime
//! itself uses. Two implementations beside the disk's own: [`Memory`] here, and the base without Hawker's
//! edits (`state`).
//!
//! Invariant: a missing file is `None`, never an error.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Largest file read, bytes: runtimes' configuration files have a few KiB.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("read {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has {bytes} bytes, more than {MAX_FILE_BYTES}: that is no configuration file", path = .path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{path} is not UTF-8", path = .path.display())]
    NotText { path: PathBuf },
}

pub trait Files {
    /// The text of a file; `None` where there is none.
    ///
    /// # Errors
    /// [`FilesError`] names the file.
    fn read(&self, path: &Path) -> Result<Option<String>, FilesError>;

    /// The names in a directory, sorted; `None` where there is none.
    ///
    /// # Errors
    /// [`FilesError`] names the directory.
    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, FilesError>;
}

/// Files that exist in memory only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory(pub BTreeMap<PathBuf, String>);

impl Memory {
    #[must_use]
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> Result<Option<String>, FilesError> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, FilesError> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(dir).ok()?.components().next());
        let mut names: Vec<_> = below.map(|first| first.as_os_str().to_string_lossy().into_owned()).collect();
        names.sort();
        names.dedup();
        Ok((!names.is_empty()).then_some(names))
    }
}
