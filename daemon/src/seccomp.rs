//! `hawkerd seccomp-profile`: the list of system calls the daemon makes, in the words of the OCI runtime specification, for
//! the kubelet's directory of profiles.
//!
//! It is part of the program so that the two fit each other on every node. Not a filter that the daemon puts on itself:
//! the container runtime does that, before the daemon starts.
//!
//! Invariant: without any argument nothing is written; a file is replaced at once or not at all.

use clap::Args;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The profile: io_uring and bpf are in it, new namespaces and mounts are not.
pub const PROFILE: &str = include_str!("../../deploy/seccomp/hawkerd.json");

/// Print the daemon's seccomp profile, or put it where the kubelet looks for it.
#[derive(Debug, Args)]
pub struct SeccompProfile {
    /// Write it to this file, and make its directory.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// The profile could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{act} {path}: {source}", path = .path.display())]
pub struct SeccompError {
    act: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SeccompProfile {
    /// What to print.
    ///
    /// # Errors
    /// [`SeccompError`] names the file that cannot be written.
    pub fn run(&self) -> Result<String, SeccompError> {
        let Some(path) = &self.to else { return Ok(PROFILE.to_owned()) };
        write(path)?;
        Ok(format!("wrote {}\n", path.display()))
    }
}

fn write(path: &Path) -> Result<(), SeccompError> {
    let failed = |act, path: &Path| {
        let path = path.to_owned();
        move |source| SeccompError { act, path, source }
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed("make directory", dir))?;
    let draft = path.with_extension(format!("hawker-{}", std::process::id()));
    fs::write(&draft, PROFILE).map_err(failed("write", &draft))?;
    fs::rename(&draft, path).map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn names(profile: &Value) -> Vec<&str> {
        let rules = profile["syscalls"].as_array().unwrap();
        rules
            .iter()
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    #[test]
    fn what_the_daemon_needs_is_in_it_and_what_leads_out_is_not() {
        let profile: Value = serde_json::from_str(PROFILE).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let names = names(&profile);
        for needed in ["io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "splice", "execve"] {
            assert!(names.contains(&needed), "{needed}");
        }
        for denied in [
            "mount",
            "umount2",
            "ptrace",
            "setns",
            "unshare",
            "pivot_root",
            "init_module",
            "keyctl",
            "chroot",
        ] {
            assert!(!names.contains(&denied), "{denied}");
        }
    }

    #[test]
    fn it_is_written_whole_into_a_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hawker/hawkerd.json");
        let said = SeccompProfile { to: Some(path.clone()) }.run().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), PROFILE);
        assert!(said.contains("hawker/hawkerd.json"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let error = SeccompProfile { to: Some(path.join("below")) }.run().unwrap_err().to_string();
        assert!(error.contains("hawkerd.json"), "{error}");
    }
}
