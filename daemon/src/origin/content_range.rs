//! `Range` and `Content-Range` between this node and an origin (RFC 9110 §14).
//!
//! Invariant: a parsed range is not empty and lies within its total.

use std::ops::Range;

/// What a `Content-Range` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentRange {
    Part {
        range: Range<u64>,
        total: Option<u64>,
    },
    /// `bytes */N`: the answer to a range that cannot be satisfied.
    Unsatisfied {
        total: u64,
    },
}

/// The `Range` header for `range`; an end of `u64::MAX` is open.
pub(super) fn request(range: &Range<u64>) -> Option<String> {
    match (range.start, range.end) {
        (start, u64::MAX) => Some(format!("bytes={start}-")),
        (start, end) if start < end => Some(format!("bytes={start}-{}", end - 1)),
        _ => None,
    }
}

pub(super) fn parse(header: &str) -> Option<ContentRange> {
    let (unit, rest) = header.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.trim().split_once('/')?;
    let total = if total == "*" { None } else { Some(number(total)?) };
    if range == "*" {
        return total.map(|total| ContentRange::Unsatisfied { total });
    }
    let (first, last) = range.split_once('-')?;
    let range = number(first)?..number(last)?.checked_add(1)?;
    let fits = range.start < range.end && total.is_none_or(|total| range.end <= total);
    fits.then_some(ContentRange::Part { range, total })
}

/// Digits alone: `u64::from_str` would take a `+`.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_registries_send() {
        let part = |range, total| Some(ContentRange::Part { range, total });
        assert_eq!(parse("bytes 0-9/100"), part(0..10, Some(100)));
        assert_eq!(parse("bytes 5-5/*"), part(5..6, None));
        assert_eq!(parse("bytes */0"), Some(ContentRange::Unsatisfied { total: 0 }));
        for text in [
            "",
            "bytes",
            "bytes 1-0/5",
            "bytes 0-5/5",
            "bytes +0-1/5",
            "items 0-1/5",
            "bytes */*",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn requests() {
        assert_eq!(request(&(0..4)).as_deref(), Some("bytes=0-3"));
        assert_eq!(request(&(7..u64::MAX)).as_deref(), Some("bytes=7-"));
        assert_eq!(request(&(4..4)), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(bytes )?[-0-9*/ a]{0,48}") {
            if let Some(ContentRange::Part { range, total }) = parse(&text) {
                prop_assert!(range.start < range.end && total.is_none_or(|total| range.end <= total));
            }
        }
    }
}
