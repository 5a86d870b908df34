//! Hawker's way: its client, its connections, its store.
//!
//! Invariant: only the daemon's public seams are used; [`Intake`] does what the swarm's own does for a piece, with
//! a digest to choose.

use super::{Clock, DigestKind, Hasher, Job, Pieces, compare};
use crate::receive_report::Received;
use anyhow::{Context, Result};
use hawker_api::units::ByteSize;
use hawker_daemon::accounting::Accounting;
use hawker_daemon::config::StorageConfig;
use hawker_daemon::metrics::Metrics;
use hawker_daemon::peer::client::{PeerClient, PeerConnection, Sink};
use hawker_daemon::pipe::Pipe;
use hawker_daemon::store::{BlobFile, Store, StoreError};
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
        let mut intake = Intake {
            blob: Arc::clone(&blob),
            piece,
            offset: range.start,
            hasher: Hasher::new(digest),
            scratch: Vec::new(),
        };
        connection.fetch(&blob.task(), range, &mut intake).await?;
        let digest = intake.hasher.finish();
        if commit {
            blob.commit(piece, digest)?;
        }
    }
    Ok(connection)
}

/// Writes and hashes a piece as it arrives.
struct Intake {
    blob: Arc<BlobFile>,
    piece: u32,
    offset: u64,
    hasher: Hasher,
    scratch: Vec<u8>,
}

type Stepped<T> = (Result<u64, StoreError>, T, Hasher);

impl Intake {
    async fn step<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&BlobFile, u64, Hasher) -> Stepped<T> + Send + 'static,
    ) -> Result<T, String> {
        let (blob, piece, offset) = (Arc::clone(&self.blob), self.piece, self.offset);
        let hasher = std::mem::replace(&mut self.hasher, Hasher::None);
        let stepped = tokio::task::spawn_blocking(move || {
            let stepped = step(&blob, offset, hasher);
            let end = blob.geometry().range(piece).end;
            if stepped.0.as_ref().is_ok_and(|bytes| offset + bytes == end) {
                blob.begin_write_back();
            }
            stepped
        });
        let (written, back, hasher) = stepped.await.map_err(|error| error.to_string())?;
        self.hasher = hasher;
        self.offset += written.map_err(|error| error.to_string())?;
        Ok(back)
    }
}

impl Sink for Intake {
    async fn put(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        self.step(move |blob, offset, mut hasher| {
            hasher.update(&bytes);
            let written = blob.write(&bytes, offset);
            (written.map(|()| bytes.len() as u64), bytes, hasher)
        })
        .await
    }

    async fn splice(&mut self, mut pipe: Pipe) -> Result<Pipe, String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let stepped = self.step(move |blob, offset, mut hasher| {
            let bytes = pipe.held() as u64;
            let written = blob.write_from(&mut pipe, offset, &mut scratch, |bytes| hasher.update(bytes));
            (written.map(|()| bytes), (pipe, scratch), hasher)
        });
        let (pipe, scratch) = stepped.await?;
        self.scratch = scratch;
        Ok(pipe)
    }
}
