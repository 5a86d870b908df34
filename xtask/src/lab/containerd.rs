//! One node's containerd: real, with its own root, state and sockets, pulling through the mirror.
//!
//! Invariant: images come by `ctr images pull` with a hosts directory, as a node's runtime does it.

use super::processes::Process;
use super::{REGISTRY_NAME, daemon, data_dir, network, nginx, run_dir};
use crate::command::{self, Finished, LONG, SHORT, check};
use crate::interrupt;
use crate::netns;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const START_LIMIT: Duration = Duration::from_secs(20);
/// The runtime interface: see [`super::cri`].
const CRI: &str = "\"io.containerd.grpc.v1.cri\"";
/// Plugins the lab does not need, or this kernel cannot have.
const DISABLED: [&str; 9] = [
    "\"io.containerd.snapshotter.v1.aufs\"",
    "\"io.containerd.snapshotter.v1.btrfs\"",
    "\"io.containerd.snapshotter.v1.devmapper\"",
    "\"io.containerd.snapshotter.v1.zfs\"",
    "\"io.containerd.internal.v1.opt\"",
    "\"io.containerd.internal.v1.restart\"",
    "\"io.containerd.tracing.processor.v1.otlp\"",
    "\"io.containerd.internal.v1.tracing\"",
    "\"io.containerd.monitor.v1.cgroups\"",
];

/// Which way a pull goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via<'d> {
    /// The mirror first, then the origin: how nodes are set up.
    Hawker,
    /// The mirror and nothing else: what it refuses cannot be had.
    Mirror,
    /// Straight from the origin behind the shaped link.
    Origin,
    /// From the registry on the node's own bridge.
    Near(network::Cluster),
    /// From nginx beside that registry.
    Nginx(network::Cluster),
    /// As the files in this hosts directory say.
    Dir(&'d Path),
}

pub(crate) struct Containerd {
    name: String,
    process: Process,
    /// In a mount namespace of its own, where there is one hierarchy of cgroups.
    unified: bool,
}

impl Containerd {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let (data, run) = (data_dir(name).join("containerd"), run_dir(name));
        for dir in [&data, &run] {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let config = data_dir(name).join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [{CRI}, {}]\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n",
            data.display(),
            run.join("state").display(),
            DISABLED.join(", "),
            socket(name).display(),
            run.join("ttrpc.sock").display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let near = |cluster: network::Cluster, port| format!("http://{}:{port}", cluster.near_registry());
        let origin = format!("http://{}:5000", network::ORIGIN);
        write_hosts(name, Via::Hawker, &origin, Some(daemon::MIRROR))?;
        write_hosts(name, Via::Mirror, daemon::MIRROR, None)?;
        write_hosts(name, Via::Origin, &origin, None)?;
        for cluster in network::Cluster::ALL {
            write_hosts(name, Via::Near(cluster), &near(cluster, 5000), None)?;
            write_hosts(name, Via::Nginx(cluster), &near(cluster, nginx::PORT), None)?;
        }
        let mut containerd = Self { name: name.to_owned(), process: launch(name, false)?, unified: false };
        containerd.wait()?;
        Ok(containerd)
    }

    /// Starts it again as on a node of today: with cgroups of version 2 alone, whatever this machine has.
    pub(crate) fn restart_unified(&mut self) -> Result<()> {
        self.process.stop()?;
        self.process = launch(&self.name, true)?;
        self.unified = true;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        interrupt::poll("containerd answers", START_LIMIT, || {
            self.process.check()?;
            check(self.ctr()?.arg("version"), SHORT).map(drop)
        })
    }

    /// Pulls, and says how long it took.
    pub(crate) fn pull(&self, reference: &str, via: Via<'_>) -> Result<Duration> {
        let pulled = self.try_pull(reference, via, None)?;
        if !pulled.status.success() {
            anyhow::bail!(
                "{} pulls {reference}: {}\n{}{}",
                self.name,
                pulled.status,
                pulled.stdout,
                pulled.stderr
            );
        }
        Ok(pulled.took)
    }

