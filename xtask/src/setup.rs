//! What this machine must have: Debian packages, installed where that is possible, else named.
//!
//! Invariant: nothing is installed that is there already, and no service is started.

use crate::command::{self, LONG};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A program, and the Debian package that brings it.
const NEEDED: [(&str, &str); 18] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("dockerd", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("podman", "podman"),
    ("openssl", "openssl"),
    ("umoci", "umoci"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("bpftool", "bpftool"),
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("tar", "tar"),
];

/// What can be done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ability {
    /// Root, and everything is there.
    Lab,
    /// Why there can be no lab.
    NoLab(String),
}

/// Installs what is missing, as root; otherwise says what that is.
pub(crate) fn run() -> Result<Ability> {
    need(&NEEDED)
}

/// As [`run`], for these programs, each with its Debian package.
pub(crate) fn need(programs: &[(&str, &'static str)]) -> Result<Ability> {
    let missing = missing(programs);
    if !nix::unistd::geteuid().is_root() {
        let and =
            if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join(" ")) };
        return Ok(Ability::NoLab(format!("network namespaces need root{and}")));
    }
    if !missing.is_empty() {
        if !Path::new("/usr/bin/apt-get").exists() {
            return Ok(Ability::NoLab(format!("no apt-get here; missing: {}", missing.join(" "))));
        }
        println!("installing {}", missing.join(" "));
        install(&missing).with_context(|| format!("install {}", missing.join(" ")))?;
    }
    Ok(Ability::Lab)
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<_> = programs
        .iter()
        .filter(|(program, _)| !command::exists(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        // RUNLEVEL=1: packages that would start a service find a system that starts none.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").args(words);
        command::check(&mut command, LONG)
    };
    let words = [&["install", "-y", "--no-install-recommends"][..], packages].concat();
    if apt(&words).is_err() {
        apt(&["update"])?;
        apt(&words)?;
    }
    Ok(())
}
