//! Straight from the origin to the runtime, for blobs that cannot be kept here (full disk, too many
//! downloads): slower for the cluster, never worse for this node than having no mirror.
//!
//! Invariant: the last [`HELD_BACK_BYTES`] of a whole blob go out only after its digest matched. Parts
//! cannot be checked here; the runtime checks the whole.

use super::answer::Refusal;
use super::blobs::{BlobReader, ReadError};
use super::{Mirror, Permit, content};
use crate::metrics::{Metrics, Source};
use crate::origin::{Credentials, OriginBody, OriginObject};
use crate::peer::request::ByteRange;
use crate::swarm::Hasher;
use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::task::TaskId;
use http::Response;
use std::collections::VecDeque;

/// As much as a piece: what a download holds back, too.
const HELD_BACK_BYTES: usize = 4 << 20;

pub(super) async fn answer(
    mirror: &Mirror,
    task: &TaskId,
    object: &OriginObject,
    credentials: &Credentials,
    range: Option<ByteRange>,
    permit: Permit,
) -> Result<Response<Body>, Refusal> {
    let asked = match range {
        Some(ByteRange::From(start)) => Some(start..u64::MAX),
        Some(ByteRange::FromTo(start, last)) => Some(start..last.saturating_add(1)),
        // A suffix needs the size; the whole is as good an answer (RFC 9110 §14.2).
        Some(ByteRange::Suffix(_)) | None => None,
    };
    let body = mirror.origin.open(object, task, credentials, asked).await?;
    let (total, (start, end)) = (body.total(), body.range());
    let whole = start == 0 && end == total;
    let part = match end {
        Some(end) if !whole => Some(start..end),
        _ => None,
    };
    let hasher = whole.then(|| Hasher::new(task));
    let (metrics, held, held_bytes) = (mirror.metrics.clone(), VecDeque::new(), 0);
    let reader = Through { body, task: *task, hasher, metrics, held, held_bytes, ended: false };
    let body = content::streamed(Box::new(reader), permit);
    Ok(content::head(task, total, part, "application/octet-stream", body))
}

struct Through {
    body: OriginBody,
    task: TaskId,
    /// `None`: a part.
    hasher: Option<Hasher>,
    metrics: Metrics,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    ended: bool,
}

impl Through {
    async fn step(&mut self) -> Result<Option<Bytes>, ReadError> {
        while !self.ended && self.held_bytes <= HELD_BACK_BYTES {
            match self.body.chunk().await? {
                Some(chunk) => {
                    let Some(hasher) = &mut self.hasher else { return Ok(Some(self.given(chunk))) };
                    hasher.update(&chunk);
                    self.held_bytes += chunk.len();
                    self.held.push_back(chunk);
                }
                None => {
                    self.ended = true;
                    let matched =
                        self.hasher.take().is_none_or(|hasher| hasher.finish() == self.task.digest());
                    if !matched {
                        return Err(ReadError::Mismatch);
                    }
                }
            }
        }
        let Some(chunk) = self.held.pop_front() else { return Ok(None) };
        self.held_bytes -= chunk.len();
        Ok(Some(self.given(chunk)))
    }

    fn given(&self, chunk: Bytes) -> Bytes {
        self.metrics.delivered(Source::Origin, chunk.len() as u64);
        chunk
    }
}

impl BlobReader for Through {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(self.step())
    }
}
