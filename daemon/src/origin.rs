//! The origin: registries on the allow-list, asked over HTTP(S) for blobs and manifests by digest.
//!
//! Not retries (that is the caller's policy) and not digests (the bytes are what the origin sent).
//!
//! Invariant: a registry that is not on the allow-list is never contacted, and credentials go to
//! the registry they were given for alone.

mod body;
mod content_range;
mod error;
pub mod name;
mod request;

pub use body::OriginBody;
pub use error::OriginError;

use crate::accounting::Accounting;
use crate::config::{MirrorConfig, canonical_host};
use crate::metrics::Metrics;
use content_range::ContentRange;
use hawker_api::task::TaskId;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use request::{Ask, Reply};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use url::Url;

/// Longest time to connect to an origin, TLS included.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time from a call to the answer's head, with waiting for a permit and all redirects.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Longest time without a byte of a body.
pub const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// Most requests and bodies on their way at one registry: enough for the pieces of a few blobs, and
/// below what registries take for abuse.
pub const REQUESTS_PER_REGISTRY: usize = 64;
/// Largest body kept of an answer that is not the object, bytes.
pub const MAX_ERROR_BODY_BYTES: usize = 64 << 10;

/// Manifest types asked for, most wanted first; by digest there is but one that fits.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.5";

/// What kind of object, hence which endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Blob,
    Manifest,
}

impl ObjectKind {
    fn path(self) -> &'static str {
        match self {
            Self::Blob => "blobs",
            Self::Manifest => "manifests",
        }
    }
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
pub struct Credentials(pub(crate) Option<HeaderValue>);

impl Credentials {
    pub fn none() -> Self {
        Self(None)
    }

    /// The caller's header as it came; marked so that nothing prints it.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut value = headers.get(header::AUTHORIZATION).cloned();
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Self(value)
    }

    /// Whether the caller sent any.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Credentials(hidden)" } else { "Credentials(none)" })
    }
}

/// Times an [`OriginClient`] keeps; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct OriginLimits {
    pub connect: Duration,
    pub head: Duration,
    pub idle: Duration,
}

impl Default for OriginLimits {
    fn default() -> Self {
        Self { connect: CONNECT_LIMIT, head: HEAD_LIMIT, idle: IDLE_LIMIT }
    }
}

/// Fetches from origins. Clones share connections.
#[derive(Clone)]
pub struct OriginClient(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    registries: BTreeMap<String, Upstream>,
    limits: OriginLimits,
    metrics: Metrics,
}

/// One registry of the allow-list.
struct Upstream {
    host: String,
    server: Url,
    permits: Arc<Semaphore>,
    accounting: Accounting,
}

/// A request passed on as it is: tags, and the size of what is not held here.
#[derive(Debug, Clone)]
pub struct PassRequest {
    /// GET or HEAD.
    pub method: Method,
    pub object: OriginObject,
    /// A tag or digest, checked by the caller.
    pub reference: String,
    pub accept: Vec<HeaderValue>,
    pub credentials: Credentials,
}

/// What the registry answered, whatever its status. A challenge is in `headers` only where the
/// registry itself sent it, never where a redirect led.
pub struct PassAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: OriginBody,
}

impl OriginClient {
    /// # Errors
    /// `Failed` where the HTTP client cannot be built (no certificate store).
    pub fn new(config: &MirrorConfig, metrics: Metrics) -> Result<Self, OriginError> {
        Self::with_limits(config, metrics, OriginLimits::default())
    }

