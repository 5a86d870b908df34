//! A cluster is upgraded program by program, and taken back, while every node pulls.
//!
//! What stands for the other version is the same program that announces another protocol (one minor version up): it proves
//! that hand-over, negotiation and refusal work, and that nothing fails meanwhile. What a later version really changes
//! is proven by that version's own tests.
//!
//! Invariant: pulls go through the mirror and nothing else; whatever it refuses is a failed pull.

use super::{has_all, image, origin_ratio};
use crate::lab::containerd::{Containerd, Via};
use crate::lab::daemon::{Daemon, MIRROR};
use crate::lab::images::Image;
use crate::lab::network::Cluster;
use crate::lab::{Lab, REGISTRY_NAME};
use crate::{http, interrupt, netns};
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// What the tree speaks, the next version, and one that is too far away.
const NOW: &str = "1.1";
const NEXT: &str = "1.2";
const FAR: &str = "1.3";
/// Allowed above one copy: at each hand-over a piece a connection, and what the registry had sent into its socket (1.11 to 1.45
/// measured, three hand-overs within seconds).
const MAX_RATIO: f64 = 1.8;
/// Between two hand-overs.
const PAUSE: Duration = Duration::from_millis(700);
/// Time for a former daemon to end, once its answers have.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Largest part by which the totals may differ from the interface's.
const MAX_OFF: f64 = 0.001;

pub(super) fn rolling(lab: &mut Lab) -> Result<()> {
    without_segmentation(lab)?;
    // First the program that every other one must work with, then the rest; and back in the opposite order.
    for (way, protocol) in [("up", NEXT), ("back", NOW)] {
        let image = image(lab, &format!("upgrade-{way}"), &[60, 60])?;
        let origin = lab.origin_bytes(Cluster::A)?;
        let wire: Vec<Wire> =
            lab.nodes.iter().map(|node| Wire::of(&node.name, &node.daemon)).collect::<Result<_>>()?;
        if way == "back" {
            lab.control.restart_as(Some(protocol))?;
        }
        upgrade(lab, &image, way, protocol)?;
        if way == "up" {
            lab.control.restart_as(Some(protocol))?;
            lab.nodes.iter().try_for_each(|node| node.daemon.wait_ready())?;
        }
        for node in &lab.nodes {
            has_all(node, &image)?;
            let said = node.daemon.status()?["host"]["protocol"].as_str().map(str::to_owned);
            ensure!(said.as_deref() == Some(protocol), "{} speaks {said:?}", node.name);
        }
        let ratio = origin_ratio(lab, &image, origin)?;
        ensure!(ratio <= MAX_RATIO, "the origin sent {ratio:.4} image sizes");
        std::thread::sleep(Duration::from_millis(500));
        for (node, before) in lab.nodes.iter().zip(wire) {
            Wire::of(&node.name, &node.daemon)?.compare(&before, &node.name)?;
        }
    }
    by_signal(lab)?;
    refused(lab)
}

/// One program after the other, while containerd and a client that cannot go on by itself pull on each node.
fn upgrade(lab: &mut Lab, image: &Image, way: &str, protocol: &'static str) -> Result<()> {
    let (done, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let layer = &image.layers[0];
    let path = format!("/v2/lab/upgrade-{way}/blobs/{}?ns={REGISTRY_NAME}", layer.digest);
    let mut daemons: Vec<(String, &mut Daemon)> = Vec::new();
    let mut containerds: Vec<(String, &Containerd)> = Vec::new();
    for node in &mut lab.nodes {
        daemons.push((node.name.clone(), &mut node.daemon));
        containerds.push((node.name.clone(), &node.containerd));
    }
    std::thread::scope(|scope| {
        let (done, asked, path) = (&done, &asked, &path);
        let mut clients = Vec::new();
        for (name, containerd) in &containerds {
            clients.push(scope.spawn(move || -> Result<()> {
                let took = containerd
                    .pull(&image.reference, Via::Mirror)
                    .with_context(|| format!("pull on {name}"))?;
                println!("    {way}: containerd on {name} pulled in {:.1} s", took.as_secs_f64());
                Ok(())
            }));
            clients.push(scope.spawn(move || whole(name, path, layer.bytes)));
            clients.push(scope.spawn(move || knock(name, done, asked)));
        }
        let mut formers = Vec::new();
        let mut rolled = || -> Result<()> {
            for (name, daemon) in &mut daemons {
                std::thread::sleep(PAUSE);
                let started = Instant::now();
                formers.push(daemon.follow(protocol)?);
                println!("    {way}: {name} taken over in {:.2} s", started.elapsed().as_secs_f64());
                ensure!(
                    !clients.iter().any(ScopedJoinHandle::is_finished),
                    "a pull ended before the last hand-over"
                );
            }
            Ok(())
        };
        let rolled = rolled();
        done.store(true, Ordering::Relaxed);
        let joined =
            clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?);
        let failed: Vec<String> =
            joined.filter_map(|client: Result<()>| Some(format!("{:#}", client.err()?))).collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        rolled?;
        formers.iter_mut().try_for_each(|former| former.ends_within(END_LIMIT))
    })?;
    println!("    {way}: {} requests at the mirrors meanwhile, none refused", asked.load(Ordering::Relaxed));
    for node in &lab.nodes {
        node.daemon.wait_ready()?;
    }
    Ok(())
}

