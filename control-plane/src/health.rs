//! `/healthz` and `/metrics` of the process, in plain HTTP on an address of their own: whatever the API
//! is busy with, a probe is answered.
//!
//! Invariant: answers need no lock that a request to the API holds over an await.

use crate::http::{self, Limits};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, routing::get};
use hawker_api::process::Process;
use hawker_api::profile::{self, ProfileError};
use hawker_api::trace::DroppedSpans;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a scrape under way may take once the process is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics and health are served.
#[derive(Debug, Clone, Copy)]
pub struct MetricsConfig {
    pub addr: SocketAddr,
    /// `/debug/pprof/profile` answers, to callers on this machine.
    pub profile: bool,
}

/// Why metrics and health cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listen for metrics on {addr}: {source}")]
pub struct HealthError {
    addr: SocketAddr,
    source: std::io::Error,
}

/// What every process says of itself.
pub fn register_process(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
    registry.register_collector(Box::new(DroppedSpans));
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("hawker_build", "This build", build);
}

/// The running server.
#[derive(Debug)]
pub struct Health {
    addr: SocketAddr,
    stop: DropGuard,
    serving: JoinHandle<()>,
}

impl Health {
    /// Serves what is registered in `registry`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(config: MetricsConfig, registry: Registry) -> Result<Self, HealthError> {
        let failed = |source| HealthError { addr: config.addr, source };
        let listener = TcpListener::bind(config.addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let cancel = CancellationToken::new();
        let mut router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics))
            .with_state(Arc::new(registry));
        if config.profile {
            router = router.route("/debug/pprof/profile", get(take_profile));
        }
        let serving = tokio::spawn(http::serve(listener, router, Limits::default(), cancel.clone()));
        Ok(Self { addr, stop: cancel.drop_guard(), serving })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening; a scrape under way may finish for a bounded time.
    pub async fn shutdown(self) {
        let Self { stop, mut serving, .. } = self;
        drop(stop);
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    seconds: Option<u64>,
}

/// What the CPU is busy with, for callers on this machine.
async fn take_profile(
    Extension(ConnectInfo(from)): Extension<ConnectInfo<SocketAddr>>,
    Query(length): Query<Length>,
) -> Response {
    if !from.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "profiles are for callers on this machine\n").into_response();
    }
    let seconds = length.seconds.unwrap_or(profile::DEFAULT_SECONDS);
    let taken = tokio::task::spawn_blocking(move || profile::take(seconds)).await;
    let failed = |status: StatusCode, error: &ProfileError| (status, format!("{error}\n")).into_response();
    match taken {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Ok(Err(error @ ProfileError::Length { .. })) => failed(StatusCode::BAD_REQUEST, &error),
        Ok(Err(error @ ProfileError::Busy)) => failed(StatusCode::CONFLICT, &error),
        Ok(Err(error)) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
        Err(_shutdown) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encode metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
