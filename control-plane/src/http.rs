//! Serving a router over HTTP/1.1 with every limit a server in the open needs.
//!
//! Invariants: connections are bounded, a connection that sends no request head in time is closed, and
//! [`serve`] returns only when every connection it took is closed.

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a request head may take, and how long a connection may idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest request head, bytes.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Pause after `accept` failed, as it does without end while there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until cancelled, then until the requests under way are answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    // Dropped with this future: no connection outlives it.
    let mut connections = JoinSet::new();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = accept(&listener, &router, &cancel, &mut connections) => {}
    }
    // No new connection waits for an answer while the others finish.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    cancel: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.spawn(connection(stream, from, router.clone(), cancel.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, router: Router, cancel: CancellationToken) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(from))));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // The other side went away, sent no HTTP or was too slow: of no interest but to who debugs it.
        tracing::debug!(%from, %error, "connection ended");
    }
}
