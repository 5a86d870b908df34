//! What the mirror answers instead of content: OCI error documents, with a status chosen for what the
//! runtime does on it.
//!
//! containerd falls to its next host on every status from 400 on, except that it repeats 408 and 429
//! here, without a pause. So an origin's own word about the content or the caller (400, 401 with
//! its challenge, 403, 404, …) is passed on, and everything that may pass (408, 425, 429, 5xx, no answer,
//! overload) is 503 without `Retry-After`.
//!
//! Invariant: no refusal has status 408 or 429, and each names what is wrong.

use super::blobs::{OpenError, ReadError};
use crate::origin::{ObjectKind, OriginError};
use axum::response::{IntoResponse, Response};
use hawker_api::task::{TaskId, TaskIdError};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::fmt;
use std::time::Duration;

/// Errors quote at most this many characters of what the caller sent.
const QUOTED_CHARS: usize = 64;
const BLOB_UNKNOWN: &str = "BLOB_UNKNOWN";

#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// WWW-Authenticate, Content-Range, Allow.
    extra: Option<Box<(header::HeaderName, HeaderValue)>>,
    /// Counted as a fallback under this name.
    reason: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), extra: None, reason: None }
    }

    /// 503: the runtime's next host is the better one.
    pub(super) fn elsewhere(reason: &'static str, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message);
        Self { reason: Some(reason), ..refusal }
    }

    pub(super) fn method(method: &Method) -> Self {
        let message = format!("{} is not supported: this is a mirror for pulling", quoted(method.as_str()));
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message);
        Self { extra: Some(Box::new((header::ALLOW, HeaderValue::from_static("GET, HEAD")))), ..refusal }
    }

    pub(super) fn no_such_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", format!("no such endpoint: `{}`", quoted(path)))
    }

    pub(super) fn unsupported(what: &str, instead: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", format!("{what} is not mirrored: {instead}"))
    }

    pub(super) fn name(name: &str) -> Self {
        let message = format!("`{}` is not a repository name", quoted(name));
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    pub(super) fn tag(tag: &str) -> Self {
        let message = format!("`{}` is neither a tag nor a digest", quoted(tag));
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(super) fn digest(error: &TaskIdError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
    }

    pub(super) fn not_a_digest(text: &str) -> Self {
        let message = format!("`{}` is not a digest: use sha256 or sha512", quoted(text));
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(super) fn not_allowed(registry: &str) -> Self {
        let registry = quoted(registry);
        let message = format!("registry `{registry}` is not on the allow-list (mirror.registries)");
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(super) fn file_url(problem: &str) -> Self {
        let message = format!("what follows /files/ is not the URL of a file: {problem}");
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    pub(super) fn file_host(scheme: &str, host: &str) -> Self {
        let message =
            format!("{scheme}://{} is not on the allow-list for files (files.origins)", quoted(host));
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(super) fn forward(name: &str, why: &str) -> Self {
        let message = format!("header `{}`: {why} forwarded", quoted(name));
        Self::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
    }

    pub(super) fn other_digest(wanted: &TaskId, stated: &TaskId) -> Self {
        let message = format!("{wanted} is wanted and the origin states {stated}");
        Self::new(StatusCode::CONFLICT, "DIGEST_INVALID", message)
    }

    pub(super) fn which_registry() -> Self {
        let message = "which registry? add ?ns=<host>, or put the host before the repository name";
        Self::new(StatusCode::BAD_REQUEST, "NAME_UNKNOWN", message)
    }

    pub(super) fn unsatisfiable(size: u64) -> Self {
        let message = format!("the range lies past the end: there are {size} bytes");
        let refusal = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", message);
        let value = HeaderValue::from_str(&format!("bytes */{size}"));
        Self { extra: value.ok().map(|value| Box::new((header::CONTENT_RANGE, value))), ..refusal }
    }

    pub(super) fn overloaded() -> Self {
        Self::elsewhere("overloaded", "too many requests are under way on this node")
    }

    pub(super) fn too_slow(limit: Duration) -> Self {
        Self::elsewhere("timeout", format!("no answer within {limit:?}"))
    }

    /// 401, with what the registry wants.
    pub(super) fn sign_in(registry: &str, challenge: HeaderValue) -> Self {
        let refusal =
            Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", format!("{registry} wants credentials"));
        Self { extra: Some(Box::new((header::WWW_AUTHENTICATE, challenge))), ..refusal }
    }

    /// The same, telling nobody how to sign in.
    pub(super) fn without_challenge(mut self) -> Self {
        self.extra = self.extra.filter(|extra| extra.0 != header::WWW_AUTHENTICATE);
        self
    }

    /// The header that goes with it.
    pub(super) fn headers(&self) -> HeaderMap {
        self.extra.iter().map(|extra| (extra.0.clone(), extra.1.clone())).collect()
    }

    /// The specification has its own "unknown" for manifests.
    pub(super) fn about(mut self, kind: ObjectKind) -> Self {
        if kind == ObjectKind::Manifest && self.code == BLOB_UNKNOWN {
            self.code = "MANIFEST_UNKNOWN";
        }
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Why the runtime was sent elsewhere, where it was.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.reason
    }
}

/// The origin's status as the runtime should see it; `None`: as 503.
pub(super) fn passed_on(status: StatusCode) -> Option<StatusCode> {
    let may_pass = matches!(status.as_u16(), 408 | 425 | 429);
    (status.is_success() || status.is_client_error() && !may_pass).then_some(status)
}

impl From<OriginError> for Refusal {
    fn from(error: OriginError) -> Self {
        match &error {
            OriginError::NotAllowed { registry } => Self::not_allowed(registry),
            OriginError::FileNotAllowed { .. } => {
                Self::new(StatusCode::FORBIDDEN, "DENIED", error.to_string())
            }
            OriginError::Status { status, challenge, .. } => {
                let status = StatusCode::from_u16(*status).ok().filter(|status| !status.is_success());
                let Some(status) = status.and_then(passed_on) else {
                    return Self::elsewhere("origin_error", error.to_string());
                };
                let challenge = challenge.as_ref().and_then(|text| HeaderValue::from_str(text).ok());
                let extra = challenge
                    .filter(|_| status == StatusCode::UNAUTHORIZED)
                    .map(|value| Box::new((header::WWW_AUTHENTICATE, value)));
                Self { extra, ..Self::new(status, code_of(status), error.to_string()) }
            }
            OriginError::Failed { .. } | OriginError::Length { .. } => {
                Self::elsewhere("origin_error", error.to_string())
            }
        }
    }
}

fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::FORBIDDEN => "DENIED",
        StatusCode::NOT_FOUND => BLOB_UNKNOWN,
        _ => "UNSUPPORTED",
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let text = error.to_string();
        match error {
            OpenError::Origin(origin) => origin.into(),
            OpenError::NoSpace(_) => Self::elsewhere("no_space", text),
            OpenError::TooLarge { .. } => Self::elsewhere("too_large", text),
            OpenError::TimedOut { .. } => Self::elsewhere("timeout", text),
            OpenError::Wrong { .. } => Self::elsewhere("mismatch", text),
            OpenError::Unavailable(_) | OpenError::HandedOver => Self::elsewhere("unavailable", text),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let text = error.to_string();
        match error {
            ReadError::Origin(origin) => origin.into(),
            ReadError::Mismatch => Self::elsewhere("mismatch", text),
            ReadError::Stalled { .. } => Self::elsewhere("timeout", text),
            ReadError::Io(_) | ReadError::HandedOver => Self::elsewhere("io", text),
            ReadError::NoSpace(_) => Self::elsewhere("no_space", text),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = serde_json::json!({ "code": self.code, "message": self.message, "detail": null });
        let body = axum::Json(serde_json::json!({ "errors": [error] }));
        let mut response = (self.status, body).into_response();
        if let Some(extra) = self.extra {
            let (name, value) = *extra;
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_the_runtime_sees_of_the_origins_status() {
        for (origin, seen) in [
            (400, 400),
            (401, 401),
            (403, 403),
            (404, 404),
            (408, 503),
            (429, 503),
            (500, 503),
            (502, 503),
            (304, 503),
            (204, 503),
        ] {
            let (registry, what) = ("ghcr.io".to_owned(), "a@sha256:0".to_owned());
            let challenge = Some("Bearer realm=\"https://ghcr.io/token\"".to_owned());
            let error = OriginError::Status { registry, status: origin, what, challenge, body: Bytes::new() };
            let response = Refusal::from(error).into_response();
            assert_eq!(response.status().as_u16(), seen, "{origin}");
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), seen == 401, "{origin}");
            assert!(!response.headers().contains_key(header::RETRY_AFTER));
        }
    }
}
