//! Reading a blob in order: from the store, or while it still arrives.
//!
//! Invariant: the last bytes of what a reader reads go out only after the whole digest matched on
//! this node (with `verify: strict`, all of them).

use super::buffers::Buffers;
use super::context::Context;
use super::download::{Download, Interest};
use super::failure::Failure;
use super::state::{Outcome, State};
use crate::config::Verify;
use crate::metrics::Source;
use crate::mirror::blobs::{Blob, BlobReader, ReadError};
use crate::store::{BlobFile, StoreError};
use crate::trace::Given;
use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::pieces::PieceSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes given out at once: half of a second-level cache, which they pass on their way to the socket.
const STEP_BYTES: u64 = 512 << 10;
/// A reader that gets no piece for this long ends, so that the runtime can go elsewhere.
const STALL_LIMIT: Duration = Duration::from_secs(30);

static NEXT_READER: AtomicU64 = AtomicU64::new(0);

/// A blob held whole.
pub(super) struct Held {
    pub(super) context: Arc<Context>,
    pub(super) blob: Arc<BlobFile>,
}

impl Blob for Held {
    fn size(&self) -> u64 {
        self.blob.geometry().size()
    }

    fn read(&self, range: Range<u64>) -> Box<dyn BlobReader> {
        let (context, blob) = (Arc::clone(&self.context), Arc::clone(&self.blob));
        Box::new(HeldReader { context, blob, range, given: Given::to_current() })
    }
}

struct HeldReader {
    context: Arc<Context>,
    blob: Arc<BlobFile>,
    range: Range<u64>,
    given: Given,
}

impl BlobReader for HeldReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async {
            let Some(range) = step(&self.blob, &mut self.range) else { return Ok(None) };
            let bytes = read(&self.blob, range, &self.context.buffers).await.map_err(io)?;
            self.context.metrics.delivered(Source::Local, bytes.len() as u64);
            self.given.add(Source::Local, bytes.len() as u64);
            Ok(Some(bytes))
        })
    }
}

/// A blob on its way.
pub(super) struct Arriving {
    pub(super) interest: Interest,
    pub(super) blob: Arc<BlobFile>,
}

impl Blob for Arriving {
    fn size(&self) -> u64 {
        self.blob.geometry().size()
    }

    fn read(&self, range: Range<u64>) -> Box<dyn BlobReader> {
        let id = NEXT_READER.fetch_add(1, Ordering::Relaxed);
        let end_piece = self.blob.geometry().piece_at(range.end.saturating_sub(1));
        let reader = ArrivingReader {
            interest: self.interest.clone(),
            blob: Arc::clone(&self.blob),
            range,
            id,
            end_piece,
            given: Given::to_current(),
        };
        reader.tell_position();
        Box::new(reader)
    }
}

struct ArrivingReader {
    interest: Interest,
    blob: Arc<BlobFile>,
    range: Range<u64>,
    id: u64,
    end_piece: u32,
    given: Given,
}

impl ArrivingReader {
    fn download(&self) -> &Arc<Download> {
        &self.interest.0
    }

    fn tell_position(&self) {
        let next = self.blob.geometry().piece_at(self.range.start);
        self.download().update(|state| state.readers.insert(self.id, next));
    }

    /// Waits until `piece` may go out.
    async fn released(&self, piece: u32) -> Result<(), ReadError> {
        let download = self.download();
        let held_back = piece == self.end_piece || download.context.verify == Verify::Strict;
        let mut changes = download.changes();
        loop {
            changes.borrow_and_update();
            {
                let state = download.state();
                match &state.outcome {
                    Some(Outcome::Failed(failure)) => return Err(failure.read_error()),
                    Some(Outcome::Verified) => return Ok(()),
                    None if self.blob.has(piece) && !held_back => return Ok(()),
                    None => {}
                }
                if state.is_stuck(piece, Instant::now()) {
                    return Err(Failure::Stopped.read_error());
                }
                let quiet = state.last_progress.elapsed();
                if quiet > STALL_LIMIT {
                    return Err(Failure::Stalled { seconds: quiet.as_secs() }.read_error());
                }
            }
            let _ = tokio::time::timeout(STALL_LIMIT / 8, changes.changed()).await;
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, ReadError> {
        let piece = self.blob.geometry().piece_at(self.range.start);
        let Some(range) = step(&self.blob, &mut self.range) else { return Ok(None) };
        let bytes = loop {
            self.released(piece).await?;
            match read(&self.blob, range.clone(), &self.download().context.buffers).await {
                // Damaged since an earlier life of the daemon: it is fetched again.
                Err(StoreError::Corrupt { .. }) => {
                    self.blob.forget(&PieceSet::from_iter([piece])).map_err(io)?;
                    self.download().update(|_| ());
                }
                read => break read.map_err(io)?,
            }
        };
        if self.blob.geometry().piece_at(self.range.start) != piece {
            self.tell_position();
        }
        let (download, length) = (self.download(), bytes.len() as u64);
        let source = download.source_of(piece);
        download.context.metrics.delivered(source, length);
        State::count(&mut download.delivered.lock(), source, length);
        self.given.add(source, length);
        Ok(Some(bytes))
    }
}

impl BlobReader for ArrivingReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(self.step())
    }
}

impl Drop for ArrivingReader {
    fn drop(&mut self) {
        self.download().update(|state| state.readers.remove(&self.id));
    }
}

/// Cuts the next step, which never crosses a piece, off `range`.
fn step(blob: &BlobFile, range: &mut Range<u64>) -> Option<Range<u64>> {
    if range.is_empty() {
        return None;
    }
    let piece = blob.geometry().range(blob.geometry().piece_at(range.start));
    let end = range.end.min(piece.end).min(range.start + STEP_BYTES);
    let step = range.start..end;
    range.start = end;
    Some(step)
}

async fn read(blob: &Arc<BlobFile>, range: Range<u64>, buffers: &Buffers) -> Result<Bytes, StoreError> {
    let (reading, task, buffers) = (Arc::clone(blob), blob.task(), buffers.clone());
    let read = tokio::task::spawn_blocking(move || {
        reading.check(reading.geometry().piece_at(range.start))?;
        let mut buffer = buffers.take(usize::try_from(range.end - range.start).unwrap_or(0));
        reading.read(buffer.as_mut(), range.start)?;
        Ok(Bytes::from_owner(buffer))
    });
    let shutdown = |_| StoreError::Blob { task, act: "read", source: std::io::ErrorKind::Interrupted.into() };
    read.await.map_err(shutdown)?
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn io(error: StoreError) -> ReadError {
    ReadError::Io(error.to_string())
}
