//! Things that break in the middle of a pull.

use super::{MIB, has_all, image, origin_ratio};
use crate::interrupt;
use crate::lab::Lab;
use crate::lab::containerd::Via;
use crate::lab::network::Cluster;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

/// Time for a download to have come half way.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// What the pull of a node may take longer than directly because another one stands still.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Allowed above one copy where a daemon died: what was on its way, and the small objects again.
const MAX_RESUMED_RATIO: f64 = 1.15;

/// What the others may fetch of the image while the fetcher stands still: each may have begun at the origin on its own account
/// before the scheduler had one go on for all.
const MAX_FROZEN_RATIO: f64 = 1.6;

/// kill -9 mid-pull, restart: the pull succeeds and no verified piece is fetched twice.
pub(super) fn daemon_crashes(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "crash", &[60])?;
    let layer = image.layers[0].clone();
    let before = lab.origin_bytes(Cluster::A)?;
    let node = lab.node("a1")?;
    let (client, held) = std::thread::scope(|scope| -> Result<_> {
        // Not containerd: it would go on at the origin by itself, and the bytes could not be told apart.
        let path = format!("/v2/lab/crash/blobs/{}?ns={}", layer.digest, crate::lab::REGISTRY_NAME);
        let client = scope.spawn(move || node.daemon.mirror(&path, &[]));
        let held = wait_for_pieces(lab, "a1", &layer.digest, 5)?;
        crash_by_pid(lab, "a1")?;
        Ok((client.join().map_err(|_| anyhow!("the client panicked"))?, held))
    })?;
    ensure!(client.is_err(), "the client got a whole answer from a daemon that was killed");
    let node = lab.node_mut("a1")?;
    node.daemon.crash().ok();
    node.daemon.restart()?;
    node.daemon.wait_ready()?;
    let node = lab.node("a1")?;
    node.containerd.pull(&image.reference, Via::Hawker)?;
    has_all(node, &image)?;
    let task = task(lab, "a1", &layer.digest)?.context("no such task after the restart")?;
    let fetched: u64 =
        task["fetched"].as_object().into_iter().flatten().filter_map(|(_, bytes)| bytes.as_u64()).sum();
    let kept = layer.bytes - fetched;
    println!(
        "    {held} pieces seen verified before the kill; after it {fetched} of {} bytes fetched, {kept} kept",
        layer.bytes
    );
    ensure!(kept >= u64::from(held) * 4 * MIB as u64, "{kept} bytes kept, of {held} verified pieces");
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= MAX_RESUMED_RATIO, "the origin sent {ratio:.4} image sizes");
    Ok(())
}

pub(super) fn scheduler_crashes(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "headless", &[50])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let (lab_ref, digest) = (&*lab, image.layers[0].digest.clone());
    std::thread::scope(|scope| -> Result<()> {
        let pulls: Vec<_> = lab_ref
            .peers()
            .map(|node| scope.spawn(|| node.containerd.pull(&image.reference, Via::Hawker)))
            .collect();
        wait_for_pieces(lab_ref, "a1", &digest, 3)?;
        let scheduler = lab_ref.control.schedulers.iter().find(|(of, _)| *of == Cluster::A);
        scheduler.context("no scheduler")?.1.signal(Signal::SIGKILL)?;
        for pull in pulls {
            pull.join().map_err(|_| anyhow!("a puller panicked"))??;
        }
        Ok(())
    })?;
    for node in lab.peers() {
        has_all(node, &image)?;
    }
    origin_ratio(lab, &image, before)?;
    // And a new scheduler knows within seconds who holds what.
    lab.control.restart_scheduler(Cluster::A)?;
    for node in lab.peers() {
        node.daemon.wait_ready()?;
    }
    Ok(())
}

pub(super) fn manager_is_down(lab: &mut Lab) -> Result<()> {
    lab.control.manager.stop()?;
    let first = image(lab, "unmanaged-1", &[9])?;
    lab.node("a1")?.containerd.pull(&first.reference, Via::Hawker)?;
    let node = lab.node_mut("a2")?;
    node.daemon.stop()?;
    node.daemon.restart()?;
    node.daemon.wait_ready()?;
    let status = node.daemon.status()?;
    println!("    restarted without manager: cluster {}", status["cluster"]);
    ensure!(status["cluster"]["source"] == "cache", "placement from {}", status["cluster"]["source"]);
    let before = lab.origin_bytes(Cluster::A)?;
    let node = lab.node("a2")?;
    node.containerd.pull(&first.reference, Via::Hawker)?;
    has_all(node, &first)?;
    let ratio = origin_ratio(lab, &first, before)?;
    ensure!(ratio < 0.02, "the second node cost the origin {ratio:.4} image sizes");
    lab.control.restart_manager()?;
    interrupt::poll("the daemons are back at the manager", PROGRESS_LIMIT, || {
        let connected = lab.node("a2")?.daemon.status()?["manager"]["connected"] == true;
        if connected { Ok(()) } else { bail!("not connected") }
    })
}

