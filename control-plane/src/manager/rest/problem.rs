//! Refusals as `application/problem+json` (RFC 9457).
//!
//! Invariant: what is wrong on our side is logged here and told in general words; what the caller did
//! wrong is told in full.

use crate::manager::clusters::EditError;
use crate::manager::directory::AssignError;
use crate::manager::sign_in::SignInError;
use crate::manager::store::StoreError;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    pub(super) fn unauthorized() -> Self {
        let header = Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        Self { header, ..Self::new(StatusCode::UNAUTHORIZED, "sign in first: a live bearer token is needed") }
    }

    fn retry(status: StatusCode, detail: String, after: Duration) -> Self {
        let header = Some((header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1))));
        Self { header, ..Self::new(status, detail) }
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "answer a request");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the manager failed; its log says why")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken { .. } => Self::new(StatusCode::CONFLICT, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<EditError> for Problem {
    fn from(error: EditError) -> Self {
        let status = match error {
            EditError::Unknown { .. } => StatusCode::NOT_FOUND,
            EditError::Spec(_) => StatusCode::UNPROCESSABLE_ENTITY,
            EditError::Default { .. } | EditError::InUse(_) | EditError::Full => StatusCode::CONFLICT,
            EditError::Store(error) => return error.into(),
            EditError::Interrupted => return Self::internal(&error),
        };
        Self::new(status, error.to_string())
    }
}

impl From<AssignError> for Problem {
    fn from(error: AssignError) -> Self {
        Self::internal(&error)
    }
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        let detail = error.to_string();
        match error {
            SignInError::Wrong => Self::new(StatusCode::UNAUTHORIZED, detail),
            SignInError::Throttled { retry_after } => {
                Self::retry(StatusCode::TOO_MANY_REQUESTS, detail, retry_after)
            }
            SignInError::Busy => Self::retry(StatusCode::SERVICE_UNAVAILABLE, detail, Duration::from_secs(1)),
            SignInError::Password(_) | SignInError::Store(_) => Self::internal(&error),
        }
    }
}
