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

/// Largest request head, bytes; up to one read more may be taken before it is noticed.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Pause after `accept` failed, as it does without end while there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server allows those who connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub(crate) connections: usize,
    /// How long a request head may take, and how long a connection may idle between requests.
    pub(crate) head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1024, head: Duration::from_secs(30) }
    }
}

/// Serves until cancelled, then until the requests under way are answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, cancel: CancellationToken) {
    // Dropped with this future: no connection outlives it.
    let mut connections = JoinSet::new();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = accept(&listener, &router, limits, &cancel, &mut connections) => {}
    }
    // No new connection waits for an answer while the others finish.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    limits: Limits,
    cancel: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= limits.connections {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                connections.spawn(connection(stream, from, router.clone(), limits, cancel.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    limits: Limits,
    cancel: CancellationToken,
) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(from))));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD_BYTES);
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    struct Running {
        addr: SocketAddr,
        cancel: CancellationToken,
        /// One permit answers one request to `/`.
        answer: Arc<Notify>,
        asked: Arc<Notify>,
        task: JoinHandle<()>,
    }

    async fn start(limits: Limits) -> Running {
        let (answer, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, tell) = (Arc::clone(&answer), Arc::clone(&asked));
        let handler = move || async move {
            tell.notify_one();
            wait.notified().await;
            "done"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, cancel) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/", get(handler));
        let task = tokio::spawn(serve(listener, router, limits, cancel.clone()));
        Running { addr, cancel, answer, asked, task }
    }

    #[tokio::test]
    async fn shutdown_answers_what_is_under_way_and_closes_what_idles() {
        let server = start(Limits::default()).await;
        let mut idle = TcpStream::connect(server.addr).await.unwrap();
        let mut busy = TcpStream::connect(server.addr).await.unwrap();
        busy.write_all(REQUEST).await.unwrap();
        server.asked.notified().await;
        server.cancel.cancel();
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert!(!server.task.is_finished());
        server.answer.notify_one();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        server.task.await.unwrap();
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_for_its_turn() {
        let server = start(Limits { connections: 1, ..Limits::default() }).await;
        let first = TcpStream::connect(server.addr).await.unwrap();
        let mut second = TcpStream::connect(server.addr).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), server.asked.notified()).await;
        assert!(early.is_err(), "served beyond the limit");
        drop(first);
        server.asked.notified().await;
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_or_is_too_large_ends_the_connection() {
        let server = start(Limits { head: Duration::from_millis(100), ..Limits::default() }).await;
        let mut slow = TcpStream::connect(server.addr).await.unwrap();
        slow.write_all(&REQUEST[..9]).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await;
        closed.expect("the slow connection stays open").unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("200"));

        let mut large = TcpStream::connect(server.addr).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(4 * MAX_HEAD_BYTES));
        // The server may hang up before it has read everything.
        let _ = large.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        let answered = tokio::time::timeout(PATIENCE, large.read_exact(&mut answer)).await;
        // Its answer, or the reset of a connection closed with bytes unread.
        if answered.expect("the large head is neither answered nor cut").is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 431");
        }
    }
}
