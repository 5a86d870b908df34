//! Control groups for the benchmark: the servers get one CPU for all their threads and a limit on what they
//! read from the disk; servers and client get more weight than whatever else the machine does (their
//! niceness would not do: it counts inside a session only). Works with control groups of either version.
//!
//! Invariant: everything made here is removed with the value, also what an earlier run left.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
const SERVERS: &str = "hwk-bench";
const CLIENT: &str = "hwk-bench-client";
/// Weight against everything else, of version 1 (others have 1024) and version 2 (others have 100).
const SHARES: &str = "16384";
const WEIGHT: &str = "1600";
/// Time for the last process to leave the group.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);

/// Which files limit reads.
enum Reads {
    /// `blkio` of version 1.
    Throttle(PathBuf),
    /// `io.max` of version 2.
    Max(PathBuf),
}

pub(crate) struct Cage {
    servers: Vec<PathBuf>,
    client: Vec<PathBuf>,
    reads: Option<Reads>,
    pinned: bool,
}

impl Cage {
    /// Makes the groups; the servers' has one CPU.
    pub(crate) fn make(cpu: usize) -> Result<Self> {
        let mut cage = Self { servers: Vec::new(), client: Vec::new(), reads: None, pinned: false };
        let root = Path::new(ROOT);
        if root.join("cgroup.controllers").is_file() {
            cage.unified(root, cpu)?;
            return Ok(cage);
        }
        if root.join("cpuset/cpuset.cpus").is_file() {
            let group = group(&root.join("cpuset"), SERVERS, &mut cage.servers)?;
            cage.pin(&group, cpu)?;
        }
        if root.join("cpu/cpu.shares").is_file() {
            write(&group(&root.join("cpu"), SERVERS, &mut cage.servers)?.join("cpu.shares"), SHARES)?;
            write(&group(&root.join("cpu"), CLIENT, &mut cage.client)?.join("cpu.shares"), SHARES)?;
        }
        if root.join("blkio").is_dir() {
            let group = group(&root.join("blkio"), SERVERS, &mut cage.servers)?;
            let file = group.join("blkio.throttle.read_bps_device");
            cage.reads = file.is_file().then_some(Reads::Throttle(file));
        }
        Ok(cage)
    }

    fn unified(&mut self, root: &Path, cpu: usize) -> Result<()> {
        let known = fs::read_to_string(root.join("cgroup.controllers")).context("read the controllers")?;
        let known: Vec<&str> =
            known.split_whitespace().filter(|name| ["cpu", "cpuset", "io"].contains(name)).collect();
        for name in &known {
            write(&root.join("cgroup.subtree_control"), &format!("+{name}"))?;
        }
        let servers = group(root, SERVERS, &mut self.servers)?;
        if known.contains(&"cpuset") {
            self.pin(&servers, cpu)?;
        }
        if known.contains(&"cpu") {
            write(&servers.join("cpu.weight"), WEIGHT)?;
            write(&group(root, CLIENT, &mut self.client)?.join("cpu.weight"), WEIGHT)?;
        }
        self.reads = known.contains(&"io").then(|| Reads::Max(servers.join("io.max")));
        Ok(())
    }

    fn pin(&mut self, group: &Path, cpu: usize) -> Result<()> {
        write(&group.join("cpuset.cpus"), &cpu.to_string())?;
        write(&group.join("cpuset.mems"), "0")?;
        self.pinned = true;
        Ok(())
    }

    /// How servers are kept on their CPU, for the report.
    pub(crate) fn pinning(&self) -> &'static str {
        if self.pinned { "cpuset and affinity" } else { "affinity (no cpuset here: kernel workers may roam)" }
    }

    /// A shell's words that put a server into its groups.
    pub(crate) fn enter_as_server(&self) -> String {
        enter(&self.servers)
    }

    /// The same for the client.
    pub(crate) fn enter_as_client(&self) -> String {
        enter(&self.client)
    }

    #[expect(dead_code, reason = "the scenario with a slow disk comes next")]
    /// Limits what the group reads from the disk under `path`; `None` lifts the limit.
    pub(crate) fn limit_reads(&self, path: &Path, bytes_per_second: Option<u64>) -> Result<()> {
        let device = device(path)?;
        match &self.reads {
            None => bail!("no control group here can limit reads"),
            Some(Reads::Throttle(file)) => {
                write(file, &format!("{device} {}", bytes_per_second.unwrap_or(0)))
            }
            Some(Reads::Max(file)) => {
                let limit = bytes_per_second.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
                write(file, &format!("{device} rbps={limit}"))
            }
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        for group in self.servers.iter().chain(&self.client) {
            let deadline = Instant::now() + EMPTY_LIMIT;
            while let Err(error) = fs::remove_dir(group) {
                if Instant::now() > deadline {
                    eprintln!("remove {}: {error}", group.display());
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn group(parent: &Path, name: &str, made: &mut Vec<PathBuf>) -> Result<PathBuf> {
    let group = parent.join(name);
    if !group.is_dir() {
        fs::create_dir(&group).with_context(|| format!("make {}", group.display()))?;
    }
    made.push(group.clone());
    Ok(group)
}

fn enter(groups: &[PathBuf]) -> String {
    let into = |group: &PathBuf| format!("echo $$ > {}/cgroup.procs || exit 97; ", group.display());
    groups.iter().map(into).collect()
}

/// `major:minor` of the whole disk that `path` lies on: partitions cannot be limited.
fn device(path: &Path) -> Result<String> {
    let device = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.dev();
    let number = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let here = PathBuf::from("/sys/dev/block").join(&number);
    if !here.join("partition").exists() {
        return Ok(number);
    }
    let whole = fs::canonicalize(&here).context("find the disk of a partition")?;
    let whole = whole.parent().context("a partition lies on a disk")?.join("dev");
    Ok(fs::read_to_string(whole).context("read the number of a disk")?.trim().to_owned())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write `{text}` to {}", file.display()))
}
