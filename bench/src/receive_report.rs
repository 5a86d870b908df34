//! What `bench receive` found: each way with each digest, all its rounds.
//!
//! Invariant: as everywhere, the summary comes with every single measurement.

use crate::engine::Verdict;
use crate::{Machine, document, median};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Everything of one run of the benchmark.
#[derive(Debug, Clone, Serialize)]
pub struct ReceiveReport {
    pub machine: Machine,
    pub conditions: Conditions,
    pub rows: Vec<Row>,
    /// One connection over veth, all ways in turns.
    pub streams: Vec<Row>,
    pub verdicts: Vec<Verdict>,
}

/// What the figures hold for.
#[derive(Debug, Clone, Serialize)]
pub struct Conditions {
    /// Who serves.
    pub source: String,
    pub congestion: String,
    pub connections: usize,
    pub blob_bytes: u64,
    /// Into pages that were there; a pull writes into fresh ones.
    pub overwrite: bool,
    pub rounds: usize,
    pub versions: Vec<String>,
}

/// One way of receiving with one digest.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub digest: String,
    pub way: String,
    pub runs: Vec<Received>,
}

/// One whole blob received.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Received {
    pub seconds: f64,
    /// 10⁹ bytes a second.
    pub gb_per_second: f64,
    /// CPU seconds of the receiver per 10⁹ bytes.
    pub cpu_per_gb: f64,
    /// Most memory the receiver had resident, mappings of files with it; 0 where nobody asked.
    pub peak_resident_kib: u64,
}

impl Row {
    /// Medians.
    #[must_use]
    pub fn gb_per_second(&self) -> f64 {
        median(&self.runs.iter().map(|run| run.gb_per_second).collect::<Vec<_>>())
    }

    #[must_use]
    pub fn cpu_per_gb(&self) -> f64 {
        median(&self.runs.iter().map(|run| run.cpu_per_gb).collect::<Vec<_>>())
    }
}

impl ReceiveReport {
    /// Writes `receive.json` into `dir`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let parts = [
            ("machine", document::value(&self.machine)?),
            ("conditions", document::value(&self.conditions)?),
            ("verdicts", document::value(&self.verdicts)?),
            ("rows", document::value(&self.rows)?),
            ("streams", document::value(&self.streams)?),
        ];
        std::fs::write(dir.join("receive.json"), document::text("receive", &parts))
    }
}
