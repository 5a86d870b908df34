//! The emulated machine's whole file system: programs with the shared libraries they need, modules of its kernel, and
//! this program as its first process.
//!
//! Invariant: nothing of the host is in it but copies of named programs and of the libraries `ldd` names.

use super::kernels::Kernel;
use crate::command::{LONG, SHORT, check};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests call, and what the kernel calls (`modprobe`).
const TOOLS: [&str; 20] = [
    "sh", "env", "chown", "find", "cat", "grep", "awk", "ip", "tc", "nsenter", "unshare", "setpriv",
    "bpftool", "modprobe", "mount", "umount", "dmesg", "sleep", "iperf3", "mke2fs",
];
/// Parts of the kernel's modules that are taken: the network without drivers, veth, the disk and how it is set.
const MODULES: [&str; 7] = [
    "kernel/net",
    "kernel/lib",
    "kernel/crypto",
    "kernel/arch/x86/crypto",
    "kernel/drivers/block",
    "kernel/fs/configfs",
    "kernel/drivers/net/",
];
const INIT: &str = "#!/bin/sh\nexec /bin/xtask vm-init\n";

/// A program, and its name in the machine.
pub(super) type Program = (PathBuf, &'static str);

/// Lays out the tree in `folder` and packs it; returns the archive.
pub(super) fn build(kernel: &Kernel, programs: &[Program], folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for place in ["usr/bin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "tmp", "run", "etc"] {
        fs::create_dir_all(root.join(place))
            .with_context(|| format!("make {place} in {}", root.display()))?;
    }
    for (link, target) in
        [("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
    {
        symlink(target, root.join(link))?;
    }
    symlink("bin", root.join("usr/sbin"))?;
    let mut libraries = BTreeSet::new();
    for tool in TOOLS {
        let path = find(tool).with_context(|| format!("{tool} is not installed"))?;
        libraries.extend(needs(&path)?);
        copy(&path, &root.join("bin").join(tool))?;
    }
    for (path, name) in programs {
        libraries.extend(needs(path)?);
        let there = root.join("bin").join(name);
        copy(path, &there)?;
        // Symbols are most of a program's size, and all of it is memory in there.
        check(Command::new("strip").arg("--strip-debug").arg(&there), LONG)?;
    }
    for library in libraries {
        let there = root.join(library.strip_prefix("/").unwrap_or(&library));
        copy(&library, &there)?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    modules(kernel, &root)?;
    pack(&root, &folder.join("initramfs.cpio"))
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// The libraries a program is linked to, and its loader.
fn needs(program: &Path) -> Result<Vec<PathBuf>> {
    let text = check(Command::new("ldd").arg(program), SHORT)?.stdout;
    Ok(libraries(&text))
}

fn libraries(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    ldd.lines().filter_map(path).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let place = root.join("usr/lib/modules").join(&kernel.name);
    fs::create_dir_all(&place)?;
    for part in MODULES {
        let from = kernel.modules.join(part);
        if !from.is_dir() {
            continue;
        }
        let to = place.join(part);
        fs::create_dir_all(&to)?;
        // A part that ends in "/" is taken without its subfolders: those are drivers.
        let mut copy = Command::new("cp");
        if part.ends_with('/') {
            let files = fs::read_dir(&from)?.flatten().map(|entry| entry.path());
            copy.args(files.filter(|path| path.is_file())).arg(&to);
        } else {
            copy.arg("-rT").arg(&from).arg(&to);
        }
        check(&mut copy, LONG)?;
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let from = kernel.modules.join(list);
        if from.is_file() {
            copy(&from, &place.join(list))?;
        }
    }
    check(Command::new("depmod").arg("-b").arg(root).arg(&kernel.name), LONG)?;
    Ok(())
}

fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . -print0 | cpio --null --create --format=newc --owner=+0:+0 --quiet > \"$0\""]);
    check(pack.arg(archive).current_dir(root), LONG)?;
    Ok(archive.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_libraries_and_the_loader() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            libraries(text),
            [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
