//! `hawker preheat`: an image or file onto nodes before anybody pulls it.
//!
//! Invariant: it ends well only when the job did; a program that is interrupted leaves the job running, and says which it is.

use super::{Output, cluster, jobs};
use crate::manager::{Manager, ManagerArguments};
use crate::table::{self, bytes};
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::time::Duration;

const PATH: &str = "/api/v1/jobs";
/// How often the manager is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Answers that may fail in a row: a manager that restarts.
const MAX_FAILURES: u32 = 60;

#[derive(Args)]
pub(crate) struct PreheatArguments {
    /// Image (`ghcr.io/a/b:v1`) or http(s) URL.
    what: String,
    /// Id or name of a cluster; more than once for several. Without it: all of them.
    #[arg(long = "cluster", value_name = "CLUSTER")]
    clusters: Vec<String>,
    /// Which nodes: `seeds`, `all`, a number, or a percentage like `25%`.
    #[arg(long, default_value = "all")]
    scope: String,
    /// `linux/arm64`, `linux/arm/v7` or `all`; more than once for several. Without it: each node's own.
    #[arg(long = "platform", value_name = "PLATFORM")]
    platforms: Vec<String>,
    /// Do not wait: print the job and leave it to the manager.
    #[arg(long)]
    detach: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(crate) fn run(arguments: &ManagerArguments, preheat: &PreheatArguments) -> Result<()> {
    let manager = Manager::signed_in(arguments)?;
    let id = |name: &String| cluster::find(&manager, name).map(|(id, _)| id);
    let clusters = preheat.clusters.iter().map(id).collect::<Result<Vec<u64>>>()?;
    let kind = if preheat.what.contains("://") { "url" } else { "image" };
    let args = json!({
        kind: preheat.what,
        "platforms": preheat.platforms,
        "cluster_ids": clusters,
        "scope": preheat.scope,
    });
    let job = manager.post(PATH, &json!({ "type": "preheat", "args": args }))?;
    if preheat.detach {
        return jobs::show(&job, preheat.output);
    }
    let job = follow(&manager, job, preheat.output == Output::Json)?;
    jobs::show(&job, preheat.output)?;
    match job["state"].as_str() {
        Some("succeeded") => Ok(()),
        Some(state) => bail!("job {} {state}: {}", job["id"], table::text(&job, "/error")),
        None => bail!("the manager said nothing of the job's state"),
    }
}

/// Shows how far the job is, until it has ended.
fn follow(manager: &Manager, mut job: Value, quiet: bool) -> Result<Value> {
    let path = format!("{PATH}/{}", job["id"]);
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("job {}", job["id"]));
    let mut failures = 0;
    while !matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled")) {
        let Progress { done, total, text } = Progress::of(&job);
        bar.set_length(total.max(1));
        bar.set_position(done);
        bar.set_message(text);
        std::thread::sleep(ASK_EVERY);
        match manager.get(&path, &[]) {
            Ok(now) => (job, failures) = (now, 0),
            Err(error) if failures < MAX_FAILURES && error.may_pass() => {
                failures += 1;
                bar.set_message(format!("{error}"));
            }
            Err(error) => bail!("{error}; the job goes on: hawker jobs show {}", job["id"]),
        }
    }
    bar.finish_and_clear();
    Ok(job)
}

#[derive(Debug, PartialEq, Eq)]
struct Progress {
    done: u64,
    total: u64,
    text: String,
}

impl Progress {
    /// Bytes of all nodes together, and the nodes by what they do.
    fn of(job: &Value) -> Self {
        let nodes = job["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let sum = |key: &str| nodes.iter().filter_map(|node| node[key].as_u64()).sum::<u64>();
        let (done, known) = (sum("bytes_done"), sum("bytes_total"));
        // Nodes that do not know their total yet count as those that do.
        let most = nodes.iter().filter_map(|node| node["bytes_total"].as_u64()).max().unwrap_or(0);
        let unknown =
            nodes.iter().filter(|node| node["bytes_total"].as_u64().unwrap_or(0) == 0).count() as u64;
        let total = known + most * unknown;
        let of = |state: &str| nodes.iter().filter(|node| node["state"] == state).count();
        let text = if nodes.is_empty() {
            "finding out what it is".to_owned()
        } else {
            let (ended, failed) = (of("succeeded"), of("failed"));
            let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            format!("{} / {}, {ended} of {} nodes{failed}", bytes(done), bytes(total), nodes.len())
        };
        Self { done, total, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_all_nodes_together() {
        let node = |state: &str, done: u64, total: u64| json!({"state": state, "bytes_done": done, "bytes_total": total});
        let nodes = [node("succeeded", 100, 100), node("running", 50, 100), node("pending", 0, 0)];
        let progress = Progress::of(&json!({ "nodes": nodes }));
        assert_eq!((progress.done, progress.total), (150, 300));
        assert!(progress.text.ends_with("1 of 3 nodes"), "{}", progress.text);
        assert_eq!(Progress::of(&json!({})).text, "finding out what it is");
    }
}
