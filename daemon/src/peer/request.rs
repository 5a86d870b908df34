//! Request heads of the peer protocol: `GET|HEAD /blobs/{task}[/have]` with an optional `Range`.
//!
//! Invariant: no input panics, and none longer than [`MAX_HEAD_BYTES`] is looked at.

use super::pass::Proof;
use crate::trace::TRACEPARENT;
use hawker_api::task::TaskId;
use hawker_api::trace::TRACEPARENT_LEN;
use std::ops::Range;

/// Longest request or response head, bytes.
pub const MAX_HEAD_BYTES: usize = 8 << 10;
/// Most header fields in a head.
pub const MAX_HEADERS: usize = 32;

/// One request of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub target: Target,
    /// HEAD: the same head, no body.
    pub head_only: bool,
    pub range: Option<ByteRange>,
    /// That it comes from a node of the cluster.
    pub proof: Option<Proof>,
    /// The trace it belongs to, as sent.
    pub traceparent: Option<String>,
    /// The peer closes after this answer.
    pub close: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Blob(TaskId),
    Have(TaskId),
    Health,
    Unknown,
}

/// A single byte range as sent (RFC 9110 §14.1.2); the size decides what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    From(u64),
    /// First and last byte, both inclusive.
    FromTo(u64, u64),
    Suffix(u64),
}

impl ByteRange {
    /// The bytes meant in a blob of `size` bytes; `None`: not satisfiable.
    pub fn within(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(start) => start..size,
            Self::FromTo(start, last) => start..last.saturating_add(1).min(size),
            Self::Suffix(length) => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }

    /// Reads a `Range` header. `None`: not one that is understood here, to be ignored.
    fn parse(value: &[u8]) -> Option<Self> {
        let (first, last) =
            std::str::from_utf8(value).ok()?.trim().strip_prefix("bytes=")?.split_once('-')?;
        match (digits(first), digits(last)) {
            (Some(first), Some(last)) if first <= last => Some(Self::FromTo(first, last)),
            (Some(first), None) if last.is_empty() => Some(Self::From(first)),
            (None, Some(length)) if first.is_empty() => Some(Self::Suffix(length)),
            _ => None,
        }
    }
}

/// Only digits: `u64::from_str` would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Outcome of looking at received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Partial,
    Complete { request: Request, consumed: usize },
}

/// Why a head is refused; the connection closes after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("request head is malformed: {0}")]
    Malformed(httparse::Error),
    #[error("request head is longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    #[error("method is not GET or HEAD")]
    Method,
    #[error("request has a body")]
    Body,
}

impl BadRequest {
    /// The answer, in full.
    pub fn answer(&self) -> Vec<u8> {
        let status = match self {
            Self::Malformed(_) | Self::Body => "400 Bad Request",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Method => "405 Method Not Allowed\r\nAllow: GET, HEAD",
        };
        text_answer(status, &self.to_string(), true)
    }
}

/// A small answer with a line of text for people.
pub fn text_answer(status: &str, text: &str, close: bool) -> Vec<u8> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{connection}\r\n{text}\n",
        text.len() + 1
    )
    .into_bytes()
}

