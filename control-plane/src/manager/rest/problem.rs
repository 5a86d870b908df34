//! Refusals as `application/problem+json` (RFC 9457).
//!
//! Invariant: what is wrong on our side is logged here and told in general words; what the caller did
//! wrong is told in full.

use crate::manager::clusters::EditError;
use crate::manager::directory::AssignError;
use crate::manager::rights::Permission;
use crate::manager::sign_in::SignInError;
use crate::manager::store::StoreError;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// The media type of refusals.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A database that was restarted is back after this.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<Box<str>>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemView {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// What is wrong, and where, in words.
    detail: String,
    /// The field of the body or the parameter that is wrong, where it is one: `scopes.cidrs[2]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Box<str>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None, header: None }
    }

    /// A field of the request that cannot be used; `field` is its path.
    pub(super) fn field(status: StatusCode, field: impl Into<String>, problem: impl AsRef<str>) -> Self {
        let field = field.into();
        let detail = format!("{field}: {}", problem.as_ref());
        Self { field: Some(field.into()), ..Self::new(status, detail) }
    }

    /// Nobody is signed in.
    pub(super) fn unauthorized() -> Self {
        let header = Some(Box::new((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))));
        Self { header, ..Self::new(StatusCode::UNAUTHORIZED, "sign in first: a live bearer token is needed") }
    }

    /// Somebody is, and may not.
    pub(super) fn lacks(permission: Permission) -> Self {
        Self::forbidden(format!("this needs `{permission}`, which your role or your token does not have"))
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn retry(status: StatusCode, detail: String, after: Duration) -> Self {
        let header = Some(Box::new((header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)))));
        Self { header, ..Self::new(status, detail) }
    }

    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "answer a request");
        Self::failed()
    }

    /// Something is wrong on our side, and is in the log.
    pub(super) fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the manager failed; its log says why")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemView {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: self.detail,
            field: self.field,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken { .. } | StoreError::UserNameTaken { .. } => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            StoreError::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, error.to_string()),
            _ if error.is_unavailable() => {
                tracing::warn!(%error, "answer a request");
                let detail = "the database does not answer; nothing was changed".to_owned();
                Self::retry(StatusCode::SERVICE_UNAVAILABLE, detail, RETRY_AFTER)
            }
            _ if error.is_full() => {
                tracing::error!(%error, "answer a request");
                let detail = "the database's disk is full; nothing was changed".to_owned();
                Self::new(StatusCode::INSUFFICIENT_STORAGE, detail)
            }
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
        let field = if let EditError::Spec(error) = &error { Some(error.field().into()) } else { None };
        Self { field, ..Self::new(status, error.to_string()) }
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
            SignInError::Throttled { retry_after } | SignInError::AccountThrottled { retry_after } => {
                Self::retry(StatusCode::TOO_MANY_REQUESTS, detail, retry_after)
            }
            SignInError::Busy => Self::retry(StatusCode::SERVICE_UNAVAILABLE, detail, Duration::from_secs(1)),
            SignInError::Store(error) => error.into(),
            SignInError::Password(_) => Self::internal(&error),
        }
    }
}
