//! Exchanges that may send again at a time: their peer's limit says when.
//!
//! Invariant: whoever sleeps is woken once, at the earliest at its time; a slot that changed hands is its waker's to
//! notice.

use super::ring::Token;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Sleepers {
    /// By time, then by slot and life.
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Sleepers {
    pub(super) fn add(&mut self, at: Instant, token: Token) {
        self.heap.push(Reverse((at, token.slot, token.life)));
    }

    /// Time until the first wakes, at most `limit`.
    pub(super) fn within(&self, limit: Duration) -> Duration {
        let first = self.heap.peek().map(|Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
        first.map_or(limit, |first| first.min(limit))
    }

    /// The next whose time has come.
    pub(super) fn awake(&mut self, now: Instant) -> Option<Token> {
        let Reverse((at, slot, life)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(Token { slot, life, what: super::ring::What::Ready })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::What;
    use super::*;

    #[test]
    fn they_wake_in_the_order_of_their_times() {
        let (mut sleepers, now) = (Sleepers::default(), Instant::now());
        let after = |millis| now + Duration::from_millis(millis);
        for (slot, millis) in [(1, 30), (2, 10), (3, 20)] {
            sleepers.add(after(millis), Token { slot, life: 0, what: What::Ready });
        }
        assert!(sleepers.awake(now).is_none() && sleepers.within(Duration::from_secs(1)) <= after(10) - now);
        let order: Vec<u32> =
            std::iter::from_fn(|| sleepers.awake(after(25))).map(|token| token.slot).collect();
        assert_eq!(order, [2, 3]);
        assert_eq!(Sleepers::default().within(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
