//! The shared clock: every segment to a peer reserves a slot on that peer's one virtual clock, whichever
//! connection it belongs to. The programs do the one atomic addition; what it means is decided here.
//!
//! The user-space twin uses the same functions, so both hold the same limit.
//!
//! Invariant: no input overflows, divides by zero or panics.

/// Nanoseconds of a second.
pub const NANOS: u64 = 1_000_000_000;
/// Farthest a clock may run ahead of the time, nanoseconds. Bounds how long a limit that was raised still brakes,
/// and lies below the 10 s at which `fq` drops packets.
pub const MAX_AHEAD_NS: u64 = 2 * NANOS;
/// What a peer that was idle, or a connection whose processor was busy elsewhere, may send later than it could have: as time
/// at its rate, nanoseconds. Where connections are paced it is caught up with at 1.25 times the rate, not at once. With 2 ms a
/// single connection lost 3 to 7 % of 900 Mbit/s on a virtual machine whose host took its processor for some milliseconds at a time.
pub const BURST_NS: u64 = 10_000_000;
/// The same for departure times: what is late leaves at once there.
pub const DEPARTURE_BURST_NS: u64 = 2_000_000;
/// Largest weight, and largest rate of one part, bytes per second: so that their product needs no check, which on
/// the programs' target would be a call that does not exist.
pub const MAX_WEIGHT: u32 = 1 << 16;
pub const MAX_LEVEL: u64 = 1 << 44;
/// `SO_MAX_PACING_RATE` for "as fast as it goes".
pub const UNPACED: u32 = u32::MAX;

/// Without the panic path that the compiler would add: the verifier refuses programs with one.
#[inline(always)]
const fn divide(a: u64, b: u64) -> u64 {
    match a.checked_div(b) {
        Some(quotient) => quotient,
        None => 0,
    }
}

/// Time that `bytes` take at `rate` (bytes per second), nanoseconds; 0 where there is no limit.
#[inline(always)]
#[must_use]
pub const fn cost_ns(bytes: u32, rate: u64) -> u64 {
    // To the nearest: at 10 Gbit/s a nanosecond is a thousandth of a packet.
    let cost = divide((bytes as u64 * NANOS).saturating_add(rate >> 1), rate);
    if cost > MAX_AHEAD_NS { MAX_AHEAD_NS } else { cost }
}

/// Where the clock has to stand before a slot is reserved: not too far behind, not too far ahead.
#[inline(always)]
#[must_use]
pub const fn adjusted(clock_ns: u64, now_ns: u64, burst_ns: u64) -> u64 {
    let earliest = now_ns.saturating_sub(burst_ns);
    let latest = now_ns.saturating_add(MAX_AHEAD_NS);
    if clock_ns < earliest {
        earliest
    } else if clock_ns > latest {
        latest
    } else {
        clock_ns
    }
}

/// What `SO_MAX_PACING_RATE` must be after a segment of `bytes` so that the connection's next one leaves when the
/// slot ends: at most 1.25 × `cap`, so that one connection of many never bursts.
#[inline(always)]
#[must_use]
pub const fn pacing_rate(bytes: u32, slot_end_ns: u64, now_ns: u64, cap: u64) -> u32 {
    let shortest = cost_ns(bytes, cap.saturating_add(cap >> 2));
    let wait = slot_end_ns.saturating_sub(now_ns);
    let gap = if wait > shortest { wait } else { shortest };
    let rate = divide(bytes as u64 * NANOS, gap.saturating_add(1));
    if rate == 0 {
        1
    } else if rate >= UNPACED as u64 - 1 {
        UNPACED
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "compared above")]
        let rate = rate as u32;
        rate
    }
}

/// A peer's rate: its own limit, and its part of the total where that is divided; 0: neither.
#[inline(always)]
#[must_use]
pub const fn rate_of(limit: u64, weight: u32, level: u64) -> u64 {
    if level == 0 {
        return limit;
    }
    let parts = match weight {
        0 => 1,
        weight if weight > MAX_WEIGHT => MAX_WEIGHT,
        weight => weight,
    };
    let part = parts as u64 * if level > MAX_LEVEL { MAX_LEVEL } else { level };
    if limit != 0 && limit < part { limit } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    /// One clock as the programs use it, without other processors in between.
    fn reserve(clock: &mut u64, bytes: u32, rate: u64, now: u64) -> u64 {
        *clock = adjusted(*clock, now, BURST_NS) + cost_ns(bytes, rate);
        *clock
    }

    proptest! {
        #[test]
        fn connections_together_hold_the_rate(
            rate in 100_000u64..2_000_000_000, connections in 1usize..17, bytes in 1_448u32..65_536
        ) {
            let start = 5 * NANOS;
            let (mut clock, mut sent, mut next) = (0, 0u64, vec![start; connections]);
            // Each connection sends when its last slot ended, as pacing makes it.
            let horizon = start + NANOS;
            while let Some(turn) = (0..connections).min_by_key(|turn| next[*turn])
                && next[turn] < horizon
            {
                let now = next[turn];
                let end = reserve(&mut clock, bytes, rate, now);
                let pace = u64::from(pacing_rate(bytes, end, now, rate));
                next[turn] = now + u64::from(bytes) * NANOS / pace;
                sent += u64::from(bytes);
            }
            let allowed = rate + rate * BURST_NS / NANOS + rate / 1000 + u64::from(bytes) * (connections as u64 + 1);
            prop_assert!(sent <= allowed, "{sent} of {allowed}");
            // The rate is used, too, where it is not the bound on being ahead that brakes.
            if u64::from(bytes) * connections as u64 * 10 < rate {
                prop_assert!(sent >= rate / 100 * 97, "{sent} of {rate}");
            }
        }

        #[test]
        fn no_input_panics(bytes: u32, clock: u64, now: u64, burst: u64, rate: u64, weight: u32, level: u64) {
            let adjusted = adjusted(clock, now, burst);
            let end = adjusted.wrapping_add(cost_ns(bytes, rate));
            prop_assert!(pacing_rate(bytes, end, now, rate) >= 1);
            let rate = rate_of(rate, weight, level);
            prop_assert!(cost_ns(bytes, rate) <= MAX_AHEAD_NS);
        }
    }

    #[test]
    fn no_limit_costs_nothing() {
        assert_eq!(cost_ns(65_536, 0), 0);
        assert_eq!(rate_of(0, 7, 0), 0);
    }

    #[test]
    fn a_peer_gets_the_smaller_of_limit_and_part() {
        assert_eq!(rate_of(60, 4, 30), 60);
        assert_eq!(rate_of(60, 1, 30), 30);
        assert_eq!(rate_of(0, 2, 30), 60);
        assert_eq!(rate_of(60, 0, 30), 30);
    }

    #[test]
    fn a_clock_far_ahead_is_brought_back() {
        assert_eq!(adjusted(100 * NANOS, NANOS, BURST_NS), NANOS + MAX_AHEAD_NS);
        assert_eq!(adjusted(0, NANOS, BURST_NS), NANOS - BURST_NS);
        assert_eq!(adjusted(NANOS + 5, NANOS, BURST_NS), NANOS + 5);
    }
}
