//! What the mirror needs of the swarm: blobs by digest, with their size at once and their bytes as they come.
//!
//! Not the registry's protocol (that is [`crate::mirror`]) and not how bytes are found ([`crate::swarm`]).
//!
//! Invariant: the last bytes of a blob come only after its whole digest matched on this node.

use crate::origin::{Credentials, OriginError, OriginObject};
use crate::swarm::orders::Image;
use bytes::Bytes;
use futures::future::BoxFuture;
use hawker_api::task::TaskId;
use std::ops::Range;

/// A source of blobs; the swarm in the product, a table in tests.
pub trait Blobs: Send + Sync + 'static {
    /// Opens a blob: returns once its size is known and somebody was found who has or can fetch it.
    fn open(&self, request: BlobRequest) -> BoxFuture<'_, Result<Box<dyn Blob>, OpenError>>;

    /// Somebody here pulls this image. Without a default: a source in front of another one that said nothing
    /// would hide every rollout.
    fn wanted(&self, image: Image);

    /// Size of a blob that is wholly held here; never asks anybody. A HEAD is answered from it.
    fn held_size(&self, _task: &TaskId) -> Option<u64> {
        None
    }
}

/// What to open, and where it comes from when no peer has it.
#[derive(Debug, Clone)]
pub struct BlobRequest {
    pub task: TaskId,
    pub object: OriginObject,
    /// The caller's own; used for the origin by this node alone, never handed to another one.
    pub credentials: Credentials,
}

/// An opened blob. Dropping it (and its readers) tells the swarm that nobody here wants it any more.
pub trait Blob: Send {
    /// Bytes in all.
    fn size(&self) -> u64;
    /// Reads a part; `range` lies within the size.
    fn read(&self, range: Range<u64>) -> Box<dyn BlobReader>;
}

/// Bytes in order, as they become available.
pub trait BlobReader: Send {
    /// The next bytes; `None` at the end of the range.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>>;
}

/// Why a blob cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The origin's own answer; the mirror passes its status on.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// It cannot be stored here; it may still be streamed through.
    #[error("{0}")]
    NoSpace(String),
    #[error("blob of {size} bytes is larger than the limit")]
    TooLarge { size: u64 },
    #[error("nobody had the size of {task} in time")]
    TimedOut { task: TaskId },
    #[error("{0}")]
    Unavailable(String),
    /// A moment ago the origin sent bytes that do not match the digest.
    #[error("the origin's bytes do not match {task}")]
    Wrong { task: TaskId },
    /// Another daemon has the store now; see [`crate::handover`].
    #[error("handed over to another daemon")]
    HandedOver,
}

/// Why a reader ended early; the response is cut, never completed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the whole digest did not match; the blob is fetched again")]
    Mismatch,
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("no progress for {seconds} s")]
    Stalled { seconds: u64 },
    #[error("{0}")]
    Io(String),
    /// The rest comes from another daemon; see [`crate::handover`].
    #[error("handed over to another daemon")]
    HandedOver,
    #[error("{0}")]
    NoSpace(String),
}
