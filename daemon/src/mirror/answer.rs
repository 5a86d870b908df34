//! Answers that are not content: refusals as the OCI error document, the API's base, health.
//!
//! Invariant: a status here is one that makes containerd and CRI-O go on to the next host at once
//! (404, 5xx), ask for credentials (401), or stop because asking elsewhere would be wrong (400, 403).

use super::blobs::OpenError;
use crate::origin::OriginError;
use axum::body::Body;
use hawker_api::task::TaskIdError;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use serde_json::json;

const API_VERSION: (&str, &str) = ("docker-distribution-api-version", "registry/2.0");

/// Why a request gets no content from here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{what} is not supported")]
    Unsupported { what: String },
    #[error("`{name}` is not a repository name")]
    Name { name: String },
    #[error("`{tag}` is not a tag")]
    Tag { tag: String },
    #[error("{0}")]
    Digest(TaskIdError),
    #[error("registry {registry} is not on the allow-list (mirror.registries)")]
    Denied { registry: String },
    #[error("the request names no registry (?ns=) and there is not exactly one on the allow-list")]
    NoRegistry,
    #[error("range lies past the end of {size} bytes")]
    Range { size: u64 },
    #[error("{limit} requests are being served")]
    Busy { limit: usize },
    #[error("no first byte in {seconds} s")]
    TooSlow { seconds: u64 },
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("{0}")]
    Unavailable(String),
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Origin(error) => Self::Origin(error),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl Refusal {
    /// Label of `hawker_fallback_total`, where the runtime is sent elsewhere for want of help here.
    pub(super) fn fallback_reason(&self) -> Option<&'static str> {
        match self {
            Self::Busy { .. } => Some("busy"),
            Self::TooSlow { .. } => Some("no_first_byte"),
            Self::Unavailable(_) => Some("unavailable"),
            Self::Origin(error) if self.status().is_server_error() => {
                Some(if error.status().is_some() { "origin_status" } else { "origin_failed" })
            }
            _ => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unsupported { .. } => StatusCode::NOT_FOUND,
            Self::Name { .. } | Self::Tag { .. } | Self::Digest(_) | Self::NoRegistry => {
                StatusCode::BAD_REQUEST
            }
            Self::Denied { .. } | Self::Origin(OriginError::NotAllowed { .. }) => StatusCode::FORBIDDEN,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Origin(OriginError::Status { status, .. }) => relayed(*status),
            // `Origin`: the registry cannot be reached, or not trusted to send what it announced.
            Self::Busy { .. } | Self::TooSlow { .. } | Self::Unavailable(_) | Self::Origin(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "UNSUPPORTED",
            Self::Name { .. } => "NAME_INVALID",
            Self::Tag { .. } => "TAG_INVALID",
            Self::Digest(_) => "DIGEST_INVALID",
            Self::Denied { .. } => "DENIED",
            Self::NoRegistry => "NAME_UNKNOWN",
            Self::Range { .. } => "RANGE_INVALID",
            Self::Busy { .. } | Self::TooSlow { .. } | Self::Unavailable(_) => "UNAVAILABLE",
            Self::Origin(error) => match error.status() {
                Some(401) => "UNAUTHORIZED",
                Some(403) => "DENIED",
                Some(404) => "BLOB_UNKNOWN",
                _ => "UNAVAILABLE",
            },
        }
    }

    pub(super) fn answer(&self, method: &Method) -> Response<Body> {
        let body = json!({ "errors": [{ "code": self.code(), "message": self.to_string() }] }).to_string();
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = self.status();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(API_VERSION.0, HeaderValue::from_static(API_VERSION.1));
        if let Self::Range { size } = self
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{size}"))
        {
            headers.insert(CONTENT_RANGE, value);
        }
        if let Self::Origin(OriginError::Status { challenge: Some(challenge), .. }) = self
            && let Ok(value) = HeaderValue::try_from(challenge)
        {
            headers.insert(WWW_AUTHENTICATE, value);
        }
        if *method != Method::HEAD {
            *answer.body_mut() = Body::from(body);
        }
        answer
    }
}

/// The registry's status as the runtime may see it. 408, 429 and 5xx become 503: containerd would ask
/// this mirror again five times for the first two.
pub(super) fn relayed(status: u16) -> StatusCode {
    match StatusCode::from_u16(status) {
        Ok(StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) | Err(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Ok(status) if status.is_server_error() => StatusCode::SERVICE_UNAVAILABLE,
        // What is no error and no content either: the registry does something this mirror does not know.
        Ok(status) if !status.is_client_error() => StatusCode::SERVICE_UNAVAILABLE,
        Ok(status) => status,
    }
}

pub(super) fn base() -> Response<Body> {
    let mut answer = Response::new(Body::from("{}"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(API_VERSION.0, HeaderValue::from_static(API_VERSION.1));
    answer
}

pub(super) fn health() -> Response<Body> {
    Response::new(Body::from("ok\n"))
}
