//! What operators see of a pull: one trace through every program, and figures in every panel of the dashboards.
//!
//! Invariant: judged by an OTLP collector and a Prometheus that know nothing of Hawker.

use super::{has_all, image};
use crate::command::{SHORT, check};
use crate::interrupt;
use crate::lab::collector::{Collector, Span};
use crate::lab::containerd::Via;
use crate::lab::images::Image;
use crate::lab::network::{CONTROL, Cluster, ORIGIN};
use crate::lab::prometheus::{DAEMON_PORT, Prometheus};
use crate::lab::{Lab, REGISTRY_NAME, daemon, data_dir};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What containerd says its pull belongs to: Debian's release has no tracing of its own, so its hosts file has it send this header.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const LAYERS_MIB: [usize; 2] = [24, 1];
/// Metrics ports of the manager, and of cluster A's scheduler.
const CONTROL_METRICS: [u16; 2] = [8000, 8101];
const DASHBOARDS: [&str; 2] = ["deploy/grafana/hawker-nodes.json", "deploy/grafana/hawker-control.json"];
/// Samples that rates need, at one a second.
const SCRAPES: Duration = Duration::from_secs(8);

pub(super) fn traces_and_metrics(lab: &mut Lab) -> Result<()> {
    let collector = Collector::start()?;
    lab.control.scheduler_extra = format!("telemetry: {{ otlpEndpoint: \"{}\" }}", Collector::endpoint());
    for (_, scheduler) in &mut lab.control.schedulers {
        scheduler.stop()?;
    }
    lab.control.restart_scheduler(Cluster::A)?;
    for node in &mut lab.nodes {
        node.daemon.with_line(&format!(
            "telemetry: {{ otlpEndpoint: \"{}\" }}\nmetrics: {{ addr: \"0.0.0.0:{DAEMON_PORT}\" }}",
            Collector::endpoint()
        ))?;
    }
    let prometheus = Prometheus::start(lab.nodes.iter(), &CONTROL_METRICS)?;
    let image = image(lab, "traced", &LAYERS_MIB)?;
    // A rate needs a sample from before.
    let wanted = lab.nodes.len() + CONTROL_METRICS.len();
    interrupt::poll("everything is scraped", Duration::from_secs(20), || {
        all_are_scraped(&prometheus, wanted)
    })?;
    println!("    {wanted} targets scraped");
    for name in ["a1", "a2"] {
        let (node, hosts) = (lab.node(name)?, traced_hosts(name)?);
        node.containerd.pull(&image.reference, Via::Dir(&hosts))?;
        has_all(node, &image)?;
    }
    one_trace(&collector, &image)?;
    lab.control.get("/api/v1/clusters")?;
    std::thread::sleep(SCRAPES);
    all_are_scraped(&prometheus, wanted)?;
    rules_are_well(&prometheus)?;
    let mut panels = 0;
    for path in DASHBOARDS {
        panels += every_panel(&prometheus, path)?;
    }
    println!("    {panels} queries of {} dashboards, data for each", DASHBOARDS.len());
    top(lab)?;
    operator(lab)?;
    prometheus.stop()?;
    collector.stop()
}

/// A hosts directory as nodes have it, with the trace in a header.
fn traced_hosts(name: &str) -> Result<PathBuf> {
    let hosts = data_dir(name).join("hosts/traced");
    let dir = hosts.join(REGISTRY_NAME);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mirror = daemon::MIRROR;
    let text = format!(
        "server = \"http://{ORIGIN}:5000\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n\
         [host.\"{mirror}\".header]\n  traceparent = \"00-{TRACE}-{CALLER}-01\"\n"
    );
    fs::write(dir.join("hosts.toml"), text).context("write hosts.toml")?;
    Ok(hosts)
}

