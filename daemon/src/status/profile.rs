//! `/debug/pprof/profile?seconds=`: what the CPU is busy with.
//!
//! Invariant: it is there only where the configuration wants it and the listener is this machine's alone.

use crate::config::MetricsConfig;
use axum::Router;
use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hawker_api::profile::{self, DEFAULT_SECONDS, ProfileError};
use http::{StatusCode, header};
use serde::Deserialize;
use std::net::SocketAddr;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    #[serde(default = "usual")]
    seconds: u64,
}

fn usual() -> u64 {
    DEFAULT_SECONDS
}

/// The route, or nothing; `addr` is where it would be served.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(
    config: &MetricsConfig,
    addr: SocketAddr,
) -> Router<S> {
    match (config.profile, addr.ip().is_loopback()) {
        (true, true) => Router::new().route("/debug/pprof/profile", get(take)),
        (true, false) => {
            tracing::warn!(%addr, "metrics.profile is for a listener on loopback: no profiles");
            Router::new()
        }
        (false, _) => Router::new(),
    }
}

async fn take(Query(length): Query<Length>) -> Response {
    let taken = tokio::task::spawn_blocking(move || profile::take(length.seconds)).await;
    match taken {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Ok(Err(error)) => {
            let status = match error {
                ProfileError::Length { .. } => StatusCode::BAD_REQUEST,
                ProfileError::Busy => StatusCode::CONFLICT,
                ProfileError::Failed(_) | ProfileError::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, format!("{error}\n")).into_response()
        }
        Err(_shutdown) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
