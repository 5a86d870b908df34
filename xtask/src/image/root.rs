//! The files of an image: what programs of this machine need from it, and nothing else of it.
//!
//! Invariant: a tree's tar has its entries in order, owned by numbers, of the year 1970.

use crate::command::{SHORT, check};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions keep the bundle of trusted certificates.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

#[derive(Debug, Clone)]
struct Entry {
    /// `None`: a directory.
    bytes: Option<Vec<u8>>,
    mode: u32,
    owner: u32,
}

/// Files by their path below the root.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// A file of root's; its directories too.
    pub(super) fn add_file(&mut self, path: &Path, bytes: Vec<u8>, mode: u32) {
        let path = relative(path);
        self.add_parents(&path);
        self.0.insert(path, Entry { bytes: Some(bytes), mode, owner: 0 });
    }

    fn add_dir(&mut self, path: &str, mode: u32, owner: u32) {
        let path = relative(Path::new(path));
        self.add_parents(&path);
        self.0.insert(path, Entry { bytes: None, mode, owner });
    }

    fn add_parents(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
            self.0.entry(dir.to_owned()).or_insert(Entry { bytes: None, mode: 0o755, owner: 0 });
        }
    }

    /// As an uncompressed tar.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.into());
            header.set_gid(entry.owner.into());
            header.set_mtime(0);
            let bytes = entry.bytes.as_deref().unwrap_or_default();
            header.set_entry_type(if entry.bytes.is_some() {
                tar::EntryType::Regular
            } else {
                tar::EntryType::Directory
            });
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes).with_context(|| format!("add {}", path.display()))?;
        }
        tar.into_inner().context("end a tar")
    }
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// What libraries look for, and the directories that are written to.
pub(super) fn base(user: u32) -> Result<Tree> {
    let mut tree = Tree::default();
    let text = |text: String| text.into_bytes();
    tree.add_file(
        Path::new("etc/passwd"),
        text(format!(
            "root:x:0:0:root:/:/sbin/nologin\nhawker:x:{0}:{0}:hawker:/:/sbin/nologin\n",
            super::USER
        )),
        0o644,
    );
    tree.add_file(Path::new("etc/group"), text(format!("root:x:0:\nhawker:x:{}:\n", super::USER)), 0o644);
    // The C library has both built in; without this file it may ask for modules that are not here.
    tree.add_file(Path::new("etc/nsswitch.conf"), text("hosts: files dns\n".to_owned()), 0o644);
    let bundle = CERTIFICATES.iter().find(|path| Path::new(path).is_file());
    let bundle = bundle.with_context(|| format!("no certificates in any of {}", CERTIFICATES.join(", ")))?;
    tree.add_file(Path::new(CERTIFICATES[0]), fs::read(bundle)?, 0o644);
    tree.add_dir("etc/hawker", 0o755, 0);
    tree.add_dir("tmp", 0o1777, 0);
    tree.add_dir("run/hawker", 0o755, user);
    tree.add_dir("var/lib/hawker", 0o750, user);
    Ok(tree)
}

/// The shared libraries that the programs name, and the loader, by `ldd`.
pub(super) fn libraries(programs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        let listed = check(Command::new("ldd").arg(program), SHORT)?.stdout;
        for line in listed.lines() {
            found.extend(library(line).with_context(|| format!("libraries of {}", program.display()))?);
        }
    }
    ensure!(!found.is_empty(), "ldd names no libraries: the programs are static");
    Ok(found.into_iter().collect())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, `linux-vdso.so.1 (0x…)`.
fn library(line: &str) -> Result<Option<PathBuf>> {
    let line = line.trim();
    let path = line.split_once("=> ").map_or(line, |(_, path)| path);
    if path.starts_with("not found") {
        bail!("{line}");
    }
    let path = path.split(" (").next().unwrap_or_default();
    Ok(path.starts_with('/').then(|| PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_as_ldd_prints_them() {
        let path = |line| library(line).unwrap().map(|path| path.display().to_string());
        assert_eq!(path("\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)").as_deref(), Some("/lib/x/libm.so.6"));
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert!(library("\tlibgone.so => not found").is_err());
    }

    #[test]
    fn the_same_tree_is_the_same_tar() {
        let tree = || {
            let mut tree = Tree::default();
            tree.add_file(Path::new("/usr/bin/b"), vec![1], 0o755);
            tree.add_dir("tmp", 0o1777, 7);
            tree.add_file(Path::new("a"), vec![], 0o644);
            tree.tar().unwrap()
        };
        assert_eq!(tree(), tree());
        let bytes = tree();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().header().clone())
            .map(|header| {
                (
                    header.path().unwrap().display().to_string(),
                    header.mode().unwrap(),
                    header.mtime().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("a", 0o644, 0),
            ("tmp", 0o1777, 0),
            ("usr", 0o755, 0),
            ("usr/bin", 0o755, 0),
            ("usr/bin/b", 0o755, 0),
        ];
        assert_eq!(seen, expected.map(|(path, mode, time)| (path.to_owned(), mode, time)));
    }
}
