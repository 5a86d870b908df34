//! The programs under test, built from this tree.

use crate::{interrupt, workspace};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Paths of the built programs.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) hawkerd: PathBuf,
    pub(crate) control: PathBuf,
    pub(crate) tool: PathBuf,
}

/// What a user gets.
const PACKAGES: [&str; 3] = ["hawker-daemon", "hawker-control", "hawker-cli"];
/// What measures and loads them.
const BENCH: &str = "hawker-bench";

/// Builds them with `--release`, showing cargo's own progress, and what measures them: always all together, since cargo
/// unites the features of what it builds at once, and would build most crates again for another choice.
pub(crate) fn build() -> Result<Binaries> {
    with(&["--release", "-p", BENCH], "release")
}

/// Only what a user gets, and not optimised: the shortest way for one who comes for the first time and wants to see it run.
pub(crate) fn build_quickly() -> Result<Binaries> {
    with(&[], "debug")
}

fn with(words: &[&str], profile: &str) -> Result<Binaries> {
    interrupt::check()?;
    let mut cargo = workspace::cargo()?;
    cargo.arg("build").args(words);
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    let status = cargo.status().context("start cargo build")?;
    if !status.success() {
        bail!("cargo build failed");
    }
    Ok(Binaries {
        hawkerd: workspace::program_of(profile, "hawkerd")?,
        control: workspace::program_of(profile, "hawker-control")?,
        tool: workspace::program_of(profile, "hawker")?,
    })
}
