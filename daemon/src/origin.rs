//! The origin: registries on the allow-list, asked over HTTP(S) for blobs and manifests by digest.
//!
//! Invariant: a registry that is not on the allow-list is never contacted, and credentials go to
//! the registry they were given for alone.

mod body;
mod redirect;

pub use body::OriginBody;

use crate::config::{MirrorConfig, Registry};
use crate::metrics::Metrics;
use bytes::Bytes;
use futures::StreamExt;
use hawker_api::task::TaskId;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Time to connect to a registry.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time from a request to the response's head, redirects included.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Time without a byte of a body.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// Requests of this node to one registry at once.
const MAX_REQUESTS_PER_REGISTRY: usize = 64;
/// What is kept of an error's body, bytes.
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;
/// Manifest types a runtime may want, in the order of the OCI distribution specification.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// What kind of object, hence which endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Blob,
    Manifest,
}

/// Where an object lives: registry as the runtime names it (`ns`), repository, kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginObject {
    pub registry: String,
    pub repository: String,
    pub kind: ObjectKind,
}

/// The caller's `Authorization` header, opaque; its `Debug` never shows it.
#[derive(Clone, Default)]
pub struct Credentials(Option<HeaderValue>);

impl Credentials {
    pub fn none() -> Self {
        Self(None)
    }

    /// The caller's header, if there was one.
    pub fn new(authorization: Option<HeaderValue>) -> Self {
        Self(authorization)
    }

    /// Whether there are any.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    fn headers(&self) -> HeaderMap {
        self.0.iter().map(|value| (AUTHORIZATION, value.clone())).collect()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Credentials(hidden)" } else { "Credentials(none)" })
    }
}

/// Why the origin did not give the bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    #[error("registry {registry} is not on the allow-list (mirror.registries)")]
    NotAllowed { registry: String },
    /// An answer that is not the bytes: 401, 404, 429, 500, … `challenge` is its WWW-Authenticate.
    #[error("{registry} answered {status} for {what}")]
    Status { registry: String, status: u16, what: String, challenge: Option<String>, body: Bytes },
    #[error("fetch {what} from {registry}: {detail}")]
    Failed { registry: String, what: String, detail: String },
    #[error("{registry} sent {got} bytes of {what} where {expected} were announced")]
    Length { registry: String, what: String, expected: u64, got: u64 },
}

impl OriginError {
    /// The origin's own answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotAllowed { .. } => false,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::Failed { .. } | Self::Length { .. } => true,
        }
    }
}

/// Fetches from origins. Clones share connections and limits.
#[derive(Clone)]
pub struct OriginClient {
    http: reqwest::Client,
    registries: Arc<HashMap<String, Endpoint>>,
    metrics: Metrics,
}

struct Endpoint {
    registry: Registry,
    requests: Arc<Semaphore>,
}

