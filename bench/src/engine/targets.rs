//! The targets for serving engines, and whether they were met.
//!
//! Invariant: a target is judged on medians; one that was not measured is not judged.

use super::Cell;
use serde::{Deserialize, Serialize};

pub const NGINX: &str = "nginx";
pub const NAIVE: &str = "naive";

/// Below this piece size the cost of a request counts, above it that of a byte.
const LARGE_PIECE_BYTES: u64 = 256 << 10;
const SMALL_PIECE_BYTES: u64 = 64 << 10;
/// From this many connections on latency is a matter of turns.
const SHARED_CONNECTIONS: usize = 4;

/// What a value is held to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Measured for comparison only.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
            Self::None => true,
        }
    }
}

/// A value and what became of its target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub what: String,
    pub engine: String,
    pub value: f64,
    pub target: Target,
    pub met: bool,
}

impl Verdict {
    #[must_use]
    pub fn new(what: impl Into<String>, engine: &str, value: f64, target: Target) -> Self {
        Self { what: what.into(), engine: engine.to_owned(), value, target, met: target.is_met(value) }
    }

    /// A line for people.
    #[must_use]
    pub fn render(&self) -> String {
        let target = match self.target {
            Target::AtLeast(limit) => format!("at least {limit}"),
            Target::AtMost(limit) => format!("at most {limit}"),
            Target::None => return format!("{:>9}  {}: {:.3}", self.engine, self.what, self.value),
        };
        let met = if self.met { "met" } else { "NOT met" };
        format!("{:>9}  {}: {:.3} ({target}: {met})", self.engine, self.what, self.value)
    }
}

impl Cell {
    /// The engine's ratios that have a target in this cell.
    #[must_use]
    pub fn verdicts(&self, engine: &str, copying_client: bool) -> Vec<Verdict> {
        let Some(ours) = self.medians(engine) else { return Vec::new() };
        let mut verdicts = Vec::new();
        let mut judge =
            |what: &str, value: f64, target| verdicts.push(Verdict::new(what, engine, value, target));
        if self.piece_bytes >= LARGE_PIECE_BYTES {
            judge("wall by nginx", ours.wall, Target::AtLeast(0.95));
            judge("CPU by nginx", ours.cpu, Target::AtMost(1.05));
            if self.connections >= SHARED_CONNECTIONS {
                judge("p99 by nginx", ours.p99, Target::AtMost(0.8));
            }
        } else if self.piece_bytes >= SMALL_PIECE_BYTES {
            judge("wall by nginx", ours.wall, Target::AtLeast(1.25));
        }
        if let Some(naive) = self.medians(NAIVE) {
            let cpu = if copying_client { 0.25 } else { 0.45 };
            judge("wall by naive", ours.wall / naive.wall, Target::AtLeast(2.0));
            judge("CPU by naive", ours.cpu / naive.cpu, Target::AtMost(cpu));
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::{Cell, Run};

    #[test]
    fn small_pieces_are_held_to_throughput_alone() {
        let run = Run::between(sample(1.0), sample(1.2), sample(1.0));
        let engines = std::collections::BTreeMap::from([("io_uring".to_owned(), vec![run])]);
        let cell = |piece_bytes| Cell {
            network: "lo".to_owned(),
            piece_bytes,
            connections: 4,
            window_millis: 400,
            nginx: vec![sample(1.0)],
            engines: engines.clone(),
        };
        let small = cell(64 << 10).verdicts("io_uring", false);
        assert!(small.len() == 1 && !small[0].met, "{small:?}");
        let large = cell(4 << 20).verdicts("io_uring", false);
        assert_eq!(large.iter().map(|verdict| verdict.met).collect::<Vec<_>>(), [true, true, false]);
    }
}
