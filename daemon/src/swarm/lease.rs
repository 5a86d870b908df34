//! Fetching from the origin: the pieces of a lease for the cluster, or what is missing on this
//! node's own account.
//!
//! Invariant: a piece is fetched from the origin only while it is not held here.

use super::claim::{Claim, STALE_CLAIM};
use super::download::Download;
use super::failure::Failure;
use super::intake::Intake;
use super::orders::{LeaseOutcome, Notice};
use crate::metrics::Source;
use crate::origin::{OriginBody, OriginError, OriginObject};
use crate::peer::client::Sink;
use crate::store::BlobFile;
use bytes::Bytes;
use hawker_api::pieces::{MAX_PIECES, UNKNOWN_SIZE_PIECE_LENGTH};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes gathered before they go to disk.
const BUFFER_BYTES: usize = 1 << 20;
/// Pieces asked for in one request where the size is known.
const PIECES_PER_REQUEST: u32 = 16;
/// Failed requests in a row (time-outs, short bodies, 5xx) before giving up, with progress in between.
const MAX_ATTEMPTS: u32 = 3;
/// Pause before asking again, times the attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Why fetching from the origin ended early.
#[derive(Debug)]
pub(super) enum FetchError {
    Origin(OriginError),
    /// Ours, not the origin's.
    Local(Failure),
}

impl FetchError {
    /// What the scheduler is told.
    pub(super) fn outcome(&self) -> LeaseOutcome {
        match self {
            Self::Origin(OriginError::NotAllowed { .. } | OriginError::FileNotAllowed { .. })
            | Self::Local(_) => LeaseOutcome::Declined { detail: self.to_string() },
            Self::Origin(error) => match error.status() {
                Some(status) => LeaseOutcome::Status { status },
                None => LeaseOutcome::Failed { detail: error.to_string() },
            },
        }
    }
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Origin(error) => error.fmt(f),
            Self::Local(failure) => failure.fmt(f),
        }
    }
}

/// Which pieces, and under which lease (`None`: on our own account).
pub(super) struct Errand {
    pub(super) object: OriginObject,
    pub(super) pieces: Range<u32>,
    pub(super) lease: Option<u64>,
}

/// Fetches what is missing of the errand's pieces.
pub(super) async fn from_origin(download: Arc<Download>, errand: Errand) -> Result<(), FetchError> {
    let mut attempts = 0;
    while let Some(range) = missing(&download, &errand) {
        let before = held(&download);
        let Err(error) = request(&download, &errand, range).await else {
            attempts = 0;
            continue;
        };
        attempts = if held(&download) > before { 1 } else { attempts + 1 };
        let again = match &error {
            FetchError::Origin(error) => error.is_retryable() && attempts < MAX_ATTEMPTS,
            FetchError::Local(_) => false,
        };
        if let FetchError::Origin(OriginError::Failed { .. }) = &error {
            download.update(|state| state.origin_stopped = Some(Instant::now()));
        }
        // Nobody has seen a byte yet: let another node, or the runtime itself, try at once.
        if !again || download.blob().is_none() {
            return Err(error);
        }
        tracing::info!(task = %download.task, %error, attempts, "asking the origin again");
        tokio::time::sleep(RETRY_PAUSE * attempts).await;
    }
    Ok(())
}

fn held(download: &Download) -> u32 {
    download.blob().map_or(0, |blob| blob.held().len())
}

/// The next bytes to ask for; the end is open where the size is not known.
fn missing(download: &Download, errand: &Errand) -> Option<Range<u64>> {
    if download.context.closing.is_cancelled() || superseded(download, errand) {
        return None;
    }
    let state = download.state();
    if state.outcome.is_some() {
        return None;
    }
    let Some(blob) = &state.blob else {
        return Some(u64::from(errand.pieces.start) * UNKNOWN_SIZE_PIECE_LENGTH..u64::MAX);
    };
    let (held, now, geometry) = (blob.held(), Instant::now(), blob.geometry());
    let wanted = |piece: &u32| !held.contains(*piece) && !state.is_claimed(*piece, now, STALE_CLAIM);
    let mut pieces = errand.pieces.start..errand.pieces.end.min(geometry.count());
    let first = pieces.find(wanted)?;
    let last = (first..pieces.end.min(first + PIECES_PER_REQUEST)).take_while(wanted).last()?;
    Some(geometry.range(first).start..geometry.range(last).end)
}

/// Whether a lease came for what was begun on our own account: two answers beside each other would bring the same pieces.
fn superseded(download: &Download, errand: &Errand) -> bool {
    errand.lease.is_none() && download.disproven.is_none() && !download.state().leases.is_empty()
}

async fn request(download: &Arc<Download>, errand: &Errand, range: Range<u64>) -> Result<(), FetchError> {
    let context = &download.context;
    let credentials = download.state().credentials_for(&errand.object);
    let asked = if range == (0..u64::MAX) { None } else { Some(range.clone()) };
    let opened = context.origin.open(&errand.object, &download.task, &credentials, asked).await;
    let mut body = opened.map_err(FetchError::Origin)?;
    let blob = match download.blob() {
        Some(blob) => blob,
        None => {
            let size = body.total().ok_or_else(|| FetchError::Origin(no_length(download, errand)))?;
            download.attach(size).await.map_err(FetchError::Local)?
        }
    };
    let (start, end) = body.range();
    let size = blob.geometry().size();
    if end.is_some_and(|end| end > size) || body.total().is_some_and(|total| total != size) {
        let got = body.total().or(end).unwrap_or(0);
        let (registry, what) = (errand.object.registry.clone(), download.task.to_string());
        return Err(FetchError::Origin(OriginError::Length { registry, what, expected: size, got }));
    }
    extend(download, errand, &blob, (start, end.unwrap_or(size)));
    let mut pour = Pour::new(download, errand, &blob, start);
    while let Some(chunk) = body_chunk(&mut body, download, errand).await? {
        pour.take(chunk).await.map_err(FetchError::Local)?;
        if pour.closed {
            break; // The rest is the next daemon's to fetch, or a lease's.
        }
    }
    Ok(())
}

