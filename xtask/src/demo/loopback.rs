//! The demo without root: the same programs on addresses of the loopback network, two clusters by CIDR,
//! a built-in puller that checks digests, a built-in origin that counts.
//!
//! Invariant: it checks the same things as the demo in the lab, and says what it had to leave out.

mod origin;

use super::table::{self, Row};
use super::{MAX_ORIGIN_RATIO, sources};
use crate::binaries::Binaries;
use crate::lab::processes::Process;
use crate::{http, interrupt};
use anyhow::{Context, Result, bail};
use origin::Origin;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
const PASSWORD: &str = "only-for-the-demo";
const REST: &str = "http://127.0.0.1:18080";
const MANAGER: &str = "http://127.0.0.1:16503";
/// Sizes of the pulled blobs, bytes.
const BLOBS: [usize; 3] = [24 << 20, 5 << 20, 12];

struct Node {
    name: &'static str,
    cluster: usize,
    ip: &'static str,
    seed: bool,
}

const NODES: [Node; 6] = [
    Node { name: "a-seed", cluster: 1, ip: "127.0.1.10", seed: true },
    Node { name: "a1", cluster: 1, ip: "127.0.1.11", seed: false },
    Node { name: "a2", cluster: 1, ip: "127.0.1.12", seed: false },
    Node { name: "b-seed", cluster: 2, ip: "127.0.2.10", seed: true },
    Node { name: "b1", cluster: 2, ip: "127.0.2.11", seed: false },
    Node { name: "b2", cluster: 2, ip: "127.0.2.12", seed: false },
];

pub(super) fn run(binaries: &Binaries, once: bool) -> Result<ExitCode> {
    let dir = tempfile::tempdir().context("make a directory for the demo")?;
    let mut random = StdRng::seed_from_u64(1);
    let blobs: Vec<Vec<u8>> = BLOBS.map(|size| bytes(&mut random, size)).into();
    let origin = Origin::start(blobs.clone())?;
    let _control = control(binaries, dir.path())?;
    let mut daemons = Vec::new();
    for node in &NODES {
        daemons.push(daemon(binaries, dir.path(), node, &origin)?);
    }
    for node in &NODES {
        interrupt::poll("the daemon is in its cluster", START_LIMIT, || {
            let status = status(node)?;
            if status["cluster"]["id"] != node.cluster || status["scheduler"]["connected"] != true {
                bail!("{}: {} {}", node.name, status["cluster"], status["scheduler"]);
            }
            Ok(())
        })?;
    }
    let problems = pull_everywhere(&blobs, &origin)?;
    println!("\nconsole: {REST}/, REST API: {REST}/api/v1; sign in as root with the password {PASSWORD}");
    if !once {
        println!("standing until Ctrl-C");
        interrupt::wait();
    }
    if problems.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!("{}", problems.join("; ")) }
}

fn bytes(random: &mut StdRng, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    random.fill(bytes.as_mut_slice());
    bytes
}

fn pull_everywhere(blobs: &[Vec<u8>], origin: &Origin) -> Result<Vec<String>> {
    let (mut rows, mut problems, mut sent) = (Vec::new(), Vec::new(), 0);
    let size: usize = blobs.iter().map(Vec::len).sum();
    let mut by_cluster = Vec::new();
    for node in NODES.iter().filter(|node| !node.seed) {
        let (before, started) = (status(node)?, Instant::now());
        for blob in blobs {
            pull(node, blob)?;
        }
        let (after, took) = (status(node)?, started.elapsed());
        let source = sources(&after["delivered"], &before["delivered"]);
        if node.name.ends_with('2') && source.contains("origin") {
            problems.push(format!("{} got something from the origin", node.name));
        }
        let (name, cluster) = (node.name.to_owned(), format!("cluster-{}", node.cluster));
        rows.push(Row { node: name, cluster, what: "all blobs".into(), bytes: size as u64, source, took });
        if node.name.ends_with('2') {
            by_cluster.push((node.cluster, origin.sent() - sent));
            sent = origin.sent();
        }
    }
    print!("{}", table::render(&rows));
    for (cluster, bytes) in by_cluster {
        let ratio = bytes as f64 / size as f64;
        println!("origin bytes, cluster-{cluster}: {bytes} = {ratio:.4} x all blobs");
        if ratio > MAX_ORIGIN_RATIO {
            problems.push(format!("cluster-{cluster} cost the origin {ratio:.4} sizes"));
        }
    }
    Ok(problems)
}

