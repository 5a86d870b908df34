//! A node's files under a root directory: `/`, or where an init container has it mounted.
//!
//! Invariant: a write replaces a whole file at once or not at all, and keeps its mode and owner; symbolic links
//! are followed inside the root.

use crate::files::{Files, FilesError, MAX_FILE_BYTES};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Most symbolic links followed from one path.
const MAX_LINKS: usize = 16;

pub(crate) struct Disk {
    root: PathBuf,
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn is_whole_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the node is for us, links of its last element followed.
    pub(crate) fn locate(&self, path: &Path) -> PathBuf {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let Ok(target) = fs::read_link(self.join(&path)) else { break };
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        self.join(&path)
    }

    fn join(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.locate(path).exists()
    }

    /// Writes a file; a new one gets `mode`.
    pub(crate) fn write(&self, path: &Path, text: &str, mode: u32) -> io::Result<()> {
        let target = self.locate(path);
        let dir = target.parent().unwrap_or(Path::new("/"));
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let draft = dir.join(format!(".{name}.hawker-{}", std::process::id()));
        let old = fs::metadata(&target).ok();
        let written = Self::write_draft(&draft, text, mode, old.as_ref());
        let renamed = written.and_then(|()| fs::rename(&draft, &target));
        if renamed.is_err() {
            let _ = fs::remove_file(&draft);
        }
        renamed?;
        File::open(dir)?.sync_all()
    }

    fn write_draft(draft: &Path, text: &str, mode: u32, old: Option<&fs::Metadata>) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
        file.write_all(text.as_bytes())?;
        if let Some(old) = old {
            let now = file.metadata()?;
            if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        let mode = old.map_or(mode, |old| old.mode() & 0o7777);
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(self.locate(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The directories that [`Self::make_dir`] would have to make, outermost first.
    pub(crate) fn missing_dirs(&self, dir: &Path) -> Vec<PathBuf> {
        let mut missing: Vec<_> =
            dir.ancestors().take_while(|ancestor| !self.exists(ancestor)).map(Path::to_owned).collect();
        missing.reverse();
        missing
    }

    pub(crate) fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(self.locate(dir))
    }

    /// Removes a directory if nothing is in it.
    pub(crate) fn remove_empty_dir(&self, dir: &Path) {
        // Not empty or gone: both are as wanted.
        let _ = fs::remove_dir(self.locate(dir));
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Option<String>, FilesError> {
        let failed = |source| FilesError::Read { path: path.to_owned(), source };
        let target = self.locate(path);
        let bytes = match fs::metadata(&target) {
            Ok(metadata) => metadata.len(),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if bytes > MAX_FILE_BYTES {
            return Err(FilesError::TooLarge { path: path.to_owned(), bytes });
        }
        let bytes = fs::read(&target).map_err(failed)?;
        String::from_utf8(bytes).map(Some).map_err(|_| FilesError::NotText { path: path.to_owned() })
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, FilesError> {
        let failed = |source| FilesError::Read { path: dir.to_owned(), source };
        let entries = match fs::read_dir(self.locate(dir)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<io::Result<_>>().map_err(failed)?;
        names.sort();
        Ok(Some(names))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
