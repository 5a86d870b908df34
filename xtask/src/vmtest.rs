//! `cargo xtask vmtest`: stock Debian kernels in emulated machines, and on each the engines' contract, a cluster's pulls,
//! and the shaper's cases. What each kernel gets goes to `docs/kernels.md`.
//!
//! Invariant: a kernel that cannot be had is a skip with its reason, and a failure where it was asked for.

mod engine;
mod facts;
pub(crate) mod guest;
mod initramfs;
mod kernels;
mod machine;
mod report;

use crate::setup::{self, Ability};
use crate::shaper::Programs;
use crate::{command, interrupt, workspace};
use anyhow::{Context, Result, bail, ensure};
use initramfs::Program;
use kernels::{Debian, KERNELS};
use machine::Machine;
use report::{KernelReport, Results};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// What this needs beside Rust.
const NEEDED: [(&str, &str); 17] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("mke2fs", "e2fsprogs"),
    ("strip", "binutils"),
    ("dpkg-deb", "dpkg"),
    ("ldd", "libc-bin"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("umount", "mount"),
    ("awk", "mawk"),
    ("iperf3", "iperf3"),
    ("setpriv", "util-linux"),
    ("bpftool", "bpftool"),
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this kernel (6.1, 6.12); may be given several times.
    #[arg(long)]
    kernel: Vec<String>,
    /// Only this suite.
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Only the tests whose name contains this; docs/kernels.md is then left as it is.
    #[arg(long)]
    only: Option<String>,
    /// Starts no machine: writes docs/kernels.md from what they said last, each suite in its last whole run.
    #[arg(long, conflicts_with_all = ["only", "suite", "kernel"])]
    report: bool,
}

/// What one start of a machine tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    Engine,
    Shaper,
}

impl Suite {
    const ALL: [Self; 2] = [Self::Engine, Self::Shaper];

    fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Shaper => "shaper",
        }
    }

    fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name).with_context(|| format!("no suite {name:?}"))
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let wanted = wanted(&options.kernel)?;
    ensure!(cfg!(target_arch = "x86_64"), "the kernels and the emulated machine are x86-64's");
    if let Ability::NoLab(why) = setup::need(&NEEDED)? {
        bail!("the emulated machines' file system is made as root: {why}");
    }
    let programs = if options.report { Vec::new() } else { programs(options)? };
    let mut reports = Vec::new();
    for debian in wanted {
        interrupt::check()?;
        let results = if options.report { said_last(debian) } else { one(debian, &programs, options) };
        let report = match results {
            Ok(results) => KernelReport { debian, results: Ok(results) },
            Err(error) => KernelReport { debian, results: Err(error) },
        };
        reports.push(report);
    }
    let text = report::table(&reports);
    println!("\n{text}");
    let complete = reports.len() == KERNELS.len() && reports.iter().all(|report| report.results.is_ok());
    if complete && options.only.is_none() && options.suite.is_none() {
        report::write(&text)?;
    }
    Ok(report::verdict(&reports, !options.kernel.is_empty()))
}

fn wanted(asked: &[String]) -> Result<Vec<&'static Debian>> {
    if asked.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let known = || KERNELS.iter().map(|debian| debian.version).collect::<Vec<_>>().join(", ");
    let find = |version: &String| {
        KERNELS
            .iter()
            .find(|debian| debian.version == version)
            .with_context(|| format!("no kernel {version}; there are {}", known()))
    };
    asked.iter().map(find).collect()
}

/// Both suites on one kernel.
fn one(debian: &Debian, programs: &[Program], options: &Options) -> Result<Results> {
    let kernel = debian.kernel()?;
    let folder = dir()?.join("machines").join(debian.version);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let initramfs = initramfs::build(&kernel, programs, &folder)?;
    let mut results = Results::default();
    let only = options.only.as_deref();
    for suite in Suite::ALL.into_iter().filter(|suite| options.suite.is_none_or(|one| one == *suite)) {
        println!("=== {}, Linux {}: {}", debian.release, kernel.name, suite.name());
        let machine = Machine { kernel: &kernel, initramfs: &initramfs, folder: &folder, suite, only };
        match machine.run() {
            Ok(said) => results.read(&said),
            Err(error) => {
                // What it came to counts.
                if let Ok(said) = fs::read_to_string(machine::said(&folder, suite, only)) {
                    results.read(&said);
                }
                results.broke_off(suite, &error);
            }
        }
    }
    Ok(results)
}

/// Both suites as they ended last.
fn said_last(debian: &Debian) -> Result<Results> {
    let folder = dir()?.join("machines").join(debian.version);
    let mut results = Results::default();
    for suite in Suite::ALL {
        let path = machine::said(&folder, suite, None);
        results.read(&fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(results)
}

/// What runs inside, built from this tree.
fn programs(options: &Options) -> Result<Vec<Program>> {
    let built = Programs::build()?;
    let mut programs = vec![
        (std::env::current_exe().context("find this program")?, "xtask"),
        (built.hawkerd, "hawkerd"),
        (built.fill, "bench-fill"),
    ];
    if options.suite != Some(Suite::Shaper) {
        programs.push((test_program(&["--lib"])?, "daemon-tests"));
        programs.push((test_program(&["--test", "cluster"])?, "cluster-tests"));
    }
    Ok(programs)
}

/// Builds one of the daemon's test programs.
fn test_program(which: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo()?;
    // Optimised, as the daemon beside them: a machine that is emulated computes slowly enough.
    cargo.args(["test", "--release", "-p", "hawker-daemon", "--no-run", "--message-format=json"]);
    println!("$ {} {}", command::shown(&cargo), which.join(" "));
    let output = cargo.args(which).stderr(std::process::Stdio::inherit()).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo test --no-run failed");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let program = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["profile"]["test"] == true).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    program.context("cargo named no test program")
}

/// Kernels, file systems and logs of the machines.
fn dir() -> Result<PathBuf> {
    Ok(workspace::target()?.join("vmtest"))
}
