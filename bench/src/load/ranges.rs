//! Which pieces a stream asks for, in what order.
//!
//! Invariant: a function of the stream alone, so that every server is asked the same; ranges are aligned
//! to the piece size and lie within the blob.

use super::{LoadError, Stream};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::ops::Range;

/// The order of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Uniformly random, for ever.
    Random,
    /// Every piece once, shuffled; then no more.
    Once,
}

pub(super) struct Ranges {
    piece_bytes: u64,
    count: u64,
    random: StdRng,
    /// Pieces still to be asked for, last first; `None`: any.
    left: Option<Vec<u64>>,
}

impl Ranges {
    pub(super) fn of(stream: &Stream) -> Result<Self, LoadError> {
        let count = stream.blob_bytes.checked_div(stream.piece_bytes).unwrap_or(0);
        if count == 0 {
            return Err(LoadError::Plan("a blob of less than one piece"));
        }
        let mut random = StdRng::seed_from_u64(stream.seed);
        let left = (stream.order == Order::Once).then(|| {
            let mut pieces: Vec<u64> = (0..count).collect();
            pieces.shuffle(&mut random);
            pieces
        });
        Ok(Self { piece_bytes: stream.piece_bytes, count, random, left })
    }

    pub(super) fn next(&mut self) -> Option<Range<u64>> {
        let piece = match &mut self.left {
            None => self.random.random_range(0..self.count),
            Some(left) => left.pop()?,
        };
        Some(piece * self.piece_bytes..(piece + 1) * self.piece_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(order: Order) -> Stream {
        Stream { path: "/".to_owned(), connections: 1, piece_bytes: 10, blob_bytes: 105, order, seed: 7 }
    }

    #[test]
    fn once_asks_every_whole_piece_once() {
        let mut ranges = Ranges::of(&stream(Order::Once)).unwrap();
        let mut starts: Vec<u64> = std::iter::from_fn(|| ranges.next()).map(|range| range.start).collect();
        starts.sort_unstable();
        assert_eq!(starts, (0..10).map(|piece| piece * 10).collect::<Vec<_>>());
    }

    #[test]
    fn random_repeats_with_its_seed_and_stays_inside() {
        let take = || -> Vec<_> {
            let mut ranges = Ranges::of(&stream(Order::Random)).unwrap();
            (0..50).filter_map(|_| ranges.next()).collect()
        };
        assert_eq!(take(), take());
        assert!(take().iter().all(|range| range.start % 10 == 0 && range.end <= 100));
    }
}
