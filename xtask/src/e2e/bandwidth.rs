//! What nodes measure drives placement, reaches the manager; what the cluster wants reaches the nodes.
//!
//! Invariant: judged by the nodes' own counters on the wire, printed as measured.

use super::{MIB, image};
use crate::lab::containerd::Via;
use crate::lab::network::{CONTROL, Cluster};
use crate::lab::{Lab, Node, Plan};
use crate::{interrupt, netns};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the parents' links are cut down to.
const UPLINK: &str = "200mbit";
/// Children, each with an image of its own: what one has is of no use to the others.
const CHILDREN: usize = 4;
const IMAGE_MIB: usize = 40;
/// Of each child: together less than what is left of either parent's link when four of its eight connections share it
/// with the pods' one.
const CHILD_LIMIT: &str = "30Mbps";
/// What children may fetch of what they need: headers are 4 %, and of the ten pieces of each one or two may have been taken
/// over from the busy parent's slow connections.
const MAX_TWICE: f64 = 1.3;
/// Time for other traffic to be measured, reported and believed.
const SETTLE: Duration = Duration::from_secs(6);

/// Parents a1 and a2, children a3 to a6; without yielding, which would move traffic by itself.
pub(super) fn plan(use_reports: bool) -> Plan {
    Plan {
        peers: vec![2 + CHILDREN],
        seeds: false,
        origin_rate: "1gbit".to_owned(),
        shaper: "{ uplinkCapacity: 200Mbps, yield: false }".to_owned(),
        use_reports,
    }
}

pub(super) fn spares_the_busy(lab: &Lab) -> Result<()> {
    let share = share_of_the_free(lab)?;
    ensure!(share >= 0.8, "only {:.1} % came from the parent that is free", share * 100.0);
    Ok(())
}

/// Even, since the busy parent can give what is asked of it: children that took as fast as they could would take more from
/// whoever is quick, reports or not (68 % measured), because the pods' connection holds the most of its link.
pub(super) fn uses_both_without_reports(lab: &Lab) -> Result<()> {
    let share = share_of_the_free(lab)?;
    ensure!((0.35..=0.65).contains(&share), "{:.1} % came from the parent that is free", share * 100.0);
    Ok(())
}

/// Of the bytes that children fetch from two parents, one of them busy with its own pods' traffic.
fn share_of_the_free(lab: &Lab) -> Result<f64> {
    let images: Vec<_> = (0..CHILDREN)
        .map(|child| image(lab, &format!("child-{child}"), &[IMAGE_MIB]))
        .collect::<Result<_>>()?;
    let (busy, free) = (lab.node("a1")?, lab.node("a2")?);
    for parent in [busy, free] {
        for image in &images {
            parent.containerd.pull(&image.reference, Via::Hawker)?;
        }
        netns::shape(&netns::name(&parent.name), "eth0", UPLINK)?;
    }
    limit(lab, &json!({ "downloadLimit": CHILD_LIMIT }))?;
    let pods = PodTraffic::start(busy)?;
    std::thread::sleep(SETTLE);
    let alone = pods.bytes();
    let started = Instant::now();
    let children: Vec<&Node> = lab.peers().skip(2).collect();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = children
            .iter()
            .zip(&images)
            .map(|(child, image)| scope.spawn(|| child.containerd.pull(&image.reference, Via::Hawker)))
            .collect();
        let join = |pull: std::thread::ScopedJoinHandle<'_, Result<_>>| {
            pull.join().map_err(|_| anyhow!("panicked"))?
        };
        pulls.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let (took, meanwhile) = (started.elapsed().as_secs_f64(), pods.bytes() - alone);
    drop(pods);
    let (mut from_busy, mut from_free, mut all) = (0, 0, 0);
    for child in &children {
        let status = child.daemon.status()?;
        from_busy += received_from(&status, busy.ip);
        from_free += received_from(&status, free.ip);
        all += class(&status, "download", "received_bytes");
    }
    let share = from_free as f64 / (from_free + from_busy) as f64;
    println!(
        "    {CHILDREN} children, {took:.1} s: {from_free} bytes from the free parent, {from_busy} from the busy one: \
         {:.1} % from the free one ({:.1} % of everything they fetched)",
        share * 100.0,
        from_free as f64 / all as f64 * 100.0
    );
    println!(
        "    the busy parent's pods: {:.0} Mbit/s before, {:.0} Mbit/s meanwhile",
        alone as f64 * 8.0 / SETTLE.as_secs_f64() / 1e6,
        meanwhile as f64 * 8.0 / took / 1e6
    );
    let least = (CHILDREN * IMAGE_MIB * MIB) as u64;
    ensure!(all >= least, "the children fetched only {all} bytes from peers");
    let twice = all as f64 / least as f64;
    ensure!(twice <= MAX_TWICE, "the children fetched {all} bytes from peers, {twice:.3} x what they needed");
    Ok(share)
}

