//! CPU time of processes, all their threads together: io-wq and SQPOLL threads of a ring are in it, and
//! threads that have ended.
//!
//! Invariant: a process that is gone counts as 0, so a figure never includes somebody else.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::time::Duration;

/// CPU seconds the processes have used since they began.
#[must_use]
pub fn of_processes(pids: &[i32]) -> f64 {
    pids.iter().filter_map(|pid| of(Pid::from_raw(*pid))).map(|time| time.as_secs_f64()).sum()
}

/// CPU time of this process.
#[must_use]
pub fn own() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, duration)
}

fn of(pid: Pid) -> Option<Duration> {
    let clock = ClockId::pid_cpu_clock_id(pid).ok()?;
    clock_gettime(clock).ok().map(duration)
}

fn duration(time: TimeSpec) -> Duration {
    Duration::from(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_own_time() {
        let before = own();
        let mut sum = 0u64;
        while own() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(of_processes(&[pid]) >= 0.005);
    }
}