/// All spans are one trace, and a search by `http.url` finds the layer's pull, as in Jaeger.
fn one_trace(collector: &Collector, image: &Image) -> Result<()> {
    let layer = image.layers.iter().max_by_key(|blob| blob.bytes).context("a layer")?;
    let url = |span: &Span| span.attribute("http.url").contains(&format!("/blobs/{}?ns=", layer.digest));
    let spans = interrupt::poll("every part of the pull is exported", Duration::from_secs(20), || {
        let spans = collector.spans();
        for name in ["mirror", "download", "schedule", "lease", "origin", "fetch", "serve"] {
            ensure!(spans.iter().any(|span| span.name == name), "no span `{name}` among {}", spans.len());
        }
        ensure!(
            spans.iter().filter(|span| span.name == "mirror" && url(span)).count() >= 2,
            "not both pulls"
        );
        // A span is exported when it ends, so those above it come later.
        let loose = loose(&spans);
        ensure!(loose.is_empty(), "spans whose parent was not exported: {loose:?}");
        Ok(spans)
    })?;
    let mut traced: Vec<&Span> = spans.iter().filter(|span| span.trace == TRACE).collect();
    let of_others = spans.iter().filter(|span| span.trace != TRACE).count();
    let programs: HashSet<(&str, &str)> =
        traced.iter().map(|span| (span.program.as_str(), span.host.as_str())).collect();
    println!(
        "    trace {TRACE}: {} spans of {} processes, each below another; {of_others} spans of other traces",
        traced.len(),
        programs.len()
    );
    for (program, host) in [("hawkerd", "a1"), ("hawkerd", "a2"), ("hawkerd", "a-seed")] {
        ensure!(programs.contains(&(program, host)), "no span of {program} on {host}: {programs:?}");
    }
    ensure!(programs.iter().any(|(program, _)| *program == "hawker-control"), "no span of the scheduler");
    traced.retain(|span| span.name == "mirror" && url(span));
    for span in traced {
        println!(
            "    http.url=\"{}\" on {}: {:.1} ms, {} bytes from {}",
            span.attribute("http.url"),
            span.host,
            span.took.as_secs_f64() * 1e3,
            span.attribute("http.response_content_length"),
            span.attribute("hawker.source")
        );
        ensure!(span.parent == CALLER && span.took > Duration::ZERO, "not below the runtime's own span");
        ensure!(span.attribute("http.response_content_length") == layer.bytes.to_string(), "other bytes");
        ensure!(!span.attribute("hawker.source").is_empty(), "no source");
    }
    Ok(())
}

/// Spans of the trace that hang on nothing.
fn loose(spans: &[Span]) -> Vec<String> {
    let traced = || spans.iter().filter(|span| span.trace == TRACE);
    let ids: HashSet<&str> = traced().map(|span| span.id.as_str()).collect();
    let hangs = |span: &&Span| span.parent == CALLER || ids.contains(span.parent.as_str());
    traced().filter(|span| !hangs(span)).map(|span| format!("{} of {}", span.name, span.host)).collect()
}

fn all_are_scraped(prometheus: &Prometheus, wanted: usize) -> Result<()> {
    let targets = prometheus.get("/api/v1/targets")?;
    let targets = targets["activeTargets"].as_array().context("targets")?;
    let down: Vec<String> = targets
        .iter()
        .filter(|target| target["health"] != "up")
        .map(|target| format!("{}: {}", target["scrapeUrl"], target["lastError"]))
        .collect();
    ensure!(down.is_empty() && targets.len() == wanted, "of {wanted}: {}", down.join("; "));
    Ok(())
}

fn rules_are_well(prometheus: &Prometheus) -> Result<()> {
    let rules = prometheus.get("/api/v1/rules")?;
    let groups = rules["groups"].as_array().context("rule groups")?;
    let broken = |rule: &&Value| rule["health"] == "err";
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    let broken: Vec<String> =
        rules.iter().copied().filter(broken).map(|rule| rule["name"].to_string()).collect();
    ensure!(rules.len() > 20 && broken.is_empty(), "{} rules, broken: {}", rules.len(), broken.join(", "));
    let firing: Vec<&&Value> = rules.iter().filter(|rule| rule["state"] == "firing").collect();
    ensure!(firing.is_empty(), "alerts in a lab that is well: {firing:?}");
    Ok(())
}