    /// As [`Self::new`]; what is read is counted and limited by `accounting`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn accounted(
        config: &MirrorConfig,
        metrics: Metrics,
        accounting: &Accounting,
    ) -> Result<Self, OriginError> {
        Self::build(config, metrics, OriginLimits::default(), accounting)
    }

    /// # Errors
    /// As [`Self::new`].
    pub fn with_limits(
        config: &MirrorConfig,
        metrics: Metrics,
        limits: OriginLimits,
    ) -> Result<Self, OriginError> {
        let accounting = Accounting::new(metrics.clone());
        Self::build(config, metrics, limits, &accounting)
    }

    fn build(
        config: &MirrorConfig,
        metrics: Metrics,
        limits: OriginLimits,
        accounting: &Accounting,
    ) -> Result<Self, OriginError> {
        let http = request::client(&limits).map_err(|error| OriginError::Failed {
            registry: "any registry".to_owned(),
            what: "anything".to_owned(),
            detail: request::chain(&error),
        })?;
        let upstream = |registry: &crate::config::Registry| Upstream {
            host: registry.host.clone(),
            server: registry.server.clone(),
            permits: Arc::new(Semaphore::new(REQUESTS_PER_REGISTRY)),
            accounting: accounting.clone(),
        };
        let registries =
            config.registries.iter().map(|entry| (entry.host.clone(), upstream(entry))).collect();
        Ok(Self(Arc::new(Inner { http, registries, limits, metrics })))
    }

    /// Whether the registry is on the allow-list.
    #[must_use]
    pub fn allows(&self, registry: &str) -> bool {
        self.0.registries.contains_key(&canonical_host(registry))
    }

    /// The registry of the allow-list, where there is exactly one.
    #[must_use]
    pub fn only_registry(&self) -> Option<&str> {
        let mut hosts = self.0.registries.keys();
        hosts.next().filter(|_| hosts.next().is_none()).map(String::as_str)
    }

    /// Starts fetching `range` (all of it: `None`; `n..u64::MAX`: from `n` to the end).
    ///
    /// The body may have another range than asked for: an origin may ignore `Range` (200), or send
    /// a shorter part. `416` with `bytes */0` is an empty object: total 0, range 0..0.
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
        let mut ask = self.ask(object, &task.to_string(), credentials)?;
        if object.kind == ObjectKind::Manifest {
            ask.headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        }
        if let Some(range) = &range {
            let value = content_range::request(range).and_then(|text| HeaderValue::from_str(&text).ok());
            let value = value.ok_or_else(|| ask.failed(format!("range {range:?} is empty")))?;
            ask.headers.insert(header::RANGE, value);
        }
        let reply = self.send(&ask).await?;
        match reply.status() {
            StatusCode::OK => reply.whole(&ask, self.0.limits.idle),
            StatusCode::PARTIAL_CONTENT => reply.part(&ask, range, self.0.limits.idle),
            StatusCode::RANGE_NOT_SATISFIABLE
                if reply.content_range() == Some(ContentRange::Unsatisfied { total: 0 }) =>
            {
                Ok(OriginBody::empty(&ask))
            }
            _ => Err(reply.into_status_error(&ask, self.0.limits.idle).await),
        }
    }

    /// Passes a request on; any status is an answer.
    ///
    /// # Errors
    /// `NotAllowed`, `Failed`; bounded in time.
    pub async fn fetch(&self, request: &PassRequest) -> Result<PassAnswer, OriginError> {
        let mut ask = self.ask(&request.object, &request.reference, &request.credentials)?;
        ask.method = request.method.clone();
        for accept in &request.accept {
            ask.headers.append(header::ACCEPT, accept.clone());
        }
        let reply = self.send(&ask).await?;
        reply.into_answer(&ask, self.0.limits.idle)
    }

    /// A GET of an object by tag or digest.
    fn ask(
        &self,
        object: &OriginObject,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<Ask<'_>, OriginError> {
        let upstream = self
            .0
            .registries
            .get(&canonical_host(&object.registry))
            .ok_or_else(|| OriginError::NotAllowed { registry: object.registry.clone() })?;
        // Also when it comes from a peer or a job: nothing but a name may shape the URL's path.
        let (repository, kind) = (&object.repository, object.kind.path());
        let separator = if reference.contains(':') { '@' } else { ':' };
        let what = format!("{repository}{separator}{reference}");
        if !name::is_repository(repository) {
            let (registry, detail) = (object.registry.clone(), "not a repository name".to_owned());
            return Err(OriginError::Failed { registry, what, detail });
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = &credentials.0 {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let mut url = upstream.server.clone();
        url.set_path(&format!("/v2/{repository}/{kind}/{reference}"));
        Ok(Ask { upstream, method: Method::GET, url, what, headers })
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Reply, OriginError> {
        let limit = self.0.limits.head;
        tokio::time::timeout(limit, request::send(&self.0.http, ask, &self.0.metrics))
            .await
            .unwrap_or_else(|_| Err(ask.failed(format!("no answer within {limit:?}"))))
    }
}
