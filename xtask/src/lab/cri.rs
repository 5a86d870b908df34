//! A node's container runtime interface, as a kubelet uses it: containerd with its CRI plugin, and `crictl`.
//!
//! Its own containerd, beside the one that `ctr` talks to: containerd shows content of one namespace to another that names its
//! digest, so that a pull here would find what `ctr` pulled and ask nobody.
//!
//! Invariant: registries are looked up in a hosts directory of the lab, never in the machine's.

use super::containerd::{self, Via};
use super::processes::Process;
use super::{data_dir, run_dir};
use crate::command::{self, Finished, LONG, SHORT, check};
use crate::{go, interrupt, netns};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CRICTL: &str = "sigs.k8s.io/cri-tools/cmd/crictl";
/// Speaks the first version of the interface, as containerd does from 1.6 on.
const VERSION: &str = "v1.34.0";
const CONTAINERD: &str = "github.com/containerd/containerd/v2/cmd/containerd";
const CONTAINERD_VERSION: &str = "v2.4.2";
const START_LIMIT: Duration = Duration::from_secs(20);

/// `crictl`, which Debian has not; an error says why there is none here.
pub(crate) fn crictl() -> Result<PathBuf, String> {
    go::install(CRICTL, VERSION)
}

/// containerd as nodes of today have it, where Debian's is 1.6; an error says why there is none here.
pub(crate) fn containerd_two() -> Result<PathBuf, String> {
    go::install(CONTAINERD, CONTAINERD_VERSION)
}

/// The running runtime of one node.
pub(crate) struct Cri {
    name: String,
    crictl: PathBuf,
    process: Process,
}

impl Cri {
    /// Starts it on node `name`; its pulls go `via`.
    pub(crate) fn start(name: &str, crictl: &Path, via: Via<'_>) -> Result<Self> {
        let (data, run) = dirs(name)?;
        let config = data.join("containerd.toml");
        let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
        let text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [{}]\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n\
             [{plugin}]\ndisable_tcp_service = true\n[{plugin}.cni]\nconf_dir = \"{}\"\n\
             [{plugin}.registry]\nconfig_path = \"{}\"\n",
            data.join("root").display(),
            run.join("state").display(),
            containerd::disabled().join(", "),
            socket(name).display(),
            run.join("ttrpc.sock").display(),
            data.join("cni").display(),
            containerd::hosts_dir(name, via).display(),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = netns::command(&netns::name(name), "containerd");
        command.arg("--config").arg(&config);
        Self::launch(name, crictl, &mut command, &config.with_extension("log"))
    }

    /// Starts `containerd` of version 2 with `/etc/containerd` and `/etc/hosts` of the node whose root directory this is.
    pub(crate) fn start_two(name: &str, crictl: &Path, containerd: &Path, root: &Path) -> Result<Self> {
        let (data, run) = dirs(name)?;
        let config = data.join("containerd.toml");
        let text = format!(
            "version = 3\nroot = \"{}\"\nstate = \"{}\"\nimports = [\"/etc/containerd/config.toml\"]\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\".cni]\nconf_dir = \"{}\"\n",
            data.join("root").display(),
            run.join("state").display(),
            socket(name).display(),
            run.join("ttrpc.sock").display(),
            data.join("cni").display(),
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let script = "mkdir -p /etc/containerd && mount --bind \"$1/containerd\" /etc/containerd && \
                      mount --bind \"$1/hosts\" /etc/hosts && shift && exec \"$@\"";
        let mut command = netns::command(&netns::name(name), "unshare");
        command.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(root.join("etc"));
        command.arg(containerd).arg("--config").arg(&config);
        Self::launch(name, crictl, &mut command, &config.with_extension("log"))
    }

    fn launch(name: &str, crictl: &Path, command: &mut Command, log: &Path) -> Result<Self> {
        let process = Process::start(&format!("containerd with CRI of {name}"), command, log)?;
        let mut cri = Self { name: name.to_owned(), crictl: crictl.to_owned(), process };
        let ready = interrupt::poll("the runtime interface answers", START_LIMIT, || {
            cri.process.check()?;
            check(cri.command().arg("version"), SHORT).map(drop)
        });
        ready.with_context(|| cri.process.log_tail())?;
        Ok(cri)
    }

    /// Pulls as somebody with these credentials, as a pod's pull secret gives them, however it ends.
    pub(crate) fn pull(&self, reference: &str, user: Option<(&str, &str)>) -> Result<Finished> {
        let mut command = self.command();
        command.arg("pull");
        if let Some((user, password)) = user {
            command.args(["--creds", &format!("{user}:{password}")]);
        }
        command::run(command.arg(reference), LONG)
    }

    fn command(&self) -> Command {
        let mut command = netns::command(&netns::name(&self.name), &self.crictl);
        let endpoint = format!("unix://{}", socket(&self.name).display());
        command.args(["--timeout", "60s", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint]);
        command
    }
}

/// Where it keeps what stays, and what does not.
fn dirs(name: &str) -> Result<(PathBuf, PathBuf)> {
    let (data, run) = (data_dir(name).join("cri"), run_dir(name).join("cri"));
    for dir in [&run, &data.join("cni")] {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    Ok((data, run))
}

fn socket(name: &str) -> PathBuf {
    run_dir(name).join("cri/containerd.sock")
}
