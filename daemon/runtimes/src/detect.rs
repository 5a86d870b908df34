//! Which runtimes a node has, by the files and programs they bring.
//!
//! Invariant: nothing is started but `containerd --version`, and that only on the machine itself.

use crate::disk::Disk;
use crate::wanted::{Runtime, Version};
use std::path::Path;
use std::process::Command;

pub(crate) fn runtimes(disk: &Disk) -> Vec<Runtime> {
    Runtime::ALL
        .into_iter()
        .filter(|runtime| traces(*runtime).iter().any(|path| disk.exists(Path::new(path))))
        .collect()
}

/// What a runtime leaves on a node.
pub(crate) fn traces(runtime: Runtime) -> &'static [&'static str] {
    match runtime {
        Runtime::Containerd => &[
            "/etc/containerd",
            "/usr/bin/containerd",
            "/usr/local/bin/containerd",
            "/run/containerd/containerd.sock",
        ],
        Runtime::Crio => &["/etc/crio", "/usr/bin/crio", "/usr/local/bin/crio", "/run/crio/crio.sock"],
        Runtime::Podman => &["/usr/bin/podman", "/usr/local/bin/podman"],
        Runtime::Docker => &["/etc/docker", "/usr/bin/dockerd", "/usr/local/bin/dockerd", "/run/docker.sock"],
    }
}

/// `None`: cannot be asked, or not understood.
pub(crate) fn containerd_version(disk: &Disk) -> Option<Version> {
    if !disk.is_whole_machine() {
        return None;
    }
    let output = Command::new("containerd").arg("--version").output().ok()?;
    // "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(2)?.parse().ok()
}
