//! How much P2P may upload so that the node's other traffic has what it wants: a function of what was, what was measured
//! and the time between, in bytes per second as the uplink counts them. Why it is stable: `docs/yield.md`.
//!
//! P2P aims at a link that is nearly full (`target`); everything else aims at a full one. So whatever wants more finds
//! room, and each step in which the link is fuller than the target P2P gives up a part of what it has, down to the
//! floor. What is below the target it takes back, a part of the room at a time.
//!
//! Not how it is measured (`gauge`), nor who among the peers gets what (`division`).
//!
//! Invariant: the limit is never below the floor, and there is none while it is not known what the link carries.

use std::time::Duration;

/// How often it is decided: many times in the second in which P2P must have given way.
pub(super) const EVERY: Duration = Duration::from_millis(50);
/// Longest time one step stands for, whatever passed.
const MAX_STEP: Duration = Duration::from_millis(200);
/// While the link is full P2P falls to 1/e in this time: from all of it to a twentieth in 0.45 s.
const GIVE_WAY: Duration = Duration::from_millis(150);
/// Of what is free P2P takes all but 1/e in this time. What was taken and is not measured yet counts as taken; so four
/// nodes that take at once, of counters a step old, do not overshoot.
const TAKE_BACK: Duration = Duration::from_millis(300);
/// Least growth, parts of the capacity per second: the target is passed by a little, again and again. Nodes that give up
/// a part of what they have and take the same end up with the same (Chiu and Jain, 1989).
const LEAST_GROWTH: f64 = 0.1;
/// A full step over what P2P really sends: a limit far above would fall for long before it is felt.
const SLACK: f64 = 1.25;
/// The floor where none is configured, as a part of the capacity.
const FLOOR: f64 = 0.05;
/// Less than this part of the capacity is nobody to give way to: name service, probes, acknowledgements.
const NOBODY: f64 = 0.02;
/// Of the rates that decide who is there; the link's own fullness is not smoothed.
const SMOOTHING: Duration = Duration::from_millis(200);

/// Growth of a capacity that was only seen, parts per second, once the link is no longer full: slow at first, since it was
/// probably right; doubled every [`PROBE_DOUBLES`] (or the shorter one while nobody else is there to be hurt).
const PROBE: f64 = 0.005;
const PROBE_DOUBLES: Duration = Duration::from_secs(2);
const PROBE_DOUBLES_ALONE: Duration = Duration::from_millis(500);
const MAX_PROBE: f64 = 1.0;
/// P2P wants more where it uses this much of its limit.
const WANTS: f64 = 0.85;
/// Most by which a full link takes a seen capacity down in one step: signs of a full link may be wrong, or late.
const MAX_FALL: f64 = 0.1;

/// What is wished.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wish {
    /// Part of the capacity that P2P lets the link be filled to.
    pub(super) target: f64,
    /// What P2P may have whatever happens, bytes per second; 0: a twentieth of the capacity.
    pub(super) floor: f64,
    /// As configured; 0: found out.
    pub(super) capacity: f64,
    /// Of the link, where its driver tells; something farther on may carry less.
    pub(super) speed: Option<f64>,
}

/// What was measured since the last step, bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Measured {
    /// Hawker's own.
    pub(super) own: f64,
    /// Everything on the uplink.
    pub(super) total: f64,
    /// Something on the way could not take what came: see `gauge`.
    pub(super) full: bool,
}

/// Where the controller stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Yield {
    /// What the link carries, as seen.
    seen: Option<f64>,
    limit: Option<f64>,
    others: f64,
    total: f64,
    was_full: bool,
    last_total: f64,
    calm: Duration,
}

impl Yield {
    /// Goes on from where another stood; 0: not known.
    pub(super) fn following(limit: u64, capacity: u64) -> Self {
        let known = |rate: u64| (rate > 0).then_some(rate as f64);
        Self { seen: known(capacity), limit: known(limit), ..Self::default() }
    }

    /// The limit after another `elapsed`; `None`: there is none.
    pub(super) fn step(&mut self, wish: &Wish, measured: &Measured, elapsed: Duration) -> Option<f64> {
        let elapsed = elapsed.min(MAX_STEP);
        let weight = part(elapsed, SMOOTHING);
        self.others += weight * ((measured.total - measured.own).max(0.0) - self.others);
        self.total += weight * (measured.total - self.total);
        self.look(wish, measured, elapsed);
        let Some(capacity) = self.capacity(wish) else {
            self.limit = None;
            return None;
        };
        let target = wish.target * capacity;
        let floor = if wish.floor > 0.0 { wish.floor } else { FLOOR * capacity };
        let free = (target - self.others).max(floor);
        let limit = self.limit.unwrap_or(free);
        let someone = self.others > NOBODY * capacity;
        // What was given up and is not measured yet.
        let pending = (measured.own - limit).max(0.0);
        // 0 at the target, 1 where the link is full.
        let over = ((measured.total - pending - target) / (capacity - target)).min(1.0);
        let over = if measured.full && someone && pending < capacity - target { 1.0 } else { over };
        let least = LEAST_GROWTH * capacity * elapsed.as_secs_f64();
        let next = if over > 0.0 {
            limit.min(measured.own * SLACK) * (1.0 - over * part(elapsed, GIVE_WAY))
        } else {
            let room = target - (measured.total - measured.own).max(0.0) - limit;
            limit + (room * part(elapsed, TAKE_BACK)).max(least)
        };
        // Where P2P wants less than it may have the limit waits at what is free.
        let next = next.min(free + least).max(floor);
        self.limit = Some(next);
        Some(next)
    }

    /// What the link is taken to carry, bytes per second.
    pub(super) fn capacity(&self, wish: &Wish) -> Option<f64> {
        if wish.capacity > 0.0 {
            return Some(wish.capacity);
        }
        match (self.seen, wish.speed) {
            (Some(seen), Some(speed)) => Some(seen.min(speed)),
            (seen, speed) => seen.or(speed),
        }
    }

    /// Learns what the link carries: what goes through while it is full. Since two steps in a row must be full, the
    /// second was so all the time.
    fn look(&mut self, wish: &Wish, measured: &Measured, elapsed: Duration) {
        let through = measured.total.max(self.last_total);
        if measured.full && self.was_full && through > 0.0 {
            let lowest = self.seen.map_or(0.0, |seen| seen * (1.0 - MAX_FALL));
            self.seen = Some(through.max(lowest));
            self.calm = Duration::ZERO;
        } else if let Some(seen) = self.seen {
            let wants = self.limit.is_some_and(|limit| measured.own > WANTS * limit);
            if wants && !measured.full {
                self.calm += elapsed;
                let alone = self.others < NOBODY * seen;
                let doubles = if alone { PROBE_DOUBLES_ALONE } else { PROBE_DOUBLES };
                let times = self.calm.as_secs_f64() / doubles.as_secs_f64();
                let growth = (PROBE * times.exp2()).min(MAX_PROBE);
                self.seen = Some(seen * (1.0 + growth * elapsed.as_secs_f64()));
            }
            self.seen = self.seen.map(|seen| seen.max(self.total));
        }
        // What the card cannot carry is never seen.
        if let (Some(seen), Some(speed)) = (self.seen, wish.speed) {
            self.seen = Some(seen.min(speed));
        }
        (self.was_full, self.last_total) = (measured.full, measured.total);
    }
}

/// The part of a change that is made in `elapsed`, with this time constant.
fn part(elapsed: Duration, constant: Duration) -> f64 {
    1.0 - (-elapsed.as_secs_f64() / constant.as_secs_f64()).exp()
}

#[cfg(test)]
mod simulation;
