//! Refuses to embed an eBPF object that was not built from the sources beside it.
//!
//! Invariant: a daemon that builds carries the programs its sources describe; no eBPF toolchain is needed for it.

#[path = "../daemon-ebpf/sources.rs"]
mod sources;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let ebpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon-ebpf");
    for watched in sources::SOURCES.iter().chain([&sources::OBJECT, &sources::BUILT_FROM]) {
        println!("cargo::rerun-if-changed={}", ebpf.join(watched).display());
    }
    match check(&ebpf) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={problem}: run `cargo xtask build-ebpf`");
            ExitCode::FAILURE
        }
    }
}

fn check(ebpf: &Path) -> Result<(), String> {
    let built_from = std::fs::read_to_string(ebpf.join(sources::BUILT_FROM))
        .map_err(|error| format!("read daemon-ebpf/{}: {error}", sources::BUILT_FROM))?;
    let here = sources::hash(ebpf).map_err(|error| format!("read the eBPF sources: {error}"))?;
    match sources::entry(&built_from, "sources") {
        Some(built) if built == here => Ok(()),
        _ => Err(format!("the eBPF sources changed since daemon-ebpf/{} was built", sources::OBJECT)),
    }
}
