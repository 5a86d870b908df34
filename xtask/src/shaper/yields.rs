//! Giving way: the daemon's uplink carries 200 Mbit/s, peers read as fast as they can, and for a while a TCP flow of the
//! node's own (iperf3) competes.
//!
//! Invariant: figures are what receivers got: the readers of the blob, and iperf3's server.

use super::readers::Readers;
use super::stand::{self, Stand};
use crate::command::{SHORT, check};
use crate::netns;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The uplink, Mbit/s.
pub(super) const UPLINK_MBIT: u32 = 200;
const CONNECTIONS: usize = 4;
const SAMPLE: Duration = Duration::from_millis(100);
/// Until P2P has found out what the link carries.
const WARM_UP: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_secs(4);
/// Within these P2P has given way, and is back.
const GIVE_WAY_SECONDS: f64 = 1.0;
const BACK_SECONDS: f64 = 2.0;
const MBIT: f64 = 1e6;

/// What was measured, Mbit/s.
pub(super) struct Yielding {
    /// P2P with nobody else, and what the flow gets with nobody else.
    pub(super) p2p_alone: f64,
    pub(super) flow_alone: f64,
    /// The flow beside P2P, from its first byte to its last.
    pub(super) flow: f64,
    /// P2P beside the flow: the mean, and the least in half a second.
    pub(super) p2p: f64,
    pub(super) p2p_least: f64,
    /// Seconds until P2P was below a tenth of the link, since the flow began; and above 90 %, since it ended.
    pub(super) gave_way: f64,
    pub(super) back: f64,
}

/// Runs the whole with the flow for `seconds`.
pub(super) fn measure(stand: &mut Stand, shaper: &str, congestion: &str, seconds: u32) -> Result<Yielding> {
    netns::shape(&stand::server(), "eth0", &format!("{UPLINK_MBIT}mbit"))?;
    stand.congestion(congestion)?;
    let flow_alone = Flow::begin(seconds)?.rate()?;
    stand.start(shaper)?;
    let readers = stand.read(0, CONNECTIONS)?;
    let p2p_alone = readers.rate(WARM_UP, Duration::from_secs(3)) / MBIT;
    let mut samples = Samples { readers: &readers, began: Instant::now(), list: Vec::new() };
    samples.take(false, || true);
    let mut flow = Flow::begin(seconds)?;
    let from = samples.began.elapsed().as_secs_f64();
    samples.take(true, || flow.ended());
    let to = samples.began.elapsed().as_secs_f64();
    let flow = flow.rate()?;
    let end = Instant::now() + AFTER;
    samples.take(false, || Instant::now() > end);
    let list = samples.list;
    let during: Vec<f64> = list.iter().filter(|sample| sample.2).map(|sample| sample.1).collect();
    let settled = &during[during.len().min(10)..];
    let below = list.iter().find(|(at, mbit, _)| *at > from && *mbit < 0.1 * f64::from(UPLINK_MBIT));
    let above = list.iter().find(|(at, mbit, _)| *at > to && *mbit > 0.9 * f64::from(UPLINK_MBIT));
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    Ok(Yielding {
        p2p_alone,
        flow_alone,
        flow,
        p2p: mean(settled),
        p2p_least: settled.windows(5).map(mean).fold(f64::MAX, f64::min),
        gave_way: below.map_or(f64::INFINITY, |sample| sample.0 - from),
        back: above.map_or(f64::INFINITY, |sample| sample.0 - to),
    })
}

impl Yielding {
    pub(super) fn figures(&self, congestion: &str) -> hawker_bench::shaper::Yielding {
        hawker_bench::shaper::Yielding {
            congestion: congestion.to_owned(),
            uplink_mbit: UPLINK_MBIT,
            p2p_alone_mbit: self.p2p_alone,
            flow_alone_mbit: self.flow_alone,
            flow_mbit: self.flow,
            p2p_mbit: self.p2p,
            p2p_least_mbit: self.p2p_least,
            gave_way_seconds: self.gave_way,
            back_seconds: self.back,
        }
    }

