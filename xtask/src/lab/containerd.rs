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
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const START_LIMIT: Duration = Duration::from_secs(20);
/// Plugins the lab does not need, or this kernel cannot have.
const DISABLED: &str = "\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.aufs\", \
    \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
    \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.internal.v1.opt\", \
    \"io.containerd.internal.v1.restart\", \"io.containerd.tracing.processor.v1.otlp\", \
    \"io.containerd.internal.v1.tracing\", \"io.containerd.monitor.v1.cgroups\"";

/// Which way a pull goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// The mirror first, then the origin: how nodes are set up.
    Hawker,
    /// Straight from the origin behind the shaped link.
    Origin,
    /// From the registry on the node's own bridge.
    Near(network::Cluster),
    /// From nginx beside that registry.
    Nginx(network::Cluster),
}

pub(crate) struct Containerd {
    name: String,
    process: Process,
}

impl Containerd {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let (data, run) = (data_dir(name).join("containerd"), run_dir(name));
        for dir in [&data, &run] {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let config = data_dir(name).join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [{DISABLED}]\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n",
            data.display(),
            run.join("state").display(),
            socket(name).display(),
            run.join("ttrpc.sock").display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let near = |cluster: network::Cluster, port| format!("http://{}:{port}", cluster.near_registry());
        let origin = format!("http://{}:5000", network::ORIGIN);
        write_hosts(name, Via::Hawker, &origin, Some(daemon::MIRROR))?;
        write_hosts(name, Via::Origin, &origin, None)?;
        for cluster in network::Cluster::ALL {
            write_hosts(name, Via::Near(cluster), &near(cluster, 5000), None)?;
            write_hosts(name, Via::Nginx(cluster), &near(cluster, nginx::PORT), None)?;
        }
        let mut command = netns::command(&netns::name(name), "containerd");
        command.arg("--config").arg(&config);
        let process =
            Process::start(&format!("containerd of {name}"), &mut command, &config.with_extension("log"))?;
        let mut containerd = Self { name: name.to_owned(), process };
        interrupt::poll("containerd answers", START_LIMIT, || {
            containerd.process.check()?;
            check(containerd.ctr().arg("version"), SHORT).map(drop)
        })?;
        Ok(containerd)
    }

    /// Pulls, and says how long it took.
    pub(crate) fn pull(&self, reference: &str, via: Via) -> Result<Duration> {
        let pulled = self.try_pull(reference, via)?;
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

    fn try_pull(&self, reference: &str, via: Via) -> Result<Finished> {
        let mut ctr = self.ctr();
        ctr.args(["images", "pull", "--hosts-dir"]).arg(hosts_dir(&self.name, via)).arg(reference);
        command::run(&mut ctr, LONG)
    }

    /// The digests of all content it holds; containerd has checked them.
    pub(crate) fn content(&self) -> Result<Vec<String>> {
        let listed = check(self.ctr().args(["content", "ls", "--quiet"]), SHORT)?;
        Ok(listed.stdout.lines().map(|line| line.trim().to_owned()).collect())
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
        check(self.ctr().args(["images", "rm", "--sync", reference]), LONG).map(drop)
    }

    pub(crate) fn leave(&mut self) {
        self.process.leave();
    }

    fn ctr(&self) -> Command {
        let mut ctr = netns::command(&netns::name(&self.name), "ctr");
        ctr.arg("--address").arg(socket(&self.name));
        ctr
    }
}

fn socket(name: &str) -> PathBuf {
    run_dir(name).join("containerd.sock")
}

fn hosts_dir(name: &str, via: Via) -> PathBuf {
    let way = match via {
        Via::Hawker => "hawker".to_owned(),
        Via::Origin => "origin".to_owned(),
        Via::Near(cluster) => format!("near-{}", cluster.name()),
        Via::Nginx(cluster) => format!("nginx-{}", cluster.name()),
    };
    data_dir(name).join("hosts").join(way)
}

fn write_hosts(name: &str, via: Via, server: &str, mirror: Option<&str>) -> Result<()> {
    let dir = hosts_dir(name, via).join(REGISTRY_NAME);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mut text = format!("server = \"{server}\"\n");
    for host in mirror.into_iter().chain([server]) {
        text.push_str(&format!("\n[host.\"{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"));
    }
    let path = dir.join("hosts.toml");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
