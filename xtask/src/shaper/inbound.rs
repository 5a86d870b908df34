//! Limits of what a node receives, measured in the lab: a child pulls from its parent, a node from the registry.
//!
//! Invariant: downloads are what the parent's kernel sent, origins what the own kernel received; the limits themselves are
//! held in user space.

use crate::binaries;
use crate::interrupt;
use crate::lab::containerd::Via;
use crate::lab::images::{self, Fill, LayerPlan};
use crate::lab::{Lab, Node, Plan};
use anyhow::{Context, Result, anyhow, ensure};
use hawker_bench::shaper::Inbound;
use std::time::{Duration, Instant};

pub(super) const LIMITS_MBIT: [u32; 2] = [40, 200];
/// Long, since a receive buffer more or less crosses the wire within it: up to some megabytes.
const WINDOW: Duration = Duration::from_secs(10);
/// The first seconds hold what went into receive buffers at once.
const WARM_UP: Duration = Duration::from_millis(1500);
const START_LIMIT: Duration = Duration::from_secs(10);
const MBIT: f64 = 1e6;

pub(super) fn measure() -> Result<Vec<Inbound>> {
    let (binaries, mut cells) = (binaries::build()?, Vec::new());
    for limit_mbit in LIMITS_MBIT {
        let shaper =
            format!("{{ downloadLimit: {limit_mbit}Mbps, originLimit: {limit_mbit}Mbps, yield: false }}");
        let plan =
            Plan { peers: vec![2], seeds: false, origin_rate: "1gbit".to_owned(), shaper, use_reports: true };
        let lab = Lab::up(&binaries, &plan)?;
        // Enough for the window half as long again.
        let bytes = limit_mbit as usize * 125_000 * 16;
        let layer = LayerPlan { bytes, fill: Fill::Random };
        let image = images::make(&lab.registry, "inbound", &[layer], u64::from(limit_mbit))?;
        for (what, node, meter) in [
            ("origin", "a1", ("a1", "origin", "received_payload_bytes")),
            ("download", "a2", ("a1", "upload", "sent_payload_bytes")),
        ] {
            let (node, meter) = (lab.node(node)?, (lab.node(meter.0)?, meter.1, meter.2));
            let mbit = std::thread::scope(|scope| {
                let pull = scope.spawn(|| node.containerd.pull(&image.reference, Via::Mirror));
                let rate = rate(meter);
                pull.join().map_err(|_| anyhow!("the pull panicked"))??;
                rate
            })?;
            let error_percent = (mbit / f64::from(limit_mbit) - 1.0) * 100.0;
            let cell = Inbound { what: what.to_owned(), limit_mbit, mbit, error_percent };
            println!("    {}", cell.line());
            cells.push(cell);
        }
    }
    Ok(cells)
}

/// Mbit/s of one class at one node, once it flows.
fn rate((node, class, figure): (&Node, &str, &str)) -> Result<f64> {
    let bytes = || -> Result<u64> {
        let status = node.daemon.status()?;
        let classes = status["shaper"]["classes"].as_array().context("classes")?;
        let found = classes.iter().find(|entry| entry["class"] == class);
        found.and_then(|entry| entry[figure].as_u64()).context("a figure")
    };
    let first = bytes()?;
    interrupt::poll("bytes flow", START_LIMIT, || {
        ensure!(bytes()? > first + 1_000_000, "nothing so far");
        Ok(())
    })?;
    std::thread::sleep(WARM_UP);
    let (before, from) = (bytes()?, Instant::now());
    std::thread::sleep(WINDOW);
    let (after, took) = (bytes()?, from.elapsed());
    Ok((after - before) as f64 * 8.0 / took.as_secs_f64() / MBIT)
}