/// Looks for a whole request head at the start of `received`.
///
/// # Errors
/// [`BadRequest`] for what is not, and cannot become, a request of this protocol.
pub fn parse(received: &[u8]) -> Result<Parsed, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let consumed = match head.parse(received) {
        Err(error) => return Err(BadRequest::Malformed(error)),
        Ok(httparse::Status::Partial) if received.len() >= MAX_HEAD_BYTES => return Err(BadRequest::TooLong),
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial),
        Ok(httparse::Status::Complete(consumed)) if consumed > MAX_HEAD_BYTES => {
            return Err(BadRequest::TooLong);
        }
        Ok(httparse::Status::Complete(consumed)) => consumed,
    };
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(BadRequest::Method),
    };
    let (mut range, mut proof, mut traceparent, mut close) = (None, None, None, head.version == Some(0));
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("range") {
            range = ByteRange::parse(header.value);
        } else if header.name.eq_ignore_ascii_case("authorization") {
            proof = Proof::parse(header.value);
        } else if header.name.eq_ignore_ascii_case(TRACEPARENT) {
            traceparent = traced(header.value);
        } else if header.name.eq_ignore_ascii_case("connection") {
            close |= header.value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding")
            || (header.name.eq_ignore_ascii_case("content-length") && header.value != b"0")
        {
            return Err(BadRequest::Body);
        }
    }
    let target = target(head.path.unwrap_or_default());
    Ok(Parsed::Complete {
        request: Request { target, head_only, range, proof, traceparent, close },
        consumed,
    })
}

/// Checked where it is used; what is longer is none.
fn traced(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= 2 * TRACEPARENT_LEN)?;
    Some(text.to_owned())
}

fn target(path: &str) -> Target {
    if path == "/healthz" {
        return Target::Health;
    }
    let Some(rest) = path.strip_prefix("/blobs/") else { return Target::Unknown };
    let (task, have) = match rest.strip_suffix("/have") {
        Some(task) => (task, true),
        None => (rest, false),
    };
    match task.parse() {
        Ok(task) if have => Target::Have(task),
        Ok(task) => Target::Blob(task),
        Err(_) => Target::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complete(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Ok(Parsed::Complete { request, consumed }) => {
                assert_eq!(consumed, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_understood() {
        let task = format!("sha256:{}", "ab".repeat(32));
        let request = complete(&format!("GET /blobs/{task} HTTP/1.1\r\nHost: x\r\nRange: bytes=4-7\r\n\r\n"));
        assert_eq!(request.target, Target::Blob(task.parse().unwrap()));
        assert_eq!(request.range, Some(ByteRange::FromTo(4, 7)));
        assert!(!request.close && !request.head_only);
        let request = complete(&format!("HEAD /blobs/{task}/have HTTP/1.0\r\n\r\n"));
        assert_eq!(request.target, Target::Have(task.parse().unwrap()));
        assert!(request.close && request.head_only);
        for path in ["/", "/blobs/", "/blobs/sha256:../../etc/passwd", "/blobs/have", "/blobs//have"] {
            assert_eq!(complete(&format!("GET {path} HTTP/1.1\r\n\r\n")).target, Target::Unknown);
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused() {
        let long = format!("GET /blobs/x HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD_BYTES));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        let cases = [
            ("POST / HTTP/1.1\r\n\r\n", BadRequest::Method),
            ("GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", BadRequest::Body),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest::Body),
            (&long, BadRequest::TooLong),
            (&many, BadRequest::Malformed(httparse::Error::TooManyHeaders)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), Err(expected));
            assert!(expected.answer().starts_with(b"HTTP/1.1 4"));
        }
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let cases = [
            ("bytes=0-", Some(0..10)),
            ("bytes=3-5", Some(3..6)),
            ("bytes=3-99", Some(3..10)),
            ("bytes=-4", Some(6..10)),
            ("bytes=-99", Some(0..10)),
            ("bytes=10-", None),
            ("bytes=-0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ByteRange::parse(text.as_bytes()).unwrap().within(10), expected, "{text}");
        }
        for text in ["bytes=5-3", "bytes=-", "bytes=+1-2", "bytes=0-1,3-4", "lines=0-", "bytes=a-"] {
            assert_eq!(ByteRange::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
            let _ = ByteRange::parse(&bytes);
        }

        #[test]
        fn a_cut_request_is_partial(cut in 1usize..40) {
            let text = b"GET /healthz HTTP/1.1\r\nHost: node-1\r\n\r\n";
            prop_assert_eq!(parse(&text[..cut.min(text.len() - 1)]), Ok(Parsed::Partial));
        }
    }
}
