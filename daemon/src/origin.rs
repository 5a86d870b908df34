//! The origin: registries on the allow-list, asked over HTTP(S) for blobs and manifests by digest.
//!
//! Not retries (that is the caller's policy) and not digests (the bytes are what the origin sent).
//!
//! Invariant: a registry that is not on the allow-list is never contacted, credentials go to the registry
//! they were given for alone, and no registry leads the daemon further inside than it is itself.

mod account;
mod allow_list;
mod body;
mod challenge;
mod content_range;
mod credentials;
mod error;
mod file;
mod guard;
mod request;
mod tokens;
mod upstream;

pub use body::OriginBody;
pub use credentials::Credentials;
pub use error::OriginError;
pub use file::{FileHead, MAX_PATH_BYTES};
pub use hawker_api::name;

use crate::accounting::Accounting;
use crate::config::{FileOrigin, FilesConfig, MirrorConfig};
use crate::metrics::Metrics;
use crate::trace;
use allow_list::AllowList;
use bytes::Bytes;
use content_range::ContentRange;
use file::FileUpstream;
use hawker_api::node_policy::RegistryRule;
use hawker_api::task::TaskId;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use request::{Ask, Reply};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokens::{Tokens, Whom};
use tracing::Instrument;

/// Longest time to connect to an origin, TLS included.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time from a call to the answer's head, with waiting for a permit and all redirects.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The same for a HEAD, which costs a registry little.
pub const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// Longest time without a byte of a body, and for the first [`MIN_WINDOW_BYTES`] of each such time: whoever waits
/// is better off at the origin itself.
pub const IDLE_LIMIT: Duration = Duration::from_secs(3);
/// Fewest bytes in that time. Below it a body counts as standing still.
pub const MIN_WINDOW_BYTES: u64 = 4 << 10;
/// Most requests and bodies on their way at one registry: enough for the pieces of a few blobs, and
/// below what registries take for abuse.
pub const REQUESTS_PER_REGISTRY: usize = 64;
/// Largest body kept of an answer that is not the object, bytes.
pub const MAX_ERROR_BODY_BYTES: usize = 64 << 10;

/// Manifest types asked for, most wanted first; by digest there is but one that fits.
pub(crate) const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.5";

/// What kind of object, hence which endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Blob,
    Manifest,
    /// Of a URL; not under `/v2/`.
    File,
}

impl ObjectKind {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Blob => "blobs",
            Self::Manifest => "manifests",
            Self::File => "files",
        }
    }

    /// The other way round.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        [Self::Blob, Self::Manifest, Self::File].into_iter().find(|kind| kind.path() == path)
    }
}

/// Where an object lives: registry as the runtime names it (`ns`), repository, kind. Of a file: host and
/// port, and its path with the query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginObject {
    pub registry: String,
    pub repository: String,
    pub kind: ObjectKind,
    /// Of a file: which version of it, as [`FileHead::version`]; else empty.
    pub version: String,
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
    registries: AllowList,
    files: Vec<FileUpstream>,
    limits: OriginLimits,
    metrics: Metrics,
    tokens: Tokens,
}

/// A request passed on as it is: tags, and the size of what is not held here.
#[derive(Debug, Clone)]
pub struct PassRequest {
    /// GET or HEAD.
    pub method: Method,
    pub object: OriginObject,
    /// A tag or digest, checked by the caller.
    pub reference: String,
    /// A list instead of the object, with these parameters.
    pub list: Option<(ListOf, Vec<(String, String)>)>,
    pub accept: Vec<HeaderValue>,
    pub credentials: Credentials,
}

/// What a registry has lists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOf {
    Tags,
    Referrers,
}

impl ListOf {
    /// Its element of the path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}

/// What the registry answered, whatever its status. A challenge is in `headers` only where the
/// registry itself sent it, never where a redirect led.
pub struct PassAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: OriginBody,
}

