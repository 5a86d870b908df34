//! What benchmarks measure and how figures become results: medians, ratios to a named rival, and a file
//! that says on what machine.
//!
//! Not the measuring itself. Invariant: a result carries every single measurement, not only the summary.

#[cfg(feature = "control")]
pub mod control;
pub mod control_report;
pub mod cpu;
mod document;
pub mod engine;
pub mod gaps;
pub mod load;
#[cfg(feature = "programs")]
pub mod receive;
pub mod receive_report;
pub mod shaper;

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// One thing measured against a rival in the same run.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub what: String,
    pub rival: String,
    pub seconds: Vec<f64>,
    pub rival_seconds: Vec<f64>,
    pub median_seconds: f64,
    pub rival_median_seconds: f64,
    /// Ours by theirs: below 1 is faster.
    pub ratio: f64,
    pub target: f64,
    pub met: bool,
}

impl Comparison {
    #[must_use]
    pub fn new(what: &str, rival: &str, ours: &[Duration], theirs: &[Duration], target: f64) -> Self {
        let (seconds, rival_seconds) = (seconds(ours), seconds(theirs));
        let (median_seconds, rival_median_seconds) = (median(&seconds), median(&rival_seconds));
        let ratio = median_seconds / rival_median_seconds;
        let (what, rival, met) = (what.to_owned(), rival.to_owned(), ratio <= target);
        Self { what, rival, seconds, rival_seconds, median_seconds, rival_median_seconds, ratio, target, met }
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "NOT met" }
}

/// The middle value; of two middle ones the mean; NaN of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

/// One thing measured against a bound of its own.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    #[serde(flatten)]
    pub bound: Option<Bound>,
}

/// What a figure is judged by.
#[derive(Debug, Clone, Serialize)]
pub struct Bound {
    pub at_most: f64,
    pub met: bool,
}

impl Figure {
    #[must_use]
    pub fn new(what: &str, value: f64, unit: &'static str, at_most: f64) -> Self {
        let bound = Some(Bound { at_most, met: value <= at_most });
        Self { bound, ..Self::told(what, value, unit) }
    }

    /// One that nothing is asked of.
    #[must_use]
    pub fn told(what: &str, value: f64, unit: &'static str) -> Self {
        Self { what: what.to_owned(), value, unit, bound: None }
    }
}

/// All that one run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub bench: String,
    pub machine: Machine,
    pub comparisons: Vec<Comparison>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
}

/// What the figures depend on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    /// Of each CPU, where it was watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<gaps::Gaps>,
}

impl Machine {
    /// This one, as far as `/proc` tells.
    #[must_use]
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            gaps: Vec::new(),
        }
    }

    /// With what takes its CPUs away. Takes two seconds.
    #[must_use]
    pub fn watched() -> Self {
        Self { gaps: gaps::watch(), ..Self::here() }
    }
}

impl Report {
    #[must_use]
    pub fn new(bench: &str, comparisons: Vec<Comparison>) -> Self {
        Self { bench: bench.to_owned(), machine: Machine::here(), comparisons, figures: Vec::new() }
    }

    /// A line per comparison and figure, for people.
    #[must_use]
    pub fn render(&self) -> String {
        let line = |c: &Comparison| {
            format!(
                "{}: median {:.3} s, {}: median {:.3} s; ratio {:.3} (target {:.2}, {})\n",
                c.what,
                c.median_seconds,
                c.rival,
                c.rival_median_seconds,
                c.ratio,
                c.target,
                verdict(c.met)
            )
        };
        let figure = |f: &Figure| {
            let bound = f.bound.as_ref();
            let judged = bound.map(|b| format!(" (at most {:.0}, {})", b.at_most, verdict(b.met)));
            format!("{}: {:.2} {}{}\n", f.what, f.value, f.unit, judged.unwrap_or_default())
        };
        self.comparisons.iter().map(line).chain(self.figures.iter().map(figure)).collect()
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_ratio_above_the_target_says_so() {
        let times = |millis: [u64; 3]| millis.map(Duration::from_millis);
        let slow = Comparison::new("a", "b", &times([150, 140, 900]), &times([100, 100, 100]), 1.3);
        assert!(!slow.met && (slow.ratio - 1.5).abs() < 1e-9);
        let mut report = Report::new("x", vec![slow]);
        assert!(report.render().contains("NOT met"));
        report.figures.push(Figure::new("memory", 63.04, "MiB", 64.0));
        assert!(report.render().ends_with("memory: 63.04 MiB (at most 64, met)\n"));
    }
}
