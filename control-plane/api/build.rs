//! Compiles the .proto files with a Rust compiler, so that building Hawker needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["host", "job", "manager", "origin", "scheduler"];
    let files = files.map(|name| format!("proto/hawker/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
