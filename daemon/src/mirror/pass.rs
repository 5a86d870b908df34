//! What only the registry can answer: tags, and whether something exists. Passed on with the
//! caller's credentials, and back with the headers that matter.
//!
//! Invariant: nothing of it is kept; a passed answer is bounded in size and time to its first byte.

use super::answer::{Refusal, relayed};
use super::{FIRST_BYTE_LIMIT, Mirror, Permit};
use crate::origin::{Answer, OriginError};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response};
use std::io;
use std::time::Duration;

/// Largest passed body, bytes: manifests.
const MAX_BODY_BYTES: u64 = 8 << 20;
/// Time without a byte of a passed body.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// Of the request.
const PASSED_ON: [HeaderName; 2] = [ACCEPT, AUTHORIZATION];
/// Of the answer.
const PASSED_BACK: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_TYPE,
    ETAG,
    WWW_AUTHENTICATE,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("docker-distribution-api-version"),
];

impl Mirror {
    pub(super) async fn pass(
        &self,
        registry: &str,
        path: &str,
        request: Request<Body>,
        permit: Permit,
    ) -> Result<Response<Body>, Refusal> {
        let method = request.method().clone();
        let headers = selected(request.headers(), &PASSED_ON);
        let passing = self.origin.pass(method.clone(), registry, path, headers);
        let passed = tokio::time::timeout(FIRST_BYTE_LIMIT, passing).await;
        let answer = passed.map_err(|_| Refusal::TooSlow { seconds: FIRST_BYTE_LIMIT.as_secs() })??;
        let status = answer.response.status();
        if !status.is_success() && relayed(status.as_u16()) != status {
            // Not for the runtime's eyes: it goes to the registry itself, and sees for itself.
            return Err(Refusal::Origin(OriginError::Status {
                registry: registry.to_owned(),
                status: status.as_u16(),
                what: path.to_owned(),
                challenge: None,
                body: Bytes::new(),
            }));
        }
        let mut back = Response::new(Body::empty());
        *back.status_mut() = status;
        *back.headers_mut() = selected(answer.response.headers(), &PASSED_BACK);
        if method != Method::HEAD {
            *back.body_mut() = Body::from_stream(stream::try_unfold((answer, permit, 0), bounded));
        }
        Ok(back)
    }
}

fn selected(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut to = HeaderMap::new();
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
    to
}

type Passing = (Answer, Permit, u64);

async fn bounded((mut answer, permit, sent): Passing) -> io::Result<Option<(Bytes, Passing)>> {
    let chunk = tokio::time::timeout(IDLE_LIMIT, answer.response.chunk()).await?.map_err(io::Error::other)?;
    let Some(chunk) = chunk else { return Ok(None) };
    let sent = sent + chunk.len() as u64;
    if sent > MAX_BODY_BYTES {
        return Err(io::Error::other(format!("the registry sends more than {MAX_BODY_BYTES} bytes")));
    }
    Ok(Some((chunk, (answer, permit, sent))))
}
