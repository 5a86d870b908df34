//! `config.toml` and what it imports: where `config_path` is set, what else decides whether mirrors are used,
//! and the same file with another `config_path` or endpoint.
//!
//! Invariant: an edit changes the one key it is about; comments and order stay.

use crate::files::Files;
use crate::plan::PlanError;
use crate::toml_text::Parsed;
use crate::wanted::{Version, names_mirror};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike};

/// Most files followed by `imports`.
const MAX_FILES: usize = 64;
/// Plugins whose `registry` table has `config_path`, by the version of the file.
const SECTIONS: [(i64, &str); 3] =
    [(1, "cri"), (2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.images")];
/// Names that disable the CRI plugin.
const CRI_PLUGINS: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"];
/// Snapshotters that unpack layers which containerd has fetched; others fetch for themselves.
const PLAIN_SNAPSHOTTERS: [&str; 7] =
    ["overlayfs", "native", "btrfs", "zfs", "devmapper", "erofs", "fuse-overlayfs"];

/// A value, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
}

pub(crate) struct Config {
    /// The main file, then what it imports, in the order in which containerd merges them. Never empty.
    files: Vec<ConfigFile>,
}

struct ConfigFile {
    path: PathBuf,
    /// `None`: there is no such file.
    text: Option<String>,
    parsed: Parsed,
    version: i64,
}

impl ConfigFile {
    fn load(files: &dyn Files, path: &Path, default_version: i64) -> Result<Self, PlanError> {
        let text = files.read(path)?;
        let parsed = Parsed::new(path, text.as_deref().unwrap_or_default())?;
        let version = parsed.get(&["version"]).and_then(Item::as_integer).unwrap_or(default_version);
        Ok(Self { path: path.to_owned(), text, parsed, version })
    }

    fn plugin(&self) -> &'static str {
        let known = SECTIONS.iter().rev().find(|(since, _)| self.version >= *since);
        known.map_or(SECTIONS[0].1, |(_, plugin)| plugin)
    }

    fn has_section(&self) -> bool {
        self.parsed.get_table(&["plugins", self.plugin()]).is_some()
    }

    fn found<T>(&self, value: T, line: usize) -> Found<T> {
        Found { value, path: self.path.clone(), line }
    }

    fn registry_string(&self, plugin: &str) -> Option<Found<String>> {
        let (value, line) = self.parsed.string(&["plugins", plugin, "registry", "config_path"])?;
        Some(self.found(value, line))
    }

    fn imports(&self) -> Vec<String> {
        let list = self.parsed.get(&["imports"]).and_then(Item::as_array);
        list.into_iter().flat_map(Array::iter).filter_map(|item| item.as_str()).map(str::to_owned).collect()
    }
}

impl Config {
    pub(crate) fn load(files: &dyn Files, path: &Path) -> Result<Self, PlanError> {
        let main = ConfigFile::load(files, path, 1)?;
        // containerd's own default when there is no file is its newest version; 2 is read by all.
        let version = if main.text.is_none() { 2 } else { main.version };
        let mut loaded = vec![ConfigFile { version, ..main }];
        let mut next = 0;
        while next < loaded.len() && loaded.len() < MAX_FILES {
            for pattern in loaded[next].imports() {
                let dir = loaded[next].path.parent().unwrap_or(Path::new("/")).to_owned();
                for import in matching(files, &dir.join(pattern))? {
                    if !loaded.iter().any(|file| file.path == import) {
                        loaded.push(ConfigFile::load(files, &import, version)?);
                    }
                }
            }
            next += 1;
        }
        Ok(Self { files: loaded })
    }

