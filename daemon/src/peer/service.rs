//! What a peer may have of this node: verified pieces, and the news of more.
//!
//! Invariant: every byte served belongs to a piece that matched its digest in this process, and goes to a
//! peer that its [`Pass`] admits.

use super::PIECE_DIGEST_ALGORITHM;
use super::feed::Feed;
use super::pass::Pass;
use super::request::{Request, Target, text_answer};
use crate::accounting::Accounting;
use crate::engine::{Answer, Service};
use crate::shaper::Grant;
use crate::store::{BlobFile, StoreError};
use crate::trace;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use hawker_abi::Class;
use hawker_api::task::TaskId;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;
use tracing::{Instrument, Span};

/// Where the service finds blobs.
pub trait Holdings: Send + Sync + 'static {
    fn find(&self, task: &TaskId) -> Found;

    /// A piece no longer matches its digest on disk: the blob must not be used any more.
    fn spoiled(&self, task: &TaskId, error: &StoreError);
}

/// What there is of a blob.
pub enum Found {
    Nothing,
    Here(Arc<BlobFile>),
    /// Its download runs and its size is not known yet; the channel closes when the download ends.
    Coming(watch::Receiver<Option<Arc<BlobFile>>>),
}

/// Answers requests of peers.
pub struct PieceService {
    holdings: Arc<dyn Holdings>,
    accounting: Accounting,
    pass: Pass,
}

impl PieceService {
    /// Serves whoever asks.
    pub fn new(holdings: Arc<dyn Holdings>, accounting: Accounting) -> Self {
        Self::with_pass(holdings, accounting, Pass::open())
    }

    /// Serves whom `pass` admits.
    pub fn with_pass(holdings: Arc<dyn Holdings>, accounting: Accounting, pass: Pass) -> Self {
        Self { holdings, accounting, pass }
    }

    async fn blob(&self, task: &TaskId, request: &Request) -> Answer {
        let Found::Here(blob) = self.holdings.find(task) else { return not_held() };
        let size = blob.geometry().size();
        let range = match request.range {
            None => 0..size,
            Some(range) => match range.within(size) {
                None => return unsatisfiable(size),
                Some(range) => range,
            },
        };
        if let Err(answer) = self.usable(&blob, &range).await {
            return answer;
        }
        let head = head(&blob, &range, request.range.is_some());
        if request.head_only {
            return Answer::Text(head);
        }
        Answer::Slice { head, blob, range }
    }

    /// Makes sure that all pieces under `range` are held and intact.
    async fn usable(&self, blob: &Arc<BlobFile>, range: &Range<u64>) -> Result<(), Answer> {
        let Some(last) = range.end.checked_sub(1) else { return Ok(()) };
        let pieces = blob.geometry().piece_at(range.start)..=blob.geometry().piece_at(last);
        if !pieces.clone().all(|piece| blob.has(piece)) {
            return Err(not_held());
        }
        if pieces.clone().all(|piece| blob.is_checked(piece)) {
            return Ok(());
        }
        let checking = Arc::clone(blob);
        let checked = tokio::task::spawn_blocking(move || {
            let mut pieces = pieces;
            pieces.try_for_each(|piece| checking.check(piece))
        });
        match checked.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.holdings.spoiled(&blob.task(), &error);
                Err(not_held())
            }
            Err(_shutdown) => Err(busy()),
        }
    }

    fn have(&self, task: &TaskId, request: &Request, span: Span) -> Answer {
        let feed = match self.holdings.find(task) {
            Found::Nothing => return not_held(),
            Found::Here(blob) => Feed::of(blob, span),
            Found::Coming(coming) => Feed::coming(coming, span),
        };
        let head =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n".to_vec();
        if request.head_only {
            return Answer::Text(head);
        }
        Answer::Feed { head, lines: Box::new(feed) }
    }
}

impl Service for PieceService {
    fn answer(&self, peer: IpAddr, request: Request) -> BoxFuture<'_, Answer> {
        self.accounting.asks(peer);
        let span = trace::serve(&request, peer);
        Box::pin(async move {
            match &request.target {
                Target::Blob(task) | Target::Have(task)
                    if !self.pass.admits(task, request.proof.as_ref()) =>
                {
                    forbidden()
                }
                Target::Blob(task) => self.blob(task, &request).instrument(span).await,
                Target::Have(task) => self.have(task, &request, span),
                Target::Health => Answer::Text(text_answer("200 OK", "ok", false)),
                Target::Unknown => Answer::Text(text_answer("404 Not Found", "no such resource", false)),
            }
        })
    }

    fn sent(&self, peer: IpAddr, bytes: u64) {
        self.accounting.sent(peer, Class::Upload, bytes);
    }

    fn pace(&self, peer: IpAddr, bytes: u64) -> Grant {
        self.accounting.pace(peer, bytes)
    }
}

fn head(blob: &BlobFile, range: &Range<u64>, partial: bool) -> Vec<u8> {
    let (geometry, length) = (blob.geometry(), range.end - range.start);
    let mut head = if partial {
        let (first, last, size) = (range.start, range.end - 1, geometry.size());
        format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}\r\n")
    } else {
        "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\n".to_owned()
    };
    let piece = geometry.piece_at(range.start);
    if geometry.range(piece) == *range
        && let Some(digest) = blob.digest(piece)
    {
        let digest = BASE64_STANDARD.encode(digest);
        head.push_str(&format!("Content-Digest: {PIECE_DIGEST_ALGORITHM}=:{digest}:\r\n"));
    }
    head.push_str(&format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"));
    head.into_bytes()
}

fn not_held() -> Answer {
    Answer::Text(text_answer("404 Not Found", "not held here", false))
}

/// The same for what is held and what is not: whoever is no node learns neither.
fn forbidden() -> Answer {
    Answer::Text(text_answer("403 Forbidden", "for nodes of this cluster only", false))
}

fn busy() -> Answer {
    Answer::Text(text_answer("503 Service Unavailable", "shutting down", true))
}

fn unsatisfiable(size: u64) -> Answer {
    let status = format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{size}");
    Answer::Text(text_answer(&status, "range lies past the end", false))
}
