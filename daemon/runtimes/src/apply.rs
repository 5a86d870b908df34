//! Brings the files on disk to what a plan wants, and back.
//!
//! Invariant: what is planned is compared with what is there, so a second run finds nothing to do; a crash
//! between two steps loses nothing, because the originals were saved first.

use crate::disk::Disk;
use crate::files::{Files, FilesError};
use crate::plan::{Effect, Plan};
use crate::state::{Base, STATE, State, StateError, Touched, digest};
use crate::wanted::Runtime;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Mode of files that are new: runtimes' configuration is readable by all.
const MODE: u32 = 0o644;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("make directory {path}: {source}", path = .path.display())]
    MakeDir { path: PathBuf, source: io::Error },
    #[error("write {path}: {source}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("remove {path}: {source}", path = .path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// What is done to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) path: PathBuf,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) what: String,
}

/// All that is to be done.
pub(crate) struct Steps {
    pub(crate) steps: Vec<Step>,
    /// What each runtime needs before it counts.
    pub(crate) effects: BTreeMap<Runtime, Effect>,
    pub(crate) notices: Vec<String>,
    next: State,
}

/// Compares the plan, which names `mirror`, with the disk. An empty plan is a revert.
pub(crate) fn steps(
    disk: &Disk,
    state: &State,
    plan: &Plan,
    mirror: SocketAddr,
) -> Result<Steps, FilesError> {
    let base = Base { disk, state };
    let mut next = State::empty(mirror);
    next.dirs.clone_from(&state.dirs);
    let mut found =
        Steps { steps: Vec::new(), effects: BTreeMap::new(), notices: plan.notices.clone(), next };
    let planned: BTreeSet<&Path> = plan.files.iter().map(|desired| desired.path.as_path()).collect();
    for desired in &plan.files {
        let original = base.read(&desired.path)?;
        if original.as_ref() == Some(&desired.text) {
            found.step(disk, &desired.path, original, "as it was", &desired.readers)?;
            continue;
        }
        found.step(disk, &desired.path, Some(desired.text.clone()), &desired.what, &desired.readers)?;
        let (written, readers) = (digest(&desired.text), desired.readers.clone());
        let touched = Touched { original, written, kind: desired.kind, readers };
        found.next.files.insert(desired.path.clone(), touched);
    }
    for (path, touched) in state.files.iter().filter(|(path, _)| !planned.contains(path.as_path())) {
        if base.changed_since(path)? {
            found.notices.push(format!(
                "{}: changed by somebody else since; only what is Hawker's was taken out",
                path.display()
            ));
        }
        found.step(disk, path, base.read(path)?, "as it was", &touched.readers)?;
    }
    Ok(found)
}

impl Steps {
    fn step(
        &mut self,
        disk: &Disk,
        path: &Path,
        after: Option<String>,
        what: &str,
        readers: &[(Runtime, Effect)],
    ) -> Result<(), FilesError> {
        let before = disk.read(path)?;
        if before == after {
            return Ok(());
        }
        self.steps.push(Step { path: path.to_owned(), before, after, what: what.to_owned() });
        for (runtime, effect) in readers {
            let known = self.effects.entry(*runtime).or_insert(*effect);
            *known = (*known).max(*effect);
        }
        Ok(())
    }

    /// Does it.
    pub(crate) fn apply(mut self, disk: &Disk, old: &State) -> Result<Self, ApplyError> {
        if self.steps.is_empty() && self.next.files == old.files {
            return Ok(self);
        }
        let needed =
            self.steps.iter().filter(|step| step.after.is_some()).filter_map(|step| step.path.parent());
        let needed = needed.chain(Path::new(STATE).parent());
        let dirs: BTreeSet<PathBuf> = needed.flat_map(|dir| disk.missing_dirs(dir)).collect();
        self.next.dirs.extend(dirs.iter().cloned());
        // First the memory of both, so that a crash in the middle can be undone and gone on with.
        let mut both = self.next.clone();
        for (path, touched) in &old.files {
            both.files.entry(path.clone()).or_insert_with(|| touched.clone());
        }
        both.save(disk)?;
        for dir in &dirs {
            disk.make_dir(dir).map_err(|source| ApplyError::MakeDir { path: dir.clone(), source })?;
        }
        for Step { path, after, .. } in &self.steps {
            match after {
                Some(text) => {
                    disk.write(path, text, MODE)
                        .map_err(|source| ApplyError::Write { path: path.clone(), source })?;
                }
                None => {
                    disk.remove(path).map_err(|source| ApplyError::Remove { path: path.clone(), source })?;
                }
            }
        }
        self.tidy_dirs(disk)?;
        Ok(self)
    }

    /// Saves the new memory; directories that were made for files which are gone go too, innermost first.
    fn tidy_dirs(&mut self, disk: &Disk) -> Result<(), StateError> {
        let files = self.next.files.keys().map(PathBuf::as_path);
        let memory = (!self.next.files.is_empty()).then_some(Path::new(STATE));
        let kept: Vec<&Path> = files.chain(memory).collect();
        let unused = |dir: &&PathBuf| !kept.iter().any(|path| path.starts_with(dir));
        let unused: Vec<PathBuf> = self.next.dirs.iter().rev().filter(unused).cloned().collect();
        self.next.dirs.retain(|dir| !unused.contains(dir));
        self.next.save(disk)?;
        unused.iter().for_each(|dir| disk.remove_empty_dir(dir));
        Ok(())
    }
}