impl PassAnswer {
    /// The refusal that this answer is.
    #[must_use]
    pub fn into_error(self, request: &PassRequest) -> OriginError {
        let challenge = self.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        OriginError::Status {
            registry: request.object.registry.clone(),
            status: self.status.as_u16(),
            what: format!("{}@{}", request.object.repository, request.reference),
            challenge: challenge.map(str::to_owned),
            body: Bytes::new(),
        }
    }
}

impl OriginClient {
    /// # Errors
    /// `Failed` where the HTTP client cannot be built (no certificate store).
    pub fn new(config: &MirrorConfig, metrics: Metrics) -> Result<Self, OriginError> {
        Self::with_limits(config, metrics, OriginLimits::default())
    }

    /// As [`Self::new`], with files; what is read is counted and limited by `accounting`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn accounted(
        config: &MirrorConfig,
        files: &FilesConfig,
        metrics: Metrics,
        accounting: &Accounting,
    ) -> Result<Self, OriginError> {
        Self::build(config, &files.origins, metrics, OriginLimits::default(), accounting)
    }

    /// # Errors
    /// As [`Self::new`].
    pub fn with_limits(
        config: &MirrorConfig,
        metrics: Metrics,
        limits: OriginLimits,
    ) -> Result<Self, OriginError> {
        let accounting = Accounting::new(metrics.clone());
        Self::build(config, &[], metrics, limits, &accounting)
    }

    fn build(
        config: &MirrorConfig,
        files: &[FileOrigin],
        metrics: Metrics,
        limits: OriginLimits,
        accounting: &Accounting,
    ) -> Result<Self, OriginError> {
        let http = request::client(&limits).map_err(|error| OriginError::Failed {
            registry: "any registry".to_owned(),
            what: "anything".to_owned(),
            detail: request::chain(&error),
        })?;
        let registries = AllowList::new(config, accounting, limits);
        let files = files.iter().map(|origin| FileUpstream::new(origin, accounting, limits)).collect();
        let tokens = Tokens::new();
        Ok(Self(Arc::new(Inner { http, registries, files, limits, metrics, tokens })))
    }

    /// Whether an object may be asked for, whatever it is.
    #[must_use]
    pub fn allows_object(&self, object: &OriginObject) -> bool {
        match object.kind {
            ObjectKind::Blob | ObjectKind::Manifest => self.allows(&object.registry),
            // The scheme was the caller's matter.
            ObjectKind::File => self.allows_file_host(&object.registry),
        }
    }

    /// Whether the registry is on the allow-list.
    #[must_use]
    pub fn allows(&self, registry: &str) -> bool {
        self.0.registries.get(registry).is_some()
    }

    /// The registry of the allow-list, where there is exactly one.
    #[must_use]
    pub fn only_registry(&self) -> Option<String> {
        self.0.registries.only()
    }

    /// Takes over which registries the cluster lists; `None`: it says nothing.
    pub fn follow(&self, rules: Option<&[RegistryRule]>) {
        self.0.registries.follow(rules);
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
        if object.kind == ObjectKind::File {
            file::same_version(object, &reply, &ask)?;
        }
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
        if let Some((list, parameters)) = &request.list {
            let (repository, reference) = (&request.object.repository, &request.reference);
            ask.url.set_path(&format!("/v2/{repository}/{}/{reference}", list.path()));
            if !parameters.is_empty() {
                ask.url.query_pairs_mut().extend_pairs(parameters);
            }
        }
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
    ) -> Result<Ask, OriginError> {
        if object.kind == ObjectKind::File {
            return self.ask_file(object, credentials);
        }
        let upstream = self
            .0
            .registries
            .get(&object.registry)
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
        if let Some(value) = credentials.authorization() {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        let mut url = upstream.server.clone();
        url.set_path(&format!("/v2/{repository}/{kind}/{reference}"));
        let on_behalf = match credentials.is_account() && upstream.account.is_some() {
            true => Some((Whom::Account, repository.clone())),
            false if credentials.authorization().is_none() => Some((Whom::Nobody, repository.clone())),
            false => None,
        };
        let span = trace::origin(&upstream.host);
        Ok(Ask { upstream, method: Method::GET, url, what, headers, span, on_behalf })
    }

    /// What the registry says at its door, to this caller: the challenge it has for everybody.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn ping(&self, registry: &str, credentials: &Credentials) -> Result<PassAnswer, OriginError> {
        let object = OriginObject {
            registry: registry.to_owned(),
            repository: "ping".to_owned(),
            kind: ObjectKind::Manifest,
            version: String::new(),
        };
        let mut ask = self.ask(&object, "ping", credentials)?;
        ask.url.set_path("/v2/");
        ask.on_behalf = None;
        let reply = self.send(&ask).await?;
        reply.into_answer(&ask, self.0.limits.idle)
    }

    /// Whether a challenge of this registry may be shown to a caller, so that it sends credentials.
    #[must_use]
    pub fn may_show(&self, registry: &str, challenge: &str) -> bool {
        let upstream = self.0.registries.get(registry);
        upstream.is_some_and(|upstream| challenge::may_be_shown(challenge, &upstream.server))
    }

    async fn send(&self, ask: &Ask) -> Result<Reply, OriginError> {
        trace::asks(&ask.span, &ask.method, &ask.url);
        let sent = self.send_in_time(ask).instrument(ask.span.clone()).await;
        match &sent {
            Ok(reply) => trace::note(&ask.span, "http.status_code", i64::from(reply.status().as_u16())),
            Err(error) => trace::note(&ask.span, "error.message", error.to_string()),
        }
        sent
    }

    async fn send_in_time(&self, ask: &Ask) -> Result<Reply, OriginError> {
        let limit = self.0.limits.head;
        if ask.method != Method::HEAD {
            let sent = tokio::time::timeout(limit, self.send_as_somebody(ask)).await;
            return sent.unwrap_or_else(|_| Err(ask.failed(format!("no answer within {limit:?}"))));
        }
        // Every pull begins with one: what it finds out spares the requests after it the same wait.
        if ask.upstream.is_silent() {
            return Err(ask.failed("it did not answer a moment ago"));
        }
        let limit = limit.min(PROBE_LIMIT);
        let sent = tokio::time::timeout(limit, self.send_as_somebody(ask)).await;
        let sent = sent.unwrap_or_else(|_| Err(ask.failed(format!("no answer within {limit:?}"))));
        ask.upstream.answered(sent.is_ok());
        sent
    }

    /// Sends; where the caller has no credentials and the registry wants some, with a token for nobody or what the node's own
    /// account gives.
    async fn send_as_somebody(&self, ask: &Ask) -> Result<Reply, OriginError> {
        let (http, metrics, tokens) = (&self.0.http, &self.0.metrics, &self.0.tokens);
        let Some((whom, repository)) = &ask.on_behalf else {
            return request::send(http, ask, None, metrics).await;
        };
        let known = tokens.get(*whom, &ask.upstream.host, repository);
        let reply = request::send(http, ask, known, metrics).await?;
        let Some(challenge) = reply.challenge().filter(|_| reply.status() == StatusCode::UNAUTHORIZED) else {
            return Ok(reply);
        };
        match tokens.fetch(ask, (*whom, repository), &challenge, metrics).await {
            Ok(Some(token)) => {
                // One permit at a time: two would lock out everybody once all have one.
                drop(reply);
                request::send(http, ask, Some(token), metrics).await
            }
            Ok(None) => Ok(reply),
            // Of the operator's own file he wants to know.
            Err(error) if *whom == Whom::Account => Err(error),
            Err(error) => {
                tracing::debug!(%error, "no token for nobody");
                Ok(reply)
            }
        }
    }
}
