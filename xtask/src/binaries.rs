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

/// Builds them with `--release`, showing cargo's own progress.
pub(crate) fn build() -> Result<Binaries> {
    interrupt::check()?;
    let mut cargo = workspace::cargo()?;
    cargo.args(["build", "--release", "-p", "hawker-daemon", "-p", "hawker-control", "-p", "hawker-cli"]);
    let status = cargo.status().context("start cargo build")?;
    if !status.success() {
        bail!("cargo build failed");
    }
    Ok(Binaries {
        hawkerd: workspace::program("hawkerd")?,
        control: workspace::program("hawker-control")?,
        tool: workspace::program("hawker")?,
    })
}
