//! `/status`, `/metrics` and `/healthz` over TCP, and the same on the local API's unix socket.
//!
//! Invariant: the socket is for this user alone, and a socket somebody still serves is never taken away.

use super::Report;
use crate::config::{ApiConfig, MetricsConfig};
use crate::metrics::Metrics;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for answers in flight at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the status cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("listen for metrics and status on {addr} (metrics.addr): {source}")]
    Tcp { addr: SocketAddr, source: io::Error },
    #[error("listen on the local API's socket {path} (api.socket): {source}", path = .path.display())]
    Socket { path: PathBuf, source: io::Error },
}

/// Makes the report when somebody asks.
pub type MakeReport = Arc<dyn Fn() -> Report + Send + Sync>;

#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    report: MakeReport,
}

/// Serves until shut down.
pub struct StatusServer {
    addr: SocketAddr,
    socket: Option<PathBuf>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl StatusServer {
    /// Listens on the metrics address and the local API's socket.
    ///
    /// # Errors
    /// [`StatusError`] names the address or the path.
    pub async fn bind(
        metrics_config: &MetricsConfig,
        api: &ApiConfig,
        metrics: Metrics,
        report: MakeReport,
    ) -> Result<Self, StatusError> {
        let failed = |source| StatusError::Tcp { addr: metrics_config.addr, source };
        let listener = TcpListener::bind(metrics_config.addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let app = Router::new()
            .route("/status", get(status))
            .route("/metrics", get(openmetrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(Shown { metrics, report });
        if let Some(path) = &api.socket {
            let failed = |source| StatusError::Socket { path: path.clone(), source };
            let listener = unix_listener(path).await.map_err(failed)?;
            let serving =
                axum::serve(listener, app.clone()).with_graceful_shutdown(cancel.clone().cancelled_owned());
            tracker.spawn(async { serving.await });
        }
        let serving = axum::serve(listener, app).with_graceful_shutdown(cancel.clone().cancelled_owned());
        tracker.spawn(async { serving.await });
        Ok(Self { addr, socket: api.socket.clone(), tracker, cancel })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tracker.close();
        // A scraper that holds its connection open does not hold the daemon.
        let _ = tokio::time::timeout(DRAIN_LIMIT, self.tracker.wait()).await;
        if let Some(path) = self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn status(State(shown): State<Shown>) -> impl IntoResponse {
    // The report asks the store, which may wait for a lock held over disk work.
    match tokio::task::spawn_blocking(move || (shown.report)()).await {
        Ok(report) => Json(report).into_response(),
        Err(_) => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn openmetrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPENMETRICS)], shown.metrics.encode())
}

async fn unix_listener(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is not a socket"));
        }
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon serves it"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    async fn bind(socket: &Path) -> Result<StatusServer, StatusError> {
        let metrics = MetricsConfig { addr: (Ipv4Addr::LOCALHOST, 0).into() };
        let api = ApiConfig { socket: Some(socket.to_owned()) };
        StatusServer::bind(&metrics, &api, Metrics::new(), Arc::new(Report::default)).await
    }

    #[tokio::test]
    async fn status_and_metrics_are_served_and_the_socket_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/hawkerd.sock");
        let server = bind(&path).await.unwrap();
        let get = async |path: &str| {
            let url = format!("http://{}{path}", server.addr());
            reqwest::get(url).await.unwrap().text().await.unwrap()
        };
        assert!(get("/metrics").await.contains("hawker_build_info"));
        let report: serde_json::Value = serde_json::from_str(&get("/status").await).unwrap();
        assert!(report["delivered"]["peer_same_zone"].is_u64() && report["bad_peers"].is_array());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let second = bind(&path).await.err().unwrap().to_string();
        assert!(second.contains("another daemon"), "{second}");
        server.shutdown().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hawkerd.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        bind(&path).await.unwrap().shutdown().await;
        std::fs::write(&path, "precious").unwrap();
        let error = bind(&path).await.err().unwrap().to_string();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
