//! One node's `hawkerd`: its configuration, its life, its status.

use super::network::{CONTROL, Cluster, ORIGIN};
use super::processes::Process;
use super::{REGISTRY_NAME, data_dir, run_dir};
use crate::netns;
use crate::{http, interrupt};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time for a daemon to be in its cluster.
const START_LIMIT: Duration = Duration::from_secs(20);
pub(crate) const MIRROR: &str = "http://127.0.0.1:4001";
const STATUS: &str = "http://127.0.0.1:4003";

pub(crate) struct Daemon {
    program: PathBuf,
    namespace: String,
    config: PathBuf,
    pub(crate) store: PathBuf,
    process: Process,
}

impl Daemon {
    pub(crate) fn start(
        program: &Path,
        name: &str,
        cluster: Cluster,
        ip: Ipv4Addr,
        seed: bool,
    ) -> Result<Self> {
        let dir = data_dir(name);
        let store = dir.join("store");
        fs::create_dir_all(&store).with_context(|| format!("make {}", store.display()))?;
        let config = dir.join("daemon.yaml");
        let text = format!(
            "host: {{ hostname: {name}, advertiseIP: {ip}, idc: {} }}\n\
             manager: {{ addrs: [\"http://{CONTROL}:65003\"] }}\n\
             seedPeer: {{ enable: {seed} }}\n\
             mirror: {{ registries: [{{ host: \"{REGISTRY_NAME}\", server: \"http://{ORIGIN}:5000\" }}] }}\n\
             storage: {{ dir: {}, capacity: 8GiB }}\n\
             api: {{ socket: {} }}\n",
            cluster.name(),
            store.display(),
            run_dir(name).join("hawkerd.sock").display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let namespace = netns::name(name);
        let process = launch(program, &namespace, &config)?;
        Ok(Self { program: program.to_owned(), namespace, config, store, process })
    }

    /// Waits until it serves and is in touch with its scheduler.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let tail = || self.process.log_tail();
        let ready = interrupt::poll("the daemon is ready", START_LIMIT, || {
            let status = self.status()?;
            if status["scheduler"]["connected"] != true {
                bail!("no scheduler: {}", status["scheduler"]);
            }
            self.mirror("/healthz", &[]).map(drop)
        });
        ready.with_context(|| format!("{}:\n{}", self.namespace, tail()))
    }

    /// Waits until it serves, in touch with anybody or not.
    pub(crate) fn wait_serving(&self) -> Result<()> {
        interrupt::poll("the mirror answers", START_LIMIT, || self.mirror("/healthz", &[]).map(drop))
    }

    pub(crate) fn status(&self) -> Result<Value> {
        netns::within(&self.namespace, || http::get(&format!("{STATUS}/status"), &[])?.json())
    }

    /// Asks the mirror as a runtime on the node would.
    pub(crate) fn mirror(&self, path: &str, headers: &[(&str, &str)]) -> Result<http::Answer> {
        netns::within(&self.namespace, || http::get(&format!("{MIRROR}{path}"), headers))
    }

    /// `kill -9`.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.process.crash()
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = launch(&self.program, &self.namespace, &self.config)?;
        self.wait_serving()
    }

    pub(crate) fn leave(&mut self) {
        self.process.leave();
    }
}

fn launch(program: &Path, namespace: &str, config: &Path) -> Result<Process> {
    let mut command = netns::command(namespace, program);
    command.arg("--config").arg(config);
    Process::start(&format!("hawkerd of {namespace}"), &mut command, &config.with_extension("log"))
}
