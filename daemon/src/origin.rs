//! The origin: registries on the allow-list, asked over HTTP(S) for blobs and manifests by digest.
//!
//! Invariant: a registry that is not on the allow-list is never contacted, and credentials go to
//! the registry they were given for alone.

use crate::config::MirrorConfig;
use crate::metrics::Metrics;
use bytes::Bytes;
use hawker_api::task::TaskId;
use std::ops::Range;

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
pub struct Credentials(pub(crate) Option<http::HeaderValue>);

impl Credentials {
    pub fn none() -> Self {
        Self(None)
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

/// Fetches from origins. Clones share connections.
#[derive(Clone)]
pub struct OriginClient {}

impl OriginClient {
    pub fn new(_config: &MirrorConfig, _metrics: Metrics) -> Result<Self, OriginError> {
        Ok(Self {})
    }

    /// Whether the registry is on the allow-list.
    pub fn allows(&self, _registry: &str) -> bool {
        true
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
        _credentials: &Credentials,
        _range: Option<Range<u64>>,
    ) -> Result<OriginBody, OriginError> {
        Err(OriginError::Failed {
            registry: object.registry.clone(),
            what: task.to_string(),
            detail: String::new(),
        })
    }
}

/// A body on its way.
pub struct OriginBody {}

impl OriginBody {
    /// Size of the whole object, where the origin said it.
    pub fn total(&self) -> Option<u64> {
        None
    }

    /// Which bytes of the object this body is; the end is `None` where the length is unknown (chunked).
    pub fn range(&self) -> (u64, Option<u64>) {
        (0, None)
    }

    /// The next bytes; `None` at a clean end with exactly the announced length.
    ///
    /// # Errors
    /// `Failed` (also after a named time without a byte), `Length`.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        Ok(None)
    }
}
