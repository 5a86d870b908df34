//! containerd 1.6 to 2.x: `hosts.toml` per registry in the hosts directory, and `config_path` that leads there.
//!
//! Invariant: a registry's hosts, certificates and server that containerd used before stand in the new
//! `hosts.toml` after the mirror, in their order.

pub(crate) mod config;
pub(crate) mod hosts;
pub(crate) mod roots;

use crate::files::Files;
use crate::plan::{Desired, Effect, Kind, Plan, PlanError};
use crate::wanted::{Registry, Runtime, Version, Wanted};
use config::Config;
use std::path::{Path, PathBuf};

pub const CONFIG: &str = "/etc/containerd/config.toml";
/// Where hosts directories are made when nothing says otherwise.
pub const HOSTS_ROOT: &str = "/etc/containerd/certs.d";

/// What containerd's files shall be.
///
/// # Errors
/// [`PlanError`] names the file that cannot be read or changed.
pub fn plan(files: &dyn Files, wanted: &Wanted, config_path: &Path) -> Result<Plan, PlanError> {
    let config = Config::load(files, config_path)?;
    let mut plan = Plan { notices: config.notices(), ..Plan::default() };
    let deep = config.merges_deeply(wanted.containerd);
    let roots = match config.hosts_path(deep) {
        Some(found) => roots::split(&found.value),
        None if config.has_legacy_mirrors() => {
            plan.files.push(with_endpoints(&config, wanted)?);
            plan.notices.push(format!(
                "{}: mirrors are set by `registry.mirrors`, which is deprecated and excludes config_path: the \
                 mirror became the first endpoint there",
                config.holder_path().display()
            ));
            return Ok(plan);
        }
        None if config.cri_is_disabled() => {
            plan.notices.push(format!(
                "{}: the CRI plugin is disabled, so config_path is not set; nerdctl and `ctr --hosts-dir` read {HOSTS_ROOT}",
                config.main_path().display()
            ));
            vec![PathBuf::from(HOSTS_ROOT)]
        }
        None => {
            plan.files.push(with_hosts_path(&config, HOSTS_ROOT)?);
            vec![PathBuf::from(HOSTS_ROOT)]
        }
    };
    let trapped = roots.len() > 1 && wanted.containerd.is_none_or(|found| found >= Version::TRANSFER_SERVICE);
    if trapped {
        let only = roots[0].display().to_string();
        plan.files.push(with_hosts_path(&config, &only)?);
        plan.notices.push(format!(
            "config_path had {} directories; containerd 2.1 and later take that for the name of one, and use none: \
             only {only} is left, with what the others said",
            roots.len()
        ));
        plan.files.extend(carried_over(files, wanted, &roots)?);
    }
    for registry in &wanted.registries {
        plan.files.extend(with_mirror(files, wanted, registry, &roots, &mut plan.notices)?);
    }
    Ok(plan)
}

fn with_hosts_path(config: &Config, value: &str) -> Result<Desired, PlanError> {
    Ok(Desired {
        path: config.holder_path().to_owned(),
        text: config.with_hosts_path(value)?,
        kind: Kind::ContainerdConfig,
        readers: vec![(Runtime::Containerd, Effect::Restart)],
        what: format!("config_path = \"{value}\""),
    })
}

fn with_endpoints(config: &Config, wanted: &Wanted) -> Result<Desired, PlanError> {
    let hosts: Vec<&str> = wanted.registries.iter().map(Registry::host).collect();
    let (path, text) = config.with_endpoints(&wanted.mirror_url(), wanted.mirror_addr(), &hosts)?;
    Ok(Desired {
        path,
        text,
        kind: Kind::ContainerdConfig,
        readers: vec![(Runtime::Containerd, Effect::Restart)],
        what: "the mirror as first endpoint".to_owned(),
    })
}

/// `hosts.toml` of one registry, unless its own already names the mirror.
fn with_mirror(
    files: &dyn Files,
    wanted: &Wanted,
    registry: &Registry,
    roots: &[PathBuf],
    notices: &mut Vec<String>,
) -> Result<Option<Desired>, PlanError> {
    let found = roots::look_up(files, roots, registry.host())?;
    let dir = match &found {
        Some(found) if !found.is_default && found.root == roots[0] => found.dir.clone(),
        _ => roots[0].join(registry.host()),
    };
    let path = dir.join("hosts.toml");
    let base =
        found.map(|found| roots::as_hosts_file(files, &found.dir, &dir)).transpose()?.unwrap_or_default();
    let parsed = hosts::HostsFile::parse(&base.from, &base.text)?;
    if let Some(entry) = parsed.entry_of(wanted.mirror_addr()) {
        notices.push(format!(
            "{}:{}: names the mirror already and is left as it is",
            base.from.display(),
            entry.line
        ));
        return Ok(None);
    }
    let text = hosts::with_mirror(&path, &base.text, registry, &wanted.mirror_url())?;
    Ok(Some(hosts_file(path, text, format!("mirror of {}", registry.host()))))
}

fn hosts_file(path: PathBuf, text: String, what: String) -> Desired {
    let readers = vec![(Runtime::Containerd, Effect::AtOnce)];
    Desired { path, text, kind: Kind::Marked, readers, what }
}

/// What other roots say about registries that are not to be mirrored, where the first root would now hide it.
fn carried_over(files: &dyn Files, wanted: &Wanted, roots: &[PathBuf]) -> Result<Vec<Desired>, PlanError> {
    let mut carried: Vec<Desired> = Vec::new();
    for root in &roots[1..] {
        for name in files.list(root)?.unwrap_or_default() {
            let target = roots[0].join(&name);
            let mirrored = wanted.registries.iter().any(|registry| roots::is_dir_of(&name, registry.host()));
            let path = target.join("hosts.toml");
            let there = files.list(&target)?.is_some() || carried.iter().any(|file| file.path == path);
            if mirrored || there || files.list(&root.join(&name))?.is_none() {
                continue;
            }
            let base = roots::as_hosts_file(files, &root.join(&name), &target)?;
            hosts::HostsFile::parse(&base.from, &base.text)?;
            if !base.text.trim().is_empty() {
                let text = crate::toml_text::marked(&crate::toml_text::ended(base.text));
                carried.push(hosts_file(path, text, format!("what {} says", root.join(&name).display())));
            }
        }
    }
    Ok(carried)
}
