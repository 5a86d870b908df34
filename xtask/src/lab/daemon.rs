//! One node's `hawkerd`: its configuration, its life, its status.

use super::network::{Cluster, ORIGIN};
use super::processes::Process;
use super::{FILES_NAME, REGISTRY_NAME, control, data_dir, nginx, run_dir};
use crate::netns;
use crate::{http, interrupt};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time for a daemon to be in its cluster.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Of each node's store.
const CAPACITY: &str = "8GiB";
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
        (ip, seed): (Ipv4Addr, bool),
        (shaper, two_managers): (&str, bool),
    ) -> Result<Self> {
        let dir = data_dir(name);
        let store = dir.join("store");
        fs::create_dir_all(&store).with_context(|| format!("make {}", store.display()))?;
        let config = dir.join("daemon.yaml");
        let text = format!(
            "host: {{ hostname: {name}, advertiseIP: {ip}, idc: {} }}\n\
             manager: {{ addrs: [{}] }}\n\
             seedPeer: {{ enable: {seed} }}\n\
             mirror: {{ registries: [{{ host: \"{REGISTRY_NAME}\", server: \"http://{ORIGIN}:5000\" }}] }}\n\
             files: {{ origins: [{{ host: \"{FILES_NAME}\", server: \"http://{}:{}\" }}] }}\n\
             storage: {{ dir: {}, capacity: {CAPACITY} }}\n\
             shaper: {shaper}\n\
             api: {{ socket: {} }}\n",
            cluster.name(),
            control::manager_addrs(two_managers),
            cluster.near_registry(),
            nginx::PORT,
            store.display(),
            run_dir(name).join("hawkerd.sock").display()
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let namespace = netns::name(name);
        let process = launch(program, &namespace, &config, None)?;
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

    /// Kilobytes of memory the daemon has now, shared pages of files included.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.pid()?);
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().context("read VmRSS")
    }

    /// Starts another daemon of this protocol version beside it, which takes over; returns the former.
    pub(crate) fn follow(&mut self, protocol: &str) -> Result<Process> {
        let before = self.taken_over()?;
        let mut next = launch(&self.program, &self.namespace, &self.config, Some(protocol))?;
        interrupt::poll("the next daemon serves", START_LIMIT, || {
            if let Err(ended) = next.check() {
                return Ok(Err(ended));
            }
            let status = self.status()?;
            let (count, speaks) = (status["lifetime"]["taken_over"].as_u64(), &status["host"]["protocol"]);
            if count <= Some(before) || *speaks != protocol {
                bail!("{count:?} hand-overs, it speaks {speaks}")
            }
            Ok(Ok(()))
        })??;
        Ok(std::mem::replace(&mut self.process, next))
    }

    /// Starts another daemon that is refused; returns what it says.
    pub(crate) fn refused(&self, protocol: &str) -> Result<String> {
        let mut next = launch(&self.program, &self.namespace, &self.config, Some(protocol))?;
        next.ends_within(START_LIMIT)?;
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains("start the daemon"));
        Ok(line.with_context(|| format!("nothing is said:\n{}", next.log_tail()))?.to_owned())
    }

    /// How often one daemon of this store followed a running one.
    pub(crate) fn taken_over(&self) -> Result<u64> {
        self.status()?["lifetime"]["taken_over"].as_u64().context("no count of hand-overs")
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    pub(crate) fn ends_within(&mut self, limit: Duration) -> Result<()> {
        self.process.ends_within(limit)
    }

    /// `kill -9`.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.process.crash()
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.stop()
    }

    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = launch(&self.program, &self.namespace, &self.config, None)?;
        self.wait_serving()
    }

    /// Restarts it with other registries, as in `mirror.registries`.
    pub(crate) fn with_registries(&mut self, registries: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config).context("read the daemon's configuration")?;
        let lines = text.lines().map(|line| match line.starts_with("mirror:") {
            true => format!("mirror: {{ registries: {registries} }}\n"),
            false => format!("{line}\n"),
        });
        fs::write(&self.config, lines.collect::<String>()).context("write the daemon's configuration")?;
        self.stop()?;
        self.restart()?;
        self.wait_ready()
    }

    /// Starts it again, with the same configuration.
    pub(crate) fn anew(&mut self) -> Result<()> {
        self.stop()?;
        self.restart()?;
        self.wait_ready()
    }

    /// Restarts it with one more line of configuration.
    pub(crate) fn with_line(&mut self, line: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config).context("read the daemon's configuration")?;
        fs::write(&self.config, format!("{text}{line}\n")).context("write the daemon's configuration")?;
        self.anew()
    }

    /// Restarts it in another IDC.
    pub(crate) fn with_idc(&mut self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config).context("read the daemon's configuration")?;
        let quoted = serde_json::to_string(to).context("quote an IDC")?;
        let text = text.replacen(&format!("idc: {from}"), &format!("idc: {quoted}"), 1);
        fs::write(&self.config, text).context("write the daemon's configuration")?;
        self.anew()
    }

    /// Restarts it with room for so much.
    pub(crate) fn with_capacity(&mut self, capacity: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config).context("read the daemon's configuration")?;
        let text = text.replacen(&format!("capacity: {CAPACITY}"), &format!("capacity: {capacity}"), 1);
        fs::write(&self.config, text).context("write the daemon's configuration")?;
        self.anew()
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    pub(crate) fn leave(&mut self) {
        self.process.leave();
    }
}

/// `protocol`: what it announces instead of its own.
fn launch(program: &Path, namespace: &str, config: &Path, protocol: Option<&str>) -> Result<Process> {
    let mut command = netns::command(namespace, program);
    command.envs(protocol.map(|protocol| ("HAWKERD_TEST_PROTOCOL", protocol)));
    command.arg("--config").arg(config);
    Process::start(&format!("hawkerd of {namespace}"), &mut command, &config.with_extension("log"))
}