    pub(crate) fn exists(&self) -> bool {
        self.files[0].text.is_some()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    pub(crate) fn main_path(&self) -> &Path {
        &self.files[0].path
    }

    /// Version 3 files are read by 2.x only.
    pub(crate) fn merges_deeply(&self, version: Option<Version>) -> bool {
        self.files[0].version >= 3 || version.is_some_and(|version| version >= Version::DEEP_MERGE)
    }

    /// The file with the last word on the CRI plugin: containerd 1.x replaces a plugin's whole section by an
    /// imported one.
    fn holder(&self) -> &ConfigFile {
        self.files.iter().rev().find(|file| file.has_section()).unwrap_or(&self.files[0])
    }

    pub(crate) fn holder_path(&self) -> &Path {
        &self.holder().path
    }

    /// `config_path`, unless unset or empty.
    pub(crate) fn hosts_path(&self, deep: bool) -> Option<Found<String>> {
        let found = if deep {
            self.files.iter().rev().find_map(|file| file.registry_string(file.plugin()))
        } else {
            self.holder().registry_string(self.holder().plugin())
        };
        found.filter(|found| !found.value.is_empty())
    }

    /// A `config_path` under a plugin's name that this version of the file does not have.
    pub(crate) fn misplaced_hosts_path(&self) -> Option<Found<String>> {
        self.files.iter().find_map(|file| {
            let others = SECTIONS.iter().filter(|(_, plugin)| *plugin != file.plugin());
            others
                .filter_map(|(_, plugin)| file.registry_string(plugin))
                .find(|found| !found.value.is_empty())
        })
    }

    /// The first line of `registry.mirrors` or of TLS settings in `registry.configs`: containerd takes those or
    /// `config_path`, not both.
    pub(crate) fn legacy_mirrors(&self) -> Option<Found<()>> {
        self.files.iter().find_map(|file| {
            let registry = file.parsed.get_table(&["plugins", file.plugin(), "registry"])?;
            let table = |key: &str| registry.get(key).and_then(Item::as_table_like).filter(|t| !t.is_empty());
            let tls = || {
                let configs = table("configs")?;
                configs.iter().map(|(_, item)| item).find(|item| item.get("tls").is_some())?.get("tls")
            };
            let first = |table: &dyn TableLike| table.iter().next().and_then(|(_, item)| item.span());
            let span = table("mirrors").map(first).or_else(|| tls().map(Item::span))?;
            Some(file.found((), file.parsed.line(span)))
        })
    }

    pub(crate) fn has_legacy_mirrors(&self) -> bool {
        self.legacy_mirrors().is_some()
    }

    /// The endpoints of `registry.mirrors` that count for a host.
    pub(crate) fn endpoints(&self, host: &str) -> Option<Vec<String>> {
        let holder = self.holder();
        let mirrors = holder.parsed.get_table(&["plugins", holder.plugin(), "registry", "mirrors"])?;
        let list = endpoints(mirrors.get(host).or_else(|| mirrors.get("*"))?)?;
        Some(list.iter().filter_map(toml_edit::Value::as_str).map(str::to_owned).collect())
    }

    pub(crate) fn cri_is_disabled(&self) -> bool {
        self.disabled_cri().is_some()
    }

    pub(crate) fn disabled_cri(&self) -> Option<Found<()>> {
        self.files.iter().find_map(|file| {
            let disabled = file.parsed.get(&["disabled_plugins"])?;
            let names = disabled.as_array()?.iter().filter_map(toml_edit::Value::as_str);
            let cri = names.into_iter().any(|name| CRI_PLUGINS.contains(&name));
            cri.then(|| file.found((), file.parsed.line(disabled.span())))
        })
    }

    /// A boolean of the CRI plugin that is true.
    pub(crate) fn flag(&self, key: &str) -> Option<Found<()>> {
        self.files.iter().rev().find_map(|file| {
            let candidates =
                [vec!["plugins", file.plugin(), key], vec!["plugins", file.plugin(), "containerd", key]];
            let item = candidates.iter().find_map(|keys| file.parsed.get(keys))?;
            item.as_bool()?.then(|| file.found((), file.parsed.line(item.span())))
        })
    }

    /// A snapshotter that fetches content by itself.
    pub(crate) fn other_snapshotter(&self) -> Option<Found<String>> {
        self.files.iter().rev().find_map(|file| {
            let candidates = [
                vec!["plugins", file.plugin(), "snapshotter"],
                vec!["plugins", file.plugin(), "containerd", "snapshotter"],
            ];
            let (name, line) = candidates.iter().find_map(|keys| file.parsed.string(keys))?;
            let plain = name.is_empty() || PLAIN_SNAPSHOTTERS.contains(&name.as_str());
            (!plain).then(|| file.found(name, line))
        })
    }

    /// What stays as it is and matters.
    pub(super) fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if let Some(Found { value, path, line }) = self.other_snapshotter() {
            notices.push(format!(
                "{}:{line}: snapshotter {value} fetches layers by itself and may pass the mirror by",
                path.display()
            ));
        }
        if let Some(Found { path, line, .. }) = self.misplaced_hosts_path() {
            notices.push(format!(
                "{}:{line}: this config_path belongs to another version of the file and is not read",
                path.display()
            ));
        }
        notices
    }

    /// The holder's text with this `config_path`; a new version 2 file, which all of 1.6 to 2.x read, where
    /// there is none.
    pub(super) fn with_hosts_path(&self, value: &str) -> Result<String, PlanError> {
        let holder = self.holder();
        let text = holder.text.as_deref().unwrap_or("version = 2\n");
        edited(holder, text, |document| {
            let registry = table_at(document, &["plugins", holder.plugin(), "registry"])?;
            set_string(registry, "config_path", value);
            Some(())
        })
    }

