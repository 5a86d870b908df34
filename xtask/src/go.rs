//! Programs that other projects have as Go modules and Debian has not: built once from the Go module proxy.
//!
//! Invariant: a version is named, and what was built is kept below the target directory.

use crate::command::{check, exists};
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Compiling the largest of them takes minutes on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// Where Go's own archive puts it.
const USUAL: &str = "/usr/local/go/bin/go";

/// The program `package@version` is; an error says why there is none here.
pub(crate) fn install(package: &str, version: &str) -> Result<PathBuf, String> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let go = match exists("go") {
        true => "go",
        false if Path::new(USUAL).exists() => USUAL,
        false => return Err(format!("{name} is built with Go, which is not here")),
    };
    let target = workspace::target().map_err(|error| format!("{error:#}"))?;
    let bin = target.join("go").join(format!("{name}-{version}"));
    let program = bin.join(name);
    if !program.exists() {
        println!("building {name} (once)");
        let mut install = Command::new(go);
        install.env("GOBIN", &bin).env("GOFLAGS", "-buildvcs=false").current_dir(std::env::temp_dir());
        let built = check(install.args(["install", &format!("{package}@{version}")]), BUILD_LIMIT);
        built.map_err(|error| format!("build {name} from the Go module proxy: {error:#}"))?;
    }
    Ok(program)
}
