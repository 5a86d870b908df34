//! Limits of what is received: who reads first asks whether reading is due, then says how much it was.
//!
//! TCP does the rest: what is not read fills the receive buffer, closes the window and slows the sender, without a
//! packet dropped. So up to a receive buffer per connection crosses the wire ahead of the limit.
//!
//! Invariant: waiting can be cancelled at any moment, and loses nothing.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What may be read at once after a pause, as time at the limit.
const BURST: Duration = Duration::from_millis(20);
/// Longest sleep before looking whether the limit changed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A limit shared by many readers; clones are the same bucket.
#[derive(Clone)]
pub(crate) struct Bucket(Arc<Mutex<State>>);

struct State {
    /// Bytes per second; 0: no limit.
    rate: u64,
    /// When what was read so far is paid for.
    paid: Instant,
}

impl Default for Bucket {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { rate: 0, paid: Instant::now() })))
    }
}

impl Bucket {
    /// Sets the limit, bytes per second; 0: none. What is owed is owed at the new rate.
    pub(crate) fn set(&self, rate: u64) {
        let (mut state, now) = (self.0.lock(), Instant::now());
        let owed = state.paid.saturating_duration_since(now);
        let factor = if rate == 0 { 0.0 } else { state.rate as f64 / rate as f64 };
        let owed = Duration::try_from_secs_f64(owed.as_secs_f64() * factor).unwrap_or(Duration::ZERO);
        (state.rate, state.paid) = (rate, now + owed);
    }

    /// Waits until the limit allows to read.
    pub(crate) async fn ready(&self) {
        while let Some(wait) = self.wait(Instant::now()) {
            tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
        }
    }

    /// Whether [`Self::ready`] would return at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.wait(Instant::now()).is_none()
    }

    /// Counts what was read.
    pub(crate) fn charge(&self, bytes: u64) {
        self.charge_at(bytes, Instant::now());
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let state = self.0.lock();
        if state.rate == 0 {
            return None;
        }
        let wait = state.paid.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    fn charge_at(&self, bytes: u64, now: Instant) {
        let mut state = self.0.lock();
        if state.rate == 0 {
            return;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let cost = Duration::try_from_secs_f64(bytes as f64 / state.rate as f64).unwrap_or(LOOK_AGAIN);
        state.paid = state.paid.max(earliest) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_together_hold_the_limit() {
        let bucket = Bucket::default();
        bucket.set(1_000_000);
        let start = Instant::now();
        let (mut now, mut read) = (start, 0);
        while now < start + Duration::from_secs(10) {
            if let Some(wait) = bucket.wait(now) {
                now += wait;
            }
            bucket.charge_at(37_000, now);
            read += 37_000;
        }
        assert!((9_950_000..10_150_000).contains(&read), "{read}");
    }

    #[test]
    fn no_limit_never_waits_and_owes_nothing() {
        let bucket = Bucket::default();
        bucket.charge(1 << 40);
        assert!(bucket.wait(Instant::now()).is_none());
        bucket.set(1000);
        assert!(bucket.wait(Instant::now()).is_none());
    }

    #[test]
    fn a_raised_limit_shortens_what_is_owed() {
        let bucket = Bucket::default();
        bucket.set(1_000);
        bucket.charge(10_000);
        bucket.set(100_000);
        let wait = bucket.wait(Instant::now()).unwrap();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        bucket.set(0);
        assert!(bucket.wait(Instant::now()).is_none());
    }
}
