//! Tags: what they mean is the registry's to say, and is asked with HEAD; what they lead to comes from the cluster.
//!
//! An answer is relied on for [`TAG_LIFE`] by the caller that got it. With `outage: last-known`, what the registry
//! said last is given while it is down, to whom it said so, with its age in the header [`LAST_KNOWN`].
//!
//! Invariant: no tag is ever resolved by anybody but its registry.

use super::Mirror;
use super::refusal::Refusal;
use super::request::{CONTENT_DIGEST, Get};
use super::route::Reference;
use crate::access::{CallerKey, DOWN_AFTER, Known, LAST_KNOWN_LIMIT, Table};
use crate::config::Outage;
use crate::metrics::LastKnown;
use axum::body::Body;
use axum::response::Response;
use hawker_api::task::TaskId;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer about a tag is repeated to the same caller: long enough for a HEAD and the GET after it, too
/// short for somebody who has just pushed to notice.
pub const TAG_LIFE: Duration = Duration::from_secs(5);
/// Seconds since the registry, which is down, said so.
pub const LAST_KNOWN: HeaderName = HeaderName::from_static("hawker-last-known");
/// Most answers remembered, of some hundred bytes each.
const MAX_TAGS: usize = 4096;
/// Longest list of accepted types made part of a key, bytes; longer ones are asked for each time.
const MAX_ACCEPT_BYTES: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    registry: String,
    repository: String,
    tag: String,
    accept: Vec<u8>,
    caller: CallerKey,
}

/// What a tag meant.
#[derive(Debug, Clone)]
struct Meaning {
    task: TaskId,
    /// Of the registry's HEAD.
    headers: HeaderMap,
}

/// What registries said of tags.
pub(super) struct Tags(Mutex<Table<Key, Meaning>>);

impl Tags {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Table::new(MAX_TAGS, LAST_KNOWN_LIMIT)))
    }

    fn get(&self, key: &Key) -> Option<(Known, Meaning, Duration)> {
        let (table, now) = (self.0.lock(), Instant::now());
        let (known, meaning) = table.get(key, now)?;
        Some((known, meaning, table.age(key, now).unwrap_or_default()))
    }

    fn set(&self, key: Key, meaning: Meaning) {
        let now = Instant::now();
        self.0.lock().insert(key, meaning, now, now + TAG_LIFE);
    }
}

/// What is known of a tag now.
enum Resolved {
    Meaning(Meaning, Option<Duration>),
    /// The registry's own answer, not one to make anything of.
    Answer(Response),
}

impl Mirror {
    pub(super) async fn tag(&self, mut get: Get, tag: &str) -> Result<Response, Refusal> {
        let (meaning, age) = match self.resolve(&get, tag).await? {
            Resolved::Meaning(meaning, age) => (meaning, age),
            // A GET has a body that the answer to a HEAD lacks.
            Resolved::Answer(_) if get.method == Method::GET => return self.pass(&get, tag).await,
            Resolved::Answer(response) => return Ok(response),
        };
        self.called(&get.object, meaning.task, tag);
        let mut response = if get.method == Method::HEAD {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = meaning.headers;
            response
        } else {
            let content_type = meaning.headers.get(header::CONTENT_TYPE).cloned();
            get.reference = Reference::Digest(meaning.task);
            let way = self.admit(&mut get, &meaning.task).await?;
            let mut response = self.manifest(get, meaning.task, way).await?;
            if let Some(content_type) = content_type {
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            }
            response
        };
        if let Some(age) = age {
            self.metrics.last_known(LastKnown::Tag);
            response.headers_mut().insert(LAST_KNOWN, HeaderValue::from(age.as_secs()));
        }
        Ok(response)
    }

    async fn resolve(&self, get: &Get, tag: &str) -> Result<Resolved, Refusal> {
        let key = self.key(get, tag);
        let known = key.as_ref().and_then(|key| self.tags.get(key));
        if let Some((Known::Fresh, meaning, _)) = known {
            return Ok(Resolved::Meaning(meaning, None));
        }
        let policy = self.access.policy(&get.object.registry);
        let last = known.filter(|_| policy.outage == Outage::LastKnown);
        let asking = self.pass_head(get, tag);
        let asked = match &last {
            Some(_) => tokio::time::timeout(DOWN_AFTER, asking)
                .await
                .unwrap_or_else(|_| Err(Refusal::too_slow(DOWN_AFTER))),
            None => asking.await,
        };
        match (asked, last) {
            (Ok(response), _) => Ok(match meaning(&response) {
                Some(meaning) => {
                    self.access.accepted(&get.object, &meaning.task, &get.credentials);
                    if let Some(key) = key {
                        self.tags.set(key, meaning.clone());
                    }
                    Resolved::Meaning(meaning, None)
                }
                None => Resolved::Answer(response),
            }),
            (Err(refusal), Some((_, meaning, age)))
                if refusal.status() == StatusCode::SERVICE_UNAVAILABLE =>
            {
                tracing::info!(tag, age = age.as_secs(), "the registry is down: answering what it said last");
                Ok(Resolved::Meaning(meaning, Some(age)))
            }
            (Err(refusal), _) => Err(refusal),
        }
    }

    fn key(&self, get: &Get, tag: &str) -> Option<Key> {
        let accept: Vec<&[u8]> = get.accept.iter().map(HeaderValue::as_bytes).collect();
        let accept = accept.join(&b","[..]);
        (accept.len() <= MAX_ACCEPT_BYTES).then(|| Key {
            registry: get.object.registry.clone(),
            repository: get.object.repository.clone(),
            tag: tag.to_owned(),
            accept,
            caller: self.access.caller(&get.credentials),
        })
    }
}

/// Of an answer that has all a runtime needs.
fn meaning(response: &Response) -> Option<Meaning> {
    let headers = response.headers();
    let task: TaskId = headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()?;
    let whole = headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::CONTENT_TYPE);
    let usable = response.status() == StatusCode::OK && task.is_content() && whole;
    usable.then(|| Meaning { task, headers: headers.clone() })
}
