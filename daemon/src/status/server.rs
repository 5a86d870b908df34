//! The status server: `/status`, `/metrics` and `/healthz` on TCP, all but the metrics on the unix socket.
//!
//! Invariant: `/healthz` is 503 until [`StatusServer::set_started`].

use super::Report;
use super::socket::{self, Socket};
use crate::config::{ApiConfig, MetricsConfig};
use crate::metrics::{Metrics, OPEN_METRICS};
use crate::mirror::serve::{ServeLimits, Server};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Most connections of each listener: scrapers, probes, a few people.
const MAX_CONNECTIONS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Longest time for answers under way when the daemon stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Why the status server does not run.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("listen on {addr} (metrics.addr): {source}")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("{act} {path} (api.socket): {source}", path = .path.display())]
    Socket { act: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} (api.socket) is in use by a running daemon", path = .path.display())]
    SocketInUse { path: PathBuf },
    #[error("{path} (api.socket) exists and is no socket", path = .path.display())]
    NoSocket { path: PathBuf },
}

/// Makes the report of this moment; must not block for long.
pub type ReportFn = Arc<dyn Fn() -> Report + Send + Sync>;

/// The running status server.
pub struct StatusServer {
    addr: SocketAddr,
    started: Arc<AtomicBool>,
    tcp: Server,
    unix: Option<(Server, Socket)>,
}

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    report: ReportFn,
    started: Arc<AtomicBool>,
}

impl StatusServer {
    /// Listens and serves until [`Self::shutdown`] or drop. Not started yet, says `/healthz`.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn bind(
        metrics_config: &MetricsConfig,
        api: &ApiConfig,
        metrics: Metrics,
        report: ReportFn,
    ) -> Result<Self, StatusError> {
        let failed = |source| StatusError::Bind { addr: metrics_config.addr, source };
        let listener = TcpListener::bind(metrics_config.addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let socket = match &api.socket {
            Some(path) => Some(socket::listen(path).await?),
            None => None,
        };
        let started = Arc::new(AtomicBool::new(false));
        let shared = Shared { metrics, report, started: Arc::clone(&started) };
        let local = Router::new().route("/status", get(status)).route("/healthz", get(healthz));
        let public = local.clone().route("/metrics", get(exposition)).with_state(shared.clone());
        let limits =
            ServeLimits { connections: MAX_CONNECTIONS, head_bytes: MAX_HEAD_BYTES, drain: DRAIN_LIMIT };
        let unix = socket
            .map(|(listener, socket)| (Server::start(listener, &local.with_state(shared), limits), socket));
        Ok(Self { addr, started, tcp: Server::start(listener, &public, limits), unix })
    }

    /// Where it listens; the port is the kernel's choice where the configuration says 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The daemon serves: `/healthz` is 200 from here on.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Ends both listeners and removes the socket.
    pub async fn shutdown(self) {
        if let Some((server, socket)) = self.unix {
            server.shutdown().await;
            drop(socket);
        }
        self.tcp.shutdown().await;
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    axum::Json((shared.report)()).into_response()
}

async fn healthz(State(shared): State<Shared>) -> Response {
    if shared.started.load(Ordering::Acquire) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}

async fn exposition(State(shared): State<Shared>) -> Response {
    match shared.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_says_what_the_daemon_is_and_whether_it_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hawkerd.sock");
        let (metrics, api) =
            (MetricsConfig { addr: ([127, 0, 0, 1], 0).into() }, ApiConfig { socket: Some(path.clone()) });
        let report = Arc::new(|| Report { warnings: vec!["disk full".to_owned()], ..Report::default() });
        let server = StatusServer::bind(&metrics, &api, Metrics::new(), report).await.unwrap();
        let (tcp, unix) = (
            async |path: &str| get(TcpStream::connect(server.addr()).await.unwrap(), path).await,
            async |target: &str| get(UnixStream::connect(&path).await.unwrap(), target).await,
        );
        assert!(tcp("/healthz").await.starts_with("HTTP/1.1 503"));
        server.set_started();
        assert!(tcp("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(unix("/healthz").await.starts_with("HTTP/1.1 200"));
        for document in [tcp("/status").await, unix("/status").await] {
            let body = document.split("\r\n\r\n").nth(1).unwrap();
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["warnings"][0], "disk full");
            assert!(json["delivered"]["peer_same_zone"].is_u64(), "{json}");
        }
        let exposition = tcp("/metrics").await;
        assert!(exposition.contains("application/openmetrics-text") && exposition.ends_with("# EOF\n"));
        assert!(tcp("/nothing").await.starts_with("HTTP/1.1 404"));
        server.shutdown().await;
        assert!(!path.exists(), "the socket is removed");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metrics = MetricsConfig { addr: taken.local_addr().unwrap() };
        let report = Arc::new(Report::default);
        let result = StatusServer::bind(&metrics, &ApiConfig { socket: None }, Metrics::new(), report).await;
        let error = result.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("metrics.addr") && error.contains(&metrics.addr.to_string()), "{error}");
    }
}