/// A byte is changed on the disk of a running node that has already checked the piece.
pub(super) fn flipped_byte(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "flipped", &[18])?;
    for node in ["a1", "a2"] {
        lab.node(node)?.containerd.pull(&image.reference, Via::Hawker)?;
    }
    let (liar, layer) = (lab.node("a1")?, &image.layers[0]);
    let data = liar.daemon.store.join("blobs").join(format!("{}.data", layer.digest.replacen(':', "-", 1)));
    let file = File::options()
        .read(true)
        .write(true)
        .open(&data)
        .with_context(|| format!("open {}", data.display()))?;
    for piece in 0..layer.bytes.div_ceil(4 * MIB as u64) {
        let (mut byte, offset) = ([0], piece * 4 * MIB as u64 + 17);
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[!byte[0]], offset)?;
    }
    let child = lab.node("a3")?;
    child.containerd.pull(&image.reference, Via::Hawker)?;
    has_all(child, &image)?;
    let status = child.daemon.status()?;
    println!("    bad peers named by a3: {}", status["bad_peers"]);
    let named = status["bad_peers"]
        .as_array()
        .is_some_and(|bad| bad.iter().any(|peer| peer["ip"] == liar.ip.to_string()));
    ensure!(named, "the status does not name {}", liar.ip);
    Ok(())
}

pub(super) fn full_disk(lab: &mut Lab) -> Result<()> {
    let node = lab.node_mut("a1")?;
    node.daemon.stop()?;
    let store = node.daemon.store.display().to_string();
    crate::command::check(
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs", &store]),
        crate::command::SHORT,
    )?;
    node.daemon.restart()?;
    node.daemon.wait_ready()?;
    let image = image(lab, "big", &[30])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let node = lab.node("a1")?;
    node.containerd.pull(&image.reference, Via::Hawker)?;
    has_all(node, &image)?;
    let status = node.daemon.status()?;
    println!("    store: {}", status["store"]["error"]);
    ensure!(
        status["store"]["error"].as_str().is_some_and(|text| text.contains("no space")),
        "{}",
        status["store"]
    );
    let delivered = status["delivered"]["origin"].as_u64().unwrap_or(0);
    ensure!(delivered >= image.layers[0].bytes, "{delivered} bytes streamed through by the daemon");
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= 1.1, "the origin sent {ratio:.4} image sizes");
    read_only_disk(lab, &store)
}

/// The same store, that can no longer be written to at all.
fn read_only_disk(lab: &Lab, store: &str) -> Result<()> {
    let mount = |words: &[&str]| {
        crate::command::check(Command::new(words[0]).args(&words[1..]), crate::command::SHORT)
    };
    // So large that what the registry had sent before the daemon knew is a small part.
    let image = image(lab, "unwritten", &[30])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let node = lab.node("a1")?;
    // A mount of its own above it: one with files open for writing cannot be made read-only.
    mount(&["mount", "--bind", store, store])?;
    mount(&["mount", "-o", "remount,bind,ro", store])?;
    let pulled = node.containerd.pull(&image.reference, Via::Hawker);
    let status = node.daemon.status();
    mount(&["umount", store])?;
    println!("    read-only: pulled in {:.2} s", pulled?.as_secs_f64());
    has_all(node, &image)?;
    let error = &status?["store"]["error"];
    println!("    store: {error}");
    ensure!(error.as_str().is_some_and(|text| text.to_lowercase().contains("read-only")), "{error}");
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= 1.1, "the origin sent {ratio:.4} image sizes");
    Ok(())
}

/// No daemon at all: containerd goes to the origin at once.
pub(super) fn no_daemon(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "alone", &[5])?;
    lab.node_mut("a1")?.daemon.crash()?;
    let node = lab.node("a1")?;
    let took = node.containerd.pull(&image.reference, Via::Hawker)?;
    println!("    pulled without a daemon in {:.2} s", took.as_secs_f64());
    has_all(node, &image)
}

