//! Who may write a piece, and when somebody else may.
//!
//! Invariant: a piece has at most one claim that may still write; taking a claim over first takes the former holder's
//! right to write.

use crate::store::Permit;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No claim younger than this is taken over unless its parent gives nothing, and none under which bytes came lately that
/// is done sooner than whoever would take it over.
pub(super) const STALE_CLAIM: Duration = Duration::from_secs(4);

/// A parent's other connection takes a piece over when nothing came for this long: after it was found out whether the
/// parent as a whole stands still, as one that did would only send the same bytes again.
pub(super) const STALE_CONNECTION: Duration = Duration::from_secs(5);

/// The right to write one piece, until somebody takes it over.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    since: Instant,
    /// Held while writing, so that no write happens after it was taken away.
    valid: Arc<Mutex<bool>>,
    progress: Arc<Progress>,
    /// Bytes written under all claims of the same parent; of an origin, of this one.
    given: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    /// Of the last write, after the claim.
    millis: AtomicU64,
    /// Its parent gives nothing, over all connections.
    lapsed: AtomicBool,
}

impl Claim {
    /// Whether nobody took it over.
    pub(super) fn stands(&self) -> bool {
        *self.valid.lock()
    }

    /// Whether it is one of the parent with these bytes, and its other connection would get no more: because the parent
    /// gives nothing, or because there was not time enough to see whether it does.
    pub(super) fn is_in_vain(&self, given: &Arc<AtomicU64>, now: Instant) -> bool {
        let lapsed = self.progress.lapsed.load(Ordering::Relaxed);
        Arc::ptr_eq(&self.given, given) && (lapsed || self.is_still_for(now) < STALE_CONNECTION)
    }

    /// How long ago something last came.
    fn is_still_for(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(Duration::from_millis(self.progress.millis.load(Ordering::Relaxed)))
    }

    fn wrote(&self, bytes: u64, now: Instant) {
        let millis = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.progress.millis.fetch_max(millis, Ordering::Relaxed);
        self.given.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }

