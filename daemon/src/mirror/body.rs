//! A reader's bytes as the body of an answer.
//!
//! Invariant: an error ends the connection before the announced length (or the final chunk) was sent, by
//! closing it; a runtime sees an unexpected end, never a complete body that is wrong.

use super::blobs::{BlobReader, ReadError};
use super::refusal::Refusal;
use super::request::Get;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream, Peekable};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

type Stream = Peekable<BoxStream<'static, Result<Bytes, ReadError>>>;

/// Bytes that began to come, or are still awaited although nothing went wrong.
pub(super) struct Begun(Stream);

/// Reads on until the first byte or error, or until the head must be sent; whatever `owner` is (the
/// opened blob, for example) lives as long as the body.
///
/// An error here is one from before the head: the answer can still be another. A reader that has neither by then is alive and has its own watchdog: a slow first piece is no reason to
/// fetch it a second time from the origin. So the head is sent, and the body follows.
pub(super) async fn begin(
    reader: Box<dyn BlobReader>,
    owner: impl Send + 'static,
    get: &Get,
    idle: Duration,
) -> Result<Begun, ReadError> {
    let mut stream = chunks(reader, owner, idle).boxed().peekable();
    // `peek` in a time-out drops no future of the reader: the stream owns it.
    let first = tokio::time::timeout_at(get.deadline, Pin::new(&mut stream).peek()).await;
    if !matches!(first, Ok(Some(Err(_)))) {
        return Ok(Begun(stream));
    }
    match stream.next().await {
        Some(Err(error)) => Err(error),
        _ => Ok(Begun(stream)),
    }
}

impl Begun {
    /// The body; `permit` is held until its end.
    pub(super) fn into_body(self, permit: OwnedSemaphorePermit) -> Body {
        let stream = self.0.map(move |chunk| {
            let _held = &permit;
            if let Err(error) = &chunk {
                tracing::warn!("a body to the runtime is cut: {error}");
            }
            chunk
        });
        Body::from_stream(stream)
    }

    /// All of it, up to `limit` bytes.
    pub(super) async fn collect(mut self, limit: u64) -> Result<Bytes, Refusal> {
        let mut all = bytes::BytesMut::new();
        while let Some(chunk) = self.0.next().await {
            all.extend_from_slice(&chunk?);
            if all.len() as u64 > limit {
                return Err(Refusal::elsewhere("too_large", format!("more than {limit} bytes")));
            }
        }
        Ok(all.freeze())
    }
}

fn chunks(
    reader: Box<dyn BlobReader>,
    owner: impl Send + 'static,
    idle: Duration,
) -> impl futures::Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
    stream::try_unfold((reader, owner), move |(mut reader, owner)| async move {
        let next = tokio::time::timeout(idle, reader.next()).await;
        let next = next.unwrap_or_else(|_| Err(ReadError::Stalled { seconds: idle.as_secs() }))?;
        Ok(next.map(|bytes| (bytes, (reader, owner))))
    })
}