    pub(super) fn lines(&self) -> [String; 3] {
        [
            format!(
                "P2P alone {:.1} of {UPLINK_MBIT} Mbit/s; the flow alone {:.1}",
                self.p2p_alone, self.flow_alone
            ),
            format!(
                "beside each other: the flow {:.1} ({:.1} % of what it gets alone), P2P {:.1} (least in 0.5 s: {:.1}), \
                 below a tenth after {:.1} s",
                self.flow,
                self.flow / self.flow_alone * 100.0,
                self.p2p,
                self.p2p_least,
                self.gave_way
            ),
            format!("P2P above 90 % of the link {:.1} s after the flow ended", self.back),
        ]
    }
}

/// The uplink as it was.
pub(super) fn unshape() -> Result<()> {
    let words = ["-n", &stand::server(), "qdisc", "del", "dev", "eth0", "root"];
    check(Command::new("tc").args(words), SHORT).map(drop)
}

/// Peers give up the link within a second and are back within two; the flow has what it has alone.
pub(super) fn gives_way(stand: &mut Stand) -> Result<()> {
    let figures = measure(stand, "{ mode: require }", "cubic", 6)?;
    let status = stand.status()?;
    println!("    {}", status["shaper"]["reason"]);
    figures.lines().iter().for_each(|line| println!("    {line}"));
    ensure!(figures.p2p_alone > 0.85 * f64::from(UPLINK_MBIT), "alone {:.1} Mbit/s", figures.p2p_alone);
    ensure!(figures.flow > 0.8 * figures.flow_alone, "the flow has {:.1} Mbit/s", figures.flow);
    ensure!(figures.p2p_least > 0.02 * f64::from(UPLINK_MBIT), "P2P has {:.1} Mbit/s", figures.p2p_least);
    // Within the bounds that are promised, and the sample in which it is seen.
    let seen = SAMPLE.as_secs_f64();
    ensure!(figures.gave_way <= GIVE_WAY_SECONDS + seen, "P2P gave way after {:.1} s", figures.gave_way);
    ensure!(figures.back <= BACK_SECONDS + seen, "P2P is back after {:.1} s", figures.back);
    let capacity = status["shaper"]["yield_capacity"].as_u64().unwrap_or(0) as f64 * 8.0 / MBIT;
    ensure!((150.0..250.0).contains(&capacity), "the uplink is taken to carry {capacity:.0} Mbit/s");
    Ok(())
}

struct Samples<'a> {
    readers: &'a Readers,
    began: Instant,
    /// Seconds, Mbit/s, whether the flow ran.
    list: Vec<(f64, f64, bool)>,
}

impl Samples<'_> {
    /// Samples until `done` says so; at least one.
    fn take(&mut self, flow: bool, mut done: impl FnMut() -> bool) {
        let (mut bytes, mut at) = (self.readers.bytes(), Instant::now());
        loop {
            std::thread::sleep(SAMPLE);
            let (now, total) = (Instant::now(), self.readers.bytes());
            let mbit = (total - bytes) as f64 * 8.0 / (now - at).as_secs_f64() / MBIT;
            self.list.push(((now - self.began).as_secs_f64(), mbit, flow));
            (bytes, at) = (total, now);
            if done() {
                return;
            }
        }
    }
}

/// An iperf3 flow from the daemon's namespace to the readers'; its processes end with the value.
struct Flow {
    server: Child,
    client: Child,
}

impl Flow {
    fn begin(seconds: u32) -> Result<Self> {
        let spawn = |namespace: &str, words: &[&str]| {
            let mut command: Command = netns::command(namespace, "iperf3");
            command.args(words).stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().context("start iperf3")
        };
        let server = spawn(&stand::client(), &["--server", "--one-off", "--json"])?;
        // It says nothing when it listens.
        std::thread::sleep(Duration::from_millis(300));
        let (to, time) = (stand::address(0).to_string(), seconds.to_string());
        let client = spawn(&stand::server(), &["--client", &to, "--time", &time, "--json"])?;
        Ok(Self { server, client })
    }

    fn ended(&mut self) -> bool {
        self.client.try_wait().map_or(true, |status| status.is_some())
    }

    /// Waits for its end; what the receiver got, Mbit/s.
    fn rate(mut self) -> Result<f64> {
        let output = std::io::read_to_string(self.client.stdout.take().context("iperf3 has an output")?)?;
        let said: Value = serde_json::from_str(&output).context("read what iperf3 says")?;
        let rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(rate.with_context(|| format!("iperf3 measured nothing: {}", said["error"]))? / MBIT)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
