//! What `bench engine` found: cells of the grid, each with all its rounds, and the targets they are held to.
//!
//! Invariant: a ratio compares a run with the mean of the two nginx runs right before and right after it.

mod chart;
mod noise;
mod targets;

pub use noise::Noise;
pub use targets::{NAIVE, NGINX, Target, Verdict};

use crate::load::Outcome;
use crate::{Machine, document, median};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Everything of one run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EngineReport {
    pub machine: Machine,
    pub conditions: Conditions,
    /// Engines and rivals that were asked for and could not be measured.
    pub errors: BTreeMap<String, String>,
    pub cells: Vec<Cell>,
    pub scenarios: Vec<Verdict>,
    /// Names of the scenarios that were run to their end.
    pub scenarios_run: Vec<String>,
}

impl EngineReport {
    /// What an earlier run left in `dir`; `None` where there is nothing that can be read.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(dir.join("engine.json")).ok()?).ok()
    }

    /// Takes over what `earlier` measured and this one did not.
    pub fn complete_from(&mut self, earlier: Self) {
        let place = |cell: &Cell| (cell.network.clone(), cell.piece_bytes, cell.connections);
        let known: Vec<_> = self.cells.iter().map(place).collect();
        self.cells.extend(earlier.cells.into_iter().filter(|cell| !known.contains(&place(cell))));
        self.cells.sort_by_key(place);
        let known: Vec<_> = self.scenarios.iter().map(|v| (v.what.clone(), v.engine.clone())).collect();
        let missing = |v: &Verdict| !known.contains(&(v.what.clone(), v.engine.clone()));
        self.scenarios.extend(earlier.scenarios.into_iter().filter(missing));
        self.scenarios_run.extend(earlier.scenarios_run);
        self.scenarios_run.sort();
        self.scenarios_run.dedup();
        self.errors.extend(earlier.errors);
    }

    /// Writes `engine.json` and `engine.svg` into `dir`.
    ///
    /// # Errors
    /// A file cannot be written, or the chart not be drawn.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let parts = [
            ("machine", document::value(&self.machine)?),
            ("conditions", document::value(&self.conditions)?),
            ("errors", document::value(&self.errors)?),
            ("noise", document::value(&Noise::of(&self.cells))?),
            ("scenarios_run", document::value(&self.scenarios_run)?),
            ("scenarios", document::value(&self.scenarios)?),
            ("cells", document::value(&self.cells)?),
        ];
        std::fs::write(dir.join("engine.json"), document::text("engine", &parts))?;
        std::fs::write(dir.join("engine.svg"), chart::draw(self).map_err(io::Error::other)?)
    }
}

/// What the figures hold for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Conditions {
    pub congestion: String,
    /// How the server was kept on its CPU.
    pub pinning: String,
    pub versions: Vec<String>,
    /// SHA-256 of hawkerd: figures of different programs do not stand in one file.
    pub program: String,
    /// Of the last minute, before the run: what else the machine was doing.
    pub load_average: f64,
    pub blob_bytes: u64,
    pub rounds: usize,
    /// At least; cells of much data take longer, see there.
    pub window_millis: u64,
    /// Bodies are copied by the client, not dropped in the kernel.
    pub copying_client: bool,
}

/// One point of the grid.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    pub network: String,
    pub piece_bytes: u64,
    pub connections: usize,
    /// Of every measurement of every server in this cell.
    pub window_millis: u64,
    /// All of nginx's runs, in order.
    pub nginx: Vec<Sample>,
    pub engines: BTreeMap<String, Vec<Run>>,
}

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    pub gb_per_second: f64,
    /// CPU seconds of the server per 10⁹ bytes.
    pub cpu_per_gb: f64,
    pub p50_millis: f64,
    pub p99_millis: f64,
    pub slowest_by_mean: f64,
}

impl From<&Outcome> for Sample {
    fn from(outcome: &Outcome) -> Self {
        Self {
            gb_per_second: outcome.main.gb_per_second,
            cpu_per_gb: outcome.server_cpu_per_gb,
            p50_millis: outcome.main.p50_millis,
            p99_millis: outcome.main.p99_millis,
            slowest_by_mean: outcome.main.slowest_by_mean,
        }
    }
}

/// One measurement of an engine between two of nginx.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Run {
    pub sample: Sample,
    /// Each by the mean of the neighbours.
    pub wall: f64,
    pub cpu: f64,
    pub p99: f64,
}

impl Run {
    #[must_use]
    pub fn between(before: Sample, sample: Sample, after: Sample) -> Self {
        let by = |of: fn(&Sample) -> f64| of(&sample) / f64::midpoint(of(&before), of(&after));
        Self { sample, wall: by(|s| s.gb_per_second), cpu: by(|s| s.cpu_per_gb), p99: by(|s| s.p99_millis) }
    }
}

/// Medians of an engine's rounds in a cell.
#[derive(Debug, Clone, Copy)]
pub struct Medians {
    pub sample: Sample,
    pub wall: f64,
    pub cpu: f64,
    pub p99: f64,
}

impl Cell {
    /// `None` where the engine was not measured here.
    #[must_use]
    pub fn medians(&self, engine: &str) -> Option<Medians> {
        let runs = self.engines.get(engine)?;
        let of = |pick: fn(&Run) -> f64| median(&runs.iter().map(pick).collect::<Vec<_>>());
        let samples: Vec<Sample> = runs.iter().map(|run| run.sample).collect();
        let (wall, cpu, p99) = (of(|r| r.wall), of(|r| r.cpu), of(|r| r.p99));
        Some(Medians { sample: medians(&samples), wall, cpu, p99 })
    }

    /// Medians of nginx itself.
    #[must_use]
    pub fn nginx_medians(&self) -> Sample {
        medians(&self.nginx)
    }
}

fn medians(samples: &[Sample]) -> Sample {
    let of = |pick: fn(&Sample) -> f64| median(&samples.iter().map(pick).collect::<Vec<_>>());
    Sample {
        gb_per_second: of(|s| s.gb_per_second),
        cpu_per_gb: of(|s| s.cpu_per_gb),
        p50_millis: of(|s| s.p50_millis),
        p99_millis: of(|s| s.p99_millis),
        slowest_by_mean: of(|s| s.slowest_by_mean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample(gb_per_second: f64) -> Sample {
        Sample { gb_per_second, cpu_per_gb: 0.1, p50_millis: 1.0, p99_millis: 2.0, slowest_by_mean: 1.0 }
    }

    #[test]
    fn a_run_is_compared_with_the_mean_of_its_neighbours() {
        let run = Run::between(sample(4.0), sample(6.0), sample(8.0));
        assert!((run.wall - 1.0).abs() < 1e-9 && (run.cpu - 1.0).abs() < 1e-9);
    }
}