/// A changed limit of the cluster holds on what is under way, and the history has what was moved.
pub(super) fn cluster_limits(lab: &Lab) -> Result<()> {
    let (parent, child) = (lab.node("a1")?, lab.node("a2")?);
    let image = image(lab, "limited", &[150])?;
    parent.containerd.pull(&image.reference, Via::Hawker)?;
    limit(lab, &json!({ "uploadLimit": "200Mbps" }))?;
    wait_for_limit(parent, 25_000_000)?;
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| child.containerd.pull(&image.reference, Via::Hawker));
        // Limits are of payload; headers are 4 % more.
        let uploaded =
            || Ok::<_, anyhow::Error>(class(&parent.daemon.status()?, "upload", "sent_payload_bytes"));
        interrupt::poll("the pull is under way", Duration::from_secs(10), || {
            ensure!(uploaded()? > 10 * MIB as u64, "nothing yet");
            Ok(())
        })?;
        let before = rate(Duration::from_secs(1), uploaded)?;
        let asked = Instant::now();
        limit(lab, &json!({ "uploadLimit": "80Mbps" }))?;
        let known = wait_for_limit(parent, 10_000_000)?;
        std::thread::sleep(Duration::from_secs(1).saturating_sub(asked.elapsed()));
        let after = rate(Duration::from_secs(3), uploaded)?;
        println!(
            "    upload {before:.1} Mbit/s of 200; in force {:.0} ms after the PATCH; from 1 s after it {after:.1} of 80",
            known.duration_since(asked).as_secs_f64() * 1e3
        );
        println!("    in force: {}", parent.daemon.status()?["shaper"]["limits"]);
        ensure!((before - 200.0).abs() < 10.0, "{before:.1} Mbit/s of 200");
        ensure!((after - 80.0).abs() < 2.4, "{after:.1} Mbit/s of 80");
        let refused =
            lab.control.patch("/api/v1/clusters/1", &json!({"config": {"shaper": {"uploadLimit": 1}}}))?;
        println!("    1 B/s: {} {}", refused.status, refused.text());
        ensure!(
            refused.status == 422 && refused.text().contains("config.shaper.uploadLimit"),
            "not refused by name"
        );
        limit(lab, &json!({}))?;
        wait_for_limit(parent, 0)?;
        pull.join().map_err(|_| anyhow!("the pull panicked"))?
    })?;
    history(lab, parent)
}

/// What the manager tells of `node`'s uploads against the node's own counter.
fn history(lab: &Lab, node: &Node) -> Result<()> {
    let measured = class(&node.daemon.status()?, "upload", "sent_bytes");
    let id = node.daemon.status()?["host"]["id"].as_str().context("a host id")?.to_owned();
    interrupt::poll("the manager knows all of it", Duration::from_secs(15), || {
        let answer = lab.control.get("/api/v1/bandwidth?by=host&step=86400")?;
        let items = answer["items"].as_array().context("items")?;
        let of_it = items.iter().filter(|item| item["host_id"] == id.as_str());
        let told: u64 = of_it.filter_map(|item| item["classes"]["upload"]["sent_bytes"].as_u64()).sum();
        ensure!(
            (told as f64 / measured as f64 - 1.0).abs() < 0.001,
            "the manager has {told}, {measured} measured"
        );
        println!("    uploaded: {measured} bytes by the node's counter, {told} in the manager's history");
        Ok(())
    })
}

fn limit(lab: &Lab, shaper: &Value) -> Result<()> {
    let path = format!("/api/v1/clusters/{}", Cluster::A.id());
    let answer = lab.control.patch(&path, &json!({ "config": { "shaper": shaper } }))?;
    ensure!(answer.status == 200, "PATCH {path}: {} {}", answer.status, answer.text());
    Ok(())
}

/// Until the node's upload limit is this; when it was seen.
fn wait_for_limit(node: &Node, bytes_per_second: u64) -> Result<Instant> {
    interrupt::poll("the limit is in force", Duration::from_secs(5), || {
        let status = node.daemon.status()?;
        let upload = &status["shaper"]["limits"]["upload"];
        let from = if bytes_per_second == 0 { "none" } else { "cluster" };
        ensure!(upload["bytes_per_second"] == bytes_per_second && upload["from"] == from, "{upload}");
        Ok(Instant::now())
    })
}

/// Mbit/s over a window.
fn rate(window: Duration, bytes: impl Fn() -> Result<u64>) -> Result<f64> {
    let (started, before) = (Instant::now(), bytes()?);
    std::thread::sleep(window);
    let (after, took) = (bytes()?, started.elapsed());
    Ok((after - before) as f64 * 8.0 / took.as_secs_f64() / 1e6)
}

fn class(status: &Value, class: &str, figure: &str) -> u64 {
    let classes = status["shaper"]["classes"].as_array().into_iter().flatten();
    classes.filter(|entry| entry["class"] == class).filter_map(|entry| entry[figure].as_u64()).sum()
}

/// As a child, from this peer.
fn received_from(status: &Value, ip: Ipv4Addr) -> u64 {
    let ip = ip.to_string();
    let peers = status["peers"].as_array().into_iter().flatten().filter(|peer| peer["ip"] == ip.as_str());
    let classes = peers.flat_map(|peer| peer["classes"].as_array().into_iter().flatten());
    let downloads = classes.filter(|entry| entry["class"] == "download");
    downloads.filter_map(|entry| entry["received_bytes"].as_u64()).sum()
}

/// One TCP connection that a node's pods send over as fast as they can, outside the daemon's cgroup.
struct PodTraffic {
    bytes: Arc<AtomicU64>,
    sockets: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl PodTraffic {
    fn start(node: &Node) -> Result<Self> {
        let namespace = netns::name(&node.name);
        let listener = netns::within(&netns::name("control"), || Ok(TcpListener::bind((CONTROL, 0))?))?;
        let to: SocketAddr = listener.local_addr()?;
        let sender = netns::within(&namespace, || Ok(TcpStream::connect(to)?))?;
        let (receiver, _) = listener.accept()?;
        let sockets = [sender.try_clone()?, receiver.try_clone()?];
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let sending = std::thread::spawn(move || {
            let (mut sender, block) = (sender, vec![0; 1 << 17]);
            while sender.write_all(&block).is_ok() {}
        });
        let receiving = std::thread::spawn(move || {
            let (mut receiver, mut block) = (receiver, vec![0; 1 << 17]);
            while let Ok(read @ 1..) = receiver.read(&mut block) {
                counted.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { bytes, sockets, threads: vec![sending, receiving] })
    }

    /// Received so far.
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for PodTraffic {
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
