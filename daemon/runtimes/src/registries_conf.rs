//! CRI-O and podman: `registries.conf`. A file of our own in `registries.conf.d` has, for each registry, what the
//! other files say of it and the mirror before all other mirrors; an entry of a later file replaces an
//! earlier one of the same prefix whole.
//!
//! There is no `?ns=` here: the registry's name stands in the mirror's path, `127.0.0.1:4001/ghcr.io`, with `_` for
//! the colon of a port, which a path may not have.
//!
//! Invariant: other files are not touched.

use crate::files::Files;
use crate::plan::{Desired, Effect, Kind, Plan, PlanError};
use crate::toml_text::{Parsed, ended, marked};
use crate::wanted::{DOCKER_HUB, Registry, Runtime, Wanted, names_mirror};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

pub const CONFIG: &str = "/etc/containers/registries.conf";
pub const DROP_INS: &str = "/etc/containers/registries.conf.d";
/// Ours; late in the order, so that it speaks for earlier files.
pub const OWN: &str = "/etc/containers/registries.conf.d/zz-hawker.conf";

/// What the file of our own shall be, for those of `readers` (CRI-O, podman).
///
/// # Errors
/// [`PlanError`] names the file that cannot be read.
pub fn plan(files: &dyn Files, wanted: &Wanted, readers: &[Runtime]) -> Result<Plan, PlanError> {
    let found = Registries::load(files)?;
    let mut plan = Plan::default();
    let mut document = DocumentMut::new();
    let mut entries = ArrayOfTables::new();
    for registry in &wanted.registries {
        let existing = found.last(registry.host());
        if let Some(entry) = existing.filter(|entry| entry.blocked) {
            plan.notices.push(format!(
                "{}: {} is blocked there, so it is not mirrored",
                entry.place(),
                registry.host()
            ));
            continue;
        }
        if let Some(entry) = existing.filter(|entry| entry.mirror_index(wanted.mirror_addr()).is_some()) {
            plan.notices.push(format!("{}: names the mirror already and is left as it is", entry.place()));
            continue;
        }
        entries.push(entry_with_mirror(existing, registry, wanted));
        plan.notices.extend(found.in_the_way(registry.host(), Path::new(OWN)));
    }
    if entries.is_empty() {
        return Ok(plan);
    }
    let what = format!("mirror of {} registries", entries.len());
    document.insert("registry", Item::ArrayOfTables(entries));
    let effect = |runtime: &Runtime| {
        (*runtime, if *runtime == Runtime::Crio { Effect::Reload } else { Effect::AtOnce })
    };
    plan.files.push(Desired {
        path: PathBuf::from(OWN),
        // Ours, but what somebody may have added to it stays.
        text: ended(files.read(Path::new(OWN))?.unwrap_or_default())
            + &marked(document.to_string().trim_start()),
        kind: Kind::Marked,
        readers: readers.iter().map(effect).collect(),
        what,
    });
    Ok(plan)
}

/// An entry of some file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) prefix: String,
    pub(crate) blocked: bool,
    pub(crate) mirrors: Vec<MirrorEntry>,
    table: Table,
}

#[derive(Debug, Clone)]
pub(crate) struct MirrorEntry {
    pub(crate) location: String,
    pub(crate) insecure: bool,
    /// "all", "digest-only" or "tag-only".
    pub(crate) pulls: String,
}

impl Entry {
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.line)
    }

    pub(crate) fn mirror_index(&self, mirror: SocketAddr) -> Option<usize> {
        self.mirrors.iter().position(|entry| names_mirror(&entry.location, mirror))
    }

    fn from_table(path: &Path, line: usize, table: &dyn TableLike) -> Self {
        let text = |key: &str| table.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
        let prefix =
            Some(text("prefix")).filter(|prefix| !prefix.is_empty()).unwrap_or_else(|| text("location"));
        let digests = table.get("mirror-by-digest-only").and_then(Item::as_bool) == Some(true);
        let mirrors = tables(table.get("mirror")).into_iter().map(|mirror| {
            let text = |key: &str| mirror.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
            let pulls = Some(text("pull-from-mirror")).filter(|pulls| !pulls.is_empty());
            MirrorEntry {
                location: text("location"),
                insecure: mirror.get("insecure").and_then(Item::as_bool) == Some(true),
                pulls: pulls.unwrap_or_else(|| if digests { "digest-only" } else { "all" }.to_owned()),
            }
        });
        Self {
            path: path.to_owned(),
            line,
            prefix: prefix.trim_end_matches('/').to_owned(),
            blocked: table.get("blocked").and_then(Item::as_bool) == Some(true),
            mirrors: mirrors.collect(),
            table: table.iter().map(|(key, item)| (key.to_owned(), item.clone())).collect(),
        }
    }
}

/// All entries, in the order in which the files are read.
pub(crate) struct Registries {
    pub(crate) entries: Vec<Entry>,
}