/// The node that fetches from the origin stands still in the middle: the others do not.
pub(super) fn frozen_daemon(lab: &mut Lab) -> Result<()> {
    let (image, twin) = (image(lab, "frozen", &[50])?, image(lab, "frozen-twin", &[50])?);
    let digest = image.layers[0].digest.clone();
    let lab = &*lab;
    let direct = lab.node("a1")?.containerd.pull(&twin.reference, Via::Origin)?;
    let before = lab.origin_bytes(Cluster::A)?;
    std::thread::scope(|scope| -> Result<()> {
        let start = |node: &'static str| -> Result<_> {
            let containerd = &lab.node(node)?.containerd;
            let image = &image;
            Ok((node, scope.spawn(move || containerd.pull(&image.reference, Via::Hawker))))
        };
        let pulls = [start("a1")?, start("a2")?, start("a3")?];
        let fetcher = fetcher_of(lab, &digest, 2)?;
        let pid = pid_of(lab, &fetcher)?;
        kill(pid, Signal::SIGSTOP)?;
        let (frozen, free): (Vec<_>, Vec<_>) = pulls.into_iter().partition(|(node, _)| *node == fetcher);
        let joined = free.into_iter().try_for_each(|(node, pull)| {
            let took = pull.join().map_err(|_| anyhow!("a puller panicked"))??;
            let (took, direct) = (took.as_secs_f64(), direct.as_secs_f64());
            println!("    {fetcher} stood still; {node} pulled in {took:.2} s, direct {direct:.2} s");
            ensure!(took <= direct + MAX_WAIT.as_secs_f64(), "{node} waited along: {took:.2} s");
            Ok(())
        });
        // What the one that stands still was sent is logged when that ends.
        let ratio = origin_ratio(lab, &image, before);
        kill(pid, Signal::SIGCONT)?;
        let ratio = ratio?;
        ensure!(ratio <= MAX_FROZEN_RATIO, "the origin sent the others {ratio:.4} image sizes");
        for (_, pull) in frozen {
            pull.join().map_err(|_| anyhow!("a puller panicked"))??;
        }
        joined
    })?;
    lab.peers().try_for_each(|node| has_all(node, &image))?;
    // With what the runtime of the one that stood still then fetches past its daemon.
    origin_ratio(lab, &image, before).map(drop)
}

/// The node that got pieces from the origin, once it has that many.
fn fetcher_of(lab: &Lab, digest: &str, pieces: u64) -> Result<String> {
    interrupt::poll("somebody fetches from the origin", PROGRESS_LIMIT, || {
        for node in lab.peers() {
            let fetched = task(lab, &node.name, digest)?.and_then(|task| task["fetched"]["origin"].as_u64());
            if fetched.unwrap_or(0) >= pieces * 4 * MIB as u64 {
                return Ok(node.name.clone());
            }
        }
        bail!("nobody so far")
    })
}

fn task(lab: &Lab, node: &str, digest: &str) -> Result<Option<Value>> {
    let status = lab.node(node)?.daemon.status()?;
    Ok(status["tasks"].as_array().and_then(|tasks| tasks.iter().find(|task| task["task"] == digest).cloned()))
}

/// Waits until a node holds that many pieces; returns how many it holds.
fn wait_for_pieces(lab: &Lab, node: &str, digest: &str, pieces: u64) -> Result<u32> {
    interrupt::poll("the pull is under way", PROGRESS_LIMIT, || {
        let held = task(lab, node, digest)?.and_then(|task| task["pieces_held"].as_u64()).unwrap_or(0);
        if held < pieces { bail!("{held} pieces so far") } else { Ok(u32::try_from(held)?) }
    })
}

pub(super) fn pid_of(lab: &Lab, node: &str) -> Result<nix::unistd::Pid> {
    let program =
        lab.binaries.hawkerd.file_name().context("a program without name")?.to_string_lossy().into_owned();
    for pid in crate::netns::pids(&crate::netns::name(node))? {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim() == program {
            return Ok(nix::unistd::Pid::from_raw(pid));
        }
    }
    bail!("no {program} on {node}")
}

fn crash_by_pid(lab: &Lab, node: &str) -> Result<()> {
    kill(pid_of(lab, node)?, Signal::SIGKILL).context("kill the daemon")
}
