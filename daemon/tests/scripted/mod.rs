//! A daemon without a cluster, and an origin that does as it is told, byte for byte.

use hawker_daemon::config::Config;
use hawker_daemon::daemon::Daemon;
use sha2::Digest;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Nothing in these tests may take longer.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let hex = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

/// What the origin answers to every request.
pub(crate) enum Script {
    Raw(Vec<u8>),
    /// Knows `Range`.
    Blob(Vec<u8>),
    Silent,
}

impl Script {
    pub(crate) fn raw(answer: &str) -> Self {
        Self::Raw(answer.as_bytes().to_vec())
    }

    pub(crate) fn blob(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }

    pub(crate) fn status(status: u16, headers: &str) -> Self {
        Self::raw(&format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::status(307, &format!("Location: {to}\r\n"))
    }

    pub(crate) fn silent() -> Self {
        Self::Silent
    }

    pub(crate) async fn start(self) -> Origin {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(self), Arc::clone(&requests));
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                tokio::spawn(async move { script.serve(socket, &seen).await });
            }
        });
        Origin { addr, requests, serving }
    }

    async fn serve(&self, mut socket: TcpStream, seen: &Mutex<Vec<String>>) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let text = String::from_utf8(request).unwrap();
        seen.lock().unwrap().push(text.clone());
        let answer = match self {
            Self::Silent => return std::future::pending().await,
            Self::Raw(bytes) => bytes.clone(),
            Self::Blob(bytes) => blob_answer(bytes, &text),
        };
        let _ = socket.write_all(&answer).await;
        let _ = socket.shutdown().await;
    }
}

fn blob_answer(bytes: &[u8], request: &str) -> Vec<u8> {
    let size = bytes.len();
    let range =
        request.lines().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (status, headers, part) = match range.as_deref().and_then(|range| range.split_once('-')) {
        None => ("200 OK", String::new(), bytes),
        Some((first, last)) => {
            let first: usize = first.parse().unwrap();
            let end = last.trim().parse().map_or(size, |last: usize| (last + 1).min(size));
            let headers = format!("Content-Range: bytes {first}-{}/{size}\r\n", end - 1);
            ("206 Partial Content", headers, &bytes[first..end])
        }
    };
    let body: &[u8] = if request.starts_with("HEAD") { &[] } else { part };
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", part.len());
    [head.as_bytes(), body].concat()
}

pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A daemon alone with its origin.
pub(crate) struct Lone {
    pub(crate) origin: Origin,
    mirror: SocketAddr,
    status: SocketAddr,
    _daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl Lone {
    /// `setting` is one more `section.key=value`.
    pub(crate) async fn start(script: Script, setting: &str) -> Self {
        let (origin, dir) = (script.start().await, tempfile::tempdir().unwrap());
        let (mirror, status) = (free_port(), free_port());
        let mut environment = vec![
            ("HAWKER_MIRROR_ADDR".to_owned(), mirror.to_string()),
            ("HAWKER_METRICS_ADDR".to_owned(), status.to_string()),
            ("HAWKER_PEER_ADDR".to_owned(), "127.0.0.1:0".to_owned()),
            ("HAWKER_API_SOCKET".to_owned(), String::new()),
            // Several daemons share this process and its cgroup.
            ("HAWKER_SHAPER_MODE".to_owned(), "off".to_owned()),
            ("HAWKER_STORAGE_DIR".to_owned(), dir.path().join("store").display().to_string()),
            (
                "HAWKER_MIRROR_REGISTRIES".to_owned(),
                format!("[{{host: registry.test, relayChallenge: true, server: 'http://{}'}}]", origin.addr),
            ),
        ];
        if let Some((key, value)) = setting.split_once('=') {
            environment.push((format!("HAWKER_{}", key.replace('.', "_").to_uppercase()), value.to_owned()));
        }
        let daemon = Daemon::bind(Config::load(None, environment).unwrap()).await.unwrap();
        Self { origin, mirror, status, _daemon: daemon, _dir: dir }
    }

    /// Asks the mirror, path and headers exactly as given, and reads all there is.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let asking = raw(self.mirror, method, path, headers);
        tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("{method} {path} hangs"))
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&raw(self.status, "GET", "/status", "").await.body).unwrap()
    }
}

async fn raw(addr: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // A cut body may end in a reset; what came before counts.
    let _ = socket.read_to_end(&mut all).await;
    let split = all.windows(4).position(|window| window == b"\r\n\r\n").expect("no head");
    let head = String::from_utf8(all[..split].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all[split + 4..].to_vec() }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn whole(&self) -> String {
        format!("{}\n\n{}", self.head, self.text())
    }

    pub(crate) fn length(&self) -> Option<u64> {
        let line = self.head.lines().find_map(|line| line.strip_prefix("content-length: "));
        line.and_then(|value| value.parse().ok())
    }
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
