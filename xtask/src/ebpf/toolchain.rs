//! Finds what builds eBPF: a Rust compiler that may use unstable features and has the library's sources, and a
//! `bpf-linker` built against the same LLVM. As root on Debian it is installed.
//!
//! Invariant: compiler and linker are of one LLVM; another one's bitcode is refused or, worse, misread.

use super::sources;
use crate::command::{self, LONG, SHORT};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The linker, its LLVM, and how cargo is told where that lies (`llvm-sys` names its variable by version).
const LINKER: &str = "0.13.0";
const LLVM: &str = "22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LLVM_VARIABLES: [&str; 2] = ["LLVM_PREFIX", "LLVM_SYS_221_PREFIX"];
/// The distribution's compiler with its library's sources, and the LLVM it was built with.
const PACKAGES: [&str; 7] =
    ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
/// Where the distribution's compiler keeps the library's sources.
const DISTRIBUTION_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";

/// Everything that takes part in a build.
pub(super) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    pub(super) sysroot: PathBuf,
    pub(super) linker: PathBuf,
    pub(super) objcopy: PathBuf,
    pub(super) rustc_version: String,
    pub(super) linker_version: String,
}

impl Toolchain {
    /// Cargo of this toolchain, with stable compilers talked into unstable features.
    pub(super) fn cargo(&self) -> Result<Command> {
        let mut cargo = Command::new(&self.cargo);
        // Those of the cargo that runs xtask would lead back to its own toolchain.
        for variable in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO", "RUSTDOC"] {
            cargo.env_remove(variable);
        }
        let folder = self.cargo.parent().context("cargo lies in no folder")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path)))?;
        cargo.env("PATH", path).env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        Ok(cargo)
    }

    /// Whether bytes made by this toolchain can be compared with the committed ones.
    pub(super) fn is(&self, built_from: &str) -> std::result::Result<(), String> {
        for (key, here) in [("rustc", &self.rustc_version), ("bpf-linker", &self.linker_version)] {
            let there = sources::entry(built_from, key).unwrap_or("nothing");
            if there != here {
                return Err(format!("the object was built with {key} {there}; here is {here}"));
            }
        }
        Ok(())
    }
}

/// The toolchain, or in words why there is none and what would help.
pub(super) fn find() -> Result<std::result::Result<Toolchain, String>> {
    let root = nix::unistd::geteuid().is_root();
    let mut found = distribution()?;
    if found.is_none() && nightly()?.is_none() && root && Path::new("/usr/bin/apt-get").exists() {
        install()?;
        found = distribution()?;
    }
    let found = match found {
        Some(found) => Some(found),
        None => nightly()?,
    };
    let Some((rustc, cargo)) = found else {
        return Ok(Err(format!(
            "needed are either `apt-get install {}` (root does it by itself), or `rustup toolchain install nightly \
             --component rust-src,llvm-tools` with a bpf-linker of the same LLVM on the PATH",
            PACKAGES.join(" ")
        )));
    };
    assemble(rustc, cargo)
}

type Compiler = (PathBuf, PathBuf);

fn distribution() -> Result<Option<Compiler>> {
    let (rustc, cargo) = (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"));
    if !rustc.exists() || !cargo.exists() || !Path::new(DISTRIBUTION_SOURCES).exists() {
        return Ok(None);
    }
    Ok((llvm(&rustc)? == LLVM).then_some((rustc, cargo)))
}

fn nightly() -> Result<Option<Compiler>> {
    if !command::exists("rustup") {
        return Ok(None);
    }
    let which = |program: &str| {
        command::run(Command::new("rustup").args(["which", "--toolchain", "nightly", program]), SHORT)
    };
    let (rustc, cargo) = (which("rustc")?, which("cargo")?);
    if !rustc.status.success() || !cargo.status.success() {
        return Ok(None);
    }
    let (rustc, cargo) = (PathBuf::from(rustc.stdout.trim()), PathBuf::from(cargo.stdout.trim()));
    let has_sources = sysroot(&rustc)?.join("lib/rustlib/src/rust/library/core").is_dir();
    Ok((has_sources && llvm(&rustc)? == LLVM).then_some((rustc, cargo)))
}

fn assemble(rustc: PathBuf, cargo: PathBuf) -> Result<std::result::Result<Toolchain, String>> {
    let sysroot = sysroot(&rustc)?;
    let bundled = sysroot.join("lib/rustlib/x86_64-unknown-linux-gnu/bin/llvm-objcopy");
    let candidates = [PathBuf::from(LLVM_PREFIX).join("bin/llvm-objcopy"), bundled];
    let Some(objcopy) = candidates.into_iter().find(|program| program.exists()) else {
        return Ok(Err(format!("no llvm-objcopy of LLVM {LLVM}: install llvm-{LLVM}")));
    };
    let cached = workspace::target()?.join("ebpf-tools");
    let linker = cached.join("bin/bpf-linker");
    if !linker.exists() {
        if !Path::new(LLVM_PREFIX).join("lib/libLLVM.so").exists() {
            return Ok(Err(format!("bpf-linker must be built against LLVM {LLVM}: install llvm-{LLVM}-dev")));
        }
        build_linker(&cached)?;
    }
    let linker_version = output(Command::new(&linker).arg("--version"))?;
    let rustc_version = output(Command::new(&rustc).arg("-V"))?;
    Ok(Ok(Toolchain {
        rustc,
        cargo,
        sysroot,
        linker,
        objcopy,
        rustc_version: rustc_version.trim_start_matches("rustc ").to_owned(),
        linker_version: format!("{} LLVM {LLVM}", linker_version.trim_start_matches("bpf-linker ")),
    }))
}

/// Some minutes; kept under the target folder.
fn build_linker(folder: &Path) -> Result<()> {
    println!("building bpf-linker {LINKER} against LLVM {LLVM}");
    let mut cargo = workspace::cargo()?;
    cargo.env("CARGO_TARGET_DIR", folder.join("build"));
    for variable in LLVM_VARIABLES {
        cargo.env(variable, LLVM_PREFIX);
    }
    let feature = format!("llvm-{LLVM}");
    cargo.args(["install", "--locked", "bpf-linker", "--version", LINKER, "--no-default-features"]);
    cargo.args(["--features", &feature, "--root"]).arg(folder);
    ensure!(command::show(&mut cargo)?, "bpf-linker does not build");
    // Only the program is of use later.
    let _ = std::fs::remove_dir_all(folder.join("build"));
    Ok(())
}

fn install() -> Result<()> {
    println!("installing {}", PACKAGES.join(" "));
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").args(words);
        command::run(&mut apt, LONG).map(|finished| finished.status.success())
    };
    let words = [&["install", "-y", "--no-install-recommends"][..], &PACKAGES].concat();
    if !apt(&words)? {
        apt(&["update"])?;
        apt(&words)?;
    }
    Ok(())
}

/// Major version of a compiler's LLVM.
fn llvm(rustc: &Path) -> Result<String> {
    let text = output(Command::new(rustc).arg("-vV"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or_default();
    Ok(version.split('.').next().unwrap_or_default().to_owned())
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    output(Command::new(rustc).args(["--print", "sysroot"])).map(PathBuf::from)
}

fn output(command: &mut Command) -> Result<String> {
    Ok(command::check(command, SHORT)?.stdout.trim().to_owned())
}