impl OriginClient {
    /// A client for the allow-listed registries.
    ///
    /// # Errors
    /// `Failed` where the system's TLS roots cannot be used.
    pub fn new(config: &MirrorConfig, metrics: Metrics) -> Result<Self, OriginError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(redirect::policy())
            .user_agent(concat!("hawkerd/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| OriginError::Failed {
                registry: "any registry".to_owned(),
                what: "anything".to_owned(),
                detail: chain(&error),
            })?;
        let endpoint = |registry: &Registry| {
            let requests = Arc::new(Semaphore::new(MAX_REQUESTS_PER_REGISTRY));
            (registry.host.clone(), Endpoint { registry: registry.clone(), requests })
        };
        Ok(Self { http, registries: Arc::new(config.registries.iter().map(endpoint).collect()), metrics })
    }

    /// Whether the registry is on the allow-list.
    pub fn allows(&self, registry: &str) -> bool {
        self.registries.contains_key(registry)
    }

    /// The one registry there is, where there is only one.
    pub fn only_registry(&self) -> Option<&str> {
        let mut names = self.registries.keys();
        names.next().filter(|_| names.next().is_none()).map(String::as_str)
    }

    /// Starts fetching `range` (all of it: `None`; `n..u64::MAX`: from `n` to the end).
    ///
    /// The body may have another range than asked for: an origin may ignore `Range` (200).
    /// `416` with `bytes */0` is an empty object: total 0, range 0..0.
    ///
    /// # Errors
    /// [`OriginError`]; bounded in time.
    pub async fn open(
        &self,
        object: &OriginObject,
        task: &TaskId,
        credentials: &Credentials,
        range: Option<Range<u64>>,
    ) -> Result<OriginBody, OriginError> {
        let (kind, accept) = match object.kind {
            ObjectKind::Blob => ("blobs", None),
            ObjectKind::Manifest => ("manifests", Some(HeaderValue::from_static(MANIFEST_TYPES))),
        };
        let path = format!("/v2/{}/{kind}/{task}", object.repository);
        let mut headers = credentials.headers();
        headers.extend(accept.map(|accept| (ACCEPT, accept)));
        if let Some(range) = &range {
            let last = if range.end == u64::MAX { String::new() } else { (range.end - 1).to_string() };
            let value = HeaderValue::try_from(format!("bytes={}-{last}", range.start));
            headers.extend(value.ok().map(|value| (RANGE, value)));
        }
        let answer = self.send(Method::GET, &object.registry, &path, headers).await?;
        let what = What { registry: object.registry.clone(), what: task.to_string() };
        match answer.response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => OriginBody::new(answer, what, range),
            StatusCode::RANGE_NOT_SATISFIABLE if body::is_empty_object(answer.response.headers()) => {
                Ok(OriginBody::empty(what))
            }
            _ => Err(refusal(answer.response, what).await),
        }
    }

    /// Asks a registry for `path` (`/v2/…`) as it is: what the mirror passes on unchanged.
    ///
    /// # Errors
    /// `NotAllowed`, `Failed`; an error status of the registry is an answer.
    pub async fn pass(
        &self,
        method: Method,
        registry: &str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, OriginError> {
        self.send(method, registry, path, headers).await
    }

    async fn send(
        &self,
        method: Method,
        registry: &str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, OriginError> {
        let endpoint = self
            .registries
            .get(registry)
            .ok_or_else(|| OriginError::NotAllowed { registry: registry.to_owned() })?;
        let failed =
            |detail| OriginError::Failed { registry: registry.to_owned(), what: path.to_owned(), detail };
        let url = endpoint.registry.server.join(path).map_err(|error| failed(error.to_string()))?;
        let sending = async {
            let permit = Arc::clone(&endpoint.requests).acquire_owned().await.map_err(|e| e.to_string())?;
            self.metrics.origin_request();
            let request = self.http.request(method, url).headers(headers);
            Ok((request.send().await.map_err(|error| chain(&error))?, permit))
        };
        let sent: Result<_, String> = tokio::time::timeout(HEAD_LIMIT, sending)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {} s", HEAD_LIMIT.as_secs())));
        let (response, permit) = sent.map_err(failed)?;
        Ok(Answer { response, _permit: permit })
    }
}

/// A registry's answer, holding its place in the limit on requests until it is dropped.
pub struct Answer {
    pub response: reqwest::Response,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// For messages: which object of which registry.
struct What {
    registry: String,
    what: String,
}

impl What {
    fn failed(&self, detail: String) -> OriginError {
        OriginError::Failed { registry: self.registry.clone(), what: self.what.clone(), detail }
    }
}

async fn refusal(response: reqwest::Response, what: What) -> OriginError {
    let status = response.status().as_u16();
    let challenge = response.headers().get(WWW_AUTHENTICATE);
    let challenge = challenge.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    let reading = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            body.extend_from_slice(&chunk);
            if body.len() >= MAX_ERROR_BODY_BYTES {
                break;
            }
        }
    };
    // Best effort: the status is what matters.
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    body.truncate(MAX_ERROR_BODY_BYTES);
    OriginError::Status { registry: what.registry, status, what: what.what, challenge, body: body.into() }
}

/// An error with its causes: reqwest's own text stops before the interesting part.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
