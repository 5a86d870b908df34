//! One request to an origin: redirects by our own policy, and the answer's head made sense of.
//!
//! Not the body (that is `body.rs`).
//!
//! Invariant: `Authorization` never leaves the registry it was given for, and a challenge is only
//! taken from that registry: whoever controls where a redirect leads learns and asks nothing.

use super::body::Expected;
use super::content_range::{self, ContentRange};
use super::guard::Guard;
use super::tokens::Whom;
use super::upstream::Upstream;
use super::{MAX_ERROR_BODY_BYTES, OriginBody, OriginError, OriginLimits, PassAnswer};
use crate::metrics::Metrics;
use crate::trace;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;
use url::Url;

/// Most redirects followed: registries use one, their stores at most one more.
const MAX_REDIRECTS: usize = 5;
/// Entity tag of the object a redirect leads to, as model hubs send it.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
/// HTTP/2 windows, bytes: a layer over a long link would crawl in the 64 KiB of the standard.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// Where the HTTP client finds a proxy.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

pub(super) fn client(limits: &OriginLimits) -> reqwest::Result<reqwest::Client> {
    builder(limits).build()
}

/// Connects only where the guard lets it. Behind a proxy, which makes the connections, that is the proxy's part.
pub(super) fn guarded_client(limits: &OriginLimits, guard: &Guard) -> reqwest::Result<reqwest::Client> {
    let proxied =
        PROXY_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let builder = builder(limits);
    if proxied { builder.build() } else { builder.dns_resolver(Arc::new(guard.clone())).build() }
}

fn builder(limits: &OriginLimits) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("hawkerd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect)
        .pool_idle_timeout(POOL_IDLE)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
}

/// What is asked, of whom.
pub(super) struct Ask {
    pub(super) upstream: Arc<Upstream>,
    pub(super) method: Method,
    pub(super) url: Url,
    /// For errors: `repository@digest`.
    pub(super) what: String,
    pub(super) headers: HeaderMap,
    pub(super) span: Span,
    /// The caller has no credentials: in whose name, and for which repository, to get some, should the registry want any.
    pub(super) on_behalf: Option<(Whom, String)>,
}

impl Ask {
    /// What the origin may know of the trace: of most, nothing. [`for_others`] keeps it from wherever a redirect leads.
    fn traceparent(&self) -> Option<HeaderValue> {
        let parent = trace::traceparent(&self.span).filter(|_| self.upstream.traced)?;
        HeaderValue::try_from(parent).ok()
    }

    pub(super) fn failed(&self, detail: impl Into<String>) -> OriginError {
        OriginError::Failed {
            registry: self.upstream.host.clone(),
            what: self.what.clone(),
            detail: detail.into(),
        }
    }
}

/// An answer's head, its body still on its way.
pub(super) struct Reply {
    response: reqwest::Response,
    /// The registry's own word, not that of where it redirected to.
    from_registry: bool,
    /// What the registry said of the object before it redirected.
    linked: Option<HeaderValue>,
    permit: OwnedSemaphorePermit,
}

pub(super) async fn send(
    http: &reqwest::Client,
    ask: &Ask,
    token: Option<HeaderValue>,
    metrics: &Metrics,
) -> Result<Reply, OriginError> {
    let permits = Arc::clone(&ask.upstream.permits);
    let permit = permits.acquire_owned().await.map_err(|_| ask.failed("the client is closed"))?;
    let (mut url, mut headers, mut from_registry) = (ask.url.clone(), ask.headers.clone(), true);
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, token);
    }
    if let Some(parent) = ask.traceparent() {
        headers.insert(trace::TRACEPARENT, parent);
    }
    let (mut linked, mut client) = (None, http);
    for _ in 0..=MAX_REDIRECTS {
        metrics.origin_request();
        let request = client.request(ask.method.clone(), url.clone()).headers(headers.clone());
        let response = request.send().await.map_err(|error| ask.failed(chain(&error.without_url())))?;
        if from_registry {
            ask.upstream.guard.registry_is_at(response.remote_addr());
        }
        if !is_redirect(response.status()) {
            return Ok(Reply { response, from_registry, linked, permit });
        }
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        if from_registry {
            linked = response.headers().get(LINKED_ETAG).cloned().or(linked);
        }
        let next = redirected(&url, location).map_err(|problem| ask.failed(problem))?;
        if next.origin() != url.origin() {
            headers = for_others(&headers);
            from_registry = false;
        }
        client = if next.origin() == ask.url.origin() {
            http
        } else {
            ask.upstream.elsewhere(&next).map_err(|problem| ask.failed(problem))?
        };
        url = next;
    }
    Err(ask.failed(format!("more than {MAX_REDIRECTS} redirects")))
}