fn pull(node: &Node, blob: &[u8]) -> Result<()> {
    let digest = origin::digest(blob);
    let url = format!("http://{}:14001/v2/demo/blobs/{digest}?ns=registry.demo", node.ip);
    let answer = http::get(&url, &[])?;
    if answer.status != 200 || Sha256::digest(&answer.body) != Sha256::digest(blob) {
        bail!("{} pulls {digest}: {} with {} bytes", node.name, answer.status, answer.body.len());
    }
    Ok(())
}

fn status(node: &Node) -> Result<Value> {
    http::get(&format!("http://{}:14003/status", node.ip), &[])?.json()
}

fn control(binaries: &Binaries, dir: &Path) -> Result<Vec<Process>> {
    fs::write(dir.join("root-password"), PASSWORD).context("write the root password")?;
    let start = |role: &str, name: &str, text: &str| {
        let config = dir.join(format!("{name}.yaml"));
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = Command::new(&binaries.control);
        command.arg(role).arg("--config").arg(&config);
        Process::start(name, &mut command, &config.with_extension("log"))
    };
    let manager = format!(
        "manager: {{ rest: '127.0.0.1:18080', grpc: '127.0.0.1:16503', database: 'sqlite://{}', rootPasswordFile: '{}' }}\n\
         metrics: {{ addr: '127.0.0.1:18000' }}\n",
        dir.join("manager.db").display(),
        dir.join("root-password").display()
    );
    let mut processes = vec![start("manager", "manager", &manager)?];
    interrupt::poll("the manager answers", START_LIMIT, || {
        http::get(&format!("{REST}/healthz"), &[]).map(drop)
    })?;
    let credentials = json!({ "name": "root", "password": PASSWORD });
    let token =
        http::post(&format!("{REST}/api/v1/users/signin"), "", &credentials)?.json()?["token"].clone();
    let token = token.as_str().context("sign in at the manager")?;
    let scopes = |cluster: usize| json!({ "cidrs": [format!("127.0.{cluster}.0/24")] });
    let first = http::patch(&format!("{REST}/api/v1/clusters/1"), token, &json!({ "scopes": scopes(1) }))?;
    let second = json!({ "name": "cluster-2", "scopes": scopes(2) });
    let second = http::post(&format!("{REST}/api/v1/clusters"), token, &second)?;
    if first.status >= 300 || second.status >= 300 {
        bail!("declare the clusters: {} {}", first.text(), second.text());
    }
    for cluster in [1, 2] {
        let text = format!(
            "scheduler: {{ grpc: '127.0.0.1:1800{cluster}', advertiseAddr: '127.0.0.1:1800{cluster}', \
             clusterID: {cluster}, managerAddrs: ['{MANAGER}'] }}\nmetrics: {{ addr: '127.0.0.1:1801{cluster}' }}\n"
        );
        processes.push(start("scheduler", &format!("scheduler-{cluster}"), &text)?);
    }
    Ok(processes)
}

fn daemon(binaries: &Binaries, dir: &Path, node: &Node, origin: &Origin) -> Result<Process> {
    let config = dir.join(format!("{}.yaml", node.name));
    let (name, ip) = (node.name, node.ip);
    let text = format!(
        "host: {{ hostname: {name}, advertiseIP: {ip} }}\nmanager: {{ addrs: ['{MANAGER}'] }}\n\
         seedPeer: {{ enable: {} }}\n\
         mirror: {{ addr: '{ip}:14001', registries: [{{ host: registry.demo, server: 'http://{}' }}] }}\n\
         peer: {{ addr: '{ip}:14000' }}\nmetrics: {{ addr: '{ip}:14003' }}\napi: {{ socket: '' }}\n\
         storage: {{ dir: '{}' }}\n",
        node.seed,
        origin.addr,
        dir.join(name).display()
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = Command::new(&binaries.hawkerd);
    command.arg("--config").arg(&config);
    Process::start(&format!("hawkerd {name}"), &mut command, &config.with_extension("log"))
}
