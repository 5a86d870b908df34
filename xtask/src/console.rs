//! Builds and checks the console (`control-plane/console`) with Node: packages by the lock file, then what Vite makes of the
//! sources, which `hawker-control` embeds when it is built next.
//!
//! Invariants: without Node nothing fails, and the reason is said; nothing is done twice for the same sources.

use crate::command::{self, LONG};
use crate::test::Tally;
use crate::{interrupt, workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

/// What Vite needs.
const MIN_NODE: (u32, u32) = (20, 19);
/// What the built files are made of.
const SOURCES: [&str; 6] = ["src", "public", "build", "index.html", "vite.config.ts", "package-lock.json"];
/// Written last.
const BUILT: &str = "dist/site/index.html";

pub(crate) fn run() -> Result<ExitCode> {
    if let Err(why) = node() {
        println!("the console is not built: {why}");
        return Ok(ExitCode::FAILURE);
    }
    build()?;
    println!("built: {}; hawker-control has it when it is built next", folder()?.join(BUILT).display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the console where Node is, and says why not elsewhere.
pub(crate) fn build_if_possible() -> Result<()> {
    match node() {
        Ok(()) => build(),
        Err(why) => {
            println!("the manager will have no console: {why}");
            Ok(())
        }
    }
}

/// Types, unit tests, and the build with its size.
pub(crate) fn check(tally: &mut Tally) {
    const NAME: &str = "console: types, unit tests, build, size of the first load";
    if let Err(why) = node() {
        return tally.skip(NAME, &why);
    }
    tally.run(NAME, || {
        packages()?;
        for script in ["types", "unit", "build"] {
            ensure!(command::show(npm()?.args(["run", "--silent", script]))?, "npm run {script} failed");
        }
        Ok(())
    });
}

/// Whether there is a Node that can build it, else why not.
pub(crate) fn node() -> Result<(), String> {
    for program in ["node", "npm"] {
        if !command::exists(program) {
            return Err(format!("{program} is not installed"));
        }
    }
    let version = command::check(Command::new("node").arg("--version"), LONG);
    let version = version.map_err(|error| format!("{error:#}"))?.stdout;
    match parsed(&version) {
        Some(found) if found >= MIN_NODE => Ok(()),
        _ => Err(format!("Node {} is too old: {}.{} is needed", version.trim(), MIN_NODE.0, MIN_NODE.1)),
    }
}

/// `v20.19.2` → (20, 19)
fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().strip_prefix('v')?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(crate) fn folder() -> Result<PathBuf> {
    Ok(workspace::root()?.join("control-plane/console"))
}

fn build() -> Result<()> {
    interrupt::check()?;
    let folder = folder()?;
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in SOURCES {
        newest = newest.max(newest_of(&folder.join(source))?);
    }
    if modified(&folder.join(BUILT)).is_some_and(|built| built >= newest) {
        return Ok(());
    }
    packages()?;
    ensure!(command::show(npm()?.args(["run", "--silent", "build"]))?, "the console's build failed");
    Ok(())
}

/// `npm ci`, unless what it would install is there.
pub(crate) fn packages() -> Result<()> {
    let folder = folder()?;
    let installed = modified(&folder.join("node_modules/.package-lock.json"));
    if installed.is_some_and(|at| modified(&folder.join("package-lock.json")).is_some_and(|lock| at >= lock))
    {
        return Ok(());
    }
    command::check(npm()?.args(["ci", "--no-audit", "--no-fund"]), LONG).map(drop)
}

fn npm() -> Result<Command> {
    let mut npm = Command::new("npm");
    npm.current_dir(folder()?);
    Ok(npm)
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// Of a file, or of everything in a folder.
fn newest_of(path: &Path) -> Result<SystemTime> {
    let mut newest = modified(path).with_context(|| format!("look at {}", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
            newest = newest.max(newest_of(&entry?.path())?);
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parsed("v20.19.2\n") >= Some(MIN_NODE) && parsed("v22.0.1") >= Some(MIN_NODE));
        assert!(parsed("v18.20.4") < Some(MIN_NODE) && parsed("v9.99.0") < Some(MIN_NODE));
        assert_eq!(parsed("20"), None);
    }
}
