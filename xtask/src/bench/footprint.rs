//! What a server holds at a moment: threads, memory, descriptors, as `/proc` tells.
//!
//! Invariant: sums over all processes of the server.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Footprint {
    pub(crate) threads: i64,
    pub(crate) resident_kib: i64,
    pub(crate) descriptors: i64,
    /// Ends of pipes among the descriptors.
    pub(crate) pipe_ends: i64,
}

impl Footprint {
    pub(crate) fn of(pids: &[i32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let proc = Path::new("/proc").join(pid.to_string());
            let status = fs::read_to_string(proc.join("status")).context("read the status of a server")?;
            sum.threads += number(&status, "Threads:").context("a process has threads")?;
            sum.resident_kib += number(&status, "VmRSS:").context("a process has memory")?;
            for entry in fs::read_dir(proc.join("fd")).context("list descriptors of a server")? {
                // One that was closed meanwhile counts still, as what it was is unknown.
                let target = fs::read_link(entry?.path()).unwrap_or_default();
                sum.descriptors += 1;
                sum.pipe_ends += i64::from(target.to_string_lossy().starts_with("pipe:"));
            }
        }
        Ok(sum)
    }
}

/// Most memory that was resident since a process began, KiB. Costs nothing while it runs, unlike [`Footprint::of`], which goes
/// through all descriptors.
pub(crate) fn peak_kib(pid: i32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the status of a server")?;
    number(&status, "VmHWM:").context("a process has memory")
}

fn number(status: &str, key: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_footprint() {
        let own = Footprint::of(&[i32::try_from(std::process::id()).unwrap()]).unwrap();
        assert!(own.threads >= 1 && own.resident_kib > 0 && own.descriptors >= own.pipe_ends);
        assert!(peak_kib(i32::try_from(std::process::id()).unwrap()).unwrap() >= own.resident_kib);
    }
}
