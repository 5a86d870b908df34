//! Origins and peers that are dead, silent, slow or wrong: the runtime's pull ends soon, and never with wrong bytes.

use super::{has_all, image};
use crate::lab::containerd::Via;
use crate::lab::faulty::{Fault, Faulty};
use crate::lab::images::Image;
use crate::lab::{Lab, REGISTRY_NAME};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use std::time::{Duration, Instant};

/// What a pull may take longer than without Hawker.
const MAX_EXTRA: Duration = Duration::from_secs(5);
/// How long a kubelet waits before it pulls again for the first time.
const KUBELET_BACK_OFF: Duration = Duration::from_secs(10);
/// What is wrong with a peer; first that nothing is, which shows that it is asked.
const OF_PEERS: [Fault; 8] = [
    Fault::None,
    Fault::Dead,
    Fault::Silent,
    Fault::Errors,
    Fault::Loops,
    Fault::Stalls,
    Fault::Crawls,
    Fault::Corrupts,
];

pub(super) fn origins(lab: &mut Lab) -> Result<()> {
    let faulty = Faulty::before_registry()?;
    let registries = format!("[{{ host: \"{REGISTRY_NAME}\", server: \"{}\" }}]", Faulty::url());
    for fault in Fault::ALL {
        faulty.set(Fault::None);
        // Anew, so that it does not know yet.
        lab.node_mut("a1")?.daemon.with_registries(&registries)?;
        origin(lab, &faulty, fault, "").with_context(|| format!("{fault:?}"))?;
    }
    // What was not streamed before it was proven need not be taken back.
    faulty.set(Fault::None);
    lab.node_mut("a1")?.daemon.with_line("verify: strict")?;
    origin(lab, &faulty, Fault::Corrupts, "strict").context("corrupts, verify: strict")
}

/// The daemon's way to the registry has a fault; containerd's own is good.
fn origin(lab: &Lab, faulty: &Faulty, fault: Fault, mode: &str) -> Result<()> {
    let name = format!("fault-{}{mode}", format!("{fault:?}").to_lowercase());
    let image = image(lab, &name, &[9, 2])?;
    let direct = lab.node("a2")?.containerd.pull(&image.reference, Via::Origin)?;
    faulty.set(fault);
    let node = lab.node("a1")?;
    let pulled = node.containerd.try_pull(&image.reference, Via::Hawker, None)?;
    let took = pulled.took;
    let shown = format!("direct {:.2} s, through Hawker {:.2} s", direct.as_secs_f64(), took.as_secs_f64());
    if pulled.status.success() {
        has_all(node, &image)?;
        println!("    origin {fault:?} {mode}: {shown}");
    } else {
        // Bytes that were streamed before the whole was there cannot be taken back: containerd finds out.
        ensure!(fault == Fault::Corrupts && mode.is_empty(), "{}{}", pulled.stdout, pulled.stderr);
        ensure!(pulled.stderr.contains("unexpected commit digest"), "{}", pulled.stderr);
        let held = node.containerd.content()?;
        ensure!(!held.contains(&image.layers[0].digest), "wrong bytes were taken for right");
        println!("    origin {fault:?} {mode}: {shown}; containerd refused the layer");
        again(lab, &image, direct)?;
    }
    ensure!(took <= direct + MAX_EXTRA, "{took:?} where direct took {direct:?}");
    Ok(())
}

/// As a kubelet does after a pull that failed: what was wrong must not be in the way of what is right.
fn again(lab: &Lab, image: &Image, direct: Duration) -> Result<()> {
    let node = lab.node("a1")?;
    // What containerd refused it clears away a moment later; until then it is refused anew without a question to anybody.
    let began = Instant::now();
    while !node.containerd.ingests()?.is_empty() {
        ensure!(began.elapsed() < KUBELET_BACK_OFF, "containerd keeps {:?}", node.containerd.ingests()?);
        std::thread::sleep(Duration::from_millis(50));
    }
    let pulled = node.containerd.try_pull(&image.reference, Via::Hawker, None)?;
    println!("    pulled again: {:.2} s {}", pulled.took.as_secs_f64(), pulled.stderr.trim());
    ensure!(pulled.status.success(), "the second pull: {}{}", pulled.stdout, pulled.stderr);
    has_all(node, image)?;
    ensure!(pulled.took <= direct + MAX_EXTRA, "{:?} where direct took {direct:?}", pulled.took);
    Ok(())
}

pub(super) fn peers(lab: &mut Lab) -> Result<()> {
    stopped_parent(lab)?;
    let ip = lab.node("a1")?.ip;
    lab.node_mut("a1")?.daemon.with_line("peer: { addr: 127.0.0.1:4000 }")?;
    let faulty = Faulty::before_peer("a1", ip)?;
    let mut late = Vec::new();
    for fault in OF_PEERS {
        faulty.set(Fault::None);
        // Anew, so that it does not know yet.
        lab.node_mut("a2")?.daemon.anew()?;
        late.extend(parent(lab, &faulty, fault).with_context(|| format!("{fault:?}"))?);
    }
    ensure!(late.is_empty(), "{}", late.join("; "));
    Ok(())
}

/// The only parent is reached by what has a fault; says whether that took too long, once all were tried.
fn parent(lab: &Lab, faulty: &Faulty, fault: Fault) -> Result<Option<String>> {
    let image = image(lab, &format!("parent-{}", format!("{fault:?}").to_lowercase()), &[9, 2])?;
    let (parent, child) = (lab.node("a1")?, lab.node("a2")?);
    parent.containerd.pull(&image.reference, Via::Hawker)?;
    let direct = direct(lab, &image)?;
    faulty.set(fault);
    let took = child.containerd.pull(&image.reference, Via::Hawker)?;
    has_all(child, &image)?;
    let status = child.daemon.status()?;
    let given = status["delivered"]["peer_same_zone"].as_u64().unwrap_or(0);
    println!(
        "    peer {fault:?}: direct {:.2} s, through Hawker {:.2} s, {given} bytes from it",
        direct.as_secs_f64(),
        took.as_secs_f64()
    );
    if fault == Fault::None {
        ensure!(given >= image.bytes() / 2, "the case shows nothing: the peer is not asked");
    }
    let late = took > direct + MAX_EXTRA;
    Ok(late.then(|| format!("peer {fault:?}: {took:?} where direct took {direct:?}")))
}

/// How long the child takes without Hawker; then it has nothing of it again.
fn direct(lab: &Lab, image: &Image) -> Result<Duration> {
    let child = lab.node("a2")?;
    let took = child.containerd.pull(&image.reference, Via::Origin)?;
    child.containerd.remove(&image.reference)?;
    Ok(took)
}

/// The only parent stands still when its child begins.
fn stopped_parent(lab: &Lab) -> Result<()> {
    let image = image(lab, "stopped-parent", &[9, 2])?;
    let (parent, child) = (lab.node("a1")?, lab.node("a2")?);
    parent.containerd.pull(&image.reference, Via::Hawker)?;
    direct(lab, &image)?;
    let direct = direct(lab, &image)?;
    let pid = super::faults::pid_of(lab, "a1")?;
    kill(pid, Signal::SIGSTOP)?;
    let pulled = child.containerd.pull(&image.reference, Via::Hawker);
    kill(pid, Signal::SIGCONT)?;
    let took = pulled?;
    has_all(child, &image)?;
    println!(
        "    parent stopped: direct {:.2} s, through Hawker {:.2} s",
        direct.as_secs_f64(),
        took.as_secs_f64()
    );
    ensure!(took <= direct + MAX_EXTRA, "{took:?} where direct took {direct:?}");
    Ok(())
}
