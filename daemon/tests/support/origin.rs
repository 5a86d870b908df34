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
    /// Of files, by name: what their answers say besides the bytes, and whom they are for.
    terms: Mutex<HashMap<String, Terms>>,
    sent: AtomicU64,
    traceparents: Mutex<Vec<String>>,
    /// Bytes per second of one response; 0: no limit.
    rate: AtomicU64,
}

/// What an origin says of a file, and asks of its callers.
#[derive(Default, Clone)]
pub(crate) struct Terms {
    pub(crate) headers: Vec<(&'static str, String)>,
    /// One of these must be the request's `Authorization`, or its query.
    pub(crate) keys: Vec<&'static str>,
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
            let told = headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
            shared.traceparents.lock().unwrap().extend(told);
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

    pub(crate) fn publish_file(&self, name: &str, bytes: Bytes, terms: Terms) {
        self.shared.terms.lock().unwrap().insert(name.to_owned(), terms);
        self.shared.blobs.lock().unwrap().insert(name.to_owned(), bytes);
    }

    pub(crate) fn limit(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    pub(crate) fn traceparents(&self) -> Vec<String> {
        self.shared.traceparents.lock().unwrap().clone()
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
    let terms = shared.terms.lock().unwrap().get(digest).cloned().unwrap_or_default();
    let shown = headers
        .get("authorization")
        .or(headers.get("x-key"))
        .and_then(|value| value.to_str().ok())
        .or(uri.query());
    if !terms.keys.is_empty() && !shown.is_some_and(|shown| terms.keys.contains(&shown)) {
        return Response::builder().status(StatusCode::FORBIDDEN).body(Body::empty()).unwrap();
    }
    let mut answer = send(shared, bytes, headers);
    for (name, value) in terms.headers {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    answer
}

fn send(shared: &Arc<Shared>, bytes: Bytes, headers: &HeaderMap) -> Response<Body> {
    let size = bytes.len();
    let range = headers.get("range").and_then(|value| value.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Response::builder().header("content-length", size).body(body(shared, bytes)).unwrap();
    };
    let first: usize = first.parse().unwrap();
    if first >= size {
        let unsatisfied = Response::builder().status(StatusCode::RANGE_NOT_SATISFIABLE);
        return unsatisfied.header("content-range", format!("bytes */{size}")).body(Body::empty()).unwrap();
    }
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
