//! Images put on nodes before anybody pulls them, by `hawker preheat`.

use super::{MIB, has_all, image, origin_ratio, private};
use crate::command::{LONG, SHORT, run};
use crate::interrupt;
use crate::lab::containerd::Via;
use crate::lab::guarded::{ALICE, Door, basic};
use crate::lab::images::Image;
use crate::lab::network::Cluster;
use crate::lab::{Lab, REGISTRY_NAME, data_dir};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What pulls after a preheat may still cost the origin: the question what a tag means, which has no body.
const MAX_PULL_RATIO: f64 = 0.001;
/// Time for a job to get going, and for what was cancelled to stand still.
const PATIENCE: Duration = Duration::from_secs(30);
/// The last bytes of what was cancelled may be on their way.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn all(lab: &mut Lab) -> Result<()> {
    onto_all_nodes(lab)?;
    refused(lab)?;
    cancelled(lab)?;
    manager_dies(lab)
}

/// One copy from the origin, and every pull is answered by the node's own store.
fn onto_all_nodes(lab: &Lab) -> Result<()> {
    let image = image(lab, "preheated", &[30, 10])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let job = preheat(lab, &[&image.reference, "--cluster", Cluster::A.name(), "--scope", "all"])?;
    ensure!(job["state"] == "succeeded", "{job}");
    ensure!(job["nodes"].as_array().map(Vec::len) == Some(3), "not three nodes: {job}");
    for node in job["nodes"].as_array().into_iter().flatten() {
        ensure!(node["bytes_done"] == node["bytes_total"] && node["state"] == "succeeded", "{node}");
    }
    let parts = job["tasks"].as_array().map_or(0, Vec::len);
    ensure!(parts == image.layers.len() + 2, "{parts} tasks: manifest, configuration and layers were meant");
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= 1.001, "the origin sent {ratio:.4} image sizes");
    let before = lab.origin_bytes(Cluster::A)?;
    for node in lab.peers() {
        let was = node.daemon.status()?["delivered"].clone();
        let took = node.containerd.pull(&image.reference, Via::Hawker)?;
        has_all(node, &image)?;
        let now = node.daemon.status()?["delivered"].clone();
        let grown = |source: &str| now[source].as_u64().unwrap_or(0) - was[source].as_u64().unwrap_or(0);
        let local = grown("local") as f64 / image.bytes() as f64;
        println!(
            "    {} pulled in {:.2} s: {local:.4} x the image from its own store",
            node.name,
            took.as_secs_f64()
        );
        let others: u64 = ["peer_same_zone", "peer_cross_zone", "seed", "origin"].map(grown).iter().sum();
        ensure!(others == 0, "{} got {others} bytes from elsewhere", node.name);
    }
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= MAX_PULL_RATIO, "pulls after the preheat cost the origin {ratio:.4} image sizes");
    Ok(())
}

/// A private image, by the account that nodes have for jobs: what it brings is still for nobody but whom the registry lets have it.
pub(super) fn of_private(lab: &mut Lab) -> Result<()> {
    let secret = image(lab, "secret", &[6, 1])?;
    let cluster = Cluster::A.name();
    let door = private::open(lab, Door::Tokens, "")?;
    let mut tool = lab.control.tool(&lab.binaries.tool)?;
    let done = run(tool.args(["preheat", &secret.reference, "--cluster", cluster]), LONG)?;
    println!("    {}", done.stderr.trim());
    ensure!(!done.status.success() && done.stderr.contains("jobAccount"), "{}{}", done.stdout, done.stderr);
    drop(door);
    let file = data_dir("account.json");
    let auth = basic(ALICE).trim_start_matches("Basic ").to_owned();
    let account = serde_json::json!({ "auths": { REGISTRY_NAME: { "auth": auth } } });
    fs::write(&file, account.to_string()).context("write the nodes' account")?;
    let more = format!(", jobAccount: {}", file.display());
    for door in [Door::Passwords, Door::Tokens] {
        let secret = if door == Door::Tokens { secret.clone() } else { image(lab, "secret-too", &[3])? };
        let _door = private::open(lab, door, &more)?;
        let job = preheat(lab, &[&secret.reference, "--cluster", cluster, "--scope", "all"])?;
        ensure!(job["state"] == "succeeded", "{job}");
        let nodes = job["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let held: u64 = nodes.iter().filter_map(|node| node["bytes_done"].as_u64()).sum();
        println!("    {door:?}: job {}, {held} bytes on {} nodes", job["state"], nodes.len());
        ensure!(held >= 2 * secret.bytes(), "not on both nodes: {job}");
        private::nothing_written_down(lab)?;
        if door == Door::Tokens {
            private::refused(lab, &secret)?;
        }
    }
    let mut grep = Command::new("grep");
    grep.args(["-rlF", "-e", ALICE.1, "-e", &auth]).arg(data_dir("control"));
    let found = run(&mut grep, SHORT)?;
    ensure!(found.stdout.is_empty(), "credentials in {}", found.stdout);
    Ok(())
}

/// What cannot be is said, and why.
fn refused(lab: &Lab) -> Result<()> {
    let absent = format!("{REGISTRY_NAME}/lab/no-such-image:1");
    let cluster = Cluster::A.name();
    for (arguments, says) in [
        (
            vec![absent.as_str(), "--cluster", cluster],
            "there is no image registry.lab:5000/lab/no-such-image:1",
        ),
        (vec!["elsewhere.lab/a:1", "--cluster", cluster], "elsewhere.lab is not on the allow-list"),
        (
            vec!["http://169.254.169.254/latest/meta-data", "--cluster", cluster],
            "not on the allow-list for files",
        ),
        (vec![absent.as_str(), "--cluster", "nowhere"], "there is no cluster `nowhere`"),
        (vec![absent.as_str(), "--cluster", cluster, "--scope", "seeds"], "has no live seed peer"),
        (vec![absent.as_str(), "--scope", "most"], "args.scope: `most`"),
        (vec!["a b"], "args.image"),
    ] {
        let mut tool = lab.control.tool(&lab.binaries.tool)?;
        let done = run(tool.arg("preheat").args(&arguments), LONG)?;
        println!("    {}", done.stderr.trim());
        ensure!(
            !done.status.success() && done.stderr.contains(says),
            "{arguments:?}: {}{}",
            done.stdout,
            done.stderr
        );
    }
    Ok(())
}

fn cancelled(lab: &Lab) -> Result<()> {
    let image = image(lab, "unwanted", &[90])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let job = preheat(lab, &[&image.reference, "--detach"])?;
    let id = job["id"].as_u64().context("a job has an id")?;
    under_way(lab, id, 8 * MIB as u64)?;
    let mut tool = lab.control.tool(&lab.binaries.tool)?;
    let done = run(tool.args(["jobs", "cancel", &id.to_string()]), SHORT)?;
    ensure!(done.status.success(), "{}", done.stderr);
    let job = lab.control.get(&format!("/api/v1/jobs/{id}"))?;
    ensure!(job["state"] == "cancelled", "{job}");
    // The registry's log has a line when an answer ends: the daemons tell sooner that nothing comes.
    std::thread::sleep(QUIET);
    let held = || -> Result<u64> {
        let of = |node: &crate::lab::Node| Ok::<_, anyhow::Error>(held(&node.daemon.status()?, &image));
        lab.peers().map(of).sum()
    };
    let then = held()?;
    std::thread::sleep(QUIET);
    let (now, all) = (held()?, 3 * image.layers[0].bytes / (4 * MIB as u64));
    println!("    cancelled: {then} of {all} pieces held, {QUIET:?} later {now}");
    ensure!(then == now && now < all, "it went on");
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio < 1.0, "the origin sent all of it");
    Ok(())
}

