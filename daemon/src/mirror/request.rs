//! One request for content: what is wanted, where it comes from, until when a head must be sent; and the
//! head of its answer.
//!
//! Invariant: the registry of a [`Get`] is on the allow-list.

use super::lists::Asked;
use super::range::Wanted;
use super::refusal::Refusal;
use super::route::{Reference, Route};
use crate::config::{DOCKER_HUB, canonical_host};
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
/// What a file is called in the swarm, the store and the status.
pub(super) const TASK: HeaderName = HeaderName::from_static("hawker-task");
/// The registry that was mirrored, as the distribution specification's "registry proxying" has it.
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

pub(super) struct Get {
    pub(super) method: Method,
    pub(super) object: OriginObject,
    pub(super) reference: Reference,
    pub(super) wanted: Wanted,
    pub(super) accept: Vec<HeaderValue>,
    /// For lists: how it was asked for.
    pub(super) asked: Asked,
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
        let asked = match reference {
            Reference::List(_) => Asked::new(name, request.uri.query()),
            Reference::Tag(_) | Reference::Digest(_) => Asked::default(),
        };
        Ok(Self {
            method: request.method.clone(),
            object: object(name, kind, request.uri.query(), origin)?,
            asked,
            reference,
            wanted: Wanted::of(headers),
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

/// Which registry: `?ns=`, else the name's first element, else the only one there is, or Docker Hub: Docker
/// names none, because it mirrors nothing else.
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
        Ok(OriginObject {
            registry: canonical_host(registry),
            repository: repository.to_owned(),
            kind,
            version: String::new(),
        })
    };
    let mut parameters = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    if let Some((_, registry)) = parameters.find(|(key, _)| key == "ns") {
        if !origin.allows(&registry) {
            return Err(Refusal::not_allowed(&registry));
        }
        return object(&registry, name);
    }
    if let Some((element, repository)) = name.split_once('/')
        && let Some(host) = named_host(element, |host| origin.allows(host))
    {
        return object(&host, repository);
    }
    // Names of Docker Hub have no dot in front; what has one means another registry, and its credentials are not the Hub's.
    let is_hubs = !name.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']));
    let hub = || (is_hubs && origin.allows(DOCKER_HUB)).then_some(DOCKER_HUB);
    let only = origin.only_registry();
    object(only.as_deref().or_else(hub).ok_or_else(Refusal::which_registry)?, name)
}

/// The allowed registry a name's first element stands for: `host`, `host:port`, or `host_port`, because CRI-O and podman
/// have no colon in a mirror's path.
fn named_host(element: &str, allows: impl Fn(&str) -> bool) -> Option<String> {
    let with_port = element.rsplit_once('_').map(|(host, port)| format!("{host}:{port}"));
    [Some(element.to_owned()), with_port].into_iter().flatten().find(|host| allows(host))
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
        text(header::ETAG, format!("\"{task}\""));
        if get.object.kind == ObjectKind::File {
            text(TASK, task.to_string());
        } else {
            text(CONTENT_DIGEST, task.to_string());
            text(NAMESPACE, get.object.registry.clone());
            text(API_VERSION, "registry/2.0".to_owned());
        }
        let length = self.part.as_ref().map(|part| part.end - part.start).or(self.size);
        if let Some(length) = length {
            text(header::CONTENT_LENGTH, length.to_string());
        }
        if let Some(part) = &self.part {
            let size = self.size.map_or_else(|| "*".to_owned(), |size| size.to_string());
            text(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1));
        }
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        if get.object.kind != ObjectKind::Manifest {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        if self.part.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_in_the_path_with_its_port_in_either_form() {
        let allows = |host: &str| ["ghcr.io", "r.lab:5000"].contains(&host);
        let named = |element| named_host(element, allows);
        assert_eq!(named("ghcr.io").as_deref(), Some("ghcr.io"));
        assert_eq!(named("r.lab:5000").as_deref(), Some("r.lab:5000"));
        assert_eq!(named("r.lab_5000").as_deref(), Some("r.lab:5000"));
        for other in ["library", "r.lab_5001", "_5000", "r.lab_", "ghcr.io_443"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
