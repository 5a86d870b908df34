//! The status server: `/status`, `/metrics` and `/healthz` on TCP, all but the metrics on the unix socket, and the store.
//!
//! Invariant: `/healthz` is 503 until [`StatusServer::set_started`].

use super::Report;
use super::profile;
use super::socket::{self, Socket};
use super::stored::{self, Stored};
use crate::config::{ApiConfig, MetricsConfig};
use crate::handover::{Listeners, Place};
use crate::metrics::{Metrics, OPEN_METRICS};
use crate::mirror::serve::{ServeLimits, Server};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// The listening socket, for who comes next.
    kept: OwnedFd,
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
        stored: Arc<dyn Stored>,
    ) -> Result<Self, StatusError> {
        let from = (&Listeners::default(), false);
        Self::bind_from(from, (metrics_config, api), metrics, report, stored).await
    }

    /// As [`Self::bind`], on a socket that may be inherited; `follows`: so is the other one's path.
    pub(crate) async fn bind_from(
        (listeners, follows): (&Listeners, bool),
        (metrics_config, api): (&MetricsConfig, &ApiConfig),
        metrics: Metrics,
        report: ReportFn,
        stored: Arc<dyn Stored>,
    ) -> Result<Self, StatusError> {
        let failed = |source| StatusError::Bind { addr: metrics_config.addr, source };
        let listener = listeners.tcp(Place::Metrics, metrics_config.addr).and_then(TcpListener::from_std);
        let listener = listener.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let kept = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        let socket = match &api.socket {
            Some(path) => Some(socket::listen(path, follows).await?),
            None => None,
        };
        let started = Arc::new(AtomicBool::new(false));
        let shared = Shared { metrics, report, started: Arc::clone(&started) };
        let local = Router::new().route("/status", get(status)).route("/healthz", get(healthz));
        let public = local.clone().route("/metrics", get(exposition));
        let public = public.merge(profile::routes(metrics_config, addr)).with_state(shared.clone());
        let limits =
            ServeLimits { connections: MAX_CONNECTIONS, head_bytes: MAX_HEAD_BYTES, drain: DRAIN_LIMIT };
        let local = local.with_state(shared).merge(stored::routes(stored));
        let unix = socket.map(|(listener, socket)| (Server::start(listener, &local, limits), socket));
        Ok(Self { addr, kept, started, tcp: Server::start(listener, &public, limits), unix })
    }

    /// Where it listens; the port is the kernel's choice where the configuration says 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.kept.as_fd()
    }

    /// The daemon serves: `/healthz` is 200 from here on.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Ends both listeners and removes the socket.
    pub async fn shutdown(self) {
        drop(self.kept);
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
    match shared.metrics.encode((shared.report)()) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{RemoveError, StoredReport};
    use crate::store::StoreError;
    use hawker_api::task::TaskId;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    /// One blob, pinned or gone.
    #[derive(Default)]
    struct Shelf(parking_lot::Mutex<Vec<StoredReport>>);

    impl Stored for Shelf {
        fn list(&self) -> Vec<StoredReport> {
            self.0.lock().clone()
        }

        fn remove(&self, _: &TaskId, pinned_too: bool) -> Result<(), RemoveError> {
            let mut blobs = self.0.lock();
            match blobs.first() {
                None => Err(RemoveError::NotHere),
                Some(blob) if blob.pinned && !pinned_too => Err(RemoveError::Pinned),
                Some(_) => {
                    blobs.clear();
                    Ok(())
                }
            }
        }

        fn pin(&self, _: &TaskId, pinned: bool) -> Result<bool, StoreError> {
            Ok(self.0.lock().first_mut().map(|blob| blob.pinned = pinned).is_some())
        }
    }

    fn metrics_on(addr: SocketAddr) -> MetricsConfig {
        MetricsConfig { addr, profile: false }
    }

    async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
        ask(stream, "GET", path).await
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str) -> String {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
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
            (metrics_on(([127, 0, 0, 1], 0).into()), ApiConfig { socket: Some(path.clone()) });
        let report = Arc::new(|| Report { warnings: vec!["disk full".to_owned()], ..Report::default() });
        let server = StatusServer::bind(&metrics, &api, Metrics::new(), report, Arc::new(Shelf::default()))
            .await
            .unwrap();
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
    async fn the_store_is_on_the_socket_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hawkerd.sock");
        let (metrics, api) =
            (metrics_on(([127, 0, 0, 1], 0).into()), ApiConfig { socket: Some(path.clone()) });
        let task = format!("sha256:{}", "ab".repeat(32));
        let blob = StoredReport { task: task.clone(), size: 7, complete: true, ..StoredReport::default() };
        let shelf = Arc::new(Shelf(parking_lot::Mutex::new(vec![blob])));
        let report = Arc::new(Report::default);
        let server = StatusServer::bind(&metrics, &api, Metrics::new(), report, shelf).await.unwrap();
        let tcp = get(TcpStream::connect(server.addr()).await.unwrap(), "/v1/blobs").await;
        assert!(tcp.starts_with("HTTP/1.1 404"), "{tcp}");
        let local = async |method: &str, target: String| {
            ask(UnixStream::connect(&path).await.unwrap(), method, &target).await
        };
        let blob = format!("/v1/blobs/{task}");
        for (method, target, expected) in [
            ("GET", "/v1/blobs".to_owned(), "200"),
            ("GET", blob.clone(), "200"),
            ("PUT", format!("{blob}/pin"), "204"),
            ("DELETE", blob.clone(), "409"),
            ("DELETE", format!("{blob}?force=true"), "204"),
            ("DELETE", blob.clone(), "404"),
            ("GET", blob, "404"),
            ("DELETE", "/v1/blobs/..%2f..%2fetc".to_owned(), "400"),
        ] {
            let answer = local(method, target.clone()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{method} {target}: {answer}");
        }
    }

    #[tokio::test]
    async fn profiles_are_taken_where_they_were_wanted() {
        for (wanted, path, expected) in [
            (false, "/debug/pprof/profile?seconds=1", "404"),
            (true, "/debug/pprof/profile?seconds=0", "400"),
            (true, "/debug/pprof/profile?minutes=1", "400"),
            (true, "/debug/pprof/profile?seconds=1", "200"),
        ] {
            let metrics = MetricsConfig { profile: wanted, ..metrics_on(([127, 0, 0, 1], 0).into()) };
            let (api, report) = (ApiConfig { socket: None }, Arc::new(Report::default));
            let shelf = Arc::new(Shelf::default());
            let server = StatusServer::bind(&metrics, &api, Metrics::new(), report, shelf).await.unwrap();
            let mut stream = TcpStream::connect(server.addr()).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(format!("HTTP/1.1 {expected}").as_bytes()), "{path}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metrics = metrics_on(taken.local_addr().unwrap());
        let report = Arc::new(Report::default);
        let result = StatusServer::bind(
            &metrics,
            &ApiConfig { socket: None },
            Metrics::new(),
            report,
            Arc::new(Shelf::default()),
        )
        .await;
        let error = result.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("metrics.addr") && error.contains(&metrics.addr.to_string()), "{error}");
    }
}
