//! The OpenID provider that tests sign in with: npm's `oidc-provider`, installed below `target/`.

use crate::command::{self, LONG};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What the tests that need it begin with.
pub(crate) const TESTS: &str = "oidc::";

/// Whether it can be had here.
pub(crate) fn possible() -> bool {
    command::exists("node") && command::exists("npm")
}

/// The directory that the tests look for its modules in.
pub(crate) fn install() -> Result<PathBuf> {
    let root = workspace::root()?;
    let folder = root.join("target/oidc-provider");
    let wanted =
        fs::read(root.join("control-plane/tests/oidc/package.json")).context("read its package.json")?;
    let manifest = folder.join("package.json");
    let installed = folder.join("node_modules/oidc-provider/package.json").is_file();
    if !installed || fs::read(&manifest).ok().as_ref() != Some(&wanted) {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&manifest, &wanted).with_context(|| format!("write {}", manifest.display()))?;
        let mut npm = Command::new("npm");
        npm.current_dir(&folder).args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
        command::check(&mut npm, LONG)?;
    }
    Ok(folder)
}
