//! The registry mirror for the container runtime: the pull half of the OCI distribution API on loopback.
//!
//! Tags pass to the registry with the caller's own credentials; content by digest comes from the swarm
//! ([`blobs::Blobs`]), or straight from the origin where it cannot be stored here. Not how bytes are found.
//!
//! Invariant: a runtime gets a head within [`TTFB_LIMIT`], either of an answer that is under way or of a
//! refusal that makes it try its next host at once. It never gets 408 or 429, which it would retry
//! here, and a body that went wrong is cut short, never completed.

pub mod blobs;
mod body;
mod content;
mod manifest;
mod media_type;
mod pass;
mod range;
mod refusal;
mod request;
mod route;
pub(crate) mod serve;
mod through;

use crate::config::MirrorConfig;
use crate::metrics::Metrics;
use crate::origin::OriginClient;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use blobs::Blobs;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, header};
use refusal::Refusal;
use request::Get;
use route::Route;
use serve::{ServeLimits, Server};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Longest time from a request to a head: the answer's, or 503.
pub const TTFB_LIMIT: Duration = Duration::from_secs(5);
/// Longest time without a byte in a body, behind the reader's own watchdog: containerd's
/// `image_pull_progress_timeout`, after which nobody waits any more.
pub const BODY_IDLE_LIMIT: Duration = Duration::from_secs(300);
/// Most requests under way; one more is refused. A runtime has about four per image.
pub const MAX_REQUESTS: usize = 512;
/// Most connections; one more is closed at once, on which a runtime tries its next host.
pub const MAX_CONNECTIONS: usize = 1024;
/// Largest request head, bytes.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Longest time for bodies under way to end when the daemon stops; then they are cut.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Largest manifest, bytes: twice what containerd itself takes.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;

/// Limits a [`MirrorServer`] keeps; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct MirrorLimits {
    pub ttfb: Duration,
    pub body_idle: Duration,
    pub requests: usize,
    pub connections: usize,
    pub drain: Duration,
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self {
            ttfb: TTFB_LIMIT,
            body_idle: BODY_IDLE_LIMIT,
            requests: MAX_REQUESTS,
            connections: MAX_CONNECTIONS,
            drain: DRAIN_LIMIT,
        }
    }
}

/// Why the mirror does not run.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("listen on {addr} (mirror.addr): {source}")]
    Bind { addr: SocketAddr, source: std::io::Error },
}

/// The running mirror.
pub struct MirrorServer {
    addr: SocketAddr,
    server: Server,
}

impl MirrorServer {
    /// Listens and serves until [`Self::shutdown`] or drop.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn bind(
        config: &MirrorConfig,
        blobs: Arc<dyn Blobs>,
        origin: OriginClient,
        metrics: Metrics,
    ) -> Result<Self, MirrorError> {
        Self::bind_with(config, blobs, origin, metrics, MirrorLimits::default()).await
    }

    /// # Errors
    /// [`MirrorError`].
    pub async fn bind_with(
        config: &MirrorConfig,
        blobs: Arc<dyn Blobs>,
        origin: OriginClient,
        metrics: Metrics,
        limits: MirrorLimits,
    ) -> Result<Self, MirrorError> {
        let failed = |source| MirrorError::Bind { addr: config.addr, source };
        let listener = TcpListener::bind(config.addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        if !addr.ip().is_loopback() {
            tracing::warn!(%addr, "the mirror is not on loopback: whoever reaches it can pull");
        }
        let requests = Arc::new(Semaphore::new(limits.requests));
        let mirror = Arc::new(Mirror { blobs, origin, metrics, limits, requests });
        let router = Router::new().fallback(handle).with_state(mirror);
        // A manifest is one small write: it must not wait for the acknowledgement of the last.
        let listener = listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "set TCP_NODELAY on a mirror connection");
            }
        });
        let limits =
            ServeLimits { connections: limits.connections, head_bytes: MAX_HEAD_BYTES, drain: limits.drain };
        Ok(Self { addr, server: Server::start(listener, &router, limits) })
    }

    /// Where it listens; the port is the kernel's choice where the configuration says 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts no more, lets what runs end within [`DRAIN_LIMIT`], cuts the rest.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

/// What every request needs.
pub(crate) struct Mirror {
    blobs: Arc<dyn Blobs>,
    origin: OriginClient,
    metrics: Metrics,
    limits: MirrorLimits,
    requests: Arc<Semaphore>,
}

async fn handle(State(mirror): State<Arc<Mirror>>, request: Request<Body>) -> Response {
    // A pull has no body; what came with it is dropped unread.
    let (request, _) = request.into_parts();
    match mirror.answer(&request).await {
        Ok(response) => response,
        Err(refusal) => {
            if let Some(reason) = refusal.reason() {
                mirror.metrics.fallback(reason);
            }
            // The path holds a name and a digest; the query may hold anything.
            tracing::debug!(path = request.uri.path(), status = %refusal.status(), "refused: {refusal}");
            refusal.into_response()
        }
    }
}

impl Mirror {
    async fn answer(&self, request: &Parts) -> Result<Response, Refusal> {
        let path = request.uri.path();
        if path == "/healthz" {
            return Ok("ok\n".into_response());
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Refusal::method(&request.method));
        }
        let route = route::parse(path)?;
        if route == Route::Ping {
            return Ok(ping());
        }
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Refusal::overloaded())?;
        let get = Get::new(request, route, &self.origin, self.limits.ttfb, permit)?;
        self.authorise(&get).await?;
        let kind = get.object.kind;
        self.content(get).await.map_err(|refusal| refusal.about(kind))
    }

    /// Whether this caller may have this content, before any byte of it moves.
    ///
    /// Today whoever reaches loopback may: an origin's own 401 or 403 is passed on when the origin is
    /// asked, but what is held here is given to every caller on the node.
    #[expect(
        clippy::unused_async,
        reason = "asking the registry for the caller's right is this seam's purpose"
    )]
    async fn authorise(&self, _get: &Get) -> Result<(), Refusal> {
        Ok(())
    }
}

/// `/v2/`: this is a registry, and nobody needs to sign in to it.
fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (request::API_VERSION, HeaderValue::from_static("registry/2.0")),
    ];
    (StatusCode::OK, headers, "{}").into_response()
}
