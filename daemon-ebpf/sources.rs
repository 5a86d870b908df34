//! The hash of everything the eBPF object is built from. Shared by the daemon's `build.rs`, which refuses an object
//! built from other sources, and by `cargo xtask build-ebpf`, which writes the hash beside the object.
//!
//! Invariant: the hash depends on names and contents alone, not on where the repository lies.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The object, the hash of its sources, and what it was built with; below `daemon-ebpf/`.
pub(crate) const OBJECT: &str = "object/hawker.bpf.o";
pub(crate) const BUILT_FROM: &str = "object/BUILT_FROM";
/// Folders and files that make the object, below `daemon-ebpf/`.
pub(crate) const SOURCES: [&str; 5] = ["Cargo.toml", "Cargo.lock", "src", "abi/Cargo.toml", "abi/src"];

/// Hash of the sources below `ebpf` (the folder `daemon-ebpf`), in hexadecimal.
pub(crate) fn hash(ebpf: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&ebpf.join(source), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let name = file.strip_prefix(ebpf).unwrap_or(&file).to_string_lossy().into_owned();
        let content = fs::read(&file)?;
        for part in [name.as_bytes(), &content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The value of `key` in `BUILT_FROM`, whose lines are `key value`.
pub(crate) fn entry<'a>(built_from: &'a str, key: &str) -> Option<&'a str> {
    built_from.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
