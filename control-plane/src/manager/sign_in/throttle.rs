//! How many sign-ins may fail, per address and per account, before there is a wait. Pure but for its locks: time is an
//! argument.
//!
//! Invariants: bounded memory; an address that does not fail is never refused by what others do, also not at an account
//! that others guess at, if it signed in to it before.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failures an address may have per [`WINDOW`].
const MAX_FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Failures an account may have per [`ACCOUNT_WINDOW`], from wherever: some 2,400 guesses a day.
const MAX_ACCOUNT_FAILURES: u32 = 50;
const ACCOUNT_WINDOW: Duration = Duration::from_secs(30 * 60);
/// How long an address is known at an account after it signed in.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Addresses or accounts remembered; beyond that the oldest go first.
const MAX_REMEMBERED: usize = 10_000;

/// Failures by key.
#[derive(Debug)]
pub(super) struct Throttle<K> {
    most: u32,
    window: Duration,
    failures: Mutex<HashMap<K, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    since: Instant,
}

/// Failures by account, and from where each was signed in to.
#[derive(Debug)]
pub(super) struct Accounts {
    failures: Throttle<String>,
    known: Mutex<HashMap<(String, IpAddr), Instant>>,
}

impl Throttle<IpAddr> {
    pub(super) fn addresses() -> Self {
        Self::new(MAX_FAILURES, WINDOW)
    }
}

impl<K: Hash + Eq + Clone> Throttle<K> {
    fn new(most: u32, window: Duration) -> Self {
        Self { most, window, failures: Mutex::default() }
    }

    /// Counts an attempt as failed until [`Self::success`]; `Err` is how long to wait.
    pub(super) fn attempt(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut failures = self.failures.lock();
        if failures.len() >= MAX_REMEMBERED && !failures.contains_key(key) {
            failures.retain(|_, entry| now.duration_since(entry.since) < self.window);
            forget_oldest(&mut failures, |entry| entry.since);
        }
        let entry = failures.entry(key.clone()).or_insert(Failures { count: 0, since: now });
        let age = now.duration_since(entry.since);
        if age >= self.window {
            *entry = Failures { count: 0, since: now };
        } else if entry.count >= self.most {
            return Err(self.window.saturating_sub(age));
        }
        entry.count += 1;
        Ok(())
    }

    /// The last attempt did not fail after all. What failed before still counts: an attacker with an
    /// account of his own must not be able to reset the count.
    pub(super) fn success(&self, key: &K) {
        if let Some(entry) = self.failures.lock().get_mut(key) {
            entry.count = entry.count.saturating_sub(1);
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self { failures: Throttle::new(MAX_ACCOUNT_FAILURES, ACCOUNT_WINDOW), known: Mutex::default() }
    }
}

impl Accounts {
    /// As [`Throttle::attempt`]; an address that signed in to the account before is bounded by itself alone.
    pub(super) fn attempt(&self, name: &str, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let key = (name.to_owned(), from);
        let known = self.known.lock().get(&key).is_some_and(|at| now.duration_since(*at) < KNOWN_FOR);
        if known { Ok(()) } else { self.failures.attempt(&key.0, now) }
    }

    pub(super) fn success(&self, name: &str, from: IpAddr, now: Instant) {
        let key = (name.to_owned(), from);
        let mut known = self.known.lock();
        if !known.contains_key(&key) {
            self.failures.success(&key.0);
            forget_oldest(&mut known, |at| *at);
        }
        known.insert(key, now);
    }
}

fn forget_oldest<K: Hash + Eq + Clone, V>(map: &mut HashMap<K, V>, age: impl Fn(&V) -> Instant) {
    if map.len() < MAX_REMEMBERED {
        return;
    }
    if let Some(oldest) = map.iter().min_by_key(|(_, value)| age(value)).map(|(key, _)| key.clone()) {
        map.remove(&oldest);
    }
}

/// Who has one IPv6 address has the /64 around it.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !0 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_bounded_per_address_and_window() {
        let (throttle, start) = (Throttle::addresses(), Instant::now());
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..MAX_FAILURES {
            assert_eq!(throttle.attempt(&bad, start), Ok(()));
        }
        let later = start + WINDOW / 4;
        assert_eq!(throttle.attempt(&bad, later), Err(WINDOW - WINDOW / 4));
        assert_eq!(throttle.attempt(&good, later), Ok(()));
        assert_eq!(throttle.attempt(&bad, start + WINDOW), Ok(()));
    }

    #[test]
    fn successes_do_not_count_and_do_not_forgive() {
        let (throttle, now) = (Throttle::addresses(), Instant::now());
        let ip = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..MAX_FAILURES * 3 {
            assert_eq!(throttle.attempt(&network(ip), now), Ok(()));
            throttle.success(&network(ip));
        }
        for _ in 0..MAX_FAILURES {
            assert_eq!(throttle.attempt(&network(ip), now), Ok(()));
        }
        assert!(throttle.attempt(&network(ip), now).is_err());
    }

    #[test]
    fn a_v6_network_counts_as_one() {
        let (throttle, now) = (Throttle::addresses(), Instant::now());
        for host in 0..u128::from(MAX_FAILURES) {
            let ip = IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | host));
            assert_eq!(throttle.attempt(&network(ip), now), Ok(()));
        }
        assert!(throttle.attempt(&network("2001:db8::ffff".parse().unwrap()), now).is_err());
        assert!(throttle.attempt(&network("2001:db8:0:1::1".parse().unwrap()), now).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let (throttle, now) = (Throttle::addresses(), Instant::now());
        for number in 0..u32::try_from(MAX_REMEMBERED).unwrap() + 50 {
            assert_eq!(throttle.attempt(&IpAddr::from(number.to_be_bytes()), now), Ok(()));
        }
        assert_eq!(throttle.failures.lock().len(), MAX_REMEMBERED);
    }

    #[test]
    fn an_account_that_others_guess_at_stays_open_to_whoever_signed_in_to_it() {
        let (accounts, now) = (Accounts::default(), Instant::now());
        let owner = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(accounts.attempt("ann", owner, now), Ok(()));
        accounts.success("ann", owner, now);
        for number in 0..MAX_ACCOUNT_FAILURES {
            assert_eq!(accounts.attempt("ann", IpAddr::from(number.to_be_bytes()), now), Ok(()));
        }
        assert!(accounts.attempt("ann", IpAddr::from([9, 9, 9, 9]), now).is_err());
        assert_eq!(accounts.attempt("ann", owner, now), Ok(()));
        assert_eq!(accounts.attempt("bob", IpAddr::from([9, 9, 9, 9]), now), Ok(()));
        assert_eq!(accounts.attempt("ann", IpAddr::from([9, 9, 9, 9]), now + ACCOUNT_WINDOW), Ok(()));
    }
}