    /// The file with `registry.mirrors`, and its text with the mirror as first endpoint of each host.
    pub(super) fn with_endpoints(
        &self,
        mirror: &str,
        addr: SocketAddr,
        hosts: &[&str],
    ) -> Result<(PathBuf, String), PlanError> {
        let holder = self.holder();
        let text = edited(holder, holder.text.as_deref().unwrap_or_default(), |document| {
            let mirrors = table_at(document, &["plugins", holder.plugin(), "registry", "mirrors"])?;
            // "*" no longer speaks for a host that gets an entry of its own.
            let all = mirrors.get("*").and_then(endpoints).cloned().unwrap_or_default();
            for host in hosts {
                if mirrors.get(host).is_none() {
                    let mut table = Table::new();
                    table.insert("endpoint", toml_edit::value(all.clone()));
                    mirrors.insert(host, Item::Table(table));
                }
                let entry = mirrors.get_mut(host)?.as_table_like_mut()?;
                let list = entry.entry("endpoint").or_insert_with(|| toml_edit::value(Array::new()));
                let list = list.as_array_mut()?;
                if !list.iter().any(|item| item.as_str().is_some_and(|text| names_mirror(text, addr))) {
                    list.insert(0, mirror);
                    if let Some(second) =
                        list.get_mut(1).filter(|value| value.decor().prefix().is_none_or(is_empty))
                    {
                        second.decor_mut().set_prefix(" ");
                    }
                }
            }
            Some(())
        })?;
        Ok((holder.path.clone(), text))
    }
}

/// `text` without endpoints that are the mirror: for a file somebody changed after us.
pub(crate) fn without_endpoints(text: &str, mirror: SocketAddr) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else { return text.to_owned() };
    let mut changed = false;
    for (_, plugin) in SECTIONS {
        let registry =
            document.get_mut("plugins").and_then(|plugins| plugins.get_mut(plugin)?.get_mut("registry"));
        let mirrors = registry.and_then(|registry| registry.get_mut("mirrors")?.as_table_like_mut());
        for (_, host) in mirrors.into_iter().flat_map(|mirrors| mirrors.iter_mut()) {
            if let Some(list) = host.get_mut("endpoint").and_then(Item::as_array_mut) {
                let before = list.len();
                list.retain(|item| !item.as_str().is_some_and(|text| names_mirror(text, mirror)));
                changed |= list.len() != before;
            }
        }
    }
    if changed { document.to_string() } else { text.to_owned() }
}

fn endpoints(host: &Item) -> Option<&Array> {
    host.get("endpoint")?.as_array()
}

fn is_empty(text: &toml_edit::RawString) -> bool {
    text.as_str().is_none_or(str::is_empty)
}

fn edited(
    file: &ConfigFile,
    text: &str,
    edit: impl FnOnce(&mut DocumentMut) -> Option<()>,
) -> Result<String, PlanError> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| PlanError::Syntax {
            path: file.path.clone(),
            line: 1,
            format: "TOML",
            message: error.message().to_owned(),
        })?;
    edit(&mut document).map(|()| document.to_string()).ok_or_else(|| {
        let line = file.parsed.get(&["plugins", file.plugin()]).and_then(Item::span);
        let problem = format!("`plugins.{}` is not written as tables: change it by hand", file.plugin());
        PlanError::Shape { path: file.path.clone(), line: file.parsed.line(line), problem }
    })
}

/// The table at a path of keys, made where it is missing, parents without headers of their own.
fn table_at<'d>(document: &'d mut DocumentMut, keys: &[&str]) -> Option<&'d mut dyn TableLike> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, key) in keys.iter().enumerate() {
        let implicit = depth + 1 < keys.len();
        let item = table.entry(key).or_insert_with(|| {
            let mut made = Table::new();
            made.set_implicit(implicit);
            Item::Table(made)
        });
        table = item.as_table_like_mut()?;
    }
    Some(table)
}

/// Sets a string, and keeps the comment behind the old one.
fn set_string(table: &mut dyn TableLike, key: &str, text: &str) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(value) => {
            let decor = value.decor().clone();
            *value = text.into();
            *value.decor_mut() = decor;
        }
        None => {
            table.insert(key, toml_edit::value(text));
        }
    }
}

/// The files a pattern of `imports` names: wildcards in the last element, as containerd's glob has them.
fn matching(files: &dyn Files, pattern: &Path) -> Result<Vec<PathBuf>, PlanError> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let (Some(dir), Ok(glob)) = (pattern.parent(), globset::Glob::new(&name)) else { return Ok(Vec::new()) };
    let matcher = glob.compile_matcher();
    let names = files.list(dir)?.unwrap_or_default();
    Ok(names.into_iter().filter(|name| matcher.is_match(name)).map(|name| dir.join(name)).collect())
}
