//! What Hawker changed on this node: the memory that makes a second run change nothing and `--revert` exact; and
//! the files as they would be without it ([`Base`]).
//!
//! Invariant: the memory is on disk before the first file it speaks of is changed.

use crate::containerd::config::without_endpoints;
use crate::disk::Disk;
use crate::docker::without_mirror;
use crate::files::{Files, FilesError};
use crate::plan::{Effect, Kind};
use crate::toml_text::without_marked;
use crate::wanted::Runtime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Beside the store, on the same mount as the files it is about.
pub(crate) const STATE: &str = "/var/lib/hawker/runtimes.json";
/// It holds copies of files that may hold passwords.
const MODE: u32 = 0o600;
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    pub(crate) mirror: SocketAddr,
    pub(crate) files: BTreeMap<PathBuf, Touched>,
    /// Directories that were not there.
    pub(crate) dirs: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Touched {
    /// `None`: there was no file.
    pub(crate) original: Option<String>,
    /// SHA-256 of what was written, hexadecimal.
    pub(crate) written: String,
    pub(crate) kind: Kind,
    pub(crate) readers: Vec<(Runtime, Effect)>,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("{STATE}: {source}: remove it only if no runtime's file was changed by hawkerd")]
    Damaged { source: serde_json::Error },
    #[error("{STATE} was written by another version of hawkerd (format {format})")]
    Format { format: u32 },
    #[error("write {STATE}: {source}")]
    Write { source: io::Error },
}

impl State {
    pub(crate) fn empty(mirror: SocketAddr) -> Self {
        Self { format: FORMAT, mirror, files: BTreeMap::new(), dirs: BTreeSet::new() }
    }

    pub(crate) fn load(disk: &Disk) -> Result<Option<Self>, StateError> {
        let Some(text) = disk.read(Path::new(STATE))? else { return Ok(None) };
        let state: Self = serde_json::from_str(&text).map_err(|source| StateError::Damaged { source })?;
        if state.format == FORMAT {
            Ok(Some(state))
        } else {
            Err(StateError::Format { format: state.format })
        }
    }

    /// Saves; with nothing left to remember, removes.
    pub(crate) fn save(&self, disk: &Disk) -> Result<(), StateError> {
        let failed = |source| StateError::Write { source };
        let path = Path::new(STATE);
        if self.files.is_empty() && self.dirs.is_empty() {
            return disk.remove(path).map_err(failed);
        }
        if let Some(dir) = path.parent() {
            disk.make_dir(dir).map_err(failed)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|source| StateError::Damaged { source })?;
        disk.write(path, &text, MODE).map_err(failed)
    }
}

pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The node's files without what [`State`] says was written there.
pub(crate) struct Base<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) state: &'a State,
}

impl Base<'_> {
    /// Whether somebody else changed a file after it was written.
    pub(crate) fn changed_since(&self, path: &Path) -> Result<bool, FilesError> {
        let Some(touched) = self.state.files.get(path) else { return Ok(false) };
        let now = self.disk.read(path)?;
        Ok(now != touched.original && now.as_deref().is_none_or(|text| digest(text) != touched.written))
    }

    fn withdrawn(&self, kind: Kind, text: &str) -> Option<String> {
        let left = match kind {
            Kind::Marked => without_marked(text).unwrap_or_else(|| text.to_owned()),
            Kind::ContainerdConfig => without_endpoints(text, self.state.mirror),
            Kind::DockerDaemon => without_mirror(text, self.state.mirror),
        };
        (kind != Kind::Marked || !left.trim().is_empty()).then_some(left)
    }
}

impl Files for Base<'_> {
    fn read(&self, path: &Path) -> Result<Option<String>, FilesError> {
        let now = self.disk.read(path)?;
        let Some(touched) = self.state.files.get(path) else { return Ok(now) };
        match now {
            Some(text) if digest(&text) == touched.written => Ok(touched.original.clone()),
            Some(text) if Some(&text) != touched.original.as_ref() => Ok(self.withdrawn(touched.kind, &text)),
            now => Ok(now),
        }
    }

    fn list(&self, dir: &Path) -> Result<Option<Vec<String>>, FilesError> {
        let Some(names) = self.disk.list(dir)? else { return Ok(None) };
        let mut kept = Vec::new();
        for name in names {
            let path = dir.join(&name);
            let ours = if self.state.files.contains_key(&path) {
                self.read(&path)?.is_none()
            } else {
                self.state.dirs.contains(&path) && self.list(&path)?.is_none()
            };
            if !ours {
                kept.push(name);
            }
        }
        let ours = self.state.dirs.contains(dir) && kept.is_empty();
        Ok((!ours).then_some(kept))
    }
}
