//! containerd's files, examined. Pure.

use super::catalog as c;
use super::{Context, place};
use crate::containerd::config::{Config, Found};
use crate::containerd::hosts::{HostEntry, HostsFile};
use crate::containerd::{HOSTS_ROOT, roots};
use crate::files::Files;
use crate::plan::PlanError;
use crate::wanted::{Registry, Version};
use std::path::{Path, PathBuf};

/// Where hosts directories are found that nobody may be reading.
const USUAL_ROOTS: [&str; 2] = [HOSTS_ROOT, "/etc/docker/certs.d"];

pub(super) fn examine(files: &dyn Files, context: &mut Context<'_>, config_path: &Path) {
    let config = match Config::load(files, config_path) {
        Ok(config) => config,
        Err(error) => return context.add(&c::FILE_INVALID, error.to_string()),
    };
    let before = context.findings.len();
    let roots = roots_in_use(context, &config);
    plugin(context, &config);
    if let Some(roots) = roots {
        let names: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        for registry in context.registries {
            let found = context.findings.len();
            if let Err(error) = registry_hosts(files, context, registry, &roots) {
                context.add(&c::HOSTS_INVALID, error.to_string());
            }
            if context.findings.len() == found {
                context.good(format!("containerd: {} is mirrored ({})", registry.host(), names.join(", ")));
            }
        }
        if let Err(error) = strangers(files, context, &roots) {
            context.add(&c::HOSTS_INVALID, error.to_string());
        }
    }
    if context.findings.len() == before {
        let exists = if config.exists() { "" } else { " (no such file: defaults)" };
        context.good(format!("containerd: {}{exists}", config.main_path().display()));
    }
}

/// The directories containerd reads; `None`: none, and said why.
fn roots_in_use(context: &mut Context<'_>, config: &Config) -> Option<Vec<PathBuf>> {
    let deep = config.merges_deeply(context.containerd);
    let misplaced = config.misplaced_hosts_path();
    let Some(found) = config.hosts_path(deep) else {
        if config.cri_is_disabled() {
            return Some(vec![PathBuf::from(HOSTS_ROOT)]);
        }
        match (misplaced, config.legacy_mirrors()) {
            (Some(found), _) => context.add(&c::CONFIG_PATH_MISPLACED, place(&found)),
            // The mirror may be the first endpoint there.
            (None, Some(found)) => legacy(context, config, &found),
            (None, None) => context
                .add(&c::CONFIG_PATH_UNSET, format!("{}: no config_path", config.main_path().display())),
        }
        return None;
    };
    if let Some(legacy) = config.legacy_mirrors() {
        context.add(&c::MIRRORS_AND_CONFIG_PATH, format!("{} and {}", place(&legacy), place(&found)));
    }
    let roots = roots::split(&found.value);
    if roots.len() > 1 {
        two_roots(context, config, &found);
    }
    Some(roots)
}

fn two_roots(context: &mut Context<'_>, config: &Config, found: &Found<String>) {
    let evidence = format!("{}: config_path = \"{}\"", place(found), found.value);
    let local_pull = config.flag("use_local_image_pull").or_else(|| config.flag("discard_unpacked_layers"));
    match context.containerd {
        Some(version) if version < Version::TRANSFER_SERVICE => {}
        Some(version) if local_pull.is_none() => {
            context.add(&c::TWO_ROOTS, format!("{evidence}, containerd {version}"));
        }
        // Pulls by the CRI plugin itself split the list, today.
        Some(_) => context.warn(&c::TWO_ROOTS, evidence),
        None => context.warn(&c::TWO_ROOTS, format!("{evidence}; the version of containerd is not known")),
    }
}

fn legacy(context: &mut Context<'_>, config: &Config, found: &Found<()>) {
    for registry in context.registries {
        match config.endpoints(registry.host()) {
            Some(list) if list.iter().any(|text| context.is_mirror(text)) => {
                context.good(format!("containerd: {} is mirrored by registry.mirrors", registry.host()));
            }
            Some(_) => context.add(&c::MIRROR_MISSING, format!("{}: {}", place(found), registry.host())),
            None => context
                .add(&c::HOSTS_MISSING, format!("{}: no endpoint for {}", place(found), registry.host())),
        }
    }
}

/// What else decides how the CRI plugin pulls.
fn plugin(context: &mut Context<'_>, config: &Config) {
    if let Some(found) = config.disabled_cri() {
        context.add(&c::CRI_DISABLED, place(&found));
    }
    if let Some(found) = config.other_snapshotter() {
        context.add(&c::OTHER_SNAPSHOTTER, format!("{}: snapshotter = \"{}\"", place(&found), found.value));
    }
    for path in config.paths() {
        context.older_than("containerd", path);
    }
}

