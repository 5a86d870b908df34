//! End-to-end case of limits while one daemon follows another: the former's answers are still under way, the next one's begin.
//!
//! Invariant: judged by what the interface sent: readers that wait for a processor get in bursts what came evenly.

use super::cases::loaded;
use super::stand::{self, Stand};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const MBIT: f64 = 1e6;
const LIMIT_MBIT: f64 = 100.0;
/// Connections of the peer to each of the two daemons.
const CONNECTIONS: usize = 4;
const WARM_UP: Duration = Duration::from_millis(1500);
/// A former daemon accepts connections that were on their way for a second.
const ACCEPT_GRACE: Duration = Duration::from_millis(1200);
/// How often the readers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What one window may be over the limit by, once the first after a change has passed.
const WINDOW: Duration = Duration::from_millis(250);
const MAX_OVER: f64 = 1.10;
/// In user space: each of the former's connections has a slot reserved, of 20 ms at the whole limit.
const MAX_OVER_IN_USER_SPACE: f64 = 1.25;
/// A former daemon has cut its last answers.
const END_LIMIT: Duration = Duration::from_secs(15);

/// The limit of all peers, one peer's own, and the total; in the kernel, and in user space.
pub(super) fn limits_hold(stand: &mut Stand) -> Result<()> {
    let own = format!("peers: [{{ network: {}, limit: 100Mbps }}]", stand::address(0));
    let mut missed = Vec::new();
    for (what, shaper) in [
        ("a limit of every peer", "{ mode: require, perPeerLimit: 100Mbps }".to_owned()),
        ("a limit of its own", format!("{{ mode: require, {own} }}")),
        ("a total", "{ mode: require, uploadLimit: 100Mbps }".to_owned()),
        ("a limit of every peer, in user space", "{ mode: off, perPeerLimit: 100Mbps }".to_owned()),
    ] {
        stand.start(&shaper)?;
        let course = Course::take(stand)?;
        println!("    {what}: {}", course.line());
        let over = if shaper.contains("off") { MAX_OVER_IN_USER_SPACE } else { MAX_OVER };
        if course.highest() > LIMIT_MBIT * over {
            missed.push(format!("{what}: {:.1} Mbit/s of {LIMIT_MBIT}", course.highest()));
        }
        ensure!(course.both().1 > LIMIT_MBIT / 2.0, "{what}: hardly anything came from both");
    }
    stand.stop()?;
    ensure!(loaded()?.is_empty(), "programs left: {:?}", loaded()?);
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    Ok(())
}

/// What was sent to the peer, from before the next daemon starts until the former has ended.
struct Course {
    /// Seconds since the start of the next daemon, and bytes.
    samples: Vec<(f64, u64)>,
    served: f64,
    ended: f64,
}

impl Course {
    fn take(stand: &mut Stand) -> Result<Self> {
        let first = stand.read(0, CONNECTIONS)?;
        std::thread::sleep(WARM_UP);
        let (started, mut samples) = (Instant::now(), Vec::new());
        let mut look = || {
            let counted = stand::interface()?;
            samples.push((counted.at.duration_since(started).as_secs_f64(), counted.sent));
            Ok(())
        };
        let mut former = stand.follow(&mut look, LOOK_EVERY)?;
        let served = started.elapsed().as_secs_f64();
        // For so long either of them accepts.
        while started.elapsed().as_secs_f64() < served + ACCEPT_GRACE.as_secs_f64() {
            std::thread::sleep(LOOK_EVERY);
            look()?;
        }
        let second = stand.read(0, CONNECTIONS)?;
        let deadline = Instant::now() + END_LIMIT;
        while former.check().is_ok() {
            ensure!(Instant::now() < deadline, "the former daemon does not end");
            std::thread::sleep(LOOK_EVERY);
            look()?;
        }
        former.leave();
        drop((first, second));
        let ended = started.elapsed().as_secs_f64();
        Ok(Self { samples, served, ended })
    }

    /// Length in seconds and Mbit/s between two moments.
    fn between(&self, from: f64, to: f64) -> (f64, f64) {
        let inside: Vec<_> = self.samples.iter().filter(|(at, _)| (from..=to).contains(at)).collect();
        match (inside.first(), inside.last()) {
            (Some(first), Some(last)) if last.0 > first.0 => {
                let seconds = last.0 - first.0;
                (seconds, (last.1 - first.1) as f64 * 8.0 / seconds / MBIT)
            }
            _ => (0.0, 0.0),
        }
    }

    fn alone(&self) -> (f64, f64) {
        self.between(0.0, self.served)
    }

    fn both(&self) -> (f64, f64) {
        self.between(self.served, self.ended)
    }

    /// Of any window, Mbit/s.
    fn highest(&self) -> f64 {
        let window = WINDOW.as_secs_f64();
        let from = self.samples.iter().map(|(at, _)| *at).filter(|at| at + window <= self.ended);
        from.map(|at| self.between(at, at + window).1).fold(0.0, f64::max)
    }

    fn line(&self) -> String {
        let (alone, both) = (self.alone(), self.both());
        format!(
            "{:.1} of {LIMIT_MBIT} Mbit/s in {:.2} s until the next daemon served, {:.1} in {:.2} s while both did; \
             highest in {} ms: {:.1}",
            alone.1,
            alone.0,
            both.1,
            both.0,
            WINDOW.as_millis(),
            self.highest()
        )
    }
}