/// kill -9 of the manager in the middle: the tool waits, the next manager goes on, nothing is fetched twice.
fn manager_dies(lab: &mut Lab) -> Result<()> {
    let image = image(lab, "survivor", &[60])?;
    let before = lab.origin_bytes(Cluster::A)?;
    let mut tool = lab.control.tool(&lab.binaries.tool)?;
    tool.args(["preheat", &image.reference, "-o", "json"]);
    let following = std::thread::spawn(move || run(&mut tool, LONG));
    let newest = interrupt::poll("the job is there", PATIENCE, || {
        let jobs = lab.control.get("/api/v1/jobs?per_page=1")?;
        let found = jobs["items"][0]["args"]["image"] == image.reference.as_str();
        if found { jobs["items"][0]["id"].as_u64().context("an id") } else { bail!("not yet: {jobs}") }
    })?;
    under_way(lab, newest, 8 * MIB as u64)?;
    lab.control.manager.crash()?;
    std::thread::sleep(QUIET);
    lab.control.restart_manager()?;
    let done = following.join().map_err(|_| anyhow!("the tool's thread panicked"))??;
    ensure!(done.status.success(), "{}{}", done.stdout, done.stderr);
    let job: Value = serde_json::from_str(&done.stdout).context("read what the tool printed")?;
    println!("    the manager was killed and restarted: job {} {}", job["id"], job["state"]);
    ensure!(job["state"] == "succeeded" && job["id"] == newest, "{job}");
    let ratio = origin_ratio(lab, &image, before)?;
    ensure!(ratio <= 1.001, "the origin sent {ratio:.4} image sizes");
    Ok(())
}

/// Runs the tool, whether the job ends well or not; what it printed.
fn preheat(lab: &Lab, arguments: &[&str]) -> Result<Value> {
    let mut tool = lab.control.tool(&lab.binaries.tool)?;
    let done = run(tool.arg("preheat").args(arguments).args(["-o", "json"]), LONG)?;
    serde_json::from_str(&done.stdout).with_context(|| format!("{}{}", done.stdout, done.stderr))
}

/// Waits until the nodes of a job have so many bytes together.
fn under_way(lab: &Lab, job: u64, bytes: u64) -> Result<()> {
    interrupt::poll("the job is under way", PATIENCE, || {
        let job = lab.control.get(&format!("/api/v1/jobs/{job}"))?;
        let nodes = job["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let done: u64 = nodes.iter().filter_map(|node| node["bytes_done"].as_u64()).sum();
        if done < bytes { bail!("{done} bytes so far") } else { Ok(()) }
    })
}

/// Pieces of the image's layers that a node has, or has had when their download ended.
fn held(status: &Value, image: &Image) -> u64 {
    let tasks = status["tasks"].as_array().map_or(&[][..], Vec::as_slice);
    let of_image = |task: &&Value| image.layers.iter().any(|layer| task["task"] == layer.digest.as_str());
    tasks.iter().filter(of_image).filter_map(|task| task["pieces_held"].as_u64()).sum()
}
