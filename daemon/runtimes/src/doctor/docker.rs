//! Docker's files, examined. Pure.

use super::Context;
use super::catalog as c;
use crate::containerd::hosts::HostsFile;
use crate::docker::{CERTS, CONFIG, Daemon};
use crate::files::Files;
use crate::wanted::DOCKER_HUB;
use std::path::Path;

pub(super) fn examine(files: &dyn Files, context: &mut Context<'_>) {
    let path = Path::new(CONFIG);
    let read = files.read(path).map_err(crate::plan::PlanError::from);
    let daemon = match read.and_then(|text| Daemon::parse(path, text.as_deref().unwrap_or_default())) {
        Ok(daemon) => daemon,
        Err(error) => return context.add(&c::FILE_INVALID, error.to_string()),
    };
    let hub = context.registries.iter().any(|registry| registry.host() == DOCKER_HUB);
    let index = daemon.mirrors.iter().position(|(mirror, _)| context.is_mirror(mirror));
    match index {
        None if hub => context
            .add(&c::MIRROR_MISSING, format!("{CONFIG}: registry-mirrors does not name {}", context.mirror)),
        None => {}
        Some(index) => mirrored(context, &daemon, index, hub),
    }
    others(files, context, &daemon);
}

fn mirrored(context: &mut Context<'_>, daemon: &Daemon, index: usize, hub: bool) {
    let (url, line) = &daemon.mirrors[index];
    if url.starts_with("https://") {
        context.add(&c::TLS_MISMATCH, format!("{CONFIG}:{line}: {url}"));
    }
    if index > 0 {
        let (first, line) = &daemon.mirrors[0];
        context.add(&c::MIRROR_NOT_FIRST, format!("{CONFIG}:{line}: {first} stands before it"));
    }
    if hub {
        context.good(format!("docker: {DOCKER_HUB} is mirrored ({CONFIG}:{line})"));
    } else if context.registries.len() != 1 {
        let evidence =
            format!("{CONFIG}:{line}: Docker names no registry, and {DOCKER_HUB} is not among the daemon's");
        context.add(&c::NS_MISSING, evidence);
    }
}

/// Registries other than Docker Hub: only with the containerd image store, by hosts.toml.
fn others(files: &dyn Files, context: &mut Context<'_>, daemon: &Daemon) {
    let others: Vec<_> = context.registries.iter().filter(|registry| registry.host() != DOCKER_HUB).collect();
    if others.is_empty() {
        return;
    }
    if daemon.containerd_store != Some(true) {
        let names: Vec<_> = others.iter().map(|registry| registry.host()).collect();
        let state = if daemon.containerd_store == Some(false) { "off" } else { "not set" };
        let evidence = format!(
            "{CONFIG}: features.containerd-snapshotter is {state}; not mirrored: {}",
            names.join(", ")
        );
        context.add(&c::DOCKER_HUB_ONLY, evidence);
        return;
    }
    for registry in others {
        let path = Path::new(CERTS).join(registry.host()).join("hosts.toml");
        let text = files.read(&path).map_err(crate::plan::PlanError::from);
        match text.and_then(|text| text.map(|text| HostsFile::parse(&path, &text)).transpose()) {
            Err(error) => context.add(&c::HOSTS_INVALID, error.to_string()),
            Ok(None) => context.add(&c::HOSTS_MISSING, format!("no {}", path.display())),
            Ok(Some(hosts)) if hosts.entry_of(context.mirror).is_none() => {
                context.add(&c::MIRROR_MISSING, path.display().to_string());
            }
            Ok(Some(_)) => context.good(format!("docker: {} is mirrored", registry.host())),
        }
    }
}
