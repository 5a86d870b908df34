//! `cargo xtask bench get`: a large file from a peer by `hawker get`, against `curl` from nginx over the same link;
//! and what the daemon's memory does meanwhile.
//!
//! Invariant: both write a whole new file to the same disk (a hard link is named where it is one); the rival is nginx with
//! sendfile, not slowed down.

use crate::command::{LONG, check};
use crate::lab::network::Cluster;
use crate::lab::nginx::{self, Nginx};
use crate::lab::registry::Registry;
use crate::lab::{FILES_NAME, Lab, Node, Plan, data_dir};
use crate::setup::{self, Ability};
use crate::{binaries, netns, workspace};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hawker_bench::{Comparison, Figure, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The link's rate in the shaped part: a node with a gigabit card.
const LINK_RATE: &str = "1gbit";
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Most memory above idle, whatever the file's size.
const MEMORY_TARGET_MIB: f64 = 64.0;

#[derive(Args)]
pub(crate) struct Options {
    /// Size of the file, MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Also a sparse file of this size, GiB, straight from the origin, for the memory alone; needs so much disk.
    #[arg(long, default_value_t = 0)]
    sparse_gib: u64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Ability::NoLab(why) = setup::run()? {
        bail!("the benchmark needs the lab: {why}");
    }
    let binaries = binaries::build()?;
    let plan = Plan { peers: vec![2], seeds: false, ..Plan::default() };
    let mut lab = Lab::up(&binaries, &plan)?;
    if options.sparse_gib > 0 {
        // It is to pass through the store, not beside it.
        let capacity = options.sparse_gib + (options.mib >> 10) + 1;
        lab.node_mut("a2")?.daemon.with_capacity(&format!("{capacity}GiB"))?;
    }
    let _near = Registry::start_near(Cluster::A)?;
    let nginx = Nginx::start_near(Cluster::A)?;
    let bench = Bench { lab: &lab, url: format!("http://{FILES_NAME}/files/large") };
    fill(&Nginx::file("large"), options.mib << 20)?;
    let (idle, comparisons, peak) = bench.measure(options)?;
    let sparse = if options.sparse_gib > 0 { Some(bench.sparse(options.sparse_gib)?) } else { None };
    nginx.stop()?;
    let mut report = Report::new("get", comparisons);
    let what = format!("memory of the receiving daemon above its {:.1} MiB when idle", idle as f64 / 1024.0);
    let mut above = |size: String, peak: u64| {
        let above = peak.saturating_sub(idle) as f64 / 1024.0;
        report.figures.push(Figure::new(&format!("{what}, {size}"), above, "MiB", MEMORY_TARGET_MIB));
    };
    above(format!("{} MiB from a peer", options.mib), peak);
    if let Some(peak) = sparse {
        above(format!("{} GiB from the origin", options.sparse_gib), peak);
    }
    print!("{}", report.render());
    let path = workspace::root()?.join("bench/results/get.json");
    report.write(&path).with_context(|| format!("write {}", path.display()))?;
    println!("written to bench/results/get.json");
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    lab: &'a Lab,
    url: String,
}

impl Bench<'_> {
    /// Idle memory, the comparisons, and the most memory seen.
    fn measure(&self, options: &Options) -> Result<(u64, Vec<Comparison>, u64)> {
        let node = self.lab.node("a2")?;
        self.get(self.lab.node("a1")?, "auto")?;
        let idle = node.daemon.memory_kib()?;
        let (mut comparisons, mut peak) = (Vec::new(), 0);
        let (router, port) = (netns::name("router"), "p-a2");
        netns::shape(&router, port, LINK_RATE)?;
        for (what, shaped, place) in [
            ("over a link of 1 Gbit/s", true, "auto"),
            ("over the bare bridge", false, "auto"),
            ("over the bare bridge, a hard link", false, "hard-link"),
        ] {
            if !shaped && comparisons.len() == 1 {
                check(Command::new("tc").args(["-n", &router, "qdisc", "del", "dev", port, "root"]), LONG)?;
            }
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..options.rounds {
                for turn in [round % 2 == 0, round % 2 != 0] {
                    if turn {
                        let (took, most) = watched(node, || self.get(node, place))?;
                        ours.push(took);
                        peak = peak.max(most);
                        self.forget(node)?;
                    } else {
                        theirs.push(self.curl(node)?);
                    }
                }
            }
            let what = format!("{} MiB from a peer, {what}", options.mib);
            comparisons.push(Comparison::new(
                &what,
                "curl from nginx over the same link",
                &ours,
                &theirs,
                1.0 / 0.9,
            ));
        }
        Ok((idle, comparisons, peak))
    }

    /// Fetches the file and says how long it took.
    fn get(&self, node: &Node, place: &str) -> Result<Duration> {
        let mut tool = node.tool(&self.lab.binaries);
        let done = check(tool.args(["get", &self.url, "--place", place, "-o"]).arg(target(node)), LONG)?;
        println!("    {}: {}", node.name, done.stderr.trim());
        Ok(done.took)
    }

    fn curl(&self, node: &Node) -> Result<Duration> {
        let url = format!("http://{}:{}/files/large", Cluster::A.near_registry(), nginx::PORT);
        let mut curl = netns::command(&netns::name(&node.name), "curl");
        let done = check(curl.args(["-sSf", &url, "-o"]).arg(target(node)), LONG)?;
        println!("    {}: curl {:.2} s", node.name, done.took.as_secs_f64());
        std::fs::remove_file(target(node)).context("remove what curl fetched")?;
        Ok(done.took)
    }

    /// As if it had never been there.
    fn forget(&self, node: &Node) -> Result<()> {
        std::fs::remove_file(target(node)).context("remove what was fetched")?;
        check(node.tool(&self.lab.binaries).args(["rm", "url:"]), LONG).map(drop)
    }

    /// A file of zeros that takes no disk at the origin: the most memory while it goes through the store.
    fn sparse(&self, gib: u64) -> Result<u64> {
        let node = self.lab.node("a2")?;
        let file = std::fs::File::create(Nginx::file("sparse")).context("make a sparse file")?;
        file.set_len(gib << 30).context("make a sparse file")?;
        let url = format!("http://{FILES_NAME}/files/sparse");
        let pass = || {
            // To standard output, which is thrown away: nothing but the daemon's own copy takes room.
            let mut tool = node.tool(&self.lab.binaries);
            tool.args(["get", &url, "--quiet", "-o", "-"]);
            let mut child = tool.stdout(std::process::Stdio::null()).spawn().context("start hawker")?;
            let status = child.wait().context("wait for hawker")?;
            ensure!(status.success(), "hawker: {status}");
            Ok(())
        };
        let started = std::time::Instant::now();
        let ((), peak) = watched(node, pass)?;
        println!("    {gib} GiB passed in {:.1} s", started.elapsed().as_secs_f64());
        let used = node.daemon.status()?["store"]["used_bytes"].as_u64().unwrap_or(0);
        ensure!(used >= gib << 30, "the store has {used} bytes: the file went by it");
        Ok(peak)
    }
}

/// Runs `work` and says how much memory the node's daemon had at most meanwhile, KiB.
fn watched<T: Send>(node: &Node, work: impl FnOnce() -> Result<T> + Send) -> Result<(T, u64)> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(node.daemon.memory_kib().unwrap_or(0));
                std::thread::sleep(LOOK_EVERY);
            }
            peak
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        let peak = watching.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?;
        ensure!(peak > 0, "the daemon's memory could not be read");
        Ok((result?, peak))
    })
}

fn target(node: &Node) -> PathBuf {
    data_dir(&node.name).join("got")
}

/// Bytes that are not all the same.
fn fill(path: &Path, count: u64) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..count / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).with_context(|| format!("write {}", path.display()))?;
    }
    file.flush().with_context(|| format!("write {}", path.display()))
}
