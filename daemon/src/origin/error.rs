//! Why an origin did not give the bytes.
//!
//! Invariant: no text here holds credentials or the URL a redirect led to.

use bytes::Bytes;

/// Why the origin did not give the bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    #[error("registry {registry} is not on the allow-list (mirror.registries)")]
    NotAllowed { registry: String },
    #[error("host {host} is not on the allow-list for files (files.origins)")]
    FileNotAllowed { host: String },
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
            Self::NotAllowed { .. } | Self::FileNotAllowed { .. } => false,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::Failed { .. } | Self::Length { .. } => true,
        }
    }
}
