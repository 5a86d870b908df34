//! The daemon's spans: one for each request of a runtime until its last byte, below it the download, what each parent gave, and each
//! request to an origin; on a parent, what it serves to whom.
//!
//! Not where they go ([`hawker_api::trace`]). Names of attributes are those that people search by: `http.url`, `hawker.task`,
//! `hawker.source`.
//!
//! Invariant: no span holds a query but `ns`, nor a header: either may be a secret.

use crate::metrics::Source;
use crate::peer::request::{Request as PeerRequest, Target};
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
pub(crate) use hawker_api::trace::{TARGET, go_on, note, traceparent};
use http::request::Parts;
use hyper::body::{Frame, SizeHint};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tracing::{Span, info_span};

/// W3C Trace Context.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// A runtime's request at the mirror.
pub(crate) fn mirror(request: &Parts) -> Span {
    let span = info_span!(target: TARGET, "mirror", otel.kind = "server", http.method = %request.method);
    if span.is_disabled() || request.uri.path() == "/healthz" {
        return Span::none();
    }
    if let Some(parent) = request.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        go_on(&span, parent);
    }
    note(&span, "http.url", target(request.uri.path(), request.uri.query()));
    let agent = request.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    if let Some(agent) = agent {
        note(&span, "http.user_agent", agent.to_owned());
    }
    span
}

/// The path, and of the query the registry's name.
fn target(path: &str, query: Option<&str>) -> String {
    let ns = query.into_iter().flat_map(|query| query.split('&')).find(|pair| pair.starts_with("ns="));
    // A file's path holds its URL; what comes after a `?` in it, escaped, may be a signature.
    let path = if path.starts_with("/files/") { path.split("%3F").next().unwrap_or(path) } else { path };
    ns.map_or_else(|| path.to_owned(), |ns| format!("{path}?{ns}"))
}

/// The answer, its span open until the last byte is gone or nobody reads any more.
pub(crate) fn until_sent(span: Span, response: Response) -> Response {
    if span.is_disabled() {
        return response;
    }
    note(&span, "http.status_code", i64::from(response.status().as_u16()));
    let length = response.headers().get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|text| text.parse().ok());
    let (parts, body) = response.into_parts();
    let ended = body.is_end_stream();
    Response::from_parts(parts, Body::new(Traced { body, span, bytes: 0, length, ended }))
}

/// A body on its way out.
struct Traced {
    body: Body,
    span: Span,
    bytes: u64,
    /// After so many nobody asks for the end.
    length: Option<u64>,
    ended: bool,
}

impl HttpBody for Traced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => note(&self.span, "error.message", error.to_string()),
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        note(&self.span, "http.response_content_length", count(self.bytes));
        // A caller that hangs up is no error: containerd asks for more than it reads.
        note(&self.span, "hawker.complete", self.ended || self.length == Some(self.bytes));
    }
}

/// What a reader gave, by where it came from; said on the span of who reads.
pub(crate) struct Given {
    span: Span,
    bytes: [u64; Source::ALL.len()],
}

impl Given {
    /// To whoever asks now.
    pub(crate) fn to_current() -> Self {
        Self { span: Span::current(), bytes: [0; Source::ALL.len()] }
    }

    pub(crate) fn add(&mut self, source: Source, bytes: u64) {
        self.bytes[source as usize] += bytes;
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if self.span.is_disabled() {
            return;
        }
        let given = Source::ALL.into_iter().zip(self.bytes).filter(|(_, bytes)| *bytes > 0);
        let names: Vec<&str> = given.clone().map(|(source, _)| source.label()).collect();
        note(&self.span, "hawker.source", names.join(","));
        for (source, bytes) in given {
            note(&self.span, bytes_from(source), count(bytes));
        }
    }
}

fn bytes_from(source: Source) -> &'static str {
    match source {
        Source::Local => "hawker.bytes.local",
        Source::PeerSameZone => "hawker.bytes.peer_same_zone",
        Source::PeerCrossZone => "hawker.bytes.peer_cross_zone",
        Source::Seed => "hawker.bytes.seed",
        Source::Origin => "hawker.bytes.origin",
    }
}

/// A request of a peer that carries a trace; others have no span: what serves a thousand pieces a second must not make as many.
pub(crate) fn serve(request: &PeerRequest, peer: IpAddr) -> Span {
    let Some(parent) = &request.traceparent else { return Span::none() };
    let span = info_span!(target: TARGET, "serve", otel.kind = "server", net.peer.ip = %peer);
    go_on(&span, parent);
    if !span.is_disabled() {
        let (task, url) = match &request.target {
            Target::Blob(task) => (task.to_string(), format!("/blobs/{task}")),
            Target::Have(task) => (task.to_string(), format!("/blobs/{task}/have")),
            Target::Health | Target::Unknown => return Span::none(),
        };
        note(&span, "hawker.task", task);
        note(&span, "http.url", url);
    }
    span
}

/// A request to an origin.
pub(crate) fn origin(host: &str) -> Span {
    info_span!(target: TARGET, "origin", otel.kind = "client", net.peer.name = host, hawker.source = Source::Origin.label())
}

/// What is asked, as it goes out; a query may hold a signature.
pub(crate) fn asks(span: &Span, method: &http::Method, url: &url::Url) {
    if !span.is_disabled() {
        note(span, "http.method", method.to_string());
        let mut url = url.clone();
        url.set_query(None);
        note(span, "http.url", url.to_string());
    }
}

/// An attribute's number.
pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_the_registry_and_no_secret() {
        let blob = "/v2/a/b/blobs/sha256:00";
        assert_eq!(target(blob, Some("x=1&ns=ghcr.io&sig=s")), format!("{blob}?ns=ghcr.io"));
        assert_eq!(target(blob, None), blob);
        assert_eq!(target("/files/https://h/f", Some("X-Amz-Signature=s")), "/files/https://h/f");
        assert_eq!(target("/files/https%3A//h/f%3FX-Amz-Signature=s", None), "/files/https%3A//h/f");
    }
}
