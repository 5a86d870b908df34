//! The cluster that the tests play with.

mod manager;
mod origin;

use hawker_api::units::Rate;
use hawker_control::scheduler::{Scheduler, SchedulerConfig, Stats};
use hawker_daemon::config::Config;
use hawker_daemon::daemon::Daemon;
use manager::Manager;
pub(crate) use origin::Blob;
use origin::Origin;
use rand::{Rng, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

pub(crate) const MIB: usize = 1 << 20;
/// No pull in these tests may take longer.
const PULL_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    rand::rngs::StdRng::seed_from_u64(seed).fill(bytes.as_mut_slice());
    bytes
}

pub(crate) struct Cluster {
    origin: Origin,
    manager: Manager,
    scheduler: Option<Scheduler>,
    scheduler_addr: SocketAddr,
    nodes: Vec<Node>,
    download_limit: Rate,
    client: reqwest::Client,
}

struct Node {
    dir: tempfile::TempDir,
    mirror: SocketAddr,
    status: SocketAddr,
    daemon: Daemon,
}

impl Cluster {
    /// Seeds first, then peers.
    pub(crate) async fn start(seeds: usize, peers: usize) -> Self {
        let scheduler = scheduler((Ipv4Addr::LOCALHOST, 0).into()).await;
        let scheduler_addr = scheduler.local_addr();
        let mut cluster = Self {
            origin: Origin::start().await,
            manager: Manager::start(scheduler_addr).await,
            scheduler: Some(scheduler),
            scheduler_addr,
            nodes: Vec::new(),
            download_limit: Rate(0),
            client: reqwest::Client::new(),
        };
        for number in 0..seeds + peers {
            cluster.add(number < seeds).await;
        }
        cluster
    }

    pub(crate) async fn add_node(&mut self) -> usize {
        self.add(false).await
    }

    async fn add(&mut self, seed: bool) -> usize {
        let node = self.node(tempfile::tempdir().unwrap(), seed).await;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    async fn node(&self, dir: tempfile::TempDir, seed: bool) -> Node {
        let (mirror, status) = (free_port(), free_port());
        let mut config = config(dir.path(), seed, mirror, status, self.manager.addr, self.origin.addr);
        config.shaper.download_limit = self.download_limit;
        let daemon = Daemon::bind(config).await.unwrap();
        Node { dir, mirror, status, daemon }
    }

    /// Until the scheduler knows again what it knew of the node.
    pub(crate) async fn restart_node(&mut self, number: usize) {
        let known = self.stats().tasks;
        let Node { dir, daemon, .. } = self.nodes.remove(number);
        daemon.shutdown().await;
        let node = self.node(dir, false).await;
        self.nodes.insert(number, node);
        // What it holds is told right after it is connected: a moment that a pull must not fall into here.
        self.until("its inventory is told", |stats| stats.tasks >= known).await;
    }

    fn stats(&self) -> Stats {
        self.scheduler.as_ref().unwrap().stats()
    }

    async fn until(&self, what: &str, holds: impl Fn(Stats) -> bool) {
        let waiting = async {
            while !holds(self.stats()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
    }

    pub(crate) async fn stop_scheduler(&self) {
        self.scheduler.as_ref().unwrap().stop();
    }

    pub(crate) async fn start_scheduler(&mut self) {
        let known = self.stats().tasks;
        if let Some(old) = self.scheduler.take() {
            old.shutdown().await;
        }
        self.scheduler = Some(scheduler(self.scheduler_addr).await);
        let all = self.nodes.len();
        self.until("the daemons come back", |stats| stats.hosts >= all && stats.tasks >= known).await;
    }

    pub(crate) fn publish(&self, bytes: Vec<u8>) -> Blob {
        let blob = Blob::new(bytes);
        self.origin.publish(&blob);
        blob
    }

    pub(crate) fn limit_origin(&self, bytes_per_second: u64) {
        self.origin.limit(bytes_per_second);
    }

    /// Of nodes that start from now on.
    pub(crate) fn limit_downloads(&mut self, bytes_per_second: u64) {
        self.download_limit = Rate(bytes_per_second);
    }

    pub(crate) fn origin_bytes(&self) -> u64 {
        self.origin.sent()
    }

    pub(crate) async fn origin_has_sent(&self, bytes: u64) {
        while self.origin_bytes() < bytes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Pulls through the mirror of a node; the error is the status.
    pub(crate) async fn pull(&self, node: usize, blob: &Blob) -> Result<Vec<u8>, String> {
        let url = format!(
            "http://{}/v2/library/thing/blobs/{}?ns=registry.test",
            self.nodes[node].mirror, blob.digest
        );
        let pulling = async {
            let answer = self.client.get(url).send().await.map_err(|error| error.to_string())?;
            if !answer.status().is_success() {
                return Err(answer.status().as_u16().to_string());
            }
            Ok(answer.bytes().await.map_err(|error| error.to_string())?.to_vec())
        };
        tokio::time::timeout(PULL_LIMIT, pulling).await.expect("a pull hangs")
    }

    /// What `/status` says was delivered, by source.
    pub(crate) async fn delivered(&self, node: usize) -> serde_json::Value {
        let url = format!("http://{}/status", self.nodes[node].status);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["delivered"].clone()
    }
}

async fn scheduler(grpc: SocketAddr) -> Scheduler {
    let config =
        SchedulerConfig { grpc, advertise_addr: String::new(), cluster_id: 1, manager_addrs: Vec::new() };
    // A port that was just closed may take a moment.
    for _ in 0..50 {
        if let Ok(scheduler) = Scheduler::bind(config.clone()).await {
            return scheduler;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("cannot listen on {grpc}");
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn config(
    dir: &Path,
    seed: bool,
    mirror: SocketAddr,
    status: SocketAddr,
    manager: SocketAddr,
    origin: SocketAddr,
) -> Config {
    let text = format!(
        "host: {{ advertiseIP: 127.0.0.1 }}\n\
         manager: {{ addrs: ['http://{manager}'] }}\n\
         seedPeer: {{ enable: {seed} }}\n\
         mirror: {{ addr: '{mirror}', registries: [{{ host: registry.test, server: 'http://{origin}' }}] }}\n\
         peer: {{ addr: '127.0.0.1:0' }}\n\
         storage: {{ dir: '{}' }}\n\
         metrics: {{ addr: '{status}' }}\n\
         shaper: {{ mode: off }}\n\
         api: {{ socket: '' }}\n",
        dir.display()
    );
    let path = dir.join("daemon.yaml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), []).unwrap()
}
