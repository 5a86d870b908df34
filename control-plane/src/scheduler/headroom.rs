//! How much of a host's uplink the swarm may use, by what the host measured: its capacity less what is not Hawker's.
//!
//! Reports only change what is chosen next: no child is moved because of one. Pure; time is an argument.
//!
//! Invariant: a host without a fresh report is neither preferred nor spared.

use super::messages::Report;
use std::time::{Duration, Instant};

/// Reports older than this tell nothing: three that a quiet host sends every 5 s.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(15);
/// Time constant of the average over other traffic: a second of it does not make a host busy, three do.
const SMOOTHING_S: f64 = 2.0;
/// A host is busy from this part of its uplink in other use, and until it is below the second.
const BUSY_FROM: f64 = 0.7;
const BUSY_UNTIL: f64 = 0.5;
/// Steps in which headroom counts, so that noise decides nothing.
const STEPS: f64 = 16.0;

/// What a host's reports add up to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uplink {
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    /// Bytes per second, not 0.
    capacity: u64,
    /// Of all uploads together; 0: none.
    limit: u64,
    /// Sent by others, bytes per second, smoothed.
    others: f64,
    busy: bool,
}

impl Uplink {
    /// Takes in a report; `None`: one that makes no sense, after which nothing is known.
    pub(super) fn report(&mut self, report: Option<&Report>, now: Instant) {
        self.last = report.and_then(|report| {
            let others = report.others_sent? as f64 / report.elapsed.as_secs_f64().max(0.001);
            (report.capacity > 0).then(|| self.next(report, others, now))
        });
    }

    fn next(&self, report: &Report, rate: f64, now: Instant) -> Last {
        let before = self.fresh(now);
        let weight = 1.0 - (-report.elapsed.as_secs_f64() / SMOOTHING_S).exp();
        let others = before.map_or(rate, |last| last.others + weight * (rate - last.others));
        let used = others / report.capacity as f64;
        let threshold = if before.is_some_and(|last| last.busy) { BUSY_UNTIL } else { BUSY_FROM };
        let (capacity, limit) = (report.capacity, report.upload_limit);
        Last { at: now, capacity, limit, others, busy: used >= threshold }
    }

    fn fresh(&self, now: Instant) -> Option<Last> {
        self.last.filter(|last| now.saturating_duration_since(last.at) < STALE_AFTER)
    }

    /// Its own traffic needs the uplink.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.fresh(now).is_some_and(|last| last.busy)
    }

    /// What the swarm may send, bytes per second; never 0. `None`: not known.
    pub(super) fn headroom(&self, now: Instant) -> Option<u64> {
        let last = self.fresh(now)?;
        let capacity = last.capacity as f64;
        let steps = (STEPS * (1.0 - last.others / capacity)).ceil().clamp(1.0, STEPS);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a u64")]
        let free = ((capacity * steps / STEPS) as u64).min(last.capacity);
        Some(if last.limit == 0 { free } else { free.min(last.limit) }.max(1))
    }
}

/// Expected load of one more child on a host with `uploads` and this headroom: what is compared, the lower the better.
pub(super) fn load(uploads: usize, headroom: u64) -> u64 {
    /// So that a host of 1 Tbit/s with one child still has a figure, and one of 1 byte/s with a million has, too.
    const SCALE: u128 = 1 << 50;
    let load = (uploads as u128 + 1) * SCALE / u128::from(headroom.max(1));
    u64::try_from(load).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MBIT: u64 = 125_000;

    fn report(others_mbit: u64, seconds: u64) -> Report {
        Report {
            elapsed: Duration::from_secs(seconds),
            others_sent: Some(others_mbit * MBIT * seconds),
            capacity: 200 * MBIT,
            upload_limit: 0,
        }
    }

    /// Second after second of so much other traffic; busy or not after each.
    fn busy(uplink: &mut Uplink, now: &mut Instant, mbit: &[u64]) -> Vec<bool> {
        let step = |mbit: &u64| {
            *now += Duration::from_secs(1);
            uplink.report(Some(&report(*mbit, 1)), *now);
            uplink.is_busy(*now)
        };
        mbit.iter().map(step).collect()
    }

    #[test]
    fn a_host_becomes_busy_and_free_with_hysteresis() {
        let (mut uplink, mut now) = (Uplink::default(), Instant::now());
        let becomes = busy(&mut uplink, &mut now, &[0, 200, 200, 200, 200, 200]);
        assert_eq!(becomes, [false, false, false, true, true, true], "not at once, and not late");
        // Between the two thresholds nothing changes, however long.
        assert_eq!(busy(&mut uplink, &mut now, &[120; 30]), [true; 30]);
        let (free, back) = (busy(&mut uplink, &mut now, &[60; 10]), busy(&mut uplink, &mut now, &[120; 30]));
        assert!(!free[9] && back.iter().all(|busy| !busy), "{free:?} {back:?}");
    }

    #[test]
    fn one_loud_second_changes_nothing() {
        let (mut uplink, mut now) = (Uplink::default(), Instant::now());
        assert!(busy(&mut uplink, &mut now, &[0, 0, 200, 0, 200, 0, 0]).iter().all(|busy| !busy));
    }

    #[test]
    fn stale_or_senseless_reports_leave_nothing() {
        let (mut uplink, now) = (Uplink::default(), Instant::now());
        uplink.report(Some(&report(200, 1)), now);
        assert!(uplink.is_busy(now) && uplink.headroom(now) == Some(200 * MBIT / 16));
        let late = now + STALE_AFTER;
        assert!(!uplink.is_busy(late) && uplink.headroom(late).is_none());
        uplink.report(None, now);
        assert!(!uplink.is_busy(now) && uplink.headroom(now).is_none());
        uplink.report(Some(&Report { others_sent: None, ..report(0, 1) }), now);
        assert!(uplink.headroom(now).is_none(), "a node that cannot see its uplink is unknown");
    }

    #[test]
    fn a_limit_of_uploads_bounds_the_headroom() {
        let (mut uplink, now) = (Uplink::default(), Instant::now());
        uplink.report(Some(&Report { upload_limit: 10 * MBIT, ..report(0, 1) }), now);
        assert_eq!(uplink.headroom(now), Some(10 * MBIT));
    }

    proptest! {
        #[test]
        fn no_report_breaks_the_arithmetic(
            reports in proptest::collection::vec(any::<(u64, u64, u64, u32, u32)>(), 1..20),
            uploads: u32,
        ) {
            let (mut uplink, mut now) = (Uplink::default(), Instant::now());
            for (others, capacity, upload_limit, elapsed, pause) in reports {
                let elapsed = Duration::from_millis(elapsed.into());
                now += Duration::from_millis(u64::from(pause) % 30_000);
                let report = Report { elapsed, others_sent: Some(others), capacity, upload_limit };
                uplink.report(Some(&report), now);
                prop_assert_eq!(uplink.headroom(now).is_some(), capacity > 0);
                if let Some(headroom) = uplink.headroom(now) {
                    prop_assert!(headroom > 0 && headroom <= capacity.max(1));
                    let load = load(uploads as usize, headroom);
                    prop_assert!(load <= super::load(uploads as usize + 1, headroom));
                }
            }
        }
    }
}
