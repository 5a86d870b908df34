//! `hawkerd init-runtime`: plans for the runtimes of a node, applies or shows that, and tells what is left to do.
//!
//! Invariant: with `dry_run` nothing is written.

use crate::apply::{ApplyError, Step, steps};
use crate::disk::Disk;
use crate::plan::{Effect, Kind, Plan, PlanError};
use crate::state::{Base, State, StateError};
use crate::wanted::{Registry, Runtime, Version, Wanted};
use crate::{containerd, detect, docker, registries_conf};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where the node's files are: `/`, or the mount of an init container.
    pub root: PathBuf,
    /// Empty: those found.
    pub runtimes: Vec<Runtime>,
    pub mirror: SocketAddr,
    pub registries: Vec<Registry>,
    /// containerd's main file, as containerd sees it.
    pub containerd_config: PathBuf,
    /// `None`: asked for where that is possible.
    pub containerd_version: Option<Version>,
    /// Leave containerd's own configuration alone; only hosts files are written.
    pub keep_config_path: bool,
    pub dry_run: bool,
    pub revert: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("no registries to mirror: list them in mirror.registries, or name them by --registry")]
    NoRegistries,
    #[error("no container runtime found under {root}: name one by --runtime", root = .root.display())]
    NoRuntime { root: PathBuf },
    #[error("{runtime}: {source}")]
    Plan { runtime: Runtime, source: PlanError },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// What was done; it prints as what a person wants to know.
#[derive(Debug)]
pub struct Outcome {
    steps: Vec<Step>,
    effects: BTreeMap<Runtime, Effect>,
    notices: Vec<String>,
    dry_run: bool,
}

/// # Errors
/// [`InitError`]; nothing was written unless it is [`InitError::Apply`].
pub fn init(options: &InitOptions) -> Result<Outcome, InitError> {
    let disk = Disk::new(&options.root);
    let old = State::load(&disk)?.unwrap_or_else(|| State::empty(options.mirror));
    let plan = if options.revert { Plan::default() } else { plan(&disk, &old, options)? };
    let mirror = if options.revert { old.mirror } else { options.mirror };
    let mut found = steps(&disk, &old, &plan, mirror).map_err(ApplyError::from)?;
    if !options.dry_run {
        found = found.apply(&disk, &old)?;
    }
    let (steps, effects, notices) = (found.steps, found.effects, found.notices);
    Ok(Outcome { steps, effects, notices, dry_run: options.dry_run })
}

fn plan(disk: &Disk, state: &State, options: &InitOptions) -> Result<Plan, InitError> {
    if options.registries.is_empty() {
        return Err(InitError::NoRegistries);
    }
    let runtimes =
        if options.runtimes.is_empty() { detect::runtimes(disk) } else { options.runtimes.clone() };
    if runtimes.is_empty() {
        return Err(InitError::NoRuntime { root: options.root.clone() });
    }
    let base = Base { disk, state };
    let wanted = Wanted {
        mirror: options.mirror,
        registries: options.registries.clone(),
        containerd: options.containerd_version.or_else(|| detect::containerd_version(disk)),
    };
    let mut all = Plan::default();
    let mut add = |runtime: Runtime, plan: Result<Plan, PlanError>| -> Result<(), InitError> {
        let merged = plan.and_then(|plan| std::mem::take(&mut all).merge(plan));
        all = merged.map_err(|source| InitError::Plan { runtime, source })?;
        Ok(())
    };
    for runtime in runtimes {
        let planned = match runtime {
            Runtime::Containerd => containerd::plan(&base, &wanted, &options.containerd_config)
                .map(|plan| if options.keep_config_path { without_config(plan) } else { plan }),
            Runtime::Docker => docker::plan(&base, &wanted),
            Runtime::Crio | Runtime::Podman => registries_conf::plan(&base, &wanted, &[runtime]),
        };
        add(runtime, planned)?;
    }
    let mut said = BTreeSet::new();
    all.notices.retain(|notice| said.insert(notice.clone()));
    Ok(all)
}

/// The plan without the change to containerd's own configuration.
fn without_config(mut plan: Plan) -> Plan {
    let before = plan.files.len();
    plan.files.retain(|file| file.kind != Kind::ContainerdConfig);
    if plan.files.len() < before {
        plan.notices.push(
            "containerd's configuration is left as it is, as asked: pulls use the mirror once its config_path \
             names the directory of these hosts files"
                .to_owned(),
        );
    }
    plan
}

impl Outcome {
    /// Whether anything was, or with `dry_run` would be, changed.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.steps.len()
    }

    /// What each runtime needs before the change counts.
    #[must_use]
    pub fn effects(&self) -> &BTreeMap<Runtime, Effect> {
        &self.effects
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would be " } else { "" };
        if self.steps.is_empty() {
            writeln!(f, "nothing to change")?;
        }
        for Step { path, before, after, what } in &self.steps {
            let done = match (before, after) {
                (None, Some(_)) => "written",
                (_, None) => "removed",
                (Some(_), Some(_)) => "changed",
            };
            writeln!(f, "{would}{done}: {} ({what})", path.display())?;
            if self.dry_run
                && let Some(text) = after
            {
                // New lines only: the rest may hold passwords.
                let old: BTreeSet<&str> = before.iter().flat_map(|before| before.lines()).collect();
                let mut new = text.lines().filter(|line| !old.contains(line));
                new.try_for_each(|line| writeln!(f, "    {line}"))?;
            }
        }
        for (runtime, effect) in &self.effects {
            let needs = match effect {
                Effect::AtOnce => "reads this with its next pull: no restart is needed".to_owned(),
                Effect::Reload => format!("must read its files again: systemctl reload {runtime}"),
                Effect::Restart => format!("must be restarted: systemctl restart {runtime}"),
            };
            writeln!(f, "{runtime} {needs}")?;
        }
        self.notices.iter().try_for_each(|notice| writeln!(f, "note: {notice}"))
    }
}
