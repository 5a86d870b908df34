//! A registry that knows `Range`, can be slow, and counts what it sends.

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use bytes::Bytes;
use futures::stream;
use sha2::Digest;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes sent at once.
const STEP: usize = 256 << 10;

pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: Bytes,
}

impl Blob {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let hex = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { digest: format!("sha256:{hex}"), bytes: bytes.into() }
    }
}

#[derive(Default)]
struct Shared {
    blobs: Mutex<HashMap<String, Bytes>>,
    sent: AtomicU64,
    /// Bytes per second of one response; 0: no limit.
    rate: AtomicU64,
}

pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let app = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
            let shared = Arc::clone(&state);
            async move { answer(&shared, &uri, &headers) }
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { addr, shared, serving }
    }

    pub(crate) fn publish(&self, blob: &Blob) {
        self.shared.blobs.lock().unwrap().insert(blob.digest.clone(), blob.bytes.clone());
    }

    pub(crate) fn limit(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn answer(shared: &Arc<Shared>, uri: &Uri, headers: &HeaderMap) -> Response<Body> {
    let digest = uri.path().rsplit('/').next().unwrap_or_default();
    let Some(bytes) = shared.blobs.lock().unwrap().get(digest).cloned() else {
        return Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    let size = bytes.len();
    let range = headers.get("range").and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Response::builder().header("content-length", size).body(body(shared, bytes)).unwrap();
    };
    let first: usize = first.parse().unwrap();
    let end = last.parse().map_or(size, |last: usize| (last + 1).min(size));
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("content-range", format!("bytes {first}-{}/{size}", end - 1))
        .header("content-length", end - first)
        .body(body(shared, bytes.slice(first..end)))
        .unwrap()
}

fn body(shared: &Arc<Shared>, bytes: Bytes) -> Body {
    let shared = Arc::clone(shared);
    Body::from_stream(stream::unfold((shared, bytes), |(shared, mut bytes)| async move {
        if bytes.is_empty() {
            return None;
        }
        let step = bytes.split_to(bytes.len().min(STEP));
        let rate = shared.rate.load(Ordering::SeqCst);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(step.len() as f64 / rate as f64)).await;
        }
        shared.sent.fetch_add(step.len() as u64, Ordering::SeqCst);
        Some((Ok::<_, std::io::Error>(step), (shared, bytes)))
    }))
}
