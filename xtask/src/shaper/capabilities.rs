//! The daemon as an ordinary user: with exactly the capabilities it is documented to need, and with none.
//!
//! Invariant: the cgroup made for it is removed, whatever happened.

use super::stand::Stand;
use crate::command::{SHORT, check};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `nobody`.
const USER: &str = "65534";
const SUFFICIENT: &str = "+net_admin,+perfmon,+bpf";

pub(super) fn suffice(stand: &mut Stand) -> Result<()> {
    let group = Group::make()?;
    start(stand, &group, SUFFICIENT, "{ mode: require, perPeerLimit: 100Mbps }")?;
    let status = fs::read_to_string(format!("/proc/{}/status", stand.pid()?))?;
    let held = status.lines().filter(|line| line.starts_with("CapEff") || line.starts_with("Uid"));
    println!("    {}", held.collect::<Vec<_>>().join("; ").replace('\t', " "));
    println!("    {}", stand.status()?["shaper"]["reason"]);
    let rate = stand.read(0, 4)?.rate(Duration::from_secs(1), Duration::from_secs(1)) / 1e6;
    println!("    4 connections {rate:.2} of 100 Mbit/s");
    ensure!((rate - 100.0).abs() < 3.0, "{rate:.2} Mbit/s of 100");
    stand.stop()?;
    for one in ["net_admin", "perfmon", "bpf"] {
        let others = SUFFICIENT.replace(&format!("+{one}"), &format!("-{one}"));
        let refused = start(stand, &group, &others, "{ mode: require }").is_err();
        let log = fs::read_to_string(stand.log()).unwrap_or_default();
        let said = log.lines().rev().find(|line| line.contains("shaper.mode: require")).unwrap_or_default();
        println!("    without {one}: {}", said.split("ERROR").last().unwrap_or_default().trim());
        ensure!(refused && said.contains(&format!("CAP_{}", one.to_uppercase())), "without {one} it started");
    }
    Ok(())
}

pub(super) fn none(stand: &mut Stand) -> Result<()> {
    let group = Group::make()?;
    start(stand, &group, "-all", "{ perPeerLimit: 100Mbps }")?;
    let status = stand.status()?;
    println!("    {}", status["shaper"]["reason"]);
    ensure!(status["shaper"]["mode"] == "user", "{}", status["shaper"]);
    let metrics = stand.metrics()?;
    ensure!(metrics.contains(r#"hawker_shaper_info{mode="user""#), "no hawker_shaper_info of the twin");
    let rate = stand.read(0, 4)?.rate(Duration::from_secs(1), Duration::from_secs(2)) / 1e6;
    println!("    4 connections {rate:.2} of 100 Mbit/s");
    ensure!((rate - 100.0).abs() < 3.0, "{rate:.2} Mbit/s of 100");
    stand.stop()
}

/// Starts the daemon as [`USER`], in `group`, with these capabilities alone.
fn start(stand: &mut Stand, group: &Group, capabilities: &str, shaper: &str) -> Result<()> {
    // The folder is the user's, so that it may write its store and its configuration's neighbours.
    check(Command::new("chown").args(["-R", USER]).arg(stand.dir()), SHORT)?;
    let enter = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", group.path.display());
    let (inheritable, ambient, bounding) = (
        format!("--inh-caps={capabilities}"),
        format!("--ambient-caps={capabilities}"),
        format!("--bounding-set=-all,{capabilities}"),
    );
    let mut by =
        vec!["sh", "-c", &enter, "sh", "setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"];
    if capabilities == "-all" {
        by.extend(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]);
    } else {
        by.extend([inheritable.as_str(), ambient.as_str(), bounding.as_str()]);
    }
    by.push("env");
    stand.start_by(&by, shaper)
}

/// A cgroup of version 2 for the daemon alone, as a service or a container has one.
struct Group {
    path: PathBuf,
}

impl Group {
    fn make() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?)).filter(|(_, kind)| *kind == "cgroup2")
        });
        let (mount, _) = mount.context("no cgroup2 is mounted")?;
        let path = Path::new(mount).join("hwk-shaper");
        if !path.exists() {
            fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        }
        Ok(Self { path })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that ended may still be on its way out.
        for _ in 0..50 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is not removed", self.path.display());
    }
}
