//! Revisions as entity tags (RFC 9110 §8.8.3, §13.1.1): an edit says of which revision it was made, and is refused
//! with 412 if there is another one meanwhile.

use super::problem::Problem;
use crate::manager::clusters::Expected;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// `If-Match`, or nothing.
#[derive(Debug)]
pub(super) struct IfMatch(pub(super) Expected);

/// An answer with the tag of its revision.
pub(super) struct Tagged<T>(pub(super) u64, pub(super) T);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut revisions = Vec::new();
        let mut said = false;
        for value in parts.headers.get_all(header::IF_MATCH) {
            let refused = || Problem::new(StatusCode::BAD_REQUEST, "If-Match: is no list of entity tags");
            for tag in value.to_str().map_err(|_| refused())?.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Self(Expected::default()));
                }
                let quoted = tag.strip_prefix("W/").unwrap_or(tag);
                if quoted.len() < 2 || !quoted.starts_with('"') || !quoted.ends_with('"') {
                    return Err(refused());
                }
                said = true;
                // A weak tag, or one we never gave, matches nothing.
                revisions.extend(tag.trim_matches('"').parse::<u64>().ok());
            }
        }
        Ok(Self(if said { Expected::one_of(revisions) } else { Expected::default() }))
    }
}

impl<T: IntoResponse> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let Self(revision, body) = self;
        let mut response = body.into_response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