/// What another host than the registry may see: nothing of the caller's.
fn for_others(headers: &HeaderMap) -> HeaderMap {
    let ours = [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::RANGE,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
    ];
    let kept = headers.iter().filter(|(name, _)| ours.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if we go there. Its text is in no error: a store's URL is signed.
fn redirected(from: &Url, location: Option<&str>) -> Result<Url, &'static str> {
    let location = location.ok_or("redirected without a readable location")?;
    let next = from.join(location).map_err(|_| "redirected to what is no URL")?;
    match (from.scheme(), next.scheme()) {
        ("https", "http") => Err("redirected from https to http"),
        (_, "http" | "https") => Ok(()),
        _ => Err("redirected to another scheme than http or https"),
    }?;
    if !next.username().is_empty() || next.password().is_some() {
        return Err("redirected to a URL with a user or password");
    }
    Ok(next)
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The registry's own challenge, never that of where it led.
    pub(super) fn challenge(&self) -> Option<String> {
        let header = self.response.headers().get(header::WWW_AUTHENTICATE)?;
        header.to_str().ok().filter(|_| self.from_registry).map(str::to_owned)
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        content_length(self.response.headers())
    }

    pub(super) fn linked(&self) -> Option<&HeaderValue> {
        self.linked.as_ref()
    }

    pub(super) fn content_range(&self) -> Option<ContentRange> {
        let value = self.response.headers().get(header::CONTENT_RANGE)?;
        content_range::parse(value.to_str().ok()?)
    }

    /// A 200: the whole object.
    pub(super) fn whole(self, ask: &Ask, idle: Duration) -> Result<OriginBody, OriginError> {
        self.refuse_encoded(ask)?;
        let length = content_length(self.response.headers());
        let expected = Expected { start: 0, length, total: length };
        Ok(OriginBody::new(ask, self.response, self.permit, expected, idle))
    }

    /// A 206: it must be what was asked for.
    pub(super) fn part(
        self,
        ask: &Ask,
        asked: Option<Range<u64>>,
        idle: Duration,
    ) -> Result<OriginBody, OriginError> {
        self.refuse_encoded(ask)?;
        let asked = asked.ok_or_else(|| ask.failed("a part was sent where the whole was asked for"))?;
        let Some(ContentRange::Part { range, total }) = self.content_range() else {
            return Err(ask.failed("a part was sent without a Content-Range that makes sense"));
        };
        if range.start != asked.start || range.end > asked.end {
            return Err(ask.failed(format!("bytes {range:?} were sent where {asked:?} were asked for")));
        }
        let length = range.end - range.start;
        if let Some(announced) = content_length(self.response.headers()).filter(|got| *got != length) {
            return Err(ask.failed(format!("Content-Length {announced} contradicts Content-Range {range:?}")));
        }
        let expected = Expected { start: range.start, length: Some(length), total };
        Ok(OriginBody::new(ask, self.response, self.permit, expected, idle))
    }

    /// Any status: the answer with its body, for passing on.
    pub(super) fn into_answer(self, ask: &Ask, idle: Duration) -> Result<PassAnswer, OriginError> {
        let status = self.status();
        let mut headers = self.response.headers().clone();
        if !self.from_registry {
            headers.remove(header::WWW_AUTHENTICATE);
        }
        let body = if ask.method == Method::HEAD { OriginBody::empty(ask) } else { self.whole(ask, idle)? };
        Ok(PassAnswer { status, headers, body })
    }

    pub(super) async fn into_status_error(mut self, ask: &Ask, idle: Duration) -> OriginError {
        let challenge = self.challenge();
        let status = self.status().as_u16();
        let body = tokio::time::timeout(idle, first_bytes(&mut self.response)).await.unwrap_or_default();
        OriginError::Status {
            registry: ask.upstream.host.clone(),
            status,
            what: ask.what.clone(),
            challenge,
            body,
        }
    }

    /// Identity was asked for; the digest is of the plain bytes.
    fn refuse_encoded(&self, ask: &Ask) -> Result<(), OriginError> {
        match self.response.headers().get(header::CONTENT_ENCODING) {
            Some(encoding) if encoding.as_bytes() != b"identity" => {
                Err(ask.failed(format!("sent with content encoding {encoding:?}")))
            }
            _ => Ok(()),
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The beginning of an error's body; that it breaks off is of no interest.
pub(super) async fn first_bytes(response: &mut reqwest::Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_ERROR_BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ERROR_BODY_BYTES {
            break;
        }
    }
    body.freeze()
}

/// An error with its causes: the outermost of an HTTP client's says only "error sending request".
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_may_lead() {
        let https = Url::parse("https://ghcr.io/v2/a/blobs/sha256:0").unwrap();
        let http = Url::parse("http://10.0.0.5:5000/v2/").unwrap();
        assert_eq!(redirected(&https, Some("/x")).unwrap().as_str(), "https://ghcr.io/x");
        assert_eq!(redirected(&https, Some("//cdn.example/x")).unwrap().as_str(), "https://cdn.example/x");
        assert!(redirected(&http, Some("https://cdn.example/x")).is_ok());
        for (from, to) in [
            (&https, "http://cdn.example/x"),
            (&http, "file:///etc/passwd"),
            (&http, "ftp://cdn.example/"),
            (&http, "http://user:secret@cdn.example/"),
            (&http, "http://["),
        ] {
            assert!(redirected(from, Some(to)).is_err(), "{to}");
        }
        assert!(redirected(&http, None).is_err());
    }
}
