//! What `bench shaper` measured, and its files: JSON with a line a figure, and the rate over time as a picture.
//!
//! Invariant: targets are the ones of the product's issue; a missed one is shown as missed.

mod chart;

use crate::Machine;
use serde::Serialize;
use std::io;
use std::path::Path;

/// Largest mean error of a limit, percent: with BBR below 100 Mbit/s it may be more.
const MAX_ERROR_PERCENT: f64 = 1.0;
const MAX_BBR_SLOW_ERROR_PERCENT: f64 = 3.0;
/// Largest deviation of a share, percent.
const MAX_SHARE_PERCENT: f64 = 3.0;
/// Longest time until a new limit holds, seconds.
const MAX_SETTLING_SECONDS: f64 = 0.5;
/// Within this part of the limit it holds; a sample of 50 ms is a few segments at low rates.
const HOLDS_WITHIN: f64 = 0.1;
/// Largest deviation of a download or origin limit, percent.
const MAX_INBOUND_PERCENT: f64 = 3.0;
/// What a competing flow keeps of what it gets alone, beside P2P that keeps at least this part of the link.
const MIN_FLOW_PART: f64 = 0.9;
const MIN_FLOOR_PART: f64 = 0.04;
/// Seconds until P2P gave way, and until it is back.
const MAX_GIVING_WAY_SECONDS: f64 = 1.0;
const MAX_COMING_BACK_SECONDS: f64 = 2.0;
/// CPU with programs by CPU without.
const MAX_COST: f64 = 1.05;

#[derive(Debug, Clone, Serialize)]
pub struct ShaperReport {
    pub machine: Machine,
    pub accuracy: Vec<Accuracy>,
    pub division: Vec<Division>,
    pub convergence: Vec<Sample>,
    pub inbound: Vec<Inbound>,
    pub yielding: Vec<Yielding>,
    pub cost: Cost,
}

/// A limit of what a node receives.
#[derive(Debug, Clone, Serialize)]
pub struct Inbound {
    /// `download` or `origin`.
    pub what: String,
    pub limit_mbit: u32,
    pub mbit: f64,
    pub error_percent: f64,
}

/// Uploads beside a flow of the node's own, Mbit/s and seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Yielding {
    pub congestion: String,
    pub uplink_mbit: u32,
    pub p2p_alone_mbit: f64,
    pub flow_alone_mbit: f64,
    pub flow_mbit: f64,
    pub p2p_mbit: f64,
    pub p2p_least_mbit: f64,
    pub gave_way_seconds: f64,
    pub back_seconds: f64,
}

/// One peer's limit over so many connections.
#[derive(Debug, Clone, Serialize)]
pub struct Accuracy {
    pub limit_mbit: u32,
    pub congestion: String,
    pub connections: usize,
    pub mbit: f64,
    pub error_percent: f64,
    pub retransmits: u64,
}

/// A total divided among three peers.
#[derive(Debug, Clone, Serialize)]
pub struct Division {
    pub what: String,
    pub congestion: String,
    pub mbit: Vec<f64>,
    pub wanted: Vec<f64>,
}

/// The rate over 50 ms, and the limit then.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub seconds: f64,
    pub mbit: f64,
    pub limit_mbit: u32,
}

/// CPU seconds per GB, round by round, and the ratio of the medians.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    pub with: Vec<f64>,
    pub without: Vec<f64>,
    pub ratio: f64,
}

impl Accuracy {
    #[must_use]
    pub fn met(&self) -> bool {
        let slow_bbr = self.congestion == "bbr" && self.limit_mbit < 100;
        self.error_percent.abs() <= if slow_bbr { MAX_BBR_SLOW_ERROR_PERCENT } else { MAX_ERROR_PERCENT }
    }

    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} Mbit/s, {} x {}: {:.2} Mbit/s, {:+.2} %, {} retransmits{}",
            self.limit_mbit,
            self.connections,
            self.congestion,
            self.mbit,
            self.error_percent,
            self.retransmits,
            verdict(self.met())
        )
    }
}

impl Division {
    #[must_use]
    pub fn met(&self) -> bool {
        let near = |(mbit, wanted): (&f64, &f64)| {
            *wanted == 0.0 || (mbit / wanted - 1.0).abs() * 100.0 <= MAX_SHARE_PERCENT
        };
        self.mbit.iter().zip(&self.wanted).all(near)
    }

    #[must_use]
    pub fn line(&self) -> String {
        let list =
            |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.1}")).collect::<Vec<_>>().join(", ");
        let (got, wanted) = (list(&self.mbit), list(&self.wanted));
        format!("{} ({}): {got} Mbit/s of {wanted}{}", self.what, self.congestion, verdict(self.met()))
    }
}

impl Inbound {
    #[must_use]
    pub fn met(&self) -> bool {
        self.error_percent.abs() <= MAX_INBOUND_PERCENT
    }

    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} limit {} Mbit/s: {:.2} Mbit/s, {:+.2} %{}",
            self.what,
            self.limit_mbit,
            self.mbit,
            self.error_percent,
            verdict(self.met())
        )
    }
}

impl Yielding {
    /// The flow has its part, P2P its floor, both in time.
    #[must_use]
    pub fn met(&self) -> [bool; 4] {
        [
            self.flow_mbit >= MIN_FLOW_PART * self.flow_alone_mbit,
            self.p2p_least_mbit >= MIN_FLOOR_PART * f64::from(self.uplink_mbit),
            self.gave_way_seconds <= MAX_GIVING_WAY_SECONDS,
            self.back_seconds <= MAX_COMING_BACK_SECONDS,
        ]
    }

