//! The receiving side: a whole blob from a serving process into files, by Hawker's own client and store and by
//! two plain ways of doing it with tokio.
//!
//! Not the swarm: nobody decides here what to fetch. Invariant: all ways fetch the same pieces in the same order
//! over the same number of connections, into space that was reserved before the clock started.

mod digest;
mod least;
mod plain;
mod product;

pub use digest::{Hasher, Kind as DigestKind};

use crate::cpu;
use crate::receive_report::Received;
use anyhow::{Context, Result, ensure};
use hawker_api::pieces::Geometry;
use hawker_api::task::TaskId;
use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Bytes compared at once.
const COMPARE_BYTES: usize = 1 << 20;

/// How pieces get from sockets into files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// hawkerd's client and store.
    Product,
    /// tokio's `read` into a buffer, `pwrite` from it.
    Plain,
    /// Whole pieces in vectors, `tokio::fs`.
    Naive,
    /// Asked for and dropped: what receiving costs at least.
    Discard,
    /// From a buffer into a file: what hashing and storing cost at least.
    Write,
}

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Job {
    pub server: SocketAddr,
    pub task: TaskId,
    pub size: u64,
    /// On the disk that is written to; empty.
    pub dir: PathBuf,
    pub connections: usize,
    pub digest: DigestKind,
    /// Fetch the blob once before the clock starts, so that its pages are there: what is measured then is the
    /// receiving alone. A real pull always writes into fresh pages.
    pub overwrite: bool,
    /// Compare what was written, after the clock stopped.
    pub compare: Option<PathBuf>,
}

/// Fetches the blob.
///
/// # Errors
/// Anything: there is no figure then.
pub async fn run(way: Way, job: Job) -> Result<Received> {
    match way {
        Way::Product => product::run(&job).await,
        Way::Plain | Way::Naive => plain::run(way, &job).await,
        Way::Discard => least::discard(&job).await,
        Way::Write => least::write(&job),
    }
}

/// Pieces still to be fetched, in order.
struct Pieces {
    geometry: Geometry,
    next: AtomicU32,
}

impl Pieces {
    fn of(size: u64) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { geometry: Geometry::new(size)?, next: AtomicU32::new(0) }))
    }

    fn next(&self) -> Option<(u32, Range<u64>)> {
        let piece = self.next.fetch_add(1, Ordering::Relaxed);
        (piece < self.geometry.count()).then(|| (piece, self.geometry.range(piece)))
    }
}

/// Time and CPU of this process while it receives.
struct Clock {
    started: Instant,
    cpu: std::time::Duration,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu::own() }
    }

    fn stop(self, bytes: u64) -> Received {
        let seconds = self.started.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let gigabytes = bytes as f64 / 1e9;
        let cpu = (cpu::own() - self.cpu).as_secs_f64();
        let peak_resident_kib = peak_resident_kib().unwrap_or(0);
        let (gb_per_second, cpu_per_gb) = (gigabytes / seconds, cpu / gigabytes);
        Received { seconds, gb_per_second, cpu_per_gb, peak_resident_kib }
    }
}

/// `VmHWM` of this process.
fn peak_resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

fn compare(written: &File, source: &Path) -> Result<()> {
    let source = File::open(source).with_context(|| format!("open {}", source.display()))?;
    let size = source.metadata()?.len();
    let (mut ours, mut theirs) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut offset = 0;
    while offset < size {
        let step = usize::try_from(size - offset)?.min(COMPARE_BYTES);
        written.read_exact_at(&mut ours[..step], offset)?;
        source.read_exact_at(&mut theirs[..step], offset)?;
        ensure!(ours[..step] == theirs[..step], "wrong bytes in the MiB at {offset}");
        offset += step as u64;
    }
    Ok(())
}
