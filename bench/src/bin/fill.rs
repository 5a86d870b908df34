//! `bench-fill`: puts a blob of random bytes into a daemon's store, and prints its task and data file.
//!
//! Invariant: the blob is as a download leaves it: written in pieces, each with its digest, whole digest
//! true, synced, sealed.
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use anyhow::{Context, Result};
use clap::Parser;
use hawker_api::task::{Algorithm, TaskId};
use hawker_api::units::ByteSize;
use hawker_daemon::config::StorageConfig;
use hawker_daemon::store::Store;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Bytes generated and hashed at once.
const STEP_BYTES: u64 = 4 << 20;

/// A blob for benchmarks.
#[derive(Parser)]
#[command(name = "bench-fill")]
struct Arguments {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (size, seed) = (arguments.size.0, arguments.seed);
    let mut hasher = Sha256::new();
    generate(size, seed, STEP_BYTES, |bytes, _| {
        hasher.update(bytes);
        Ok(())
    })?;
    let task = TaskId::from_digest(Algorithm::Sha256, &hasher.finalize()).context("a digest of 32 bytes")?;
    let config = StorageConfig { dir: arguments.dir, capacity: ByteSize(0) };
    let store = Store::open(&config)?;
    let blob = store.create(&task, size)?;
    generate(size, seed, blob.geometry().piece_length(), |bytes, offset| {
        blob.write(bytes, offset)?;
        blob.commit(blob.geometry().piece_at(offset), *blake3::hash(bytes).as_bytes())?;
        Ok(())
    })?;
    store.seal(&blob)?;
    println!("{}", serde_json::json!({ "task": task.to_string(), "hex": task.hex() }));
    Ok(())
}

/// The same bytes for the same seed, whatever the step.
fn generate(size: u64, seed: u64, step: u64, mut take: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = vec![0; usize::try_from(step)?];
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from((size - offset).min(step))?;
        random.fill_bytes(&mut bytes[..length]);
        take(&bytes[..length], offset)?;
        offset += length as u64;
    }
    Ok(())
}
