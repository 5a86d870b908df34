//! A body on its way from a registry, held to what its head announced.
//!
//! Invariant: a clean end means exactly the announced bytes came.

use super::{Answer, IDLE_LIMIT, OriginError, What};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, HeaderMap};
use std::ops::Range;

/// Bytes of one object.
pub struct OriginBody {
    /// `None`: an empty object, nothing to read.
    answer: Option<Answer>,
    what: What,
    total: Option<u64>,
    start: u64,
    end: Option<u64>,
    position: u64,
}

impl OriginBody {
    /// Reads the head: which bytes of what size these are.
    pub(super) fn new(answer: Answer, what: What, asked: Option<Range<u64>>) -> Result<Self, OriginError> {
        let length = answer.response.content_length();
        if answer.response.status() == http::StatusCode::OK {
            let body = Self { answer: Some(answer), what, total: length, start: 0, end: length, position: 0 };
            return Ok(body);
        }
        let range = content_range(answer.response.headers());
        let Some((start, end, total)) = range else {
            return Err(what.failed("the answer 206 has no usable Content-Range".to_owned()));
        };
        let asked = asked.unwrap_or(0..u64::MAX);
        let wanted_end = total.map_or(asked.end, |total| asked.end.min(total));
        if start != asked.start || (asked.end != u64::MAX && end != wanted_end) {
            let detail =
                format!("bytes {start}-{end} came where {}-{wanted_end} were asked for", asked.start);
            return Err(what.failed(detail));
        }
        if length.is_some_and(|length| length != end - start) {
            let (expected, got) = (end - start, length.unwrap_or(0));
            return Err(OriginError::Length { registry: what.registry, what: what.what, expected, got });
        }
        Ok(Self { answer: Some(answer), what, total, start, end: Some(end), position: start })
    }

    pub(super) fn empty(what: What) -> Self {
        Self { answer: None, what, total: Some(0), start: 0, end: Some(0), position: 0 }
    }

    /// Size of the whole object, where the origin said it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Which bytes of the object this body is; the end is `None` where the length is unknown (chunked).
    pub fn range(&self) -> (u64, Option<u64>) {
        (self.start, self.end)
    }

    /// The next bytes; `None` at a clean end with exactly the announced length.
    ///
    /// # Errors
    /// `Failed` (also after 15 s without a byte), `Length`.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        let Some(answer) = &mut self.answer else { return Ok(None) };
        let read = tokio::time::timeout(IDLE_LIMIT, answer.response.chunk()).await;
        let chunk = match read {
            Err(_) => return Err(self.what.failed(format!("no byte for {} s", IDLE_LIMIT.as_secs()))),
            Ok(Err(error)) => {
                let detail =
                    format!("the body ended after {} bytes: {}", self.position, super::chain(&error));
                return Err(self.what.failed(detail));
            }
            Ok(Ok(chunk)) => chunk,
        };
        self.position += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let wrong = match (&chunk, self.end) {
            (Some(_), Some(end)) => self.position > end,
            (None, Some(end)) => self.position != end,
            (_, None) => false,
        };
        if wrong {
            let expected = self.end.unwrap_or(0) - self.start;
            let (registry, what) = (self.what.registry.clone(), self.what.what.clone());
            return Err(OriginError::Length { registry, what, expected, got: self.position - self.start });
        }
        Ok(chunk)
    }
}

/// `bytes */0`: there is nothing to satisfy any range with.
pub(super) fn is_empty_object(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_RANGE).is_some_and(|value| value == "bytes */0")
}

/// Start, end (exclusive) and total of a `Content-Range` (RFC 9110 §14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    let consistent = first <= last && total.is_none_or(|total| last < total);
    consistent.then(|| Some((first, last.checked_add(1)?, total)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<(u64, u64, Option<u64>)> {
        content_range(&HeaderMap::from_iter([(CONTENT_RANGE, text.parse().ok()?)]))
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(parsed("bytes 0-9/10"), Some((0, 10, Some(10))));
        assert_eq!(parsed("bytes 5-9/*"), Some((5, 10, None)));
        for text in
            ["bytes 5-4/10", "bytes 0-10/10", "bytes */0", "lines 0-1/2", "bytes 0-18446744073709551615/*"]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[ -~]{0,40}") {
            let _ = parsed(&text);
        }
    }
}