/// Asks what Grafana would, and wants an answer to each; how many there were.
fn every_panel(prometheus: &Prometheus, path: &str) -> Result<usize> {
    let text = fs::read_to_string(workspace::root()?.join(path)).with_context(|| format!("read {path}"))?;
    let board: Value = serde_json::from_str(&text).with_context(|| format!("read JSON of {path}"))?;
    let (mut count, mut without) = (0, Vec::new());
    for panel in board["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        for target in targets.with_context(|| format!("panel {} asks nothing", panel["title"]))? {
            let expression = target["expr"].as_str().context("a target without an expression")?;
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$__range", "5m")
                .replace("$instance", ".*")
                .replace("$cluster", ".*");
            ensure!(!expression.contains('$'), "a variable that this test does not know: {expression}");
            count += 1;
            let samples = prometheus.query(&expression)?;
            if !samples.iter().any(|(_, value)| value.is_finite()) {
                without.push(format!("{}: {expression}", panel["title"]));
            }
        }
    }
    ensure!(without.is_empty(), "{path}: no data for\n{}", without.join("\n"));
    Ok(count)
}

/// `hawker top`, once, for scripts.
fn top(lab: &Lab) -> Result<()> {
    let node = lab.node("a2")?;
    let words = ["top", "--once", "-o", "json", "--interval", "0.5"];
    let view: Value = serde_json::from_str(&check(node.tool(&lab.binaries).args(words), SHORT)?.stdout)?;
    println!("    hawker top: engine {}, shaper {}", view["engine"], view["shaper"]);
    ensure!(view["engine"]["name"].as_str().is_some_and(|name| !name.is_empty()), "no engine: {view}");
    ensure!(view["peers"].as_array().is_some_and(|peers| !peers.is_empty()), "no peers: {view}");
    ensure!(view["tasks"].as_array().is_some_and(|tasks| tasks.len() >= 2), "no tasks: {view}");
    Ok(())
}

/// The tool as an operator's: signed in at the real manager, from a node.
fn operator(lab: &Lab) -> Result<()> {
    let (node, session) = (lab.node("a1")?, data_dir("a1").join("session.json"));
    let hawker = |words: &[&str]| {
        let mut tool = node.tool(&lab.binaries);
        Ok::<_, anyhow::Error>(check(tool.env("HAWKER_SESSION_FILE", &session).args(words), SHORT)?.stdout)
    };
    let password = data_dir("control").join("root-password").display().to_string();
    let manager = format!("http://{CONTROL}:8080");
    hawker(&["login", &manager, "--user", "root", "--password-file", &password])?;
    let list = |words: &[&str]| -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&hawker(&[words, &["-o", "json"]].concat())?)?)
    };
    let (clusters, peers) = (list(&["cluster", "ls"])?, list(&["peers", "--cluster", "1"])?);
    ensure!(peers.len() == lab.nodes.len(), "of {} nodes, {} are listed", lab.nodes.len(), peers.len());
    let cluster = clusters.first().and_then(|cluster| cluster["name"].as_str()).context("a cluster")?;
    let edited = hawker(&["cluster", "edit", cluster, "--bio", "seen by the tool", "-o", "json"])?;
    let edited: Value = serde_json::from_str(&edited)?;
    ensure!(edited["bio"] == "seen by the tool", "not edited: {edited}");
    let placed = hawker(&["placement", "explain", "--ip", &node.ip.to_string()])?;
    print!("{}", placed.lines().map(|line| format!("    {line}\n")).collect::<String>());
    ensure!(placed.contains(&node.ip.to_string()), "no reason: {placed}");
    hawker(&["logout"])?;
    ensure!(hawker(&["cluster", "ls"]).is_err(), "still signed in");
    Ok(())
}
