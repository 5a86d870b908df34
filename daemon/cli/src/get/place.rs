//! How a file gets from the daemon's store to its place: as a clone, a hard link, or by copying.
//!
//! A clone shares the blocks on disk and nothing else (btrfs, XFS, …). A hard link is the same file: whoever writes to it spoils the
//! daemon's copy, so it is made only on request, and without write permission.
//!
//! Invariant: whichever way, the place holds the whole file or nothing.

use super::part::Part;
use super::transfer::{Head, Transfer};
use crate::daemon::Daemon;
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the daemon may take to write a file to the disk that it has all of; much of it is there before.
const KEPT_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Permissions of a hard link.
const READ_ONLY: u32 = 0o444;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// A clone where the file system has them and the store may be read, else a copy.
    Auto,
    /// Always a copy.
    Copy,
    /// A hard link to the daemon's own file, or an error.
    HardLink,
}

pub(super) fn into(daemon: &Daemon, transfer: &Transfer<'_>, target: &Path, how: How) -> Result<()> {
    let head = transfer.head()?;
    if how == How::HardLink && !transfer.is_whole() {
        anyhow::bail!("a range of a file cannot be a hard link");
    }
    if how != How::Copy && transfer.is_whole() {
        let store = Store::of(daemon, &head);
        let store = if how == How::HardLink { Some(store?) } else { store.ok() };
        if let Some(store) = store.filter(|store| how == How::HardLink || store.clones_to(target)) {
            transfer.wait(&head)?;
            store.kept_by(daemon)?;
            return match how {
                How::HardLink => store.link(target),
                _ => store.clone_to(target),
            };
        }
    }
    // A range of it is another version of the part.
    let version = if transfer.is_whole() { head.version.clone() } else { format!("{} range", head.version) };
    let digest = transfer.digest().or_else(|| head.digest()).filter(|_| transfer.is_whole());
    let mut part = Part::open(target, &version, digest)?;
    transfer.to_part(&head, &mut part)?;
    part.complete()
}

/// The daemon's file of a task, where this user may read it.
struct Store {
    task: String,
    blobs: PathBuf,
    data: PathBuf,
}

impl Store {
    fn of(daemon: &Daemon, head: &Head) -> Result<Self> {
        head.known_size()?;
        let status = daemon.status()?;
        let dir =
            status.pointer("/store/dir").and_then(|dir| dir.as_str()).context("the daemon names no store")?;
        let blobs = Path::new(dir).join("blobs");
        std::fs::read_dir(&blobs).with_context(|| format!("read {}", blobs.display()))?;
        let (algorithm, hex) =
            head.version.trim_matches('"').split_once(':').context("the version is no task")?;
        let plain = hex.bytes().all(|byte| byte.is_ascii_hexdigit())
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then_some(()).context("the version is no task")?;
        let data = blobs.join(format!("{algorithm}-{hex}.data"));
        Ok(Self { task: format!("{algorithm}:{hex}"), blobs, data })
    }

    /// Waits until the daemon has put it in its place: it gives the last byte as soon as all are proven, and writes them to
    /// the disk after that.
    fn kept_by(&self, daemon: &Daemon) -> Result<()> {
        let until = Instant::now() + KEPT_WITHIN;
        loop {
            let stored = daemon.stored()?.into_iter().find(|blob| blob.task == self.task);
            let stored = stored.with_context(|| format!("the daemon did not keep {}", self.task))?;
            if stored.complete {
                return Ok(());
            }
            if Instant::now() > until {
                anyhow::bail!("the daemon did not write {} within {} s", self.task, KEPT_WITHIN.as_secs());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Tries it with a file of its own, before anything is fetched.
    fn clones_to(&self, target: &Path) -> bool {
        let probe = beside(target, "probe");
        let source = self.blobs.with_file_name(".clone-probe");
        let cloned = std::fs::write(&source, b"x").and_then(|()| reflink_copy::reflink(&source, &probe));
        for path in [source, probe] {
            // Where it was not made there is nothing to remove.
            let _ = std::fs::remove_file(path);
        }
        cloned.is_ok()
    }

    fn clone_to(&self, target: &Path) -> Result<()> {
        let made = beside(target, "clone");
        let _ = std::fs::remove_file(&made);
        reflink_copy::reflink(&self.data, &made)
            .and_then(|()| std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o644)))
            .and_then(|()| std::fs::rename(&made, target))
            .with_context(|| format!("clone {} to {}", self.data.display(), target.display()))
    }

    fn link(&self, target: &Path) -> Result<()> {
        let made = beside(target, "link");
        let _ = std::fs::remove_file(&made);
        std::fs::hard_link(&self.data, &made)
            .and_then(|()| std::fs::set_permissions(&made, std::fs::Permissions::from_mode(READ_ONLY)))
            .and_then(|()| std::fs::rename(&made, target))
            .with_context(|| format!("link {} to {}", self.data.display(), target.display()))
    }
}

fn beside(target: &Path, what: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}.{what}", std::process::id()))
}
