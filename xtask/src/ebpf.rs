//! `cargo xtask build-ebpf`: builds the eBPF object from source, byte for byte the same wherever it is built, and
//! puts it where the daemon embeds it from. Not part of an ordinary build, which needs stable Rust alone.
//!
//! Invariant: the object in the repository and `BUILT_FROM` beside it are written together.

mod elf;
#[path = "../../daemon-ebpf/sources.rs"]
mod sources;
mod toolchain;

use crate::command::{self, SHORT};
use crate::test::Tally;
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use toolchain::Toolchain;

const TARGET: &str = "bpfel-unknown-none";
/// The program of the crate, as cargo names the linked object.
const LINKED: &str = "hawker";

/// Builds and installs the object, and says what is in it.
pub(crate) fn run() -> Result<ExitCode> {
    let toolchain = match toolchain::find()? {
        Ok(toolchain) => toolchain,
        Err(why) => bail!("no toolchain for eBPF: {why}"),
    };
    let folder = folder()?;
    let object = build(&toolchain)?;
    fs::create_dir_all(folder.join("object"))?;
    let text = format!(
        "sources {}\nobject {}\nrustc {}\nbpf-linker {}\n",
        sources::hash(&folder).context("hash the sources")?,
        hex(&Sha256::digest(&object)),
        toolchain.rustc_version,
        toolchain.linker_version,
    );
    let unchanged = fs::read(folder.join(sources::OBJECT)).is_ok_and(|before| before == object);
    fs::write(folder.join(sources::OBJECT), &object).context("write the object")?;
    fs::write(folder.join(sources::BUILT_FROM), &text).context("write BUILT_FROM")?;
    print!("{}", elf::summary(&object)?);
    print!("{text}");
    let which = if unchanged { "the bytes that were there" } else { "new bytes" };
    println!("daemon-ebpf/{}: {} bytes, {which}", sources::OBJECT, object.len());
    Ok(ExitCode::SUCCESS)
}

/// Rebuilds from source and wants the committed bytes; the test behind "what is embedded is what is here".
pub(crate) fn verify(tally: &mut Tally) {
    const NAME: &str = "eBPF: the object in the repository is what its sources give";
    let found = toolchain::find().and_then(|found| {
        let built_from =
            fs::read_to_string(folder()?.join(sources::BUILT_FROM)).context("read BUILT_FROM")?;
        Ok(found.and_then(|toolchain| toolchain.is(&built_from).map(|()| toolchain)))
    });
    match found {
        Ok(Err(why)) => tally.skip(NAME, &why),
        Ok(Ok(toolchain)) => tally.run(NAME, || compare(&toolchain)),
        Err(error) => tally.run(NAME, || Err(error)),
    }
}

fn compare(toolchain: &Toolchain) -> Result<()> {
    let committed = fs::read(folder()?.join(sources::OBJECT)).context("read the object")?;
    let built = build(toolchain)?;
    ensure!(
        committed == built,
        "daemon-ebpf/{} ({}) is not what its sources give ({}): cargo xtask build-ebpf",
        sources::OBJECT,
        hex(&Sha256::digest(&committed)),
        hex(&Sha256::digest(&built)),
    );
    println!("    {} bytes, sha256 {}", built.len(), hex(&Sha256::digest(&built)));
    Ok(())
}

/// Compiles, links, strips; returns the object's bytes.
fn build(toolchain: &Toolchain) -> Result<Vec<u8>> {
    let (folder, target) = (folder()?, workspace::target()?.join("ebpf"));
    let mut cargo = toolchain.cargo()?;
    cargo
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\x1f"))
        .args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET]);
    ensure!(command::show(&mut cargo)?, "the eBPF programs do not compile");
    let linked = target.join(TARGET).join("release").join(LINKED);
    let stripped = target.join("hawker.bpf.o");
    // DWARF names crates by hashes that depend on the folder; BTF, which the kernel reads, stays.
    let mut objcopy = Command::new(&toolchain.objcopy);
    command::check(objcopy.arg("--strip-debug").arg(&linked).arg(&stripped), SHORT)?;
    fs::read(&stripped).with_context(|| format!("read {}", stripped.display()))
}

/// Flags under which two folders on two machines give the same bytes.
fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let root = workspace::root()?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![
        // v1, the default, has no atomic instruction that returns what was there.
        "-Ctarget-cpu=v3".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        remap(&root, "/hawker"),
        remap(&toolchain.sysroot, "/rust"),
    ];
    if let Some(home) = cargo_home() {
        flags.push(remap(&home, "/cargo"));
    }
    Ok(flags)
}

fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home)
}

fn folder() -> Result<PathBuf> {
    Ok(workspace::root()?.join("daemon-ebpf"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_has_its_programs_and_maps() {
        let folder = folder().unwrap();
        let object = fs::read(folder.join(sources::OBJECT)).unwrap();
        let summary = elf::summary(&object).unwrap();
        for name in ["peer_egress", "peer_ingress", "peer_sockets", "FLOWS"] {
            assert!(summary.contains(name), "{name} is not in\n{summary}");
        }
        let text = String::from_utf8_lossy(&object).into_owned();
        assert!(!text.contains(&folder.display().to_string()), "a folder of this machine is in the object");
        let built_from = fs::read_to_string(folder.join(sources::BUILT_FROM)).unwrap();
        assert_eq!(sources::entry(&built_from, "object"), Some(hex(&Sha256::digest(&object)).as_str()));
    }
}
