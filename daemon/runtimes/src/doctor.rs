//! `hawker doctor`: why the mirror is not used, with the place where that shows and what helps; and at the end a
//! pull through the mirror that proves bytes flow.
//!
//! The files' part ([`examine`]) is a function of the files, the processes and the settings; requests go through
//! a seam (`web`). Invariant: looking changes nothing, but that the canary's image may be in the store afterwards.

mod canary;
mod catalog;
mod containerd;
mod docker;
mod registries;
mod report;
mod web;

pub use catalog::{CHECKS, Check, Severity};
pub use report::{Canary, Finding, Report};

use crate::containerd::config::Found;
use crate::disk::Disk;
use crate::files::Files;
use crate::process::{self, Process};
use crate::wanted::{Registry, Runtime, Version, names_mirror, reachable};
use crate::{detect, registries_conf};
use catalog as c;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use web::{Ureq, Web};

/// Clocks of `/proc` and of file systems differ by less.
const CLOCK_GRAIN: Duration = Duration::from_millis(100);
/// In what a daemon says of a manager that refuses it.
const JOIN_TOKEN_KEY: &str = "manager.joinTokenFile";
/// Processes looked for: the runtimes' and the daemon's own.
const NAMES: [&str; 4] = ["containerd", "crio", "dockerd", "hawkerd"];

#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// Where the node's files are.
    pub root: PathBuf,
    /// Empty: those found.
    pub runtimes: Vec<Runtime>,
    /// Where the mirror is to listen, and where the daemon tells its status.
    pub mirror: SocketAddr,
    pub status: SocketAddr,
    /// The daemon's allow-list.
    pub registries: Vec<Registry>,
    pub containerd_config: PathBuf,
    /// `None`: asked for where that is possible.
    pub containerd_version: Option<Version>,
    /// To pull for proof; `None`: one that the node knows.
    pub image: Option<String>,
}

/// Examines this node. Blocks for as long as the canary takes.
#[must_use]
pub fn doctor(options: &DoctorOptions) -> Report {
    let disk = Disk::new(&options.root);
    let changed = |path: &Path| std::fs::metadata(disk.locate(path)).and_then(|found| found.modified()).ok();
    let runtimes =
        if options.runtimes.is_empty() { detect::runtimes(&disk) } else { options.runtimes.clone() };
    let mut context = Context {
        mirror: reachable(options.mirror),
        registries: &options.registries,
        containerd: options.containerd_version.or_else(|| detect::containerd_version(&disk)),
        processes: process::running(&NAMES),
        changed: &changed,
        good: Vec::new(),
        findings: Vec::new(),
    };
    let containerd_config = in_use(&context, &disk, &options.containerd_config);
    let web = Ureq::new();
    let listening = mirror(&web, &mut context);
    let status = canary::Status::ask(&web, reachable(options.status));
    daemon(&mut context, status.as_ref());
    examine(&disk, &mut context, &runtimes, &containerd_config);
    let mut report = Report { canary: None, good: context.good, findings: context.findings };
    if listening {
        let known = || canary::known_image(&disk, &options.registries);
        match options.image.clone().or_else(known) {
            Some(image) => {
                let probe = canary::Probe {
                    web: &web,
                    mirror: reachable(options.mirror),
                    status: reachable(options.status),
                };
                match probe.pull(&image, status.as_ref()) {
                    Ok(canary) => report.canary = Some(canary),
                    Err(finding) => report.findings.push(finding),
                }
                report.findings.extend(canary::present(&disk, &image));
            }
            None => report.findings.push(Finding::new(&c::CANARY_SKIPPED, "no --image, and none found")),
        }
    }
    report.findings.dedup();
    report
}

/// The file the running containerd was started with, where it is this machine's.
fn in_use(context: &Context<'_>, disk: &Disk, configured: &Path) -> PathBuf {
    let running = context.processes.iter().find(|process| process.name == "containerd");
    let named =
        running.and_then(|process| process.option(&["--config", "-c"])).filter(|_| disk.is_whole_machine());
    named.map_or_else(|| configured.to_owned(), PathBuf::from)
}

/// Everything the checks share.
struct Context<'a> {
    mirror: SocketAddr,
    registries: &'a [Registry],
    containerd: Option<Version>,
    processes: Vec<Process>,
    changed: &'a dyn Fn(&Path) -> Option<SystemTime>,
    good: Vec<String>,
    findings: Vec<Finding>,
}

