//! The main job, shown: two clusters, each with a scheduler, a seed peer and two peers; one image pulled on
//! the four peers in turn; who got what from where, and what it cost the registry.
//!
//! Invariant: it ends with an error if a pull fails, a cluster costs the registry more than
//! [`MAX_ORIGIN_RATIO`] image sizes, or the second node of a cluster got anything but from peers.

mod door;
mod loopback;
mod table;

use crate::lab::containerd::Via;
use crate::lab::control::Control;
use crate::lab::images::{self, Image};
use crate::lab::network::Cluster;
use crate::lab::{Lab, Node, Plan};
use crate::setup::{self, Ability};
use crate::{binaries, console, interrupt};
use anyhow::{Context, Result, bail};
use door::Door;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use table::Row;

/// What a cluster may cost the registry, in image sizes.
pub(crate) const MAX_ORIGIN_RATIO: f64 = 1.02;

pub(crate) fn run(once: bool) -> Result<ExitCode> {
    let ability = setup::run()?;
    console::build_if_possible()?;
    let binaries = binaries::build_quickly()?;
    if let Ability::NoLab(why) = ability {
        println!("without the lab ({why}): processes on loopback addresses, a built-in puller and origin;");
        println!("left out: containerd, the shaped link, the wall between the clusters");
        return loopback::run(&binaries, once);
    }
    println!("building the lab");
    let lab = Lab::up(&binaries, &Plan::default())?;
    let image = images::make(&lab.registry, "demo", &images::DEMO, 1)?;
    let shown = show(&lab, &image)?;
    print!("{}", shown.text);
    println!("\n{}", Control::how_to_sign_in());
    if !once {
        let (namespace, manager) = Control::rest_service();
        let door = Door::open(namespace, manager, manager.port())?;
        println!("console:  http://{}/", door.addr());
        println!("\nstanding until Ctrl-C; cargo xtask lab exec NODE -- COMMAND runs in a node's network");
        interrupt::wait();
    }
    if shown.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{}", shown.problems.join("; "))
}

/// What the demo found.
pub(crate) struct Shown {
    pub(crate) text: String,
    pub(crate) problems: Vec<String>,
}

/// Pulls `image` on every peer in turn and tells the story.
pub(crate) fn show(lab: &Lab, image: &Image) -> Result<Shown> {
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for node in lab.peers() {
        let before = node.daemon.status()?;
        let took = node.containerd.pull(&image.reference, Via::Hawker)?;
        let missing = missing(node, image)?;
        if !missing.is_empty() {
            problems.push(format!("{} lacks {}", node.name, missing.join(", ")));
        }
        rows.extend(rows_of(node, image, &before, &node.daemon.status()?, took)?);
    }
    for cluster in Cluster::ALL {
        let second = lab.peers().filter(|node| node.cluster == cluster).nth(1);
        let Some(second) = second else { continue };
        for row in rows.iter().filter(|row| row.node == second.name && row.source.contains("origin")) {
            problems.push(format!("{} got {} from the origin", row.node, row.what));
        }
    }
    let mut text = table::render(&rows);
    text.push_str(&format!("\nimage: {} bytes in {} layers\n", image.bytes(), image.layers.len()));
    for cluster in Cluster::ALL {
        let bytes = lab.origin_bytes(cluster)?;
        let ratio = bytes as f64 / image.bytes() as f64;
        text.push_str(&format!("origin bytes, {}: {bytes} = {ratio:.4} x image\n", cluster.name()));
        if ratio > MAX_ORIGIN_RATIO {
            problems.push(format!("{} cost the origin {ratio:.4} image sizes", cluster.name()));
        }
    }
    Ok(Shown { text, problems })
}

/// Digests of the image that containerd does not have.
pub(crate) fn missing(node: &Node, image: &Image) -> Result<Vec<String>> {
    let content = node.containerd.content()?;
    Ok(image
        .digests()
        .filter(|digest| !content.iter().any(|held| held == digest))
        .map(str::to_owned)
        .collect())
}

fn rows_of(node: &Node, image: &Image, before: &Value, after: &Value, took: Duration) -> Result<Vec<Row>> {
    let row = |what: String, bytes: u64, source: String, took: Duration| Row {
        node: node.name.clone(),
        cluster: node.cluster.name().to_owned(),
        what,
        bytes,
        source,
        took,
    };
    let mut rows = Vec::new();
    for layer in &image.layers {
        let short = layer.digest.get(7..19).unwrap_or(&layer.digest);
        let Some(task) = task(after, &layer.digest) else {
            rows.push(row(format!("layer {short}"), layer.bytes, "local".to_owned(), Duration::ZERO));
            continue;
        };
        let started = task["started_unix_ms"].as_u64().context("a task without start")?;
        let finished = task["finished_unix_ms"].as_u64().unwrap_or(started);
        let took = Duration::from_millis(finished.saturating_sub(started));
        rows.push(row(
            format!("layer {short}"),
            layer.bytes,
            sources(&task["delivered"], &Value::Null),
            took,
        ));
    }
    let source = sources(&after["delivered"], &before["delivered"]);
    rows.push(row("whole image".to_owned(), image.bytes(), source, took));
    Ok(rows)
}

fn task<'a>(status: &'a Value, digest: &str) -> Option<&'a Value> {
    status["tasks"].as_array()?.iter().find(|task| task["task"] == digest)
}

/// The sources of delivered bytes, largest share first.
pub(crate) fn sources(delivered: &Value, before: &Value) -> String {
    const NAMES: [(&str, &str); 5] = [
        ("origin", "origin"),
        ("seed", "remote peer (seed)"),
        ("peer_same_zone", "remote peer"),
        ("peer_cross_zone", "remote peer (other zone)"),
        ("local", "local"),
    ];
    let bytes = |of: &Value, key: &str| of[key].as_u64().unwrap_or(0);
    let mut shares: Vec<(u64, &str)> = NAMES
        .iter()
        .map(|(key, name)| (bytes(delivered, key).saturating_sub(bytes(before, key)), *name))
        .filter(|(bytes, _)| *bytes > 0)
        .collect();
    shares.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let total: u64 = shares.iter().map(|(bytes, _)| bytes).sum();
    match shares.as_slice() {
        [] => "nothing".to_owned(),
        [(_, only)] => (*only).to_owned(),
        many => {
            let share =
                |(bytes, name): &(u64, &str)| format!("{name} {:.0} %", 100.0 * *bytes as f64 / total as f64);
            many.iter().map(share).collect::<Vec<_>>().join(", ")
        }
    }
}
