//! How many sign-ins may fail per address before it has to wait. Pure but for its lock: time is an argument.
//!
//! Invariant: bounded memory; an address that does not fail is never refused by what others do.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Failures an address may have per [`WINDOW`].
pub(super) const MAX_FAILURES: u32 = 10;
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond that the oldest windows go first.
const MAX_ADDRESSES: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Throttle {
    /// Counts an attempt as failed until [`Self::success`]; `Err` is how long to wait.
    pub(super) fn attempt(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut failures = self.failures.lock();
        let key = network(from);
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&key) {
            make_room(&mut failures, now);
        }
        let entry = failures.entry(key).or_insert(Failures { count: 0, since: now });
        let age = now.duration_since(entry.since);
        if age >= WINDOW {
            *entry = Failures { count: 0, since: now };
        } else if entry.count >= MAX_FAILURES {
            return Err(WINDOW.saturating_sub(age));
        }
        entry.count += 1;
        Ok(())
    }

    /// The last attempt did not fail after all. What failed before still counts: an attacker with an
    /// account of his own must not be able to reset the count.
    pub(super) fn success(&self, from: IpAddr) {
        if let Some(entry) = self.failures.lock().get_mut(&network(from)) {
            entry.count = entry.count.saturating_sub(1);
        }
    }
}

fn make_room(failures: &mut HashMap<IpAddr, Failures>, now: Instant) {
    failures.retain(|_, entry| now.duration_since(entry.since) < WINDOW);
    if failures.len() < MAX_ADDRESSES {
        return;
    }
    if let Some(oldest) = failures.iter().min_by_key(|(_, entry)| entry.since).map(|(ip, _)| *ip) {
        failures.remove(&oldest);
    }
}

/// Who has one IPv6 address has the /64 around it.
fn network(ip: IpAddr) -> IpAddr {
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
        let (throttle, start) = (Throttle::default(), Instant::now());
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..MAX_FAILURES {
            assert_eq!(throttle.attempt(bad, start), Ok(()));
        }
        let later = start + WINDOW / 4;
        assert_eq!(throttle.attempt(bad, later), Err(WINDOW - WINDOW / 4));
        assert_eq!(throttle.attempt(good, later), Ok(()));
        assert_eq!(throttle.attempt(bad, start + WINDOW), Ok(()));
    }

    #[test]
    fn successes_do_not_count_and_do_not_forgive() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let ip = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..MAX_FAILURES * 3 {
            assert_eq!(throttle.attempt(ip, now), Ok(()));
            throttle.success(ip);
        }
        for _ in 0..MAX_FAILURES {
            assert_eq!(throttle.attempt(ip, now), Ok(()));
        }
        assert!(throttle.attempt(ip, now).is_err());
    }

    #[test]
    fn a_v6_network_counts_as_one() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..u128::from(MAX_FAILURES) {
            let ip = IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | host));
            assert_eq!(throttle.attempt(ip, now), Ok(()));
        }
        assert!(throttle.attempt("2001:db8::ffff".parse().unwrap(), now).is_err());
        assert!(throttle.attempt("2001:db8:0:1::1".parse().unwrap(), now).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 50 {
            assert_eq!(throttle.attempt(IpAddr::from(number.to_be_bytes()), now), Ok(()));
        }
        assert_eq!(throttle.failures.lock().len(), MAX_ADDRESSES);
    }
}