    /// Pulls as somebody with these credentials, however it ends.
    pub(crate) fn try_pull(
        &self,
        reference: &str,
        via: Via<'_>,
        user: Option<(&str, &str)>,
    ) -> Result<Finished> {
        let mut ctr = self.ctr()?;
        ctr.args(["images", "pull", "--hosts-dir"]).arg(hosts_dir(&self.name, via));
        if let Some((user, password)) = user {
            ctr.args(["--user", &format!("{user}:{password}")]);
        }
        command::run(ctr.arg(reference), LONG)
    }

    /// The digests of all content it holds; containerd has checked them.
    pub(crate) fn content(&self) -> Result<Vec<String>> {
        let listed = check(self.ctr()?.args(["content", "ls", "--quiet"]), SHORT)?;
        Ok(listed.stdout.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// References of content that is on its way, or was given up and not yet cleared away.
    pub(crate) fn ingests(&self) -> Result<Vec<String>> {
        let listed = check(self.ctr()?.args(["content", "active"]), SHORT)?;
        let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
        Ok(listed.stdout.lines().skip(1).filter_map(first).collect())
    }

    /// When containerd had all of a blob and had checked it: the moment its file got its name.
    pub(crate) fn committed_at(&self, digest: &str) -> Result<SystemTime> {
        let blobs = data_dir(&self.name).join("containerd/io.containerd.content.v1.content/blobs");
        let path = blobs.join(digest.replacen(':', "/", 1));
        let file = path.metadata().with_context(|| format!("look at {}", path.display()))?;
        let since = Duration::new(u64::try_from(file.ctime())?, u32::try_from(file.ctime_nsec())?);
        Ok(UNIX_EPOCH + since)
    }

    /// Removes an image and, at once, its content.
    pub(crate) fn remove(&self, reference: &str) -> Result<()> {
        check(self.ctr()?.args(["images", "rm", "--sync", reference]), LONG).map(drop)
    }

    pub(crate) fn leave(&mut self) {
        self.process.leave();
    }

    /// The client of this containerd, which sees the mounts it sees.
    pub(crate) fn ctr(&self) -> Result<Command> {
        let mut ctr = netns::command(&netns::name(&self.name), "ctr");
        if self.unified {
            ctr = Command::new("nsenter");
            ctr.arg(format!("--target={}", self.process.pid()?)).args(["--mount", "--net", "--", "ctr"]);
        }
        ctr.arg("--address").arg(socket(&self.name));
        Ok(ctr)
    }
}

fn launch(name: &str, unified: bool) -> Result<Process> {
    let config = data_dir(name).join("containerd.toml");
    let mut command = netns::command(&netns::name(name), if unified { "unshare" } else { "containerd" });
    if unified {
        const ALONE: &str =
            "umount --recursive /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";
        command.args(["--mount", "--", "sh", "-c", ALONE, "sh", "containerd"]);
    }
    command.arg("--config").arg(&config);
    Process::start(&format!("containerd of {name}"), &mut command, &config.with_extension("log"))
}

fn socket(name: &str) -> PathBuf {
    run_dir(name).join("containerd.sock")
}

/// What a containerd of the lab does without, whatever it is for; as elements of TOML.
pub(super) fn disabled() -> &'static [&'static str] {
    &DISABLED
}

/// Where containerds of a node find how to pull `via`.
pub(crate) fn hosts_dir(name: &str, via: Via<'_>) -> PathBuf {
    let way = match via {
        Via::Hawker => "hawker".to_owned(),
        Via::Mirror => "mirror".to_owned(),
        Via::Origin => "origin".to_owned(),
        Via::Near(cluster) => format!("near-{}", cluster.name()),
        Via::Nginx(cluster) => format!("nginx-{}", cluster.name()),
        Via::Dir(dir) => return dir.to_owned(),
    };
    data_dir(name).join("hosts").join(way)
}

fn write_hosts(name: &str, via: Via<'_>, server: &str, mirror: Option<&str>) -> Result<()> {
    let dir = hosts_dir(name, via).join(REGISTRY_NAME);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mut text = format!("server = \"{server}\"\n");
    for host in mirror.into_iter().chain([server]) {
        text.push_str(&format!("\n[host.\"{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"));
    }
    let path = dir.join("hosts.toml");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
