//! The listener for peers: accepts, and hands connections to the engine.
//!
//! Invariant: a connection the engine refuses is told 503, so that the child tries another parent.

use super::request::text_answer;
use crate::config::PeerConfig;
use crate::engine::{Connection, Engine};
use crate::handover::sockets;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time given to telling a refused peer.
const REFUSAL_LIMIT: Duration = Duration::from_millis(200);

/// Why pieces cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listen for peers on {addr} (peer.addr): {source}")]
pub struct PeerError {
    addr: SocketAddr,
    source: io::Error,
}

impl PeerError {
    pub(crate) fn new(addr: SocketAddr, source: io::Error) -> Self {
        Self { addr, source }
    }
}

/// Serves pieces until shut down.
pub struct PeerServer {
    addr: SocketAddr,
    /// The listening socket, for who comes next.
    kept: OwnedFd,
    engine: Arc<dyn Engine>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl PeerServer {
    /// Listens and starts to serve.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(config: &PeerConfig, engine: Arc<dyn Engine>) -> Result<Self, PeerError> {
        let bound =
            sockets::bind(config.addr, false).map_err(|source| PeerError { addr: config.addr, source })?;
        Self::serve(config, bound, engine)
    }

    /// As [`Self::bind`], on a socket that listens already.
    pub(crate) fn serve(
        config: &PeerConfig,
        listener: std::net::TcpListener,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, PeerError> {
        let failed = |source| PeerError { addr: config.addr, source };
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let kept = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        tracker.spawn(accept(listener, Arc::clone(&engine), cancel.clone()));
        Ok(Self { addr, kept, engine, tracker, cancel })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.kept.as_fd()
    }

    pub async fn shutdown(self) {
        drop(self.kept);
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.engine.shutdown().await;
    }
}

async fn accept(listener: TcpListener, engine: Arc<dyn Engine>, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => {
                let connection = Connection { socket, peer: from.ip().to_canonical() };
                if let Err(refused) = engine.adopt(connection) {
                    refuse(refused).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection of a peer");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn refuse(mut refused: Connection) {
    tracing::debug!(peer = %refused.peer, "refusing a connection: too many");
    let answer = text_answer("503 Service Unavailable", "too many connections", true);
    // Best effort: the answer fits into an empty socket buffer.
    let _ = tokio::time::timeout(REFUSAL_LIMIT, refused.socket.write_all(&answer)).await;
}
