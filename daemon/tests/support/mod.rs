//! The cluster that the tests play with.

mod manager;
mod origin;

use hawker_api::units::Rate;
use hawker_api::v1;
use hawker_control::scheduler::{Scheduler, SchedulerConfig, Stats};
use hawker_daemon::config::Config;
use hawker_daemon::daemon::{Daemon, Handed};
use manager::Manager;
use origin::Origin;
pub(crate) use origin::{Blob, Terms};
use rand::{Rng, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
    propagate_trace: bool,
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
            propagate_trace: false,
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
        config.manager.join_token_file = self.manager.asks().then(|| dir.path().join("join"));
        config.mirror.registries[0].policy.propagate_trace = self.propagate_trace;
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

    pub(crate) fn scheduler_addr(&self) -> SocketAddr {
        self.scheduler_addr
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

    /// Nodes that start from now on tell the origin which trace a request belongs to.
    pub(crate) fn propagate_traces(&mut self) {
        self.propagate_trace = true;
    }

    /// The manager asks for this join token from now on.
    pub(crate) fn ask_for(&self, token: &str) {
        self.manager.ask_for(token);
    }

    /// What stands in the node's file of join tokens, which it knows of if it started after the manager asked for one.
    pub(crate) fn write_join_tokens(&self, node: usize, text: &str) {
        std::fs::write(self.nodes[node].dir.path().join("join"), text).unwrap();
    }

    /// `traceparent`s that the origin has seen.
    pub(crate) fn origin_was_told(&self) -> Vec<String> {
        self.origin.traceparents()
    }

    /// What the cluster wants of its nodes from now on.
    pub(crate) fn push(&self, config: v1::ClusterConfig) {
        self.manager.push(config);
    }

    pub(crate) fn stop_manager(&self) {
        self.manager.stop();
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
        self.pulling(node, blob).await
    }

    /// As [`Self::pull`], for a cluster that changes meanwhile.
    pub(crate) fn pulling(
        &self,
        node: usize,
        blob: &Blob,
    ) -> impl Future<Output = Result<Vec<u8>, String>> + Send + use<> {
        self.pulling_with(node, blob, reqwest::header::HeaderMap::new())
    }

    /// As [`Self::pull`], with more headers.
    pub(crate) async fn pull_with(
        &self,
        node: usize,
        blob: &Blob,
        headers: reqwest::header::HeaderMap,
    ) -> Result<Vec<u8>, String> {
        self.pulling_with(node, blob, headers).await
    }

    fn pulling_with(
        &self,
        node: usize,
        blob: &Blob,
        headers: reqwest::header::HeaderMap,
    ) -> impl Future<Output = Result<Vec<u8>, String>> + Send + use<> {
        let client = self.client.clone();
        let url = format!(
            "http://{}/v2/library/thing/blobs/{}?ns=registry.test",
            self.nodes[node].mirror, blob.digest
        );
        let pulling = async move {
            let answer = client.get(url).headers(headers).send().await.map_err(|error| error.to_string())?;
            if !answer.status().is_success() {
                return Err(answer.status().as_u16().to_string());
            }
            Ok(answer.bytes().await.map_err(|error| error.to_string())?.to_vec())
        };
        async move { tokio::time::timeout(PULL_LIMIT, pulling).await.expect("a pull hangs") }
    }

    /// Another daemon takes a node over from the one that runs; what is under way there ends with the task.
    pub(crate) async fn hand_over(&mut self, number: usize) -> JoinHandle<()> {
        let Node { dir, mirror, status, daemon } = self.nodes.remove(number);
        let config = self.config(dir.path(), mirror, status);
        let ending = tokio::spawn(async move {
            let request = daemon.successor().await;
            let handed = daemon.hand_over(request, &CancellationToken::new()).await.unwrap();
            assert!(matches!(handed, Handed::Over));
        });
        let daemon = Daemon::bind(config).await.unwrap();
        self.nodes.insert(number, Node { dir, mirror, status, daemon });
        ending
    }

    /// One that fails when it has the store already: the former takes everything back.
    pub(crate) async fn fail_to_take_over(&mut self, number: usize) {
        let Node { dir, mirror, status, daemon } = self.nodes.remove(number);
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let config = self.config(dir.path(), mirror, taken.local_addr().unwrap());
        let keeping = tokio::spawn(async move {
            let request = daemon.successor().await;
            daemon.hand_over(request, &CancellationToken::new()).await.unwrap()
        });
        let error = Daemon::bind(config).await.map(drop).unwrap_err().to_string();
        assert!(error.contains("metrics.addr"), "{error}");
        let Handed::Back(daemon) = keeping.await.unwrap() else { panic!("it did not take the store back") };
        self.nodes.insert(number, Node { dir, mirror, status, daemon: *daemon });
    }

    fn config(&self, dir: &Path, mirror: SocketAddr, status: SocketAddr) -> Config {
        config(dir, false, mirror, status, self.manager.addr, self.origin.addr)
    }

    pub(crate) fn publish_file(&self, name: &str, bytes: &[u8], terms: Terms) {
        self.origin.publish_file(name, bytes.to_vec().into(), terms);
    }

    /// A request for a file at the mirror of a node.
    pub(crate) fn file(&self, node: usize, url: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://{}/files/{url}", self.nodes[node].mirror)).timeout(PULL_LIMIT)
    }

    pub(crate) async fn status(&self, node: usize) -> serde_json::Value {
        let url = format!("http://{}/status", self.nodes[node].status);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What `/status` says was delivered, by source.
    pub(crate) async fn delivered(&self, node: usize) -> serde_json::Value {
        self.status(node).await["delivered"].clone()
    }

    /// What somebody who is no node gets from a node's port for peers.
    pub(crate) async fn as_a_stranger(&self, node: usize, path: &str, authorization: &str) -> u16 {
        let port = self.status(node).await["host"]["piece_port"].as_u64().unwrap();
        let asking = self.client.get(format!("http://127.0.0.1:{port}{path}"));
        asking.header("authorization", authorization).send().await.unwrap().status().as_u16()
    }
}

async fn scheduler(grpc: SocketAddr) -> Scheduler {
    let config = SchedulerConfig {
        grpc,
        advertise_addr: String::new(),
        cluster_id: 1,
        manager_addrs: Vec::new(),
        join_token_file: None,
        use_reports: true,
    };
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
         files: {{ origins: [{{ host: files.test, server: 'http://{origin}' }}] }}\n\
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
