//! The scheduler of one cluster: knows hosts and tasks, hands out parents and origin leases.
//!
//! [`core`] decides, as a function of events and time; [`grpc`] is the daemons' way in and out;
//! [`registration`] makes it known to the manager. `scheduler/README.md` lists what must hold.
//!
//! Invariant: all state is soft. A scheduler that starts with nothing knows everything again as soon
//! as the daemons have re-announced themselves.

mod busy;
mod core;
mod grpc;
mod headroom;
mod images;
mod leases;
mod ledger;
mod limits;
mod lists;
mod messages;
mod metrics;
mod parents;
mod registration;
mod relay;
mod silence;
mod summary;
mod task;
mod trace;
mod wire;

pub use core::Stats;

use grpc::Service;
use hawker_api::v1::scheduler_server::SchedulerServer;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A daemon that is silent is probed this often, and gone after one probe without answer.
const PROBE: Duration = Duration::from_secs(5);
/// Time for streams to end at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// The core's clock.
const TICK: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    pub grpc: SocketAddr,
    /// `host:port` daemons reach this scheduler at.
    pub advertise_addr: String,
    pub cluster_id: u64,
    /// `http://host:port`; empty: registers nowhere.
    pub manager_addrs: Vec<String>,
    /// The join tokens that managers are shown.
    pub join_token_file: Option<PathBuf>,
    /// Whether parents are chosen by what the nodes measured.
    pub use_reports: bool,
}

/// Why the scheduler does not start.
#[derive(Debug, thiserror::Error)]
#[error("listen for daemons on {addr} (scheduler.grpc): {source}")]
pub struct SchedulerError {
    addr: SocketAddr,
    source: std::io::Error,
}

/// A running scheduler.
pub struct Scheduler {
    addr: SocketAddr,
    service: Service,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Scheduler {
    /// Listens for daemons, and registers at the managers.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn bind(config: SchedulerConfig) -> Result<Self, SchedulerError> {
        let failed = |source| SchedulerError { addr: config.grpc, source };
        let listener = TcpListener::bind(config.grpc).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let service = Service::new(config.cluster_id, config.use_reports, cancel.clone());
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PROBE))
            .http2_keepalive_timeout(Some(PROBE))
            .tcp_nodelay(true)
            .add_service(SchedulerServer::new(service.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), cancel.clone().cancelled_owned());
        tracker.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the scheduler's listener ended");
            }
        });
        tracker.spawn(tick(service.clone(), cancel.clone()));
        if !config.manager_addrs.is_empty() {
            let stopped = cancel.clone();
            let registration = registration::Registration::new(&config, addr, service.clone());
            tracker.spawn(async move {
                tokio::select! { () = stopped.cancelled() => {}, () = registration.run() => {} }
            });
        }
        tracing::info!(%addr, cluster = config.cluster_id, "scheduler ready");
        Ok(Self { addr, service, tracker, cancel })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Adds the scheduler's metrics to what the process exposes.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.service.metrics().register(registry, self.stats_source());
    }

    pub fn stats(&self) -> Stats {
        self.service.stats()
    }

    /// A function that gives the current figures, for whoever exposes them.
    pub fn stats_source(&self) -> Arc<dyn Fn() -> Stats + Send + Sync> {
        let service = self.service.clone();
        Arc::new(move || service.stats())
    }

    /// Ends all streams, without waiting for it.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tracker.close();
        if tokio::time::timeout(DRAIN_LIMIT, self.tracker.wait()).await.is_err() {
            tracing::warn!("streams of daemons were cut at shutdown");
        }
    }
}

async fn tick(service: Service, cancel: CancellationToken) {
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !cancel.is_cancelled() {
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = clock.tick() => service.tick(),
        }
    }
}