    #[must_use]
    pub fn line(&self) -> String {
        let [flow, floor, way, back] = self.met().map(verdict);
        format!(
            "giving way on {} Mbit/s ({}): P2P alone {:.1}; a flow {:.1} alone, {:.1} beside P2P ({:.1} %){flow}; \
             P2P {:.1} meanwhile, least {:.1}{floor}; gave way after {:.1} s{way}, back after {:.1} s{back}",
            self.uplink_mbit,
            self.congestion,
            self.p2p_alone_mbit,
            self.flow_alone_mbit,
            self.flow_mbit,
            self.flow_mbit / self.flow_alone_mbit * 100.0,
            self.p2p_mbit,
            self.p2p_least_mbit,
            self.gave_way_seconds,
            self.back_seconds
        )
    }
}

impl Cost {
    #[must_use]
    pub fn met(&self) -> bool {
        self.ratio <= MAX_COST
    }

    #[must_use]
    pub fn line(&self) -> String {
        let (with, without) = (crate::median(&self.with), crate::median(&self.without));
        format!(
            "CPU per GB: {with:.3} s with the programs, {without:.3} s without; ratio {:.3}{}",
            self.ratio,
            verdict(self.met())
        )
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "" } else { " (NOT met)" }
}

/// For each limit in turn, seconds until the rate stayed near it for good.
#[must_use]
pub fn settled(samples: &[Sample]) -> Vec<(u32, f64)> {
    samples
        .chunk_by(|a, b| a.limit_mbit == b.limit_mbit)
        .map(|step| {
            let limit = f64::from(step[0].limit_mbit);
            let off = |sample: &Sample| (sample.mbit / limit - 1.0).abs() > HOLDS_WITHIN;
            let last = step.iter().rev().find(|sample| off(sample));
            // A sample is the time before it.
            let begin = step[0].seconds - 0.05;
            (step[0].limit_mbit, last.map_or(0.0, |last| last.seconds - begin))
        })
        .collect()
}

impl ShaperReport {
    /// Targets missed, of how many.
    #[must_use]
    pub fn missed(&self) -> (usize, usize) {
        let settling = settled(&self.convergence).into_iter().map(|(_, after)| after <= MAX_SETTLING_SECONDS);
        let all: Vec<bool> = self
            .accuracy
            .iter()
            .map(Accuracy::met)
            .chain(self.division.iter().map(Division::met))
            .chain(settling)
            .chain(self.inbound.iter().map(Inbound::met))
            .chain(self.yielding.iter().flat_map(Yielding::met))
            .chain([self.cost.met()])
            .collect();
        (all.iter().filter(|met| !**met).count(), all.len())
    }

    /// Writes `shaper.json` and `shaper.svg` into `dir`.
    ///
    /// # Errors
    /// A file cannot be written, or the chart not be drawn.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let lines = |figures: Vec<serde_json::Value>| {
            let lines: Vec<String> = figures.iter().map(|figure| format!("  {figure}")).collect();
            format!("[\n{}\n]", lines.join(",\n"))
        };
        let text = format!(
            "{{\n\"bench\": \"shaper\",\n\"machine\": {},\n\"accuracy\": {},\n\"division\": {},\n\"inbound\": {},\n\"yield\": {},\n\"cost\": {},\n\"convergence\": {}\n}}\n",
            serde_json::to_string(&self.machine)?,
            lines(values(&self.accuracy)?),
            lines(values(&self.division)?),
            lines(values(&self.inbound)?),
            lines(values(&self.yielding)?),
            rounded(serde_json::to_value(&self.cost)?),
            lines(values(&self.convergence)?),
        );
        std::fs::write(dir.join("shaper.json"), text)?;
        std::fs::write(dir.join("shaper.svg"), chart::draw(&self.convergence).map_err(io::Error::other)?)
    }
}

fn values<T: Serialize>(figures: &[T]) -> io::Result<Vec<serde_json::Value>> {
    figures.iter().map(|figure| Ok(rounded(serde_json::to_value(figure)?))).collect()
}

/// Thousandths are more than figures are worth.
fn rounded(mut value: serde_json::Value) -> serde_json::Value {
    match &mut value {
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(|field| *field = rounded(field.take()));
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(|entry| *entry = rounded(entry.take())),
        serde_json::Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or(f64::NAN);
            value = serde_json::Value::from((exact * 1000.0).round() / 1000.0);
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, mbit: f64, limit_mbit: u32) -> Sample {
        Sample { seconds, mbit, limit_mbit }
    }

    #[test]
    fn a_limit_holds_after_the_last_sample_that_is_off() {
        let samples = [
            sample(0.05, 100.0, 100),
            sample(0.10, 99.0, 100),
            sample(0.15, 100.0, 50),
            sample(0.20, 70.0, 50),
            sample(0.25, 51.0, 50),
        ];
        let settled = settled(&samples);
        assert!(settled[0].1.abs() < 1e-9 && (settled[1].1 - 0.1).abs() < 1e-9, "{settled:?}");
    }

    #[test]
    fn slow_bbr_may_be_less_exact() {
        let cell = |congestion: &str, limit_mbit, error_percent| Accuracy {
            limit_mbit,
            congestion: congestion.to_owned(),
            connections: 1,
            mbit: 0.0,
            error_percent,
            retransmits: 0,
        };
        assert!(cell("bbr", 20, 2.5).met() && !cell("bbr", 100, 2.5).met() && !cell("cubic", 20, -1.5).met());
        assert!(cell("cubic", 20, -1.5).line().ends_with("(NOT met)"));
    }
}
