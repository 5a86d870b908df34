//! What the daemon chooses on the machine's kernel, in its own words, and what the kernel lacks.
//!
//! Invariant: each fact is one line, `    KEY: VALUE`; the report is made of them.

use crate::command::{SHORT, check};
use crate::shaper::{Programs, Stand, fair_queue};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

pub(super) const ENGINE: &str = "engine: what the daemon chooses by itself";
pub(super) const SHAPER: &str = "shaper: what the daemon chooses by itself";

/// What a kernel may lack: its function, and what that means.
const FUNCTIONS: [(&str, &str, &str); 2] = [
    ("io_uring", "__x64_sys_io_uring_setup", "the portable engine serves"),
    (
        "cachestat",
        "__x64_sys_cachestat",
        "every step counts as cold and takes the detour over a kernel thread",
    ),
];

pub(super) fn engine(programs: &Programs) -> Result<()> {
    println!("    kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    let functions = fs::read_to_string("/proc/kallsyms").context("read the kernel's functions")?;
    for (name, function, without) in FUNCTIONS {
        let has = functions.lines().any(|line| line.split_whitespace().nth(2) == Some(function));
        println!("    {name}: {}", if has { "yes".to_owned() } else { format!("no: {without}") });
    }
    let mut stand = Stand::build(programs)?;
    stand.start("{ mode: off }")?;
    let status = stand.status()?;
    let text = |key: &str| status["engine"][key].as_str().unwrap_or_default().to_owned();
    println!("    engine: {} ({})", text("name"), text("reason"));
    stand.stop()
}

pub(super) fn shaper(programs: &Programs) -> Result<()> {
    let mut stand = Stand::build(programs)?;
    stand.start("{ perPeerLimit: 100Mbps }")?;
    println!("    shaper without fq: {}", choice(&stand)?);
    let status = stand.status()?;
    let uplinks = status["shaper"]["uplinks"].as_array().map_or(0, Vec::len);
    ensure!(uplinks == 1, "{uplinks} uplinks: {}", status["shaper"]);
    stand.stop()?;
    fair_queue(true)?;
    stand.start("{ perPeerLimit: 100Mbps }")?;
    println!("    shaper with fq: {}", choice(&stand)?);
    stand.stop()?;
    let forbidden =
        check(Command::new("cat").arg("/proc/sys/kernel/unprivileged_bpf_disabled"), SHORT)?.stdout;
    println!("    unprivileged_bpf_disabled: {}", forbidden.trim());
    Ok(())
}

/// Mode and reason, without the place in the cgroups.
fn choice(stand: &Stand) -> Result<String> {
    let status = stand.status()?;
    let text = |key: &str| status["shaper"][key].as_str().unwrap_or_default().to_owned();
    let (mode, reason) = (text("mode"), text("reason"));
    let reason = reason.split("; cgroup ").next().unwrap_or_default().to_owned();
    Ok(format!("{mode} ({reason})"))
}
