//! Files by `hawker get`, from an nginx on the cluster's bridge.

use super::MIB;
use crate::command::{LONG, SHORT, check, run};
use crate::lab::network::Cluster;
use crate::lab::nginx::{KEY, Nginx};
use crate::lab::registry::Registry;
use crate::lab::{FILES_NAME, Lab, Node, data_dir};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) fn by_the_tool(lab: &mut Lab) -> Result<()> {
    let near = Registry::start_near(Cluster::A)?;
    let nginx = Nginx::start_near(Cluster::A)?;
    let outcome = shared(lab, &nginx).and_then(|()| private(lab)).and_then(|()| kept(lab));
    nginx.stop()?;
    drop(near);
    outcome
}

/// Three nodes at once: one copy from the origin, the right bytes on each.
fn shared(lab: &Lab, nginx: &Nginx) -> Result<()> {
    let bytes = noise(40 * MIB + 4321);
    fs::write(Nginx::file("weights.bin"), &bytes).context("publish a file")?;
    let url = format!("http://{FILES_NAME}/files/weights.bin");
    let said: Result<Vec<String>> = std::thread::scope(|scope| {
        let gets: Vec<_> = lab.peers().map(|node| scope.spawn(|| get(lab, node, &url, &[]))).collect();
        gets.into_iter()
            .map(|get| get.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
            .collect()
    });
    for (node, said) in lab.peers().zip(said?) {
        println!("    {}: {}", node.name, said.trim());
        ensure!(fs::read(target(node))? == bytes, "{} has other bytes", node.name);
    }
    let sent = nginx.sent_files()?;
    let ratio = sent as f64 / bytes.len() as f64;
    println!("    the origin sent {sent} = {ratio:.4} x the file");
    ensure!(ratio <= 1.1, "more than one copy");
    Ok(())
}

/// What one caller may have, another does not get, although the node holds it.
fn private(lab: &Lab) -> Result<()> {
    let (url, node) = (format!("http://{FILES_NAME}/files/private/secret"), lab.node("a1")?);
    fs::write(Nginx::file("private/secret"), noise(MIB)).context("publish a private file")?;
    let key = format!("Authorization: {KEY}");
    get(lab, node, &url, &["-H", &key])?;
    let refused = run(tool(lab, node, &url).args(["-H", "Authorization: Bearer wrong"]), SHORT)?;
    println!("    {}", refused.stderr.trim());
    ensure!(!refused.status.success() && refused.stderr.contains("403"), "a stranger got it");
    let elsewhere = run(&mut tool(lab, node, "http://169.254.169.254/latest/meta-data"), SHORT)?;
    println!("    {}", elsewhere.stderr.trim());
    ensure!(
        !elsewhere.status.success() && elsewhere.stderr.contains("files.origins"),
        "a host that is not listed"
    );
    Ok(())
}

/// The store by its tool: listed, pinned, removed; removed here, it comes back from a peer.
fn kept(lab: &Lab) -> Result<()> {
    let node = lab.node("a2")?;
    let list = || -> Result<Vec<Value>> {
        let listed = check(node.tool(&lab.binaries).args(["ls", "-o", "json"]), SHORT)?;
        Ok(serde_json::from_str(&listed.stdout)?)
    };
    let blobs = list()?;
    let blob = blobs.iter().find(|blob| blob["task"].as_str().is_some_and(|task| task.starts_with("url:")));
    let task = blob.and_then(|blob| blob["task"].as_str()).context("the file is not listed")?.to_owned();
    check(node.tool(&lab.binaries).args(["pin", &task]), SHORT)?;
    let pinned = run(node.tool(&lab.binaries).args(["rm", &task]), SHORT)?;
    ensure!(!pinned.status.success() && pinned.stderr.contains("pinned"), "removed although pinned");
    check(node.tool(&lab.binaries).args(["rm", "--force", &task]), SHORT)?;
    ensure!(!list()?.iter().any(|blob| blob["task"] == task.as_str()), "still listed");
    let said = get(lab, node, &format!("http://{FILES_NAME}/files/weights.bin"), &["--place", "hard-link"])?;
    println!("    again after rm: {}", said.trim());
    ensure!(said.contains("peers 100 %"), "not from peers: {said}");
    ensure!(fs::metadata(target(node))?.nlink() == 2, "no hard link to the store's file");
    // At once: what is proven is written only after it was given.
    fs::remove_file(target(node))?;
    check(node.tool(&lab.binaries).args(["rm", &task]), SHORT).map(drop)
}

fn get(lab: &Lab, node: &Node, url: &str, more: &[&str]) -> Result<String> {
    Ok(check(tool(lab, node, url).args(more), LONG)?.stderr)
}

fn tool(lab: &Lab, node: &Node, url: &str) -> std::process::Command {
    let mut tool = node.tool(&lab.binaries);
    tool.args(["get", url, "-o"]).arg(target(node));
    tool
}

fn target(node: &Node) -> PathBuf {
    Path::new(&data_dir(&node.name)).join("got")
}

/// Bytes that no compression or hole makes less of; always the same.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(count).collect()
}
