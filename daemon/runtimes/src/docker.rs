//! Docker: `registry-mirrors` in `daemon.json` for Docker Hub, the only registry Docker mirrors there; and, read
//! where the containerd image store is on (the default of new installations since Engine 29), `hosts.toml`
//! per registry under `/etc/docker/certs.d`.
//!
//! Invariant: `daemon.json` keeps its layout; an element is added to one list.

use crate::containerd::hosts::{self, HostsFile};
use crate::containerd::roots;
use crate::files::Files;
use crate::plan::{Desired, Effect, Kind, Plan, PlanError};
use crate::toml_text::line_at;
use crate::wanted::{DOCKER_HUB, Registry, Runtime, Wanted, names_mirror};
use jsonc_parser::ParseOptions;
use jsonc_parser::common::Ranged;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub const CONFIG: &str = "/etc/docker/daemon.json";
pub const CERTS: &str = "/etc/docker/certs.d";

/// What Docker's files shall be.
///
/// # Errors
/// [`PlanError`] names the file that cannot be read or changed.
pub fn plan(files: &dyn Files, wanted: &Wanted) -> Result<Plan, PlanError> {
    let path = Path::new(CONFIG);
    let text = files.read(path)?;
    let daemon = Daemon::parse(path, text.as_deref().unwrap_or_default())?;
    let mut plan = Plan::default();
    let (hub, others): (Vec<_>, Vec<_>) =
        wanted.registries.iter().partition(|registry| registry.host() == DOCKER_HUB);
    if !hub.is_empty() && daemon.mirrors.iter().any(|(mirror, _)| names_mirror(mirror, wanted.mirror_addr()))
    {
        plan.notices.push(format!("{CONFIG}: names the mirror already and is left as it is"));
    } else if !hub.is_empty() {
        plan.files.push(Desired {
            path: path.to_owned(),
            text: with_mirror(path, text.as_deref(), &wanted.mirror_url())?,
            kind: Kind::DockerDaemon,
            readers: vec![(Runtime::Docker, Effect::Reload)],
            what: "registry-mirrors".to_owned(),
        });
    }
    if others.is_empty() {
        return Ok(plan);
    }
    if daemon.containerd_store == Some(false) {
        let names: Vec<_> = others.iter().map(|registry| registry.host()).collect();
        plan.notices.push(format!(
            "{CONFIG}: without the containerd image store Docker mirrors docker.io only, not {}",
            names.join(", ")
        ));
        return Ok(plan);
    }
    if daemon.containerd_store.is_none() {
        plan.notices.push(format!(
            "Docker reads {CERTS}/…/hosts.toml only with the containerd image store, the default of installations \
             that began with Engine 29"
        ));
    }
    for registry in others {
        plan.files.extend(hosts_file(files, wanted, registry)?);
    }
    Ok(plan)
}

fn hosts_file(files: &dyn Files, wanted: &Wanted, registry: &Registry) -> Result<Option<Desired>, PlanError> {
    let dir = Path::new(CERTS).join(registry.host());
    let base = roots::as_hosts_file(files, &dir, &dir)?;
    if HostsFile::parse(&base.from, &base.text)?.entry_of(wanted.mirror_addr()).is_some() {
        return Ok(None);
    }
    Ok(Some(Desired {
        text: hosts::with_mirror(&base.from, &base.text, registry, &wanted.mirror_url())?,
        path: base.from,
        kind: Kind::Marked,
        readers: vec![(Runtime::Docker, Effect::AtOnce)],
        what: format!("mirror of {}", registry.host()),
    }))
}

/// What of `daemon.json` matters here.
#[derive(Debug, Default)]
pub(crate) struct Daemon {
    /// With their lines.
    pub(crate) mirrors: Vec<(String, usize)>,
    /// `features.containerd-snapshotter`, where it is written.
    pub(crate) containerd_store: Option<bool>,
}

impl Daemon {
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, PlanError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let value = jsonc_parser::parse_to_ast(text, &collect(), &strict())
            .map_err(|error| syntax(path, &error))?
            .value;
        let root =
            value.as_ref().and_then(jsonc_parser::ast::Value::as_object).ok_or_else(|| shape(path, 1))?;
        let mut daemon = Self::default();
        if let Some(mirrors) = root.get("registry-mirrors") {
            let line = |start| line_at(text, start);
            let array = mirrors.value.as_array().ok_or_else(|| shape(path, line(mirrors.value.start())))?;
            for element in &array.elements {
                if let Some(mirror) = element.as_string_lit() {
                    daemon.mirrors.push((mirror.value.to_string(), line(element.start())));
                }
            }
        }
        let store =
            root.get_object("features").and_then(|features| features.get_boolean("containerd-snapshotter"));
        daemon.containerd_store = store.map(|store| store.value);
        Ok(daemon)
    }
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
    }
}

