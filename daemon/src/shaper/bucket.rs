//! Limits of what is received: who reads first asks whether reading is due, then says how much it was.
//!
//! TCP does the rest: what is not read fills the receive buffer, closes the window and slows the sender, without a
//! packet dropped. So up to a window per connection crosses the wire ahead of the limit: [`Bucket::ahead`] for those that
//! keep to it.
//!
//! Invariant: waiting can be cancelled at any moment, and loses nothing.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What may be read at once after a pause, as time at the limit.
const BURST: Duration = Duration::from_millis(20);
/// What a sender may send ahead on one connection, as time at the limit: more than most round trips take, so that one
/// connection can have all of it; and the least that is not worth less.
const AHEAD: Duration = Duration::from_millis(50);
const LEAST_AHEAD: u32 = 128 << 10;
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

    /// Waits until the limit allows to read: until what was owed at this moment is paid, also where others were quicker to owe
    /// more. So nobody is left behind: a reader that is looks like a parent that gives nothing.
    pub(crate) async fn ready(&self) {
        let came = Instant::now();
        let Some(owed) = self.wait(came) else { return };
        while let Some(rest) = owed.checked_sub(came.elapsed()).filter(|rest| !rest.is_zero()) {
            let Some(wait) = self.wait(Instant::now()) else { return };
            tokio::time::sleep(rest.min(wait).min(LOOK_AGAIN)).await;
        }
    }

    /// Bytes that should be on their way on one connection at most; `None`: no limit.
    pub(crate) fn ahead(&self) -> Option<u32> {
        let rate = self.0.lock().rate;
        let bytes = u128::from(rate) * AHEAD.as_millis() / 1000;
        (rate > 0).then(|| u32::try_from(bytes).unwrap_or(u32::MAX).max(LEAST_AHEAD))
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
        assert!(bucket.wait(Instant::now()).is_none() && bucket.ahead().is_none());
        bucket.set(1000);
        assert!(bucket.wait(Instant::now()).is_none());
    }

    #[tokio::test]
    async fn readers_get_the_same() {
        const READERS: usize = 8;
        let bucket = Bucket::default();
        bucket.set(1_000_000);
        bucket.charge(50_000);
        let until = Instant::now() + Duration::from_millis(800);
        let reading = (0..READERS).map(|_| async {
            let mut steps = 0;
            while Instant::now() < until {
                bucket.ready().await;
                bucket.charge(5_000);
                steps += 1;
            }
            steps
        });
        let steps: Vec<u32> = futures::future::join_all(reading).await;
        let (least, most) = (steps.iter().min().unwrap(), steps.iter().max().unwrap());
        assert!(*most <= least + 2, "{steps:?}");
    }

    #[test]
    fn what_is_sent_ahead_is_bounded() {
        let bucket = Bucket::default();
        for (rate, ahead) in [(1, 128 << 10), (25_000_000, 1_250_000), (u64::MAX, u32::MAX)] {
            bucket.set(rate);
            assert_eq!(bucket.ahead(), Some(ahead));
        }
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
