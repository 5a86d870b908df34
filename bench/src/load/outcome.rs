//! Figures of one run.
//!
//! Invariant: only bytes and answers inside the window count; a ratio of nothing is 0, never a lie.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One run's result, as it goes into files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub seconds: f64,
    pub main: Figures,
    pub side: Option<Figures>,
    /// CPU seconds of all threads of the server's processes, per GB (10⁹ bytes) received of all streams.
    pub server_cpu_per_gb: f64,
    pub server_cpu_seconds: f64,
    pub client_cpu_seconds: f64,
    /// Congestion control of the client's sockets, read back.
    pub congestion: String,
}

/// One stream's part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    pub bytes: u64,
    /// 10⁹ bytes a second.
    pub gb_per_second: f64,
    pub answers: usize,
    pub p50_millis: f64,
    pub p99_millis: f64,
    /// Bytes of the slowest connection by the mean of all.
    pub slowest_by_mean: f64,
}

impl Outcome {
    pub(super) fn new(
        seconds: f64,
        main: Figures,
        side: Option<Figures>,
        (server, client): (f64, f64),
        congestion: String,
    ) -> Self {
        let bytes = main.bytes + side.as_ref().map_or(0, |side| side.bytes);
        Self {
            seconds,
            server_cpu_per_gb: ratio(server, gigabytes(bytes)),
            server_cpu_seconds: server,
            client_cpu_seconds: client,
            main,
            side,
            congestion,
        }
    }
}

/// What is gathered while the window is open.
#[derive(Default)]
pub(super) struct Tally {
    latencies: Vec<Duration>,
}

impl Tally {
    pub(super) fn answered(&mut self, took: Duration) {
        self.latencies.push(took);
    }

    /// `bytes`: of each connection of the stream.
    pub(super) fn figures(&self, bytes: &[u64], seconds: f64) -> Figures {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let total: u64 = bytes.iter().sum();
        let slowest = bytes.iter().min().copied().unwrap_or(0);
        Figures {
            bytes: total,
            gb_per_second: ratio(gigabytes(total), seconds),
            answers: sorted.len(),
            p50_millis: percentile(&sorted, 50),
            p99_millis: percentile(&sorted, 99),
            slowest_by_mean: ratio(float(slowest) * float(bytes.len() as u64), float(total)),
        }
    }
}

/// Nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

fn gigabytes(bytes: u64) -> f64 {
    float(bytes) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator > 0.0 { numerator / denominator } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert!((percentile(&sorted, 50) - 50.0).abs() < 1e-9);
        assert!((percentile(&sorted, 99) - 99.0).abs() < 1e-9);
        assert!((percentile(&sorted[..1], 99) - 1.0).abs() < 1e-9);
        assert!(percentile(&[], 99).abs() < 1e-9);
    }

    #[test]
    fn fairness_is_the_slowest_by_the_mean() {
        let figures = Tally::default().figures(&[50, 100, 150], 1.0);
        assert!((figures.slowest_by_mean - 0.5).abs() < 1e-9);
        assert_eq!(figures.bytes, 300);
    }
}
