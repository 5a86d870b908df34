//! Where containerd looks for a registry's hosts: the directories of `config_path`, and in each
//! `host_port_`, `host:port`, `_default`.
//!
//! Invariant: [`look_up`] finds the directory containerd 1.x finds, or 2.x where there is one root.

use crate::files::{Files, FilesError};
use crate::plan::PlanError;
use crate::toml_text::{Parsed, quoted};
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, TableLike, Value};

pub(crate) const DEFAULT: &str = "_default";

/// `config_path` as containerd 1.x and its local pulls read it.
pub(crate) fn split(config_path: &str) -> Vec<PathBuf> {
    config_path.split(':').filter(|root| !root.is_empty()).map(PathBuf::from).collect()
}

pub(crate) struct Found {
    pub(crate) root: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) is_default: bool,
}

/// The first directory that exists.
pub(crate) fn look_up(files: &dyn Files, roots: &[PathBuf], host: &str) -> Result<Option<Found>, FilesError> {
    for root in roots {
        for name in names(host) {
            let dir = root.join(&name);
            if files.list(&dir)?.is_some() {
                return Ok(Some(Found { root: root.clone(), dir, is_default: name == DEFAULT }));
            }
        }
    }
    Ok(None)
}

fn names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':') {
        names.push(format!("{name}_{port}_"));
    }
    names.extend([host.to_owned(), DEFAULT.to_owned()]);
    names
}

/// Whether a directory of this name is the registry's own.
pub(crate) fn is_dir_of(name: &str, host: &str) -> bool {
    name != DEFAULT && names(host).iter().any(|own| own == name)
}

/// What a directory says, as the text of a `hosts.toml`.
#[derive(Default)]
pub(crate) struct Base {
    /// The file it is in, for messages.
    pub(crate) from: PathBuf,
    pub(crate) text: String,
}

/// The `hosts.toml` in `dir`, or one that says what the certificate files there say; file names in it made
/// absolute where it will stand in another directory (`target`).
pub(crate) fn as_hosts_file(files: &dyn Files, dir: &Path, target: &Path) -> Result<Base, PlanError> {
    let from = dir.join("hosts.toml");
    let text = match files.read(&from)? {
        Some(text) if !text.is_empty() && dir != target => with_absolute_names(&from, &text, dir)?,
        Some(text) if !text.is_empty() => text,
        _ => certificates(files, dir)?,
    };
    Ok(Base { from, text })
}

/// Docker's layout: `*.crt` are authorities, `*.cert` with `*.key` client pairs.
fn certificates(files: &dyn Files, dir: &Path) -> Result<String, FilesError> {
    let names = files.list(dir)?.unwrap_or_default();
    let full = |name: &str| quoted(&dir.join(name).display().to_string());
    let authorities: Vec<_> =
        names.iter().filter(|name| name.ends_with(".crt")).map(|name| full(name)).collect();
    let pairs: Vec<_> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".cert"))
        .map(|stem| format!("[{}, {}]", full(&format!("{stem}.cert")), full(&format!("{stem}.key"))))
        .collect();
    let line = |key: &str, values: &[String]| {
        if values.is_empty() { String::new() } else { format!("{key} = [{}]\n", values.join(", ")) }
    };
    Ok(line("ca", &authorities) + &line("client", &pairs))
}

fn with_absolute_names(path: &Path, text: &str, dir: &Path) -> Result<String, PlanError> {
    Parsed::new(path, text)?;
    let Ok(mut document) = text.parse::<DocumentMut>() else { return Ok(text.to_owned()) };
    absolute(document.as_table_mut(), dir);
    if let Some(hosts) = document.get_mut("host").and_then(Item::as_table_like_mut) {
        for (_, host) in hosts.iter_mut() {
            host.as_table_like_mut().into_iter().for_each(|host| absolute(host, dir));
        }
    }
    Ok(document.to_string())
}

fn absolute(table: &mut dyn TableLike, dir: &Path) {
    for key in ["ca", "client"] {
        if let Some(value) = table.get_mut(key).and_then(Item::as_value_mut) {
            absolute_value(value, dir);
        }
    }
}

fn absolute_value(value: &mut Value, dir: &Path) {
    if let Some(array) = value.as_array_mut() {
        array.iter_mut().for_each(|element| absolute_value(element, dir));
    } else if let Some(name) = value.as_str().filter(|name| !name.starts_with('/')) {
        let decor = value.decor().clone();
        *value = dir.join(name).display().to_string().into();
        *value.decor_mut() = decor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Memory;

    #[test]
    fn the_first_root_that_has_anything_wins() {
        let files = Memory::new(&[
            ("/a/_default/hosts.toml", ""),
            ("/b/r.lab:5000/hosts.toml", ""),
            ("/a/h_5000_/ca.crt", ""),
            ("/a/h:5000/ca.crt", ""),
        ]);
        let find = |roots: &str, host: &str| {
            look_up(&files, &split(roots), host).unwrap().map(|found| found.dir.display().to_string())
        };
        assert_eq!(find("/a:/b", "r.lab:5000").as_deref(), Some("/a/_default"));
        assert_eq!(find("/b:/a", "r.lab:5000").as_deref(), Some("/b/r.lab:5000"));
        assert_eq!(find("/a", "h:5000").as_deref(), Some("/a/h_5000_"));
        assert_eq!(find("/b", "ghcr.io"), None);
    }

    #[test]
    fn certificate_files_and_relative_names_keep_their_meaning_elsewhere() {
        let files = Memory::new(&[
            ("/b/r/ca.crt", ""),
            ("/b/r/c.cert", ""),
            ("/b/r/c.key", ""),
            (
                "/b/s/hosts.toml",
                "ca = \"s.crt\" # ours\n[host.\"https://m\"]\nclient = [[\"a.cert\", \"/k\"]]\n",
            ),
        ]);
        let text = |dir: &str| as_hosts_file(&files, Path::new(dir), Path::new("/a/x")).unwrap().text;
        assert_eq!(text("/b/r"), "ca = [\"/b/r/ca.crt\"]\nclient = [[\"/b/r/c.cert\", \"/b/r/c.key\"]]\n");
        assert_eq!(
            text("/b/s"),
            "ca = \"/b/s/s.crt\" # ours\n[host.\"https://m\"]\nclient = [[\"/b/s/a.cert\", \"/k\"]]\n"
        );
    }
}
