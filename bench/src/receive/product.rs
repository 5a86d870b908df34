//! Hawker's way: its client, its connections, its store, and what it does for a piece that arrives.
//!
//! Invariant: only the daemon's own code runs here; no more than the digest can be chosen.

use super::{Clock, DigestKind, Hasher, Job, Pieces, compare};
use crate::receive_report::Received;
use anyhow::{Context, Result};
use hawker_api::units::ByteSize;
use hawker_daemon::accounting::Accounting;
use hawker_daemon::config::StorageConfig;
use hawker_daemon::metrics::Metrics;
use hawker_daemon::peer::client::{PeerClient, PeerConnection};
use hawker_daemon::store::{BlobFile, Inlet, Permit, PieceHash, Store};
use std::sync::Arc;
use tokio::task::JoinSet;

pub(super) async fn run(job: &Job) -> Result<Received> {
    let config = StorageConfig { dir: job.dir.clone(), capacity: ByteSize(0) };
    let store = Store::open(&config)?;
    let blob = store.create(&job.task, job.size)?;
    let client = PeerClient::new(Accounting::new(Metrics::new()));
    let mut connections = Vec::new();
    for _ in 0..job.connections {
        connections.push(client.connect(job.server).await?);
    }
    if job.overwrite {
        connections = fetch_all(connections, &blob, job, false).await?;
    }
    let clock = Clock::start();
    fetch_all(connections, &blob, job, true).await?;
    let received = clock.stop(job.size);
    if let Some(source) = &job.compare {
        compare(blob.file(), source)?;
    }
    store.remove(&job.task)?;
    Ok(received)
}

/// Every piece once, over all connections.
async fn fetch_all(
    connections: Vec<PeerConnection>,
    blob: &Arc<BlobFile>,
    job: &Job,
    commit: bool,
) -> Result<Vec<PeerConnection>> {
    let pieces = Pieces::of(job.size)?;
    let mut workers = JoinSet::new();
    for connection in connections {
        workers.spawn(fetch(connection, Arc::clone(blob), Arc::clone(&pieces), job.digest, commit));
    }
    let mut connections = Vec::new();
    while let Some(ended) = workers.join_next().await {
        connections.push(ended.context("a worker ended")??);
    }
    Ok(connections)
}

async fn fetch(
    mut connection: PeerConnection,
    blob: Arc<BlobFile>,
    pieces: Arc<Pieces>,
    digest: DigestKind,
    commit: bool,
) -> Result<PeerConnection> {
    while let Some((piece, range)) = pieces.next() {
        let mut inlet = Inlet::new(Arc::clone(&blob), piece, Alone, Hasher::new(digest));
        connection.fetch(&blob.task(), range, &mut inlet).await?;
        let digest = inlet.finish().await.map_err(anyhow::Error::msg)?.finish();
        if commit {
            blob.commit(piece, digest)?;
        }
    }
    Ok(connection)
}

/// Every piece is fetched once: nobody takes one over.
#[derive(Clone)]
struct Alone;

impl Permit for Alone {
    fn under<T>(&self, _bytes: u64, work: impl FnOnce() -> T) -> Option<T> {
        Some(work())
    }
}

impl PieceHash for Hasher {
    fn update(&mut self, bytes: &[u8]) {
        Hasher::update(self, bytes);
    }
}
