//! HTTP/1.1 connections of a local listener, with limits and an end: the mirror's, and the status server's.
//!
//! Not what is answered (that is the router given).
//!
//! Invariant: every connection ends with the [`Server`], at the latest when its drain limit is over.

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest time for a request's head, and for a kept-alive connection without one.
const HEAD_READ_LIMIT: Duration = Duration::from_secs(90);
/// When no more is accepted: time for the request of a connection that was accepted last.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_millis(250);
/// Most header lines of a request.
const MAX_HEADERS: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) struct ServeLimits {
    pub(crate) connections: usize,
    pub(crate) head_bytes: usize,
    pub(crate) drain: Duration,
}

pub(crate) struct Server {
    tasks: TaskTracker,
    signals: Signals,
    drain: Duration,
}

/// First accept no more and end what is idle; then end everything.
#[derive(Clone, Default)]
struct Signals {
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Server {
    pub(crate) fn start<L: Listener>(listener: L, router: &Router, limits: ServeLimits) -> Self {
        let (tasks, signals) = (TaskTracker::new(), Signals::default());
        let accept = accept(listener, router.clone(), limits, tasks.clone(), signals.clone());
        tasks.spawn(accept);
        Self { tasks, signals, drain: limits.drain }
    }

    pub(crate) async fn shutdown(self) {
        let limit = tokio::time::sleep(self.drain);
        self.drain(limit).await;
    }

    /// Accepts no more and lets what runs end until `limit` ends; then cuts it.
    pub(crate) async fn drain(self, limit: impl Future<Output = ()>) {
        self.signals.drain.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = limit => {}
        }
        tracing::warn!(connections = self.tasks.len(), "cut answers that did not end");
        self.signals.abort.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signals.drain.cancel();
        self.signals.abort.cancel();
    }
}

async fn accept<L: Listener>(
    mut listener: L,
    router: Router,
    limits: ServeLimits,
    tasks: TaskTracker,
    signals: Signals,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let (io, _) = tokio::select! {
            () = signals.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                tasks.spawn(connection(io, router.clone(), limits, signals.clone(), permit));
            }
            Err(_) => tracing::warn!(limit = limits.connections, "closed a connection above the limit"),
        }
    }
}

async fn connection<I>(
    io: I,
    router: Router,
    limits: ServeLimits,
    signals: Signals,
    _permit: OwnedSemaphorePermit,
) where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_LIMIT)
        .max_buf_size(limits.head_bytes)
        .max_headers(MAX_HEADERS)
        .keep_alive(true);
    let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = signals.drain.cancelled() => {
            // One that was accepted a moment ago has a request on its way: closed now, it would be refused.
            let first = tokio::time::timeout(FIRST_REQUEST_LIMIT, connection.as_mut()).await;
            match first {
                Ok(result) => result,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        result = connection.as_mut() => result,
                        () = signals.abort.cancelled() => return,
                    }
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!("connection ended: {}", chain(&error));
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