async fn body_chunk(
    body: &mut OriginBody,
    download: &Download,
    errand: &Errand,
) -> Result<Option<Bytes>, FetchError> {
    let chunk = body.chunk().await.map_err(FetchError::Origin)?;
    if let (Some(_), Some(id)) = (&chunk, errand.lease) {
        download.context.announce.tell(Notice::LeaseAlive { task: download.task, id });
    }
    Ok(chunk)
}

fn no_length(download: &Download, errand: &Errand) -> OriginError {
    let detail = "the answer has no Content-Length".to_owned();
    OriginError::Failed { registry: errand.object.registry.clone(), what: download.task.to_string(), detail }
}

/// An origin that sends more than was asked for (no support for `Range`) saves others the same bytes.
fn extend(download: &Download, errand: &Errand, blob: &BlobFile, (start, end): (u64, u64)) {
    let Some(id) = errand.lease else { return };
    let geometry = blob.geometry();
    let pieces = geometry.piece_at(start)..geometry.piece_at(end.saturating_sub(1)).saturating_add(1);
    if errand.pieces.end < MAX_PIECES
        && (pieces.start < errand.pieces.start || pieces.end > errand.pieces.end)
    {
        download.context.announce.tell(Notice::LeaseExtended { task: download.task, id, pieces });
    }
}

/// Pours a body into pieces. Bytes of pieces that are held already are passed over.
struct Pour<'a> {
    download: &'a Arc<Download>,
    errand: &'a Errand,
    blob: &'a Arc<BlobFile>,
    offset: u64,
    piece: Option<(Intake, Claim)>,
    buffer: Vec<u8>,
    /// At a piece that was not begun any more.
    closed: bool,
}

impl<'a> Pour<'a> {
    fn new(download: &'a Arc<Download>, errand: &'a Errand, blob: &'a Arc<BlobFile>, offset: u64) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { download, errand, blob, offset, piece: None, buffer, closed: false }
    }

    async fn take(&mut self, mut chunk: Bytes) -> Result<(), Failure> {
        let geometry = self.blob.geometry();
        while !chunk.is_empty() {
            let piece = geometry.piece_at(self.offset);
            let range = geometry.range(piece);
            let left = usize::try_from(range.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            let bytes = chunk.split_to(chunk.len().min(left).max(1));
            if self.offset == range.start && !self.blob.has(piece) {
                let closing = self.download.context.closing.is_cancelled();
                if closing || superseded(self.download, self.errand) {
                    self.closed = true;
                    return Ok(());
                }
                let claim = self.download.state().claim(piece, Instant::now());
                self.piece = Some((Intake::new(Arc::clone(self.blob), piece, claim.clone()), claim));
            }
            self.offset += bytes.len() as u64;
            self.gather(&bytes, self.offset == range.end).await?;
        }
        Ok(())
    }

    async fn gather(&mut self, bytes: &[u8], ends: bool) -> Result<(), Failure> {
        let Some((intake, _)) = &mut self.piece else { return Ok(()) };
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES || ends {
            match intake.put(std::mem::take(&mut self.buffer)).await {
                Ok(buffer) => self.buffer = buffer,
                // A peer was faster, or the disk failed; the latter shows at the commit below.
                Err(detail) => return self.passed_over(&detail),
            }
            self.buffer.clear();
        }
        if ends && let Some((intake, claim)) = self.piece.take() {
            return self.finish(intake, claim).await;
        }
        Ok(())
    }

    async fn finish(&mut self, intake: Intake, claim: Claim) -> Result<(), Failure> {
        let piece = intake.piece();
        let finished = match intake.finish().await {
            Ok(arrived) => self.download.commit(&arrived, Source::Origin, None),
            Err(detail) => self.explain(piece, &claim, &detail),
        };
        self.download.release(piece, &claim);
        finished
    }

    fn passed_over(&mut self, detail: &str) -> Result<(), Failure> {
        self.buffer = Vec::with_capacity(BUFFER_BYTES);
        let Some((intake, claim)) = self.piece.take() else { return Ok(()) };
        let explained = self.explain(intake.piece(), &claim, detail);
        self.download.release(intake.piece(), &claim);
        explained
    }

    /// A failure, unless somebody else was faster.
    fn explain(&self, piece: u32, claim: &Claim, detail: &str) -> Result<(), Failure> {
        if claim.stands() && !self.blob.has(piece) {
            return Err(Failure::Store(format!("write piece {piece}: {detail}")));
        }
        Ok(())
    }
}

impl Drop for Pour<'_> {
    fn drop(&mut self) {
        if let Some((intake, claim)) = self.piece.take() {
            self.download.release(intake.piece(), &claim);
        }
    }
}
