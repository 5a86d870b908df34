//! Dividing a total among peers by weight, where some can take only so much: water-filling.
//!
//! Not who is active and how much it can take: the daemon measures that.
//!
//! Invariant: every peer gets the smaller of `weight × level` and its cap, and all together at most the total.

/// One peer's claim on the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Parts; 0 counts as 1.
    pub weight: u32,
    /// The most it can take, bytes per second; `u64::MAX`: anything.
    pub cap: u64,
}

impl Share {
    const fn parts(&self) -> u128 {
        if self.weight == 0 { 1 } else { self.weight as u128 }
    }
}

/// The rate of one part of weight at which `shares` use up `total` (bytes per second). Sorts `shares`.
///
/// Where all caps together leave something of the total it is what one part gets if its peer asks for more:
/// the largest level in use or the remainder, whichever is more; never 0 unless `total` is.
#[must_use]
pub fn water_level(total: u64, shares: &mut [Share]) -> u64 {
    // Those that are full first, by the level at which they are.
    shares.sort_unstable_by(|a, b| (u128::from(a.cap) * b.parts()).cmp(&(u128::from(b.cap) * a.parts())));
    let mut left = u128::from(total);
    let mut parts: u128 = shares.iter().map(Share::parts).sum();
    for share in shares.iter() {
        let level = left / parts.max(1);
        if u128::from(share.cap) > level * share.parts() {
            return clamp(level).max(u64::from(total > 0));
        }
        left -= u128::from(share.cap);
        parts -= share.parts();
    }
    // Rounded up: at this level the last one, too, has all it can take.
    let highest = shares.last().map_or(0, |last| u128::from(last.cap).div_ceil(last.parts()));
    clamp(left.max(highest)).max(u64::from(total > 0))
}

fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANYTHING: u64 = u64::MAX;

    fn taken(level: u64, share: &Share) -> u64 {
        share.cap.min(level.saturating_mul(u64::from(share.weight.max(1))))
    }

    #[test]
    fn weights_divide_what_a_capped_peer_leaves() {
        // 210 by 1:2:4 with the third limited to 60: 50, 100, 60.
        let mut shares = [
            Share { weight: 1, cap: ANYTHING },
            Share { weight: 2, cap: ANYTHING },
            Share { weight: 4, cap: 60 },
        ];
        assert_eq!(water_level(210, &mut shares), 50);
        // The second stops: 150 and 60.
        let mut shares = [Share { weight: 1, cap: ANYTHING }, Share { weight: 4, cap: 60 }];
        assert_eq!(water_level(210, &mut shares), 150);
    }

    #[test]
    fn nobody_and_nothing() {
        assert_eq!(water_level(100, &mut []), 100);
        assert_eq!(water_level(0, &mut [Share { weight: 3, cap: ANYTHING }]), 0);
    }

    proptest! {
        #[test]
        fn the_total_is_held_and_used(
            total in 1_000u64..1 << 50,
            mut shares in proptest::collection::vec(
                (0u32..100, prop_oneof![0u64..1 << 50, Just(ANYTHING)])
                    .prop_map(|(weight, cap)| Share { weight, cap }),
                1..40,
            ),
        ) {
            let level = water_level(total, &mut shares);
            let sum: u128 = shares.iter().map(|share| u128::from(taken(level, share))).sum();
            let caps: u128 = shares.iter().map(|share| u128::from(share.cap)).sum();
            let parts: u128 = shares.iter().map(|share| u128::from(share.weight.max(1))).sum();
            // Whole numbers: one unit a part may be lost; and a level is at least 1.
            if caps > u128::from(total) {
                prop_assert!(sum <= u128::from(total).max(parts), "{sum} of {total}");
                prop_assert!(sum + parts >= u128::from(total), "{sum} of {total}");
            } else {
                prop_assert_eq!(sum, caps);
            }
        }

        #[test]
        fn more_total_never_means_less(
            total in 0u64..1 << 40,
            more in 0u64..1 << 40,
            mut shares in proptest::collection::vec(
                (0u32..9, 0u64..1 << 40).prop_map(|(weight, cap)| Share { weight, cap }), 1..20,
            ),
        ) {
            let low = water_level(total, &mut shares);
            let high = water_level(total + more, &mut shares);
            for share in &shares {
                prop_assert!(taken(high, share) >= taken(low, share));
            }
        }
    }
}
