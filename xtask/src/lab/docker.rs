//! A node's Docker daemon, with Hawker for a registry mirror: for Docker Hub alone, and nobody says in a request for which registry it is.
//!
//! Invariant: no bridge, no rule of a firewall, nothing outside of the lab's directories; its containerd ends with it.

use super::daemon::MIRROR;
use super::processes::Process;
use super::{data_dir, run_dir};
use crate::command::{self, Finished, LONG, SHORT, check};
use crate::{interrupt, netns};
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Docker {
    name: String,
    process: Process,
}

impl Docker {
    pub(crate) fn start(name: &str) -> Result<Self> {
        let (data, run) = (data_dir(name).join("docker"), run_dir(name).join("docker"));
        for dir in [&data, &run] {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        // It asks for the address of Docker Hub, which is nowhere here: at once, not after a resolver's patience.
        let resolver = data.with_extension("resolv");
        fs::write(&resolver, "nameserver 127.0.0.1\n").context("write a resolver's configuration")?;
        let mut dockerd = netns::command(&netns::name(name), "unshare");
        dockerd.args([
            "--mount",
            "--",
            "sh",
            "-c",
            "mount --bind \"$1\" /etc/resolv.conf && shift && exec dockerd \"$@\"",
            "sh",
        ]);
        dockerd.arg(&resolver).arg("--host").arg(socket(name)).arg("--data-root").arg(&data);
        dockerd.arg("--exec-root").arg(&run).arg("--pidfile").arg(run.join("pid"));
        dockerd.args(["--storage-driver", "vfs", "--bridge", "none", "--registry-mirror", MIRROR]);
        for no in ["iptables", "ip6tables", "ip-forward", "ip-masq"] {
            dockerd.arg(format!("--{no}=false"));
        }
        let log = data_dir(name).join("docker.log");
        let process = Process::start(&format!("dockerd of {name}"), &mut dockerd, &log)?;
        let mut docker = Self { name: name.to_owned(), process };
        let ready = interrupt::poll("dockerd answers", START_LIMIT, || {
            docker.process.check()?;
            check(docker.command().args(["version"]), SHORT).map(drop)
        });
        ready.with_context(|| docker.process.log_tail())?;
        Ok(docker)
    }

    /// Pulls, however it ends.
    pub(crate) fn pull(&self, reference: &str) -> Result<Finished> {
        command::run(self.command().args(["pull", "--quiet", reference]), LONG)
    }

    fn command(&self) -> Command {
        let mut docker = netns::command(&netns::name(&self.name), "docker");
        docker.arg("--host").arg(socket(&self.name));
        docker
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Not killed: it is to end its containerd.
        if let Err(error) = self.process.stop() {
            eprintln!("{error:?}");
        }
    }
}

fn socket(name: &str) -> String {
    format!("unix://{}", run_dir(name).join("docker.sock").display())
}
