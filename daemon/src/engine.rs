//! The serving engine: takes over connections of peers and answers their requests from files.
//!
//! The seam between what is served ([`Service`]) and how bytes get from a file into a socket. Not
//! the listener and not the protocol's meaning, both of which are [`crate::peer`]'s.
//!
//! Invariant: every engine behaves alike; one suite (`engine/contract.rs`) runs on each.

mod feed;
mod limits;
mod portable;
mod uring;

#[cfg(test)]
mod contract;

pub use portable::PortableEngine;
pub use uring::UringEngine;

pub use crate::config::SendMode;

use crate::config::EngineChoice;
use crate::peer::Request;
use crate::shaper::Grant;
use crate::store::BlobFile;
use futures::future::BoxFuture;
use hawker_api::node_policy::EnginePolicy;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How bytes get from files into sockets.
pub trait Engine: Send + Sync {
    /// Which engine this is and why it was chosen; what happens while it runs may change it.
    fn info(&self) -> watch::Receiver<EngineInfo>;

    /// Takes over a connection until it closes.
    ///
    /// # Errors
    /// Gives the connection back where a limit on connections is reached.
    fn adopt(&self, connection: Connection) -> Result<(), Connection>;

    /// Takes over which engine the cluster wants from now on: for connections that come. Where there is but one, nothing.
    fn follow(&self, _policy: EnginePolicy) {}

    /// Closes idle connections, lets answers in flight end (for a bounded time), then returns.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// What an engine serves. Called for every request; must not block.
pub trait Service: Send + Sync + 'static {
    fn answer(&self, peer: IpAddr, request: Request) -> BoxFuture<'_, Answer>;

    /// Bytes of answers that a peer's socket took.
    fn sent(&self, peer: IpAddr, bytes: u64);

    /// How many of `bytes` of a slice may be sent to a peer, and after what wait. Everything at once where the kernel
    /// holds the limits. What is granted counts as sent: ask again only after sending it.
    fn pace(&self, _peer: IpAddr, bytes: u64) -> Grant {
        Grant::all(bytes)
    }
}

/// An accepted connection of a peer.
#[derive(Debug)]
pub struct Connection {
    pub socket: tokio::net::TcpStream,
    pub peer: IpAddr,
}

/// What to send for one request.
pub enum Answer {
    /// Complete in memory, head and body.
    Text(Vec<u8>),
    /// A head, then bytes of a blob by reference.
    Slice { head: Vec<u8>, blob: Arc<BlobFile>, range: Range<u64> },
    /// A head, then lines as they come; the connection closes after the last one.
    Feed { head: Vec<u8>, lines: Box<dyn Lines> },
}

/// Lines of an answer that grows while it is sent.
pub trait Lines: Send {
    /// The next bytes; `None` at the end.
    fn next(&mut self) -> BoxFuture<'_, Option<Vec<u8>>>;
}

const PORTABLE: &str = "portable";

/// Which engine serves and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `io_uring` or `portable`.
    pub name: &'static str,
    pub reason: String,
}

/// An engine that was asked for by name and cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("engine {name} was required by the configuration (engine: {name}): {reason}")]
pub struct EngineUnavailable {
    pub name: &'static str,
    pub reason: String,
}

/// The engine the configuration asks for; `auto` takes the best there is.
///
/// # Errors
/// `EngineUnavailable` where a named engine cannot be had: never silently another one.
pub fn choose(
    choice: EngineChoice,
    mode: SendMode,
    service: Arc<dyn Service>,
) -> Result<Arc<dyn Engine>, EngineUnavailable> {
    if choice == EngineChoice::Portable {
        let reason = "chosen by the configuration".to_owned();
        return Ok(Arc::new(PortableEngine::new(service, reason)));
    }
    match UringEngine::start(&service, mode) {
        Ok(engine) => Ok(Arc::new(engine)),
        Err(reason) if choice == EngineChoice::IoUring => Err(EngineUnavailable { name: "io_uring", reason }),
        Err(reason) => Ok(Arc::new(PortableEngine::new(service, reason))),
    }
}

/// Ends some time after the cancellation, so that an answer in flight may still be completed.
async fn drained(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(limits::DRAIN_LIMIT).await;
}
