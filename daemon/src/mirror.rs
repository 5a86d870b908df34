//! The registry mirror for the container runtime: the pull half of the OCI distribution API on
//! loopback. Content by digest comes through the swarm, everything else goes to the registry.
//!
//! Not a registry: nothing is pushed, listed or deleted here.
//!
//! Invariant: a request gets its first byte or a clean refusal within [`FIRST_BYTE_LIMIT`], and never
//! 408 or 429, which make containerd ask the same mirror again.

mod answer;
pub mod blobs;
mod content;
mod pass;
mod request;
mod through;

use crate::config::MirrorConfig;
use crate::metrics::Metrics;
use crate::origin::OriginClient;
use answer::Refusal;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use axum::serve::ListenerExt;
use blobs::Blobs;
use request::Resource;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time to the first byte or the refusal.
pub const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(5);
/// Requests at once, bodies included.
const MAX_REQUESTS: usize = 512;
/// Time for bodies in flight at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Why the mirror does not start.
#[derive(Debug, thiserror::Error)]
#[error("listen for the container runtime on {addr} (mirror.addr): {source}")]
pub struct MirrorError {
    addr: SocketAddr,
    source: io::Error,
}

/// Serves the runtime until shut down.
pub struct MirrorServer {
    addr: SocketAddr,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

/// What a request needs.
#[derive(Clone)]
struct Mirror {
    blobs: Arc<dyn Blobs>,
    origin: OriginClient,
    metrics: Metrics,
    requests: Arc<Semaphore>,
}

impl MirrorServer {
    /// Listens on the mirror's address.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(
        config: &MirrorConfig,
        blobs: Arc<dyn Blobs>,
        origin: OriginClient,
        metrics: Metrics,
    ) -> Result<Self, MirrorError> {
        let failed = |source| MirrorError { addr: config.addr, source };
        let listener = TcpListener::bind(config.addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        let app = Router::new().fallback(handle).with_state(Mirror { blobs, origin, metrics, requests });
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let listener = listener.tap_io(|socket| {
            // A small answer should not wait for more.
            let _ = socket.set_nodelay(true);
        });
        let serving = axum::serve(listener, app).with_graceful_shutdown(cancel.clone().cancelled_owned());
        tracker.spawn(async { serving.await });
        Ok(Self { addr, tracker, cancel })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more requests, lets bodies in flight end for a bounded time.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tracker.close();
        if tokio::time::timeout(DRAIN_LIMIT, self.tracker.wait()).await.is_err() {
            tracing::warn!("pulls were cut at shutdown");
        }
    }
}

async fn handle(State(mirror): State<Mirror>, request: Request<Body>) -> Response<Body> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let answer = match mirror.answer(request).await {
        Ok(answer) => answer,
        Err(refusal) => {
            tracing::debug!(%method, %uri, %refusal, "refused");
            if let Some(reason) = refusal.fallback_reason() {
                mirror.metrics.fallback(reason);
                tracing::info!(%uri, %refusal, "the runtime has to go elsewhere");
            }
            refusal.answer(&method)
        }
    };
    tracing::debug!(%method, %uri, status = answer.status().as_u16(), "answered");
    answer
}

impl Mirror {
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::Busy { limit: MAX_REQUESTS })?;
        let resource = request::parse(request.method(), request.uri(), &self.origin)?;
        match resource {
            Resource::Base => Ok(answer::base()),
            Resource::Health => Ok(answer::health()),
            Resource::Content(wanted) => self.content(wanted, request, permit).await,
            Resource::Passed { registry, path } => self.pass(&registry, &path, request, permit).await,
        }
    }
}

/// Keeps a request's place until its body was sent.
type Permit = OwnedSemaphorePermit;
