//! Request parts, read strictly: what does not fit is refused as a problem that names it.
//!
//! Invariant: no text with a NUL in it gets past here; no database keeps one.

use super::problem::Problem;
use crate::manager::rights::Caller;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Largest request body, bytes: a cluster with all its lists at their limits fits.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

/// The parameters after `?`.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

/// What stands for `{id}`.
#[derive(Debug)]
pub(super) struct Id(pub(super) u64);

/// What stands for `{name}`.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "the body must be JSON, and `Content-Type: application/json` must say so";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let bytes = Bytes::from_request(request, state).await?;
        read(&bytes).map(Self)
    }
}

/// Reads JSON that is nothing but a `T`.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if has_nul(bytes) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body has a text with a NUL (`\\u0000`)"));
    }
    // A list would pass for an object whose fields it gives in their order.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body must be an object, not a list"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner();
        match problem.classify() {
            Category::Data if path != "." => {
                Problem::field(StatusCode::BAD_REQUEST, path, without_place(&problem.to_string()))
            }
            Category::Data => Problem::new(StatusCode::BAD_REQUEST, without_place(&problem.to_string())),
            _ => malformed(&problem),
        }
    })?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
}

/// The message without ` at line 1 column 7`: the path says more.
fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message)
}

/// Whether a string in this JSON has the escape of a NUL; an unescaped one is no JSON anyway.
fn has_nul(json: &[u8]) -> bool {
    const NUL: &[u8] = b"u0000";
    let mut escaped = false;
    json.iter().enumerate().any(|(index, byte)| {
        let begins = escaped && json[index..].starts_with(NUL);
        escaped = *byte == b'\\' && !escaped;
        begins
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "a parameter has a NUL (`%00`)"));
        }
        let axum::extract::Query(query) = axum::extract::Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::from_request_parts(parts, state).await?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name): Path<String> = Path::from_request_parts(parts, state).await?;
        if name.contains('\0') {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "the path has a NUL (`%00`)"));
        }
        Ok(Self(name))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Put there by the guard of every route that needs somebody.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let detail = format!("the body is larger than {MAX_BODY_BYTES} bytes");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
            }
            status => Self::new(status, rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let detail = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_escape_of_a_nul_counts() {
        for (json, found) in [
            (r#"{"a":"\u0000"}"#, true),
            (r#"{"a":"x\\\u0000"}"#, true),
            (r#"{"a":"\\u0000"}"#, false),
            (r#"{"a":"u0000"}"#, false),
            (r#"{"a":"\u0001"}"#, false),
            ("\\", false),
        ] {
            assert_eq!(has_nul(json.as_bytes()), found, "{json}");
        }
    }
}