impl Context<'_> {
    fn add(&mut self, check: &Check, evidence: impl Into<String>) {
        let finding = Finding::new(check, evidence);
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn warn(&mut self, check: &Check, evidence: impl Into<String>) {
        self.findings.push(Finding::new(check, evidence).into_warning());
    }

    fn good(&mut self, what: String) {
        self.good.push(what);
    }

    fn is_mirror(&self, text: &str) -> bool {
        names_mirror(text, self.mirror)
    }

    /// Whether the runtime's process began before its file was last changed.
    fn older_than(&mut self, name: &str, path: &Path) {
        let Some(changed) = (self.changed)(path) else { return };
        let older = |process: &&Process| process.name == name && process.started + CLOCK_GRAIN < changed;
        let Some(process) = self.processes.iter().find(older) else { return };
        let seconds = changed.duration_since(process.started).unwrap_or_default().as_secs();
        let evidence =
            format!("{}: changed {seconds} s after {name} (pid {}) was started", path.display(), process.pid);
        self.add(&c::NOT_RESTARTED, evidence);
    }
}

fn place<T>(found: &Found<T>) -> String {
    format!("{}:{}", found.path.display(), found.line)
}

/// The files and processes of all runtimes.
fn examine(files: &dyn Files, context: &mut Context<'_>, runtimes: &[Runtime], containerd_config: &Path) {
    if runtimes.is_empty() {
        context.add(&c::NO_RUNTIME, "looked for containerd, CRI-O, podman and Docker");
    }
    for runtime in runtimes {
        match runtime {
            Runtime::Containerd => containerd::examine(files, context, containerd_config),
            Runtime::Docker => docker::examine(files, context),
            Runtime::Crio | Runtime::Podman => registries::examine(files, context, *runtime),
        }
    }
    proxies(context);
}

/// Go never sends loopback to a proxy; everything else it does, unless `NO_PROXY` says otherwise.
fn proxies(context: &mut Context<'_>) {
    let runtimes: Vec<Process> =
        context.processes.iter().filter(|process| process.name != "hawkerd").cloned().collect();
    let daemon = context.processes.iter().find(|process| process.name == "hawkerd").cloned();
    for process in runtimes {
        let who = format!("{} (pid {})", process.name, process.pid);
        if let Some((name, value)) = process.http_proxy()
            && !context.mirror.ip().is_loopback()
            && !excluded(&process.no_proxy(), context.mirror)
        {
            context.add(&c::PROXY_TAKES_MIRROR, format!("{who}: {name}={}", without_user(value)));
        }
        if let (Some((name, value)), Some(daemon)) = (process.https_proxy(), &daemon)
            && daemon.https_proxy().is_none()
        {
            let evidence =
                format!("{who}: {name}={}; hawkerd (pid {}): not set", without_user(value), daemon.pid);
            context.add(&c::DAEMON_WITHOUT_PROXY, evidence);
        }
    }
}

fn excluded(no_proxy: &[&str], mirror: SocketAddr) -> bool {
    no_proxy.iter().any(|entry| {
        let network = entry.parse::<ipnet::IpNet>().ok();
        *entry == "*"
            || *entry == mirror.ip().to_string()
            || *entry == mirror.to_string()
            || network.is_some_and(|network| network.contains(&mirror.ip()))
    })
}

/// A proxy's URL may carry a password.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

/// Whether hawkerd answers at the mirror's address.
fn mirror(web: &dyn Web, context: &mut Context<'_>) -> bool {
    let url = format!("http://{}/healthz", context.mirror);
    match web.get(&url, &[]) {
        Ok(answer) if answer.status == 200 && answer.body.starts_with(b"ok") => {
            context.good(format!("mirror: {} answers", context.mirror));
            true
        }
        Ok(answer) => {
            context.add(&c::MIRROR_STRANGER, format!("GET {url}: {}", answer.reason()));
            false
        }
        Err(error) => {
            context.add(&c::MIRROR_SILENT, format!("GET {url}: {error}"));
            false
        }
    }
}

fn daemon(context: &mut Context<'_>, status: Result<&canary::Status, &String>) {
    match status {
        Err(error) => context.add(&c::STATUS_SILENT, error.clone()),
        Ok(status) => {
            if let Some(error) = status.store_error() {
                context.add(&c::STORE_ERROR, format!("/status: store: {error}"));
            }
            // The program's words for it name the key.
            if let Some(error) = status.manager_error().filter(|error| error.contains(JOIN_TOKEN_KEY)) {
                context.add(&c::JOIN_REFUSED, format!("/status: manager: {error}"));
            }
        }
    }
}

/// Where registries.conf of a user may stand.
fn user_registries_conf() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(Path::new(&home).join(".config/containers").join(Path::new(registries_conf::CONFIG).file_name()?))
}

#[cfg(test)]
mod tests;