fn collect() -> jsonc_parser::CollectOptions {
    jsonc_parser::CollectOptions { comments: jsonc_parser::CommentCollectionStrategy::Off, tokens: false }
}

fn syntax(path: &Path, error: &jsonc_parser::errors::ParseError) -> PlanError {
    PlanError::Syntax {
        path: path.to_owned(),
        line: error.line_display(),
        format: "JSON",
        message: error.kind().to_string(),
    }
}

fn shape(path: &Path, line: usize) -> PlanError {
    let problem = "is not what Docker reads: an object, with a list in registry-mirrors".to_owned();
    PlanError::Shape { path: PathBuf::from(path), line, problem }
}

fn with_mirror(path: &Path, text: Option<&str>, mirror: &str) -> Result<String, PlanError> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{\n}\n");
    let root = CstRootNode::parse(text, &strict()).map_err(|error| syntax(path, &error))?;
    let object = root.object_value().ok_or_else(|| shape(path, 1))?;
    let mirror = CstInputValue::String(mirror.to_owned());
    match object.get("registry-mirrors") {
        Some(property) => {
            property.array_value().ok_or_else(|| shape(path, 1))?.insert(0, mirror);
        }
        None => {
            object.append("registry-mirrors", CstInputValue::Array(vec![mirror]));
        }
    }
    Ok(root.to_string())
}

/// `text` without the mirror: for a file somebody changed after us.
pub(crate) fn without_mirror(text: &str, mirror: SocketAddr) -> String {
    let Ok(root) = CstRootNode::parse(text, &strict()) else { return text.to_owned() };
    let property = root.object_value().and_then(|object| object.get("registry-mirrors"));
    let Some(property) = property else { return text.to_owned() };
    let Some(list) = property.array_value() else { return text.to_owned() };
    for element in list.elements() {
        let value = element.as_string_lit().and_then(|literal| literal.decoded_value().ok());
        if value.is_some_and(|value| names_mirror(&value, mirror)) {
            element.remove();
        }
    }
    if list.elements().is_empty() {
        property.remove();
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &str = "http://127.0.0.1:4001";

    #[test]
    fn an_element_is_added_and_the_layout_kept() {
        let path = Path::new(CONFIG);
        let given = "{\n    \"log-driver\":   \"json-file\",\n    \"registry-mirrors\": [\"https://m\"]\n}\n";
        let text = with_mirror(path, Some(given), MIRROR).unwrap();
        assert_eq!(text, given.replace("[\"https", "[\"http://127.0.0.1:4001\", \"https"));
        let text = with_mirror(path, Some("{\n  \"bip\": \"10.0.0.1/24\"\n}"), MIRROR).unwrap();
        assert_eq!(Daemon::parse(path, &text).unwrap().mirrors, [(MIRROR.to_owned(), 3)]);
        assert!(text.starts_with("{\n  \"bip\": \"10.0.0.1/24\",\n"), "{text}");
        for nothing in [None, Some(""), Some("{}")] {
            let text = with_mirror(path, nothing, MIRROR).unwrap();
            assert_eq!(Daemon::parse(path, &text).unwrap().mirrors.len(), 1, "{text}");
        }
    }

    #[test]
    fn it_comes_out_of_a_file_that_was_changed_since() {
        let mirror = "127.0.0.1:4001".parse().unwrap();
        let text =
            "{\n  \"registry-mirrors\": [\"http://127.0.0.1:4001\", \"https://m\"],\n  \"debug\": true\n}\n";
        assert_eq!(without_mirror(text, mirror), text.replace("\"http://127.0.0.1:4001\",", ""));
        assert!(
            !without_mirror("{\"registry-mirrors\": [\"http://127.0.0.1:4001\"]}", mirror)
                .contains("mirrors")
        );
    }

    #[test]
    fn what_docker_would_refuse_is_refused_with_its_line() {
        for (text, line) in [
            ("{\n  \"a\": 1,\n}", "daemon.json:"),
            ("[]", "daemon.json:1"),
            ("{\n \"registry-mirrors\": \"x\"}", "daemon.json:2"),
        ] {
            let error = Daemon::parse(Path::new(CONFIG), text).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
