//! Takes a lab down, also one whose maker crashed: found by its names, not by what somebody remembers.

use super::{DATA, RUN};
use crate::command::{SHORT, run};
use crate::{interrupt, netns};
use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time for processes to end after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Ends every process in the lab's namespaces, removes namespaces, mounts and directories.
pub(crate) fn down() -> Result<()> {
    for namespace in interrupt::shielded(netns::standing)? {
        end_processes(&namespace)?;
        interrupt::shielded(|| netns::delete(&namespace))?;
    }
    unmount()?;
    remove_cgroups();
    for dir in [DATA, RUN] {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {dir}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn end_processes(namespace: &str) -> Result<()> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let pids = interrupt::shielded(|| netns::pids(namespace))?;
        let own = i32::try_from(std::process::id()).context("a pid")?;
        let others: Vec<i32> = pids.into_iter().filter(|pid| *pid != own && !is_zombie(*pid)).collect();
        if others.is_empty() || Instant::now() > deadline {
            return Ok(());
        }
        for pid in others {
            // Gone meanwhile is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ended, and not yet waited for by whoever started it.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Removes the cgroups of daemons that were killed. They are below this process's own, and the kernel removes
/// none that has a process: a daemon that is not the lab's keeps its group.
fn remove_cgroups() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().zip(fields.next()).filter(|(_, kind)| *kind == "cgroup2")
    });
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some((mount, _)), Some(group)) = (mount, group) else { return };
    let entries = fs::read_dir(Path::new(mount).join(group)).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("hawkerd-")) {
        let _ = fs::remove_dir(entry.path());
    }
}

fn unmount() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let ours = |target: &&str| [DATA, RUN].iter().any(|dir| Path::new(target).starts_with(dir));
    for target in targets.filter(ours).collect::<Vec<_>>().into_iter().rev() {
        umount2(target, MntFlags::MNT_DETACH).with_context(|| format!("unmount {target}"))?;
    }
    // Best effort: containerd's own temporary mounts end with it.
    let _ = interrupt::shielded(|| run(Command::new("sync").arg("-f").arg("/"), SHORT));
    Ok(())
}