fn registry_hosts(
    files: &dyn Files,
    context: &mut Context<'_>,
    registry: &Registry,
    roots: &[PathBuf],
) -> Result<(), PlanError> {
    let host = registry.host();
    let Some(found) = roots::look_up(files, roots, host)? else {
        match elsewhere(files, context, host, roots)? {
            Some(path) => {
                context.add(&c::WRONG_ROOT, format!("{}: containerd reads {}", path.display(), shown(roots)));
            }
            None => context.add(&c::HOSTS_MISSING, format!("no {}/{host}/hosts.toml", roots[0].display())),
        }
        return Ok(());
    };
    let path = found.dir.join("hosts.toml");
    let Some(text) = files.read(&path)?.filter(|text| !text.is_empty()) else {
        let check = if default_names_mirror(files, context, &found.root)? {
            &c::DEFAULT_SHADOWED
        } else {
            &c::HOSTS_MISSING
        };
        context.add(check, format!("{} has no hosts.toml", found.dir.display()));
        return Ok(());
    };
    let hosts = HostsFile::parse(&path, &text)?;
    let entry = hosts.hosts.iter().position(|entry| context.is_mirror(&entry.url));
    let Some(index) = entry else {
        let others: Vec<_> = hosts.hosts.iter().map(|entry| entry.url.as_str()).collect();
        let evidence = format!(
            "{}: hosts are [{}], the mirror is {}",
            path.display(),
            others.join(", "),
            context.mirror
        );
        let shadowed = !found.is_default && default_names_mirror(files, context, &found.root)?;
        context.add(if shadowed { &c::DEFAULT_SHADOWED } else { &c::MIRROR_MISSING }, evidence);
        return Ok(());
    };
    if index > 0 {
        let before = &hosts.hosts[0];
        context.add(
            &c::MIRROR_NOT_FIRST,
            format!("{}:{}: {} stands before it", path.display(), before.line, before.url),
        );
    }
    mirror_entry(context, &path, &hosts.hosts[index]);
    Ok(())
}

fn mirror_entry(context: &mut Context<'_>, path: &Path, entry: &HostEntry) {
    let at = |line: usize| format!("{}:{line}", path.display());
    let capabilities = entry.capabilities.as_ref().map_or(entry.line, |(_, line)| *line);
    if !entry.can("pull") {
        context.add(&c::PULL_MISSING, at(capabilities));
    } else if !entry.can("resolve") {
        context.add(&c::RESOLVE_MISSING, at(capabilities));
    }
    if let Some((key, line)) = entry.tls {
        context.add(&c::TLS_MISMATCH, format!("{}: {key}", at(line)));
    }
    // Without a scheme containerd means https.
    if !entry.url.starts_with("http://") {
        context.add(&c::TLS_MISMATCH, format!("{}: {}", at(entry.line), entry.url));
    }
    if let Some(line) = entry.override_path {
        context.add(&c::OVERRIDE_PATH, at(line));
    }
}

fn default_names_mirror(files: &dyn Files, context: &Context<'_>, root: &Path) -> Result<bool, PlanError> {
    names_mirror(files, context, &root.join(roots::DEFAULT).join("hosts.toml"))
}

fn names_mirror(files: &dyn Files, context: &Context<'_>, path: &Path) -> Result<bool, PlanError> {
    let text = files.read(path)?.unwrap_or_default();
    Ok(HostsFile::parse(path, &text)?.hosts.iter().any(|entry| context.is_mirror(&entry.url)))
}

/// A hosts.toml with the mirror where nobody looks.
fn elsewhere(
    files: &dyn Files,
    context: &Context<'_>,
    host: &str,
    roots: &[PathBuf],
) -> Result<Option<PathBuf>, PlanError> {
    let unread = USUAL_ROOTS.iter().map(PathBuf::from).filter(|root| !roots.contains(root));
    for root in unread {
        if let Some(found) = roots::look_up(files, std::slice::from_ref(&root), host)? {
            let path = found.dir.join("hosts.toml");
            if names_mirror(files, context, &path)? {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Registries the runtime asks the mirror for, though the daemon will refuse.
fn strangers(files: &dyn Files, context: &mut Context<'_>, roots: &[PathBuf]) -> Result<(), PlanError> {
    for root in roots {
        for name in files.list(root)?.unwrap_or_default() {
            let allowed = context.registries.iter().any(|registry| roots::is_dir_of(&name, registry.host()));
            let path = root.join(&name).join("hosts.toml");
            if name != roots::DEFAULT && !allowed && names_mirror(files, context, &path)? {
                context.add(&c::REGISTRY_NOT_ALLOWED, format!("{}: {name}", path.display()));
            }
        }
    }
    Ok(())
}

fn shown(roots: &[PathBuf]) -> String {
    roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(":")
}
