//! A mirror between a table and a scripted origin, with limits that a test can wait for.

use crate::script::{Script, Step, answer};
use crate::table::{Answer, Plan, Table, send};
use bytes::Bytes;
use hawker_api::task::TaskId;
use hawker_daemon::config::{AccessMode, ClusterRegistries, MirrorConfig, Registry, RegistryPolicy};
use hawker_daemon::metrics::{Metrics, Source};
use hawker_daemon::mirror::{MirrorLimits, MirrorServer};
use hawker_daemon::origin::OriginClient;
use hawker_daemon::status::Report;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const TTFB: Duration = Duration::from_millis(400);
/// Far above `TTFB`, far below a hang.
const NOT_HUNG: Duration = Duration::from_secs(8);

pub(crate) struct Lab {
    pub(crate) mirror: MirrorServer,
    pub(crate) table: Arc<Table>,
    pub(crate) metrics: Metrics,
    pub(crate) origin: Script,
}

impl Lab {
    pub(crate) async fn new(
        plans: impl IntoIterator<Item = (TaskId, Plan)>,
        origin: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::with_requests(plans, origin, 16).await
    }

    /// Whoever asks may have what is held.
    pub(crate) async fn with_requests(
        plans: impl IntoIterator<Item = (TaskId, Plan)>,
        origin: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
        requests: usize,
    ) -> Self {
        let policy = RegistryPolicy {
            access: AccessMode::TrustNode,
            relay_challenge: true,
            ..RegistryPolicy::default()
        };
        Self::with_policy(plans, origin, requests, policy).await
    }

    pub(crate) async fn with_policy(
        plans: impl IntoIterator<Item = (TaskId, Plan)>,
        origin: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
        requests: usize,
        policy: RegistryPolicy,
    ) -> Self {
        let origin = Script::start(origin).await;
        let server: url::Url = format!("http://{}", origin.addr).parse().unwrap();
        let registry =
            |host: &str| Registry { policy: policy.clone(), ..Registry::new(host, server.clone()) };
        let registries = vec![registry("reg.test"), registry("docker.io"), registry("corp.test:5000")];
        let config = MirrorConfig {
            addr: ([127, 0, 0, 1], 0).into(),
            registries,
            cluster_registries: ClusterRegistries::Narrow,
        };
        let metrics = Metrics::new();
        let client = OriginClient::new(&config, metrics.clone()).unwrap();
        let table = Arc::new(Table { plans: plans.into_iter().collect(), ..Table::default() });
        let drain = Duration::from_millis(300);
        let limits = MirrorLimits { ttfb: TTFB, requests, drain, ..MirrorLimits::default() };
        let blobs = Arc::clone(&table);
        let mirror = MirrorServer::bind_with(&config, blobs, client, metrics.clone(), limits).await.unwrap();
        Self { mirror, table, metrics, origin }
    }

    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        self.send("GET", path, headers).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str) -> Answer {
        let started = Instant::now();
        let answer = send(self.mirror.addr(), method, path, headers).await;
        assert!(started.elapsed() < NOT_HUNG, "{method} {path} took {:?}", started.elapsed());
        answer
    }

    pub(crate) fn counted(&self, line: &str) -> bool {
        self.metrics.encode(Report::default()).unwrap().contains(line)
    }

    pub(crate) fn delivered_from_origin(&self) -> u64 {
        self.metrics.delivered_totals().into_iter().find(|(source, _)| *source == Source::Origin).unwrap().1
    }
}

pub(crate) fn no_origin(_: &str) -> Vec<Step> {
    answer("500 Not Expected", "", b"")
}

pub(crate) fn blob_path(task: &TaskId) -> String {
    format!("/v2/team/app/blobs/{task}?ns=reg.test")
}

pub(crate) fn noise(bytes: usize) -> Bytes {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// A connection on which the answer has begun.
pub(crate) async fn begun(lab: &Lab, task: &TaskId) -> TcpStream {
    let mut stream = TcpStream::connect(lab.mirror.addr()).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", blob_path(task));
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_ne!(stream.read_u8().await.unwrap(), 0);
    stream
}
