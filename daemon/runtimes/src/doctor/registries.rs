//! registries.conf of CRI-O and podman, examined. Pure, but for the user's home directory.

use super::catalog as c;
use super::{Context, user_registries_conf};
use crate::files::Files;
use crate::registries_conf::{CONFIG, Entry, Registries};
use crate::wanted::{Registry, Runtime};

pub(super) fn examine(files: &dyn Files, context: &mut Context<'_>, runtime: Runtime) {
    let registries = match Registries::load(files) {
        Ok(registries) => registries,
        Err(error) => return context.add(&c::FILE_INVALID, error.to_string()),
    };
    for registry in context.registries {
        let before = context.findings.len();
        one(context, &registries, registry);
        if context.findings.len() == before {
            context.good(format!("{runtime}: {} is mirrored", registry.host()));
        }
    }
    strangers(context, &registries);
    let user = user_registries_conf().filter(|_| runtime == Runtime::Podman);
    if let Some(path) = user.filter(|path| files.read(path).is_ok_and(|text| text.is_some())) {
        context.add(&c::USER_REGISTRIES_CONF, path.display().to_string());
    }
}

fn one(context: &mut Context<'_>, registries: &Registries, registry: &Registry) {
    let Some(entry) = registries.last(registry.host()) else {
        return context.add(&c::HOSTS_MISSING, format!("{CONFIG}: no [[registry]] for {}", registry.host()));
    };
    if entry.blocked {
        return context.add(&c::BLOCKED, format!("{}: {}", entry.place(), registry.host()));
    }
    let Some(index) = entry.mirror_index(context.mirror) else {
        let evidence = format!("{}: {} has no mirror {}", entry.place(), registry.host(), context.mirror);
        return context.add(&c::MIRROR_MISSING, evidence);
    };
    if index > 0 {
        let first = &entry.mirrors[0].location;
        context.add(&c::MIRROR_NOT_FIRST, format!("{}: {first} stands before it", entry.place()));
    }
    mirror_entry(context, entry, index, registry);
    for longer in registries.longer(registry.host()) {
        if longer.mirror_index(context.mirror).is_none() {
            context.add(&c::LONGER_PREFIX, format!("{}: {}", longer.place(), longer.prefix));
        }
    }
}

fn mirror_entry(context: &mut Context<'_>, entry: &Entry, index: usize, registry: &Registry) {
    let mirror = &entry.mirrors[index];
    if !mirror.insecure {
        context
            .add(&c::TLS_MISMATCH, format!("{}: {} without insecure = true", entry.place(), mirror.location));
    }
    if named(&mirror.location).as_deref() != Some(registry.host()) {
        let evidence = format!(
            "{}: location {} does not end with {}",
            entry.place(),
            mirror.location,
            registry.path_element()
        );
        context.add(&c::NS_MISSING, evidence);
    }
    if mirror.pulls == "digest-only" {
        context.add(&c::DIGEST_ONLY, entry.place());
    }
}

/// Mirrors of registries that the daemon refuses.
fn strangers(context: &mut Context<'_>, registries: &Registries) {
    for entry in &registries.entries {
        let Some(index) = entry.mirror_index(context.mirror) else { continue };
        let location = &entry.mirrors[index].location;
        if let Some(host) = named(location)
            && !context.registries.iter().any(|registry| registry.host() == host)
        {
            context.add(&c::REGISTRY_NOT_ALLOWED, format!("{}: {location}", entry.place()));
        }
    }
}

/// The registry in a mirror's location, `_` before a port read as a colon.
fn named(location: &str) -> Option<String> {
    let element = location.split('/').nth(1).filter(|element| !element.is_empty())?;
    let port = element.rsplit_once('_').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    Some(port.map_or_else(|| element.to_owned(), |(host, port)| format!("{host}:{port}")))
}
