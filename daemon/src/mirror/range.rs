//! The runtime's `Range` header against a size (RFC 9110 §14.2). Pure.
//!
//! Invariant: a selected range is not empty and lies within the size.

use http::{HeaderMap, header};
use std::ops::Range;

/// What a caller asked for, before the size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No range, or one that means nothing: several, another unit, bad syntax.
    Whole,
    /// From `first` to `last`, or to the end.
    From { first: u64, last: Option<u64> },
    /// The last so many bytes.
    Last(u64),
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

impl Wanted {
    /// What the headers ask for; several `Range` lines mean nothing.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let range = ranges.next().filter(|_| ranges.next().is_none());
        Self::parse(range.and_then(|value| value.to_str().ok()))
    }

    fn parse(header: Option<&str>) -> Self {
        header.and_then(single).unwrap_or(Self::Whole)
    }

    pub(super) fn select(self, size: u64) -> Selected {
        match self {
            Self::Whole => Selected::Whole,
            // Some containerd versions always ask for `bytes=0-`, which nothing satisfies in an empty
            // blob; a server may ignore a range, and an error would make the image unpullable.
            Self::From { first: 0, .. } if size == 0 => Selected::Whole,
            Self::From { first, .. } if first >= size => Selected::Unsatisfiable,
            Self::From { first, last } => {
                Selected::Part(first..last.map_or(size, |last| last.saturating_add(1).min(size)))
            }
            Self::Last(0) => Selected::Unsatisfiable,
            Self::Last(_) if size == 0 => Selected::Whole,
            Self::Last(count) => Selected::Part(size.saturating_sub(count)..size),
        }
    }
}

fn single(header: &str) -> Option<Wanted> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => number(last).map(Wanted::Last),
        (first, "") => number(first).map(|first| Wanted::From { first, last: None }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Wanted::From { first, last: Some(last) })
        }
    }
}

/// Digits; more than fit are "past any end".
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select(header: &str, size: u64) -> Selected {
        Wanted::parse(Some(header)).select(size)
    }

    #[test]
    fn single_ranges() {
        assert_eq!(Wanted::parse(None).select(10), Selected::Whole);
        for (header, range) in [
            ("bytes=0-", 0..10),
            ("bytes=3-5", 3..6),
            ("Bytes = 9-99", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
        ] {
            assert_eq!(select(header, 10), Selected::Part(range), "{header}");
        }
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(select(header, 10), Selected::Unsatisfiable, "{header}");
        }
        for header in
            ["bytes=5-3", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=+1-2", "0-1"]
        {
            assert_eq!(select(header, 10), Selected::Whole, "{header}");
        }
        assert_eq!(select("bytes=0-", 0), Selected::Whole);
        assert_eq!(select("bytes=1-", 0), Selected::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(header in "(bytes=)?[-0-9, ]{0,44}", size in 0u64..2000) {
            if let Selected::Part(range) = select(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn it_is_what_was_asked(first in 0u64..100, length in 1u64..100, size in 1u64..150) {
            let last = first + length - 1;
            let expected = if first >= size { Selected::Unsatisfiable } else { Selected::Part(first..(last + 1).min(size)) };
            prop_assert_eq!(select(&format!("bytes={first}-{last}"), size), expected);
        }
    }
}
