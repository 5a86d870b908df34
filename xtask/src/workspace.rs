//! Where things are: the repository, its target directory, the built programs.
//!
//! Invariant: nothing outside the target directory, `bench/results` and the lab's run directory is written.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's top folder.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_owned).context("the xtask crate lies in no workspace")
}

/// Cargo's target directory.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(folder).context("make the target directory absolute"),
        None => Ok(root()?.join("target")),
    }
}

/// A program of this workspace, built with `--release`.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    program_of("release", name)
}

/// A program of this workspace, from this folder of cargo's.
pub(crate) fn program_of(profile: &str, name: &str) -> Result<PathBuf> {
    let path = target()?.join(profile).join(name);
    anyhow::ensure!(path.is_file(), "{} is not built: cargo xtask setup builds it", path.display());
    Ok(path)
}

/// The cargo that started this program, in the repository. Without what it told about this package: several build scripts
/// look at that, and would run again each time cargo is started by hand and from here in turn.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()?);
    let told = std::env::vars_os().map(|(name, _)| name);
    for name in told.filter(|name| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    }) {
        cargo.env_remove(name);
    }
    Ok(cargo)
}
