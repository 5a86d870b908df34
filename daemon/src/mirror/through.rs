//! Stream-through: from the origin straight to the runtime, for what cannot be stored here.
//!
//! A whole object is hashed on its way, and its end held back until the digest matched. A part of one
//! cannot be checked against the digest of the whole: it is passed as it comes, as if no mirror stood between, and
//! the runtime's own check of the whole decides. Nothing that goes this way is stored or served.
//!
//! Invariant: of a whole object that does not match, the last bytes are never sent.

use super::Mirror;
use super::blobs::{BlobReader, ReadError};
use super::body;
use super::range::Wanted;
use super::refusal::Refusal;
use super::request::{Get, Head};
use crate::digest::WholeDigest;
use crate::metrics::{Metrics, Source};
use crate::origin::OriginBody;
use crate::trace::Given;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::task::TaskId;
use http::HeaderValue;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes held back until the digest matched (and at most one chunk more): a piece.
const HELD_BACK_BYTES: usize = 4 << 20;

pub(super) async fn blob(
    mirror: &Mirror,
    get: Get,
    task: TaskId,
    reason: &'static str,
) -> Result<Response, Refusal> {
    mirror.metrics.fallback(reason);
    let range = asked(get.wanted);
    let origin = get.in_time(mirror.origin.open(&get.object, &task, &get.credentials, range)).await??;
    let head = Head {
        content_type: HeaderValue::from_static("application/octet-stream"),
        size: origin.total(),
        part: part(&origin, get.wanted),
    };
    let metrics = Some(mirror.metrics.clone());
    let reader: Box<dyn BlobReader> = if covers_all(&origin) {
        Box::new(Verified::new(origin, &task, metrics))
    } else {
        Box::new(Unverified { body: origin, metrics, given: Given::to_current() })
    };
    let begun = body::begin(reader, (), &get, mirror.limits.body_idle).await?;
    let mut response = head.answer(&get, &task, Body::empty());
    *response.body_mut() = begun.into_body(get.permit);
    Ok(response)
}

/// What to ask the origin for: the whole where that is what the runtime gets anyway, and where it wants
/// the last bytes: which those are is not known before the size is, and a range may be ignored.
fn asked(wanted: Wanted) -> Option<Range<u64>> {
    match wanted {
        Wanted::Whole | Wanted::Last(_) | Wanted::From { first: 0, last: None } => None,
        Wanted::From { first, last } => Some(first..last.map_or(u64::MAX, |last| last.saturating_add(1))),
    }
}

fn covers_all(body: &OriginBody) -> bool {
    match body.range() {
        (0, Some(end)) => body.total() == Some(end),
        (0, None) => body.total().is_none(),
        _ => false,
    }
}

/// Which part the answer says it is; `None`: the whole, with 200.
fn part(body: &OriginBody, wanted: Wanted) -> Option<Range<u64>> {
    let (start, end) = body.range();
    let range = start..end?;
    let ranged = !covers_all(body) || wanted == Wanted::From { first: 0, last: None };
    (ranged && range.start < range.end).then_some(range)
}

/// A whole object, hashed as it passes.
pub(super) struct Verified {
    body: OriginBody,
    task: TaskId,
    sum: WholeDigest,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    matched: bool,
    metrics: Option<Metrics>,
    given: Given,
}

impl Verified {
    /// Counts what it gives as delivered where `metrics` are given.
    pub(super) fn new(body: OriginBody, task: &TaskId, metrics: Option<Metrics>) -> Self {
        let (task, sum) = (*task, WholeDigest::new(task));
        let given = Given::to_current();
        Self { body, task, sum, held: VecDeque::new(), held_bytes: 0, matched: false, metrics, given }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, ReadError> {
        while !self.matched && self.held_bytes < HELD_BACK_BYTES + self.held.front().map_or(1, Bytes::len) {
            match self.body.chunk().await? {
                Some(bytes) => {
                    self.sum.update(&bytes);
                    self.held_bytes += bytes.len();
                    self.held.push_back(bytes);
                }
                None if self.matches() => self.matched = true,
                None => {
                    self.held.clear();
                    return Err(ReadError::Mismatch);
                }
            }
        }
        let next = self.held.pop_front();
        self.held_bytes -= next.as_ref().map_or(0, Bytes::len);
        Ok(next)
    }

    fn matches(&mut self) -> bool {
        let sum = std::mem::replace(&mut self.sum, WholeDigest::new(&self.task));
        sum.matches(&self.task)
    }
}

impl BlobReader for Verified {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async {
            let next = self.advance().await?;
            count(self.metrics.as_ref(), &mut self.given, next.as_ref());
            Ok(next)
        })
    }
}

/// A part of an object, as it comes.
struct Unverified {
    body: OriginBody,
    metrics: Option<Metrics>,
    given: Given,
}

impl BlobReader for Unverified {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        Box::pin(async {
            let next = self.body.chunk().await?;
            count(self.metrics.as_ref(), &mut self.given, next.as_ref());
            Ok(next)
        })
    }
}

fn count(metrics: Option<&Metrics>, given: &mut Given, bytes: Option<&Bytes>) {
    let Some(bytes) = bytes.map(|bytes| bytes.len() as u64) else { return };
    given.add(Source::Origin, bytes);
    if let Some(metrics) = metrics {
        metrics.delivered(Source::Origin, bytes);
    }
}
