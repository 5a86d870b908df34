//! What the load of `bench control` did and measured, as its programs print it.
//!
//! Invariant: a request that failed is counted as such, and its time with the others.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What simulated hosts did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HostsOutcome {
    pub hosts: u64,
    /// Reports given to schedulers.
    pub reports: u64,
    /// Of these, given more than half a second after they were due.
    pub late_reports: u64,
    /// Uploaded, by these reports.
    pub bytes: u64,
    /// Streams that ended before the load did, with the first reason.
    pub lost_streams: u64,
    pub first_loss: String,
    pub cpu_seconds: f64,
}

/// How long REST took to answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReadsOutcome {
    pub all: Latency,
    pub by_path: Vec<(String, Latency)>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Latency {
    pub requests: usize,
    /// Not answered, or not with 200.
    pub failed: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    #[must_use]
    pub fn of(times: &[Duration], failed: usize) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        // The smallest time that this part of all is not above.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        Self { requests: sorted.len(), failed, p50: at(50), p99: at(99), max: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_what_was_measured() {
        let times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&times, 3);
        let figures = [latency.p50, latency.p99, latency.max].map(|millis| millis.round());
        assert_eq!((latency.requests, latency.failed), (200, 3));
        assert!(figures.iter().zip([100.0, 198.0, 200.0]).all(|(is, wanted)| (is - wanted).abs() < 1e-9));
        assert!(Latency::of(&[], 0).p99.is_nan());
    }
}