/// A whole layer in one answer over one connection.
fn whole(name: &str, path: &str, bytes: u64) -> Result<()> {
    let asking = || http::get_within(&format!("{MIRROR}{path}"), Duration::from_secs(60));
    let answer =
        netns::within(&netns::name(name), asking).with_context(|| format!("one answer on {name}"))?;
    ensure!(answer.status == 200 && answer.body.len() as u64 == bytes, "{name}: {} bytes", answer.body.len());
    Ok(())
}

/// New connections to the mirror without a pause: none may be refused.
fn knock(name: &str, done: &AtomicBool, asked: &AtomicU64) -> Result<()> {
    netns::within(&netns::name(name), || {
        while !done.load(Ordering::Relaxed) {
            let answer =
                http::get(&format!("{MIRROR}/v2/"), &[]).with_context(|| format!("the mirror of {name}"))?;
            ensure!(answer.status == 200, "{name} answers {}", answer.status);
            asked.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    })
}

/// As the service manager is told to do it: the daemon starts the program that is on the disk now.
fn by_signal(lab: &mut Lab) -> Result<()> {
    let daemon = &mut lab.node_mut("a1")?.daemon;
    let before = daemon.taken_over()?;
    daemon.signal(Signal::SIGUSR2)?;
    interrupt::poll("the next daemon serves", END_LIMIT, || {
        let now = daemon.taken_over()?;
        if now > before { Ok(()) } else { bail!("{now} hand-overs so far") }
    })?;
    daemon.ends_within(END_LIMIT)?;
    println!("    SIGUSR2: the next daemon serves, the former ended");
    daemon.wait_ready()
}

/// Two versions apart: refused with the reason, and the one that runs goes on.
fn refused(lab: &mut Lab) -> Result<()> {
    let daemon = &mut lab.node_mut("a2")?.daemon;
    let before = daemon.taken_over()?;
    let said = daemon.refused(FAR)?;
    println!("    {said}");
    ensure!(said.contains("protocol") && said.contains("one minor version"), "not by its name");
    ensure!(daemon.taken_over()? == before, "it was followed all the same");
    daemon.wait_ready()?;
    lab.control.restart_as(Some(FAR))?;
    let daemon = &lab.node("a2")?.daemon;
    interrupt::poll("the daemon says why it has no scheduler", END_LIMIT, || {
        let error = daemon.status()?["scheduler"]["error"].as_str().unwrap_or_default().to_owned();
        if !error.contains("one minor version") {
            bail!("it says: {error}")
        }
        println!("    {error}");
        Ok(())
    })
}

/// One segment a packet, so that veth counts packets as a wire would see them.
fn without_segmentation(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes.iter().map(|node| node.name.as_str());
    for name in nodes.chain(["origin", "control"]) {
        netns::ip(&["-n", &netns::name(name), "link", "set", "eth0", "gso_max_segs", "1"])?;
    }
    Ok(())
}

/// What a node's interface and its daemons counted, sent and received.
struct Wire {
    interface: (u64, u64),
    totals: (u64, u64),
}

impl Wire {
    fn of(name: &str, daemon: &Daemon) -> Result<Self> {
        let status = daemon.status()?;
        let text =
            netns::within(&netns::name(name), || Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).context("no eth0")?;
        let fields: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        ensure!(status["shaper"]["mode"] == "ebpf", "{}", status["shaper"]);
        let sum = |key: &str| {
            let classes = ["upload", "download", "origin", "control"];
            classes.iter().filter_map(|class| status["lifetime"][class][key].as_u64()).sum::<u64>()
        };
        let interface = (*fields.get(8).context("too few columns")?, fields[0]);
        Ok(Self { interface, totals: (sum("sent_bytes"), sum("received_bytes")) })
    }

    /// The growth since `before`, over the hand-over in between.
    fn compare(&self, before: &Self, name: &str) -> Result<()> {
        let grown = |now: (u64, u64), before: (u64, u64)| (now.0 - before.0, now.1 - before.1);
        let (interface, totals) =
            (grown(self.interface, before.interface), grown(self.totals, before.totals));
        let off = |ours: u64, theirs: u64| ours as f64 / theirs as f64 - 1.0;
        let (sent, received) = (off(totals.0, interface.0), off(totals.1, interface.1));
        println!(
            "    {name}: sent {} of {} ({:+.4} %), received {} of {} ({:+.4} %)",
            totals.0,
            interface.0,
            sent * 100.0,
            totals.1,
            interface.1,
            received * 100.0
        );
        ensure!(
            sent.abs() < MAX_OFF && received.abs() < MAX_OFF,
            "{name}: more than {} % off",
            MAX_OFF * 100.0
        );
        Ok(())
    }
}
