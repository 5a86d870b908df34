//! One request for content: what is wanted, where it comes from, until when a head must be sent; and the
//! head of its answer.
//!
//! Invariant: the registry of a [`Get`] is on the allow-list.

use super::range::Wanted;
use super::refusal::Refusal;
use super::route::{Reference, Route};
use crate::config::canonical_host;
use crate::origin::{Credentials, ObjectKind, OriginClient, OriginObject, name};
use axum::body::Body;
use axum::response::Response;
use hawker_api::task::TaskId;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The registry that was mirrored, as the distribution specification's "registry proxying" has it.
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

pub(super) struct Get {
    pub(super) method: Method,
    pub(super) object: OriginObject,
    pub(super) reference: Reference,
    pub(super) wanted: Wanted,
    pub(super) accept: Vec<HeaderValue>,
    pub(super) credentials: Credentials,
    /// Until when a head must be sent, and how long that was.
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
    /// Ends with the answer's body.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Get {
    pub(super) fn new(
        request: &Parts,
        route: Route<'_>,
        origin: &OriginClient,
        limit: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Refusal> {
        let Route::Content { name, kind, reference } = route else {
            return Err(Refusal::no_such_path(request.uri.path()));
        };
        let headers = &request.headers;
        let mut ranges = headers.get_all(header::RANGE).iter();
        let range = ranges.next().filter(|_| ranges.next().is_none());
        Ok(Self {
            method: request.method.clone(),
            object: object(name, kind, request.uri.query(), origin)?,
            reference,
            wanted: Wanted::parse(range.and_then(|value| value.to_str().ok())),
            accept: headers.get_all(header::ACCEPT).iter().cloned().collect(),
            credentials: Credentials::from_headers(headers),
            deadline: Instant::now() + limit,
            limit,
            permit,
        })
    }

    /// `f` if it ends before the head must be sent.
    pub(super) async fn in_time<T>(&self, f: impl Future<Output = T>) -> Result<T, Refusal> {
        tokio::time::timeout_at(self.deadline, f).await.map_err(|_| Refusal::too_slow(self.limit))
    }
}

/// Which registry: `?ns=`, else the name's first element, else the only one there is.
fn object(
    name: &str,
    kind: ObjectKind,
    query: Option<&str>,
    origin: &OriginClient,
) -> Result<OriginObject, Refusal> {
    let object = |registry: &str, repository: &str| {
        if !name::is_repository(repository) {
            return Err(Refusal::name(repository));
        }
        Ok(OriginObject { registry: canonical_host(registry), repository: repository.to_owned(), kind })
    };
    let mut parameters = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    if let Some((_, registry)) = parameters.find(|(key, _)| key == "ns") {
        if !origin.allows(&registry) {
            return Err(Refusal::not_allowed(&registry));
        }
        return object(&registry, name);
    }
    if let Some((host, repository)) = name.split_once('/').filter(|(host, _)| origin.allows(host)) {
        return object(host, repository);
    }
    object(origin.only_registry().ok_or_else(Refusal::which_registry)?, name)
}

/// The head of an answer with content addressed by `task`; the body is the caller's.
pub(super) struct Head {
    pub(super) content_type: HeaderValue,
    /// Of the whole object; `None`: not known before its end.
    pub(super) size: Option<u64>,
    /// 206 with this part of it.
    pub(super) part: Option<Range<u64>>,
}

impl Head {
    pub(super) fn answer(&self, get: &Get, task: &TaskId, body: Body) -> Response {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        let mut text = |name, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        text(CONTENT_DIGEST, task.to_string());
        text(header::ETAG, format!("\"{task}\""));
        text(NAMESPACE, get.object.registry.clone());
        let length = self.part.as_ref().map(|part| part.end - part.start).or(self.size);
        if let Some(length) = length {
            text(header::CONTENT_LENGTH, length.to_string());
        }
        if let Some(part) = &self.part {
            let size = self.size.map_or_else(|| "*".to_owned(), |size| size.to_string());
            text(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1));
        }
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        if get.object.kind == ObjectKind::Blob {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        if self.part.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}
