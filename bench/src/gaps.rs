//! How long a CPU is taken from who runs on it: by interrupts, and on a virtual machine by the host, which the guest does not
//! see. No server answers meanwhile, so a request's p99 has them in it.
//!
//! Invariant: all CPUs are watched at once, each by a thread that does nothing else.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Shorter ones are clock reads, or nothing that a request would notice.
const SHORTEST: Duration = Duration::from_micros(20);
/// From here on a gap is a good part of what a piece of 256 KiB takes among 16 connections.
const LONG: Duration = Duration::from_micros(200);
const WATCH: Duration = Duration::from_secs(2);

/// Of one CPU, with nothing else of this benchmark running.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    pub cpu: usize,
    /// Of more than 0.2 ms.
    pub long_per_second: f64,
    pub longest_millis: f64,
    /// Share of the time, gaps of more than 20 µs.
    pub lost: f64,
}

impl Gaps {
    /// A line for people.
    #[must_use]
    pub fn render(&self) -> String {
        let Self { cpu, long_per_second, longest_millis, lost } = self;
        let percent = lost * 100.0;
        format!(
            "CPU {cpu} was away {percent:.1} % of the time, {long_per_second:.0} times a second for more than 0.2 ms, {longest_millis:.1} ms at the longest"
        )
    }
}

/// Watches every CPU of this process for two seconds.
#[must_use]
pub fn watch() -> Vec<Gaps> {
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let cpus = (0..CpuSet::count()).filter(|cpu| ours.is_set(*cpu).unwrap_or(false));
    let watching: Vec<_> = cpus.map(|cpu| std::thread::spawn(move || on(cpu))).collect();
    watching.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
}

fn on(cpu: usize) -> Option<Gaps> {
    let mut set = CpuSet::new();
    set.set(cpu).ok()?;
    sched_setaffinity(Pid::from_raw(0), &set).ok()?;
    let (started, mut last) = (Instant::now(), Instant::now());
    let mut found = Found::default();
    while last.duration_since(started) < WATCH {
        let now = Instant::now();
        found.note(now.duration_since(last));
        last = now;
    }
    Some(found.over(cpu, last.duration_since(started)))
}

#[derive(Debug, Default)]
struct Found {
    long: u32,
    longest: Duration,
    lost: Duration,
}

impl Found {
    fn note(&mut self, gap: Duration) {
        if gap > SHORTEST {
            self.lost += gap;
            self.longest = self.longest.max(gap);
            self.long += u32::from(gap > LONG);
        }
    }

    fn over(&self, cpu: usize, time: Duration) -> Gaps {
        Gaps {
            cpu,
            long_per_second: f64::from(self.long) / time.as_secs_f64(),
            longest_millis: self.longest.as_secs_f64() * 1e3,
            lost: self.lost.as_secs_f64() / time.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_by_their_length() {
        let mut found = Found::default();
        for micros in [1, 19, 30, 150, 300, 5000] {
            found.note(Duration::from_micros(micros));
        }
        let gaps = found.over(1, Duration::from_millis(500));
        assert_eq!((gaps.cpu, gaps.long_per_second, gaps.longest_millis), (1, 4.0, 5.0));
        assert!((gaps.lost - 0.01096).abs() < 1e-9, "{gaps:?}");
    }
}
