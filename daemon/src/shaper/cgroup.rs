//! The daemon's own cgroup (version 2): what the programs are attached to, so that they see the daemon's sockets and
//! no others'.
//!
//! Where the process is alone in its cgroup (a service, a container) that one is used; otherwise one is made below
//! it and joined, and removed at the end. Sockets belong for ever to the cgroup they were made in.
//!
//! Invariant: only groups called [`PREFIX`] are removed, and the kernel removes none that has a process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the groups made here, before the number of the process.
const PREFIX: &str = "hawkerd-";
/// A group may be taken for a stale one by another daemon between its making and its joining.
const ATTEMPTS: u32 = 3;

/// Why there is no cgroup for the daemon.
#[derive(Debug, thiserror::Error)]
pub(super) enum CgroupError {
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    #[error("/proc/self/cgroup names no group of version 2")]
    NoGroup,
    #[error("the process is in a group outside the mounted ones: {0}")]
    Outside(String),
    #[error("{act} {path}: {source}", path = .path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
}

/// The group, and how to leave it.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    file: File,
    /// Where the process goes at the end.
    former: Option<PathBuf>,
    /// It is not for this value to leave it.
    left: AtomicBool,
}

impl Cgroup {
    /// Finds or makes the daemon's own group and joins it. Before the first socket.
    ///
    /// # Errors
    /// [`CgroupError`]
    pub(super) fn join() -> Result<Self, CgroupError> {
        let (current, is_root) = (current()?, current_is_root()?);
        if is_alone(&current, is_root)? {
            return Self::open(current, None);
        }
        remove_stale(&current);
        let path = current.join(format!("{PREFIX}{}", std::process::id()));
        let mut attempt = 1;
        loop {
            match make_and_join(&path) {
                Ok(()) => return Self::open(path, Some(current)),
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Joins the group of the daemon before, whose sockets are in it, to be left for `former`. Where that cannot be (another
    /// container), it has its own as any other; `true`: the group is the same.
    ///
    /// # Errors
    /// [`CgroupError`]
    pub(super) fn follow(group: &Path, former: Option<PathBuf>) -> Result<(Self, bool), CgroupError> {
        let current = current()?;
        let joined = if group == current {
            Ok(())
        } else {
            fs::write(group.join("cgroup.procs"), "0").map_err(failed("join", group))
        };
        match joined {
            Ok(()) => Ok((Self::open(group.to_owned(), former.or(Some(current)))?, true)),
            Err(error) => {
                tracing::info!(%error, "a cgroup of its own");
                Self::join().map(|own| (own, false))
            }
        }
    }

    fn open(path: PathBuf, former: Option<PathBuf>) -> Result<Self, CgroupError> {
        let file = File::open(&path).map_err(failed("open", &path))?;
        Ok(Self { path, file, former, left: AtomicBool::new(false) })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn former(&self) -> Option<&Path> {
        self.former.as_deref()
    }

    /// Another daemon, or another part of this process, is in the group now.
    pub(super) fn leave_to_others(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let Some(former) = &self.former else { return };
        if *former == self.path || self.left.load(Ordering::Relaxed) {
            return;
        }
        let ours = self.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let left = fs::write(former.join("cgroup.procs"), "0");
        let left = left.and_then(|()| if ours { fs::remove_dir(&self.path) } else { Ok(()) });
        if let Err(error) = left {
            tracing::debug!(cgroup = %self.path.display(), %error, "leave and remove the daemon's cgroup");
        }
    }
}

/// The group this process is in.
fn current() -> Result<PathBuf, CgroupError> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    Ok(mounted()?.join(group(&own)?.trim_start_matches('/')))
}

fn current_is_root() -> Result<bool, CgroupError> {
    Ok(mounted()? == current()?)
}

fn mounted() -> Result<PathBuf, CgroupError> {
    let mounts = read(Path::new("/proc/self/mounts"))?;
    mount(&mounts).ok_or(CgroupError::NotMounted)
}

fn make_and_join(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make", path)(error));
        }
        _ => {}
    }
    // "0" is the process that writes, all its threads.
    fs::write(path.join("cgroup.procs"), "0").map_err(|error| {
        let _ = fs::remove_dir(path);
        failed("join", path)(error)
    })
}

/// Groups of daemons that were killed: empty, so that removing them succeeds.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && fs::remove_dir(entry.path()).is_ok() {
            tracing::info!(cgroup = %entry.path().display(), "removed the cgroup of a daemon that was killed");
        }
    }
}

/// Whether no other process is in the group or below it.
fn is_alone(path: &Path, is_root: bool) -> Result<bool, CgroupError> {
    // The root of a container's own view has the files of any other group; that of the machine has no type.
    if is_root && !path.join("cgroup.type").exists() {
        return Ok(false);
    }
    let processes = read(&path.join("cgroup.procs"))?;
    let own = std::process::id().to_string();
    if processes.lines().any(|line| line != own) {
        return Ok(false);
    }
    let entries = fs::read_dir(path).map_err(failed("list", path))?;
    Ok(!entries.flatten().any(|entry| entry.path().is_dir()))
}

/// Where version 2 is mounted: alone, or beside version 1.
fn mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
    })
}

fn group(own: &str) -> Result<&str, CgroupError> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NoGroup)?;
    if path.starts_with("/..") || path.ends_with(" (deleted)") {
        return Err(CgroupError::Outside(path.to_owned()));
    }
    Ok(path)
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError::Io { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_beside_version_1() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0"), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount("tmpfs /a\\040b tmpfs rw"), None);
    }

    #[test]
    fn the_group_is_the_one_without_controllers() {
        assert_eq!(
            group("1:cpu:/x\n0::/system.slice/hawkerd.service\n").unwrap(),
            "/system.slice/hawkerd.service"
        );
        assert!(matches!(group("1:cpu:/x\n"), Err(CgroupError::NoGroup)));
        assert!(matches!(group("0::/../other\n"), Err(CgroupError::Outside(_))));
    }
}