    /// Bytes written under it.
    pub(super) fn written(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Bytes written under all claims of the same parent.
    pub(super) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Whether one who needs `quick` for a piece of `length` bytes had better fetch it. Several connections that share
    /// a limit are all slow, and each that took a piece over would send its bytes a second time.
    pub(super) fn is_overdue(&self, length: u64, now: Instant, quick: Duration) -> bool {
        let age = self.age(now);
        if self.progress.lapsed.load(Ordering::Relaxed) {
            return true;
        }
        if age < STALE_CLAIM {
            return false;
        }
        let written = self.written();
        if written == 0 || self.is_still_for(now) >= STALE_CLAIM {
            return true;
        }
        let left = age.as_secs_f64() * length.saturating_sub(written) as f64 / written as f64;
        left > quick.as_secs_f64()
    }
}

impl Permit for Claim {
    fn under<T>(&self, bytes: u64, work: impl FnOnce() -> T) -> Option<T> {
        let valid = self.valid.lock();
        if !*valid {
            return None;
        }
        let done = work();
        self.wrote(bytes, Instant::now());
        Some(done)
    }
}

/// Of one download, by piece.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<u32, Claim>);

impl Claims {
    pub(super) fn get(&self, piece: u32) -> Option<&Claim> {
        self.0.get(&piece)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Claims a piece, from whoever had it.
    pub(super) fn claim(&mut self, piece: u32, now: Instant, given: Arc<AtomicU64>) -> Claim {
        let claim = Claim { since: now, valid: Arc::new(Mutex::new(true)), progress: Arc::default(), given };
        if let Some(former) = self.0.insert(piece, claim.clone()) {
            *former.valid.lock() = false;
        }
        claim
    }

    /// Who gave these bytes gives no more, or again: while it does not, others need not wait for what was claimed for it.
    pub(super) fn lapse(&self, given: &Arc<AtomicU64>, lapsed: bool) {
        let of_it = self.0.values().filter(|claim| Arc::ptr_eq(&claim.given, given));
        of_it.for_each(|claim| claim.progress.lapsed.store(lapsed, Ordering::Relaxed));
    }

    /// Ends a claim: nothing is written under it any more. What writes still, after its owner was cancelled, is
    /// waited for.
    pub(super) fn release(&mut self, piece: u32, claim: &Claim) {
        *claim.valid.lock() = false;
        if self.0.get(&piece).is_some_and(|current| Arc::ptr_eq(&current.valid, &claim.valid)) {
            self.0.remove(&piece);
        }
    }

    /// Ends all claims; who writes at this moment is waited for.
    pub(super) fn revoke(&mut self) {
        self.0.drain().for_each(|(_, claim)| *claim.valid.lock() = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn after(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn who_gets_on_is_left_his_piece_and_who_does_not_is_not() {
        let begun = Instant::now();
        let claim = Claims::default().claim(0, begun, Arc::default());
        let overdue = |at: f64, quick: f64| claim.is_overdue(4 * MIB, begun + after(at), after(quick));
        assert!(!overdue(3.9, 0.0), "young");
        assert!(overdue(4.0, 60.0), "nothing came");
        claim.wrote(3 * MIB, begun + after(4.5));
        // 1.5 s more, at this pace.
        assert!(!overdue(4.5, 4.5) && !overdue(4.5, 2.0), "done sooner than another one");
        assert!(overdue(4.5, 1.0), "another one is quicker");
        assert!(overdue(8.5, 60.0), "nothing came for 4 s");
        let slow = Claims::default().claim(0, begun, Arc::default());
        slow.wrote(40, begun + after(39.0));
        assert!(slow.is_overdue(4 * MIB, begun + after(40.0), after(20.0)), "a byte a second");
    }

    #[test]
    fn another_connection_of_the_same_parent_waits_longer_than_it_takes_to_see_that_it_stands_still() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let (given, other) = (Arc::default(), Arc::default());
        let claim = claims.claim(1, now, Arc::clone(&given));
        claim.wrote(MIB, now + after(1.0));
        assert!(claim.is_overdue(4 * MIB, now + after(5.1), after(0.1)), "for others");
        assert!(!claim.is_in_vain(&other, now + after(5.1)));
        assert!(claim.is_in_vain(&given, now + after(5.9)));
        assert!(
            !claim.is_in_vain(&given, now + after(6.0)),
            "the parent gives, and this connection does not"
        );
        claims.lapse(&given, true);
        assert!(claim.is_in_vain(&given, now + after(60.0)));
    }

    #[test]
    fn who_gives_nothing_is_not_waited_for() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let (given, other) = (Arc::default(), Arc::default());
        let (first, second) = (claims.claim(1, now, Arc::clone(&given)), claims.claim(2, now, other));
        claims.lapse(&given, true);
        let overdue = |claim: &Claim| claim.is_overdue(MIB, now + after(1.0), after(0.1));
        assert!(overdue(&first) && !overdue(&second));
        first.wrote(1, now + after(1.0));
        assert!(overdue(&first), "a byte is not enough");
        claims.lapse(&given, false);
        assert!(!overdue(&first), "it is back");
    }

    #[test]
    fn nothing_is_written_under_a_claim_that_was_taken_over() {
        let (mut claims, now, given) = (Claims::default(), Instant::now(), Arc::<AtomicU64>::default());
        let first = claims.claim(7, now, Arc::clone(&given));
        assert_eq!(first.under(10, || 1), Some(1));
        let second = claims.claim(7, now, given);
        assert_eq!((first.under(10, || 1), second.under(5, || 2)), (None, Some(2)));
        assert_eq!((first.written(), second.written(), second.given()), (10, 5, 15));
        claims.release(7, &first);
        assert!(!claims.is_empty(), "it is the second one's");
        claims.release(7, &second);
        assert!(claims.is_empty());
    }
}