impl Registries {
    pub(crate) fn load(files: &dyn Files) -> Result<Self, PlanError> {
        let names = files.list(Path::new(DROP_INS))?.unwrap_or_default();
        let drop_ins = names
            .into_iter()
            .filter(|name| name.ends_with(".conf"))
            .map(|name| Path::new(DROP_INS).join(name));
        let mut entries = Vec::new();
        for path in [PathBuf::from(CONFIG)].into_iter().chain(drop_ins) {
            if let Some(text) = files.read(&path)? {
                entries.extend(entries_of(&path, &text)?);
            }
        }
        Ok(Self { entries })
    }

    /// The entry that counts for a prefix.
    pub(crate) fn last(&self, prefix: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.prefix == prefix)
    }

    /// Entries of longer prefixes: images below them do not come here.
    pub(crate) fn longer<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.prefix.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')))
    }

    fn in_the_way(&self, host: &str, own: &Path) -> Vec<String> {
        let longer = self.longer(host).map(|entry| {
            format!(
                "{}: {} has an entry of its own, so images below it are not mirrored",
                entry.place(),
                entry.prefix
            )
        });
        let later =
            self.entries.iter().filter(|entry| entry.prefix == host && entry.path.as_path() > own).map(
                |entry| {
                    format!(
                        "{}: this file is read after {OWN} and replaces what it says of {host}",
                        entry.place()
                    )
                },
            );
        longer.chain(later).collect()
    }
}

fn entries_of(path: &Path, text: &str) -> Result<Vec<Entry>, PlanError> {
    let parsed = Parsed::new(path, text)?;
    let mut entries = Vec::new();
    match parsed.get(&["registry"]) {
        Some(Item::ArrayOfTables(tables)) => {
            entries
                .extend(tables.iter().map(|table| Entry::from_table(path, parsed.line(table.span()), table)));
        }
        Some(item) => {
            let line = parsed.line(item.span());
            entries.extend(tables(Some(item)).into_iter().map(|table| Entry::from_table(path, line, table)));
        }
        None => entries.extend(first_format(path, &parsed)),
    }
    Ok(entries)
}

/// The file's first format: `[registries.insecure]` and `[registries.block]` with lists of names.
fn first_format(path: &Path, parsed: &Parsed) -> Vec<Entry> {
    let names = |list: &str| -> Vec<(String, usize)> {
        let array = parsed.get(&["registries", list, "registries"]).and_then(Item::as_array);
        let elements = array.into_iter().flat_map(toml_edit::Array::iter);
        elements.filter_map(|value| Some((value.as_str()?.to_owned(), parsed.line(value.span())))).collect()
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (list, flag) in [("insecure", "insecure"), ("block", "blocked")] {
        for (name, line) in names(list) {
            let mut table = Table::new();
            if let Some(earlier) = entries.iter().position(|entry| entry.prefix == name) {
                table = entries.remove(earlier).table;
            }
            table.insert("location", toml_edit::value(name));
            table.insert(flag, toml_edit::value(true));
            entries.push(Entry::from_table(path, line, &table));
        }
    }
    entries
}

/// The tables of `[[x]]` or `x = [{…}]`.
fn tables(item: Option<&Item>) -> Vec<&dyn TableLike> {
    match item {
        Some(Item::ArrayOfTables(tables)) => tables.iter().map(|table| table as &dyn TableLike).collect(),
        Some(Item::Value(Value::Array(array))) => array
            .iter()
            .filter_map(Value::as_inline_table)
            .map(|table: &InlineTable| table as &dyn TableLike)
            .collect(),
        _ => Vec::new(),
    }
}

fn entry_with_mirror(existing: Option<&Entry>, registry: &Registry, wanted: &Wanted) -> Table {
    let mut table = Table::new();
    table.insert("prefix", toml_edit::value(registry.host()));
    match existing {
        Some(entry) => {
            for (key, item) in entry.table.iter().filter(|(key, _)| !["prefix", "mirror"].contains(key)) {
                table.insert(key, plain(item));
            }
        }
        None => {
            let hub = registry.host() == DOCKER_HUB && !registry.is_plain_http();
            table.insert(
                "location",
                toml_edit::value(if hub { DOCKER_HUB } else { registry.server_authority() }),
            );
            if registry.is_plain_http() {
                table.insert("insecure", toml_edit::value(true));
            }
        }
    }
    let mut mirrors = ArrayOfTables::new();
    let mut own = Table::new();
    let location = format!("{}/{}", wanted.mirror_addr(), registry.path_element());
    own.insert("location", toml_edit::value(location));
    // The mirror speaks plain HTTP, on loopback.
    own.insert("insecure", toml_edit::value(true));
    mirrors.push(own);
    for mirror in tables(existing.and_then(|entry| entry.table.get("mirror"))) {
        mirrors.push(mirror.iter().map(|(key, item)| (key.to_owned(), plain(item))).collect());
    }
    table.insert("mirror", Item::ArrayOfTables(mirrors));
    table
}

/// Without the other file's comments and spaces.
fn plain(item: &Item) -> Item {
    let mut item = item.clone();
    if let Some(value) = item.as_value_mut() {
        value.decor_mut().clear();
    }
    item
}
