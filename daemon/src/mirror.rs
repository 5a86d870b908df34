//! The registry mirror for the container runtime: the pull half of the OCI distribution API on loopback.
//!
//! What a tag means is asked of the registry with the caller's own credentials; content by digest comes from the swarm
//! ([`blobs::Blobs`]), or straight from the origin where it cannot be stored here, to callers that the registry lets
//! have it ([`Access`]). Not how bytes are found.
//!
//! Invariant: a runtime gets a head within [`TTFB_LIMIT`], either of an answer that is under way or of a
//! refusal that makes it try its next host at once. It never gets 408 or 429, which it would retry
//! here, and a body that went wrong is cut short, never completed.

pub mod blobs;
mod body;
mod checked;
mod content;
mod door;
pub mod files;
mod lists;
mod manifest;
mod media_type;
mod names;
mod pass;
mod range;
mod refusal;
mod request;
mod route;
pub(crate) mod serve;
mod tags;
mod through;

use crate::access::{Access, Admitted};
use crate::config::MirrorConfig;
use crate::metrics::{Asked, Metrics};
use crate::origin::{Credentials, OriginClient};
use crate::trace;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use blobs::Blobs;
use hawker_api::task::TaskId;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use names::Names;
use refusal::Refusal;
use request::Get;
use route::Route;
use serve::{ServeLimits, Server};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tags::Tags;
pub use tags::{LAST_KNOWN, TAG_LIFE};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{Instrument, Span};

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
    /// The listening socket, for who comes next.
    kept: OwnedFd,
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
        let bound = TcpListener::bind(config.addr).await;
        let listener = bound.map_err(|source| MirrorError::Bind { addr: config.addr, source })?;
        Self::serve(config, listener, blobs, (origin, metrics, limits))
    }

    /// As [`Self::bind_with`], on a socket that listens already.
    pub(crate) fn serve(
        config: &MirrorConfig,
        listener: TcpListener,
        blobs: Arc<dyn Blobs>,
        (origin, metrics, limits): (OriginClient, Metrics, MirrorLimits),
    ) -> Result<Self, MirrorError> {
        let failed = |source| MirrorError::Bind { addr: config.addr, source };
        let addr = listener.local_addr().map_err(failed)?;
        let kept = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        if !addr.ip().is_loopback() {
            tracing::warn!(%addr, "the mirror is not on loopback: whoever reaches it can pull");
        }
        let requests = Arc::new(Semaphore::new(limits.requests));
        let access = Access::new(config, origin.clone(), metrics.clone());
        let tags = Tags::new();
        let names = Names::new();
        let mirror = Arc::new(Mirror { blobs, origin, access, tags, names, metrics, limits, requests });
        let router = Router::new().fallback(handle).with_state(mirror);
        // A manifest is one small write: it must not wait for the acknowledgement of the last.
        let listener = listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "set TCP_NODELAY on a mirror connection");
            }
        });
        let limits =
            ServeLimits { connections: limits.connections, head_bytes: MAX_HEAD_BYTES, drain: limits.drain };
        Ok(Self { addr, kept, server: Server::start(listener, &router, limits) })
    }

    /// Where it listens; the port is the kernel's choice where the configuration says 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.kept.as_fd()
    }

    /// Accepts no more, lets what runs end within [`DRAIN_LIMIT`], cuts the rest.
    pub async fn shutdown(self) {
        drop(self.kept);
        self.server.shutdown().await;
    }

    /// Accepts no more, lets what runs end until `limit` ends.
    pub(crate) async fn drain(self, limit: impl Future<Output = ()>) {
        drop(self.kept);
        self.server.drain(limit).await;
    }
}

/// What every request needs.
pub(crate) struct Mirror {
    blobs: Arc<dyn Blobs>,
    origin: OriginClient,
    access: Access,
    tags: Tags,
    names: Names,
    metrics: Metrics,
    limits: MirrorLimits,
    requests: Arc<Semaphore>,
}

async fn handle(State(mirror): State<Arc<Mirror>>, request: Request<Body>) -> Response {
    // A pull has no body; what came with it is dropped unread.
    let (request, _) = request.into_parts();
    let span = trace::mirror(&request);
    let asked = Instant::now();
    let response = mirror.respond(&request).instrument(span.clone()).await;
    let path = request.uri.path();
    if path != "/healthz" {
        mirror.metrics.answered(Asked::of(path), response.status().as_u16(), asked.elapsed());
    }
    trace::until_sent(span, response)
}

impl Mirror {
    async fn respond(&self, request: &Parts) -> Response {
        match self.answer(request).await {
            Ok(response) => response,
            Err(refusal) => {
                if let Some(reason) = refusal.reason() {
                    self.metrics.fallback(reason);
                }
                trace::note(&Span::current(), "error.message", refusal.to_string());
                // The path holds a name and a digest; the query may hold anything.
                tracing::debug!(path = request.uri.path(), status = %refusal.status(), "refused: {refusal}");
                refusal.into_response()
            }
        }
    }

    async fn answer(&self, request: &Parts) -> Result<Response, Refusal> {
        let path = request.uri.path();
        if path == "/healthz" {
            return Ok("ok\n".into_response());
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Refusal::method(&request.method));
        }
        if path.starts_with(files::PREFIX) {
            return self.file(request).await;
        }
        let route = route::parse(path)?;
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        if route == Route::Ping {
            let credentials = Credentials::from_headers(&request.headers);
            return Ok(self.door(&credentials).await.unwrap_or_else(ping));
        }
        let permit = permit.map_err(|_| Refusal::overloaded())?;
        let get = Get::new(request, route, &self.origin, self.limits.ttfb, permit)?;
        let (registry, kind) = (get.object.registry.clone(), get.object.kind);
        match self.content(get).await {
            Ok(mut response) => {
                if !self.shows_challenge(&registry, response.headers()) {
                    response.headers_mut().remove(header::WWW_AUTHENTICATE);
                }
                Ok(response)
            }
            Err(refusal) if self.shows_challenge(&registry, &refusal.headers()) => Err(refusal.about(kind)),
            Err(refusal) => Err(refusal.without_challenge().about(kind)),
        }
    }

    /// Whether this caller may have this content, and which way it comes, before any byte of it moves.
    async fn admit(&self, get: &mut Get, task: &TaskId) -> Result<Way, Refusal> {
        match get.in_time(self.access.admit(&get.object, task, &get.credentials)).await?? {
            Admitted::Shared(credentials) => {
                get.credentials = credentials;
                Ok(Way::Cluster)
            }
            Admitted::OriginOnly => Ok(Way::Origin),
        }
    }

    /// A registry's challenge makes a caller send its credentials to this node: only where the configuration
    /// wants that, and never towards a worse place than the registry.
    fn shows_challenge(&self, registry: &str, headers: &HeaderMap) -> bool {
        let challenge = headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let relayed = self.access.policy(registry).relay_challenge;
        challenge.is_none_or(|text| relayed && self.origin.may_show(registry, text))
    }
}

/// Which way content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From this node, its peers, and the origin for what is missing.
    Cluster,
    /// From the origin alone, kept nowhere.
    Origin,
}

/// `/v2/`: this is a registry, and nobody needs to sign in to it.
fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (request::API_VERSION, HeaderValue::from_static("registry/2.0")),
    ];
    (StatusCode::OK, headers, "{}").into_response()
}
