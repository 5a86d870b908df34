//! A body on its way from an origin, counted against what was announced.
//!
//! Invariant: [`OriginBody::chunk`] says "end" only after exactly the announced number of bytes.

use super::request::{Ask, chain};
use super::{MIN_WINDOW_BYTES, OriginError};
use crate::accounting::Inflow;
use crate::trace;
use bytes::Bytes;
use hawker_abi::Class;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Span;

/// A body on its way. It holds one of its registry's permits until dropped.
pub struct OriginBody {
    registry: String,
    what: String,
    expected: Expected,
    got: u64,
    idle: Duration,
    /// Time spent waiting since so many bytes had come.
    waited: Duration,
    got_before: u64,
    inflow: Inflow,
    /// `None`: ended, well or not. The permit goes with the connection.
    source: Option<(reqwest::Response, OwnedSemaphorePermit)>,
    /// Of the request; open until nobody reads any more.
    span: Span,
}

/// What the head announced, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) start: u64,
    pub(super) length: Option<u64>,
    pub(super) total: Option<u64>,
}

impl OriginBody {
    pub(super) fn new(
        ask: &Ask,
        response: reqwest::Response,
        permit: OwnedSemaphorePermit,
        expected: Expected,
        idle: Duration,
    ) -> Self {
        // Unknown where a proxy stands between: counted all the same.
        let from = response.remote_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |addr| addr.ip());
        let mut body = Self::empty(ask);
        (body.expected, body.inflow, body.idle) = (expected, inflow(ask, from), idle);
        body.source = Some((response, permit));
        body
    }

    pub(super) fn empty(ask: &Ask) -> Self {
        Self {
            registry: ask.upstream.host.clone(),
            what: ask.what.clone(),
            expected: Expected { start: 0, length: Some(0), total: Some(0) },
            got: 0,
            waited: Duration::ZERO,
            got_before: 0,
            idle: Duration::ZERO,
            inflow: inflow(ask, Ipv4Addr::UNSPECIFIED.into()),
            source: None,
            span: ask.span.clone(),
        }
    }

    /// Size of the whole object, where the origin said it.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.expected.total
    }

    /// Which bytes of the object this body is; the end is `None` where the length is unknown (chunked).
    #[must_use]
    pub fn range(&self) -> (u64, Option<u64>) {
        let Expected { start, length, .. } = self.expected;
        (start, length.map(|length| start.saturating_add(length)))
    }

    /// The next bytes; `None` at a clean end with exactly the announced length.
    ///
    /// Safe to cancel: no byte is lost. After an error or the end it is `None` for ever.
    ///
    /// # Errors
    /// `Failed` (also after a named time without a byte), `Length`.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            let Some((response, _)) = &mut self.source else { return Ok(None) };
            self.inflow.ready().await;
            let asked = Instant::now();
            let next = tokio::time::timeout(self.idle, response.chunk()).await;
            self.waited += asked.elapsed();
            match self.account(next) {
                // An empty frame is not the end.
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                ended => {
                    self.source = None;
                    return ended;
                }
            }
        }
    }

    fn account(
        &mut self,
        next: Result<reqwest::Result<Option<Bytes>>, tokio::time::error::Elapsed>,
    ) -> Result<Option<Bytes>, OriginError> {
        match next {
            Err(_) => Err(self.failed(format!("no byte for {:?}", self.idle))),
            Ok(Err(error)) => Err(match self.expected.length {
                Some(expected) if is_short(&error) => self.length(expected),
                _ => self.failed(chain(&error.without_url())),
            }),
            Ok(Ok(None)) => match self.expected.length {
                Some(expected) if expected != self.got => Err(self.length(expected)),
                _ => Ok(None),
            },
            Ok(Ok(Some(bytes))) => {
                self.inflow.count(bytes.len() as u64);
                self.got = self.got.saturating_add(bytes.len() as u64);
                if self.crawls() {
                    return Err(self.failed(format!("less than {MIN_WINDOW_BYTES} bytes in {:?}", self.idle)));
                }
                match self.expected.length {
                    Some(expected) if self.got > expected => Err(self.length(expected)),
                    _ => Ok(Some(bytes)),
                }
            }
        }
    }

    /// Whether waiting for the last [`MIN_WINDOW_BYTES`] took too long. What limits of our own took is not waiting.
    fn crawls(&mut self) -> bool {
        if self.got - self.got_before >= MIN_WINDOW_BYTES {
            (self.waited, self.got_before) = (Duration::ZERO, self.got);
        }
        self.waited >= self.idle && self.expected.length.is_none_or(|length| self.got < length)
    }

    fn failed(&self, detail: String) -> OriginError {
        OriginError::Failed { registry: self.registry.clone(), what: self.what.clone(), detail }
    }

    fn length(&self, expected: u64) -> OriginError {
        let (registry, what) = (self.registry.clone(), self.what.clone());
        OriginError::Length { registry, what, expected, got: self.got }
    }
}

impl Drop for OriginBody {
    fn drop(&mut self) {
        trace::note(&self.span, "http.response_content_length", trace::count(self.got));
    }
}

fn inflow(ask: &Ask, from: IpAddr) -> Inflow {
    ask.upstream.accounting.inflow(from, Class::Origin)
}

/// Whether the connection ended before the announced length.
fn is_short(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn Error> = Some(error);
    while let Some(cause) = source {
        let eof = cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof);
        if eof || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return true;
        }
        source = cause.source();
    }
    false
}
