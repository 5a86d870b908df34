//! The manager: clusters and their scopes, users, the live hosts and where each belongs. REST for people,
//! gRPC for daemons and schedulers. It is on nobody's data path.
//!
//! Invariants: REST and gRPC place by the same function on the same state; every task ends with [`Manager::shutdown`].

pub mod cluster;
pub mod directory;
pub mod host;

mod account;
mod bandwidth;
mod clusters;
mod console;
mod gate;
mod grpc;
mod health;
mod jobs;
mod keeper;
mod metrics;
mod oidc;
mod peer_key;
mod rest;
mod rights;
mod rollouts;
mod sharing;
mod sign_in;
mod store;
mod tasks;
mod web;

pub use directory::Liveness;
pub use oidc::{OidcConfig, ProviderError, RawOidc};
pub use rest::{RouteInfo, registered_routes};
pub use rights::{Permission, Role};
pub use store::{BackupError, Database, DatabaseError, StoreError, backup, restore};
pub use web::WebConfig;

use bandwidth::Bandwidth;
use clusters::Clusters;
use directory::Directory;
use gate::Gate;
use hawker_api::join::JoinTokenError;
use health::Health;
use jobs::Jobs;
use metrics::Metrics;
use oidc::Oidc;
use peer_key::PeerKeys;
use prometheus_client::registry::Registry;
use rollouts::Rollouts;
use sharing::Sharing;
use sign_in::SignIn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long requests under way may take once the manager is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What a manager needs to start.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    pub rest: SocketAddr,
    pub grpc: SocketAddr,
    /// host:port of the gRPC service as other clusters reach it; empty: this address as bound.
    pub advertise_addr: String,
    pub database: Database,
    /// Root's password at the first start; `None`: a random one is printed.
    pub root_password_file: Option<PathBuf>,
    /// The join tokens that daemons and schedulers must show one of; `None`: whoever reaches the port may join.
    pub join_token_file: Option<PathBuf>,
    pub web: WebConfig,
    /// OpenID providers that people may sign in with.
    pub oidc: Vec<OidcConfig>,
    pub liveness: Liveness,
}

impl ManagerConfig {
    pub fn new(
        rest: SocketAddr,
        grpc: SocketAddr,
        database: impl Into<Database>,
        root_password_file: Option<PathBuf>,
    ) -> Self {
        let (advertise_addr, database) = (String::new(), database.into());
        let (web, liveness) = (WebConfig::default(), Liveness::default());
        let (join_token_file, oidc) = (None, Vec::new());
        Self {
            rest,
            grpc,
            advertise_addr,
            database,
            root_password_file,
            join_token_file,
            web,
            oidc,
            liveness,
        }
    }
}

/// Why a manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("listen for {api} on {addr}: {source}")]
    Listen { api: &'static str, addr: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Oidc(#[from] ProviderError),
    #[error(transparent)]
    JoinToken(#[from] JoinTokenError),
    #[error(transparent)]
    FirstStart(#[from] sign_in::FirstStartError),
}

/// A running manager.
#[derive(Debug)]
pub struct Manager {
    rest_addr: SocketAddr,
    grpc_addr: SocketAddr,
    store: Store,
    clusters: Clusters,
    metrics: Metrics,
    sharing: Option<Running>,
    keeper: Running,
    bandwidth: Running,
    jobs: Running,
    rollouts: Running,
    rest: Running,
    grpc: Running,
}

/// A task that stops when told to, or when nobody holds it any more.
#[derive(Debug)]
struct Running {
    what: &'static str,
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// What both APIs work with.
#[derive(Debug, Clone)]
struct Parts {
    directory: Arc<Directory>,
    clusters: Clusters,
    sign_in: Arc<SignIn>,
    metrics: Metrics,
    bandwidth: Bandwidth,
    jobs: Jobs,
    rollouts: Rollouts,
    store: Store,
    health: Health,
    peer_keys: PeerKeys,
    gate: Gate,
    advertised: Arc<Advertised>,
    web: Arc<WebConfig>,
    oidc: Arc<Oidc>,
    unknown: rest::Budget,
}

/// Where other clusters reach this manager.
#[derive(Debug)]
struct Advertised {
    /// host:port
    grpc: String,
    rest_port: u16,
}

impl Manager {
    /// Opens the database (at the first start: makes the default cluster and user `root`) and serves both APIs.
    ///
    /// # Errors
    /// An address cannot be listened on, the database cannot be used, or a file of secrets is unusable.
    pub async fn bind(config: ManagerConfig) -> Result<Self, ManagerError> {
        // Addresses first: a second manager on this machine must not touch the database.
        let rest = listen("REST", config.rest).await?;
        let grpc = listen("gRPC", config.grpc).await?;
        let (rest_addr, grpc_addr) = (address("REST", &rest)?, address("gRPC", &grpc)?);
        let advertised = Advertised::new(config.advertise_addr, rest_addr, grpc_addr);
        let gate = Gate::open(config.join_token_file)?;
        let store = Store::open(&config.database).await?;
        sign_in::first_start(&store, config.root_password_file.as_deref()).await?;

        let directory = Arc::new(Directory::new(store.clusters().await?, config.liveness));
        let clusters = Clusters::new(store.clone(), Arc::clone(&directory));
        let stale_after = config.liveness.stale_after;
        let sharing = share(&store, &directory, &clusters, stale_after).await?;
        let metrics = Metrics::new(Arc::clone(&directory), gate.refusals());
        let sign_in = Arc::new(SignIn::new(store.clone()));
        let secret = store.peer_secret().await?;
        let oidc = Oidc::new(config.oidc, secret)?;
        let peer_keys = PeerKeys::new(secret);
        let (clusters_kept, metrics_kept) = (clusters.clone(), metrics.clone());
        let (bandwidth, kept) = (Bandwidth::default(), store.clone());
        let jobs = Jobs::new(store.clone(), Arc::clone(&directory));
        let rollouts = Rollouts::default();
        let parts = Parts {
            directory,
            clusters,
            sign_in,
            metrics,
            bandwidth: bandwidth.clone(),
            jobs: jobs.clone(),
            rollouts: rollouts.clone(),
            store: kept,
            health: Health::default(),
            peer_keys,
            gate,
            advertised: Arc::new(advertised),
            web: Arc::new(config.web),
            oidc: Arc::new(oidc),
            unknown: rest::Budget::default(),
        };

        // What is shared is in the database already.
        let (directory, kept) = (Arc::clone(&parts.directory), (!store.is_shared()).then(|| store.clone()));
        let keeper = Running::start("keeper", |stop| keeper::run(directory, kept, stop));
        let written = store.clone();
        let bandwidth = Running::start("bandwidth", |stop| bandwidth::run(bandwidth, written, stop));
        let jobs = Running::start("jobs", |stop| jobs::run(jobs, stop));
        let written = store.clone();
        let rollouts = Running::start("rollouts", |stop| rollouts::run(rollouts, written, stop));
        let rest = Running::start("REST", |stop| rest::serve(rest, parts.clone(), stop));
        let grpc = Running::start("gRPC", |stop| grpc::serve(grpc, parts, stale_after, stop));
        Ok(Self {
            rest_addr,
            grpc_addr,
            store,
            clusters: clusters_kept,
            metrics: metrics_kept,
            sharing,
            keeper,
            bandwidth,
            jobs,
            rollouts,
            rest,
            grpc,
        })
    }

    pub fn rest_addr(&self) -> SocketAddr {
        self.rest_addr
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where a scheduler in this process reaches the gRPC service.
    pub fn local_uri(&self) -> String {
        let mut addr = self.grpc_addr;
        if addr.ip().is_unspecified() {
            let loopback =
                if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            addr.set_ip(loopback);
        }
        format!("http://{addr}")
    }

    /// Adds the manager's metrics to what the process exposes.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Ends streams, lets requests under way finish for a bounded time, and closes the database.
    pub async fn shutdown(self) {
        // These first: the hosts that leave now because of us are to be remembered, and what the others know of them
        // stays true until they have moved over.
        if let Some(sharing) = self.sharing {
            sharing.finish().await;
        }
        self.keeper.finish().await;
        // Then the jobs, while their orders still go somewhere.
        self.jobs.finish().await;
        tokio::join!(self.rest.finish(), self.grpc.finish());
        self.clusters.finish().await;
        self.bandwidth.finish().await;
        self.rollouts.finish().await;
        self.store.close().await;
    }
}

impl Advertised {
    fn new(configured: String, rest: SocketAddr, grpc: SocketAddr) -> Self {
        let grpc = if configured.is_empty() { grpc.to_string() } else { configured };
        Self { grpc, rest_port: rest.port() }
    }
}

impl Running {
    fn start<F>(what: &'static str, work: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(stop.clone()));
        Self { what, stop: stop.drop_guard(), task }
    }

    async fn finish(self) {
        let Self { what, stop, mut task } = self;
        drop(stop);
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut task).await.is_err() {
            tracing::warn!(what, "still busy after {SHUTDOWN_GRACE:?}: ended");
            task.abort();
        }
    }
}

/// Learns who is registered at the other managers of a shared database, and goes on with that. A manager alone counts
/// on the schedulers that were live before.
async fn share(
    store: &Store,
    directory: &Arc<Directory>,
    clusters: &Clusters,
    stale_after: Duration,
) -> Result<Option<Running>, ManagerError> {
    if !store.is_shared() {
        directory.restore_schedulers(store.schedulers().await?, Instant::now());
        return Ok(None);
    }
    let mut sharing = Sharing::new(Arc::clone(directory), clusters.clone(), store.clone(), stale_after);
    // Before anybody is answered: who is registered at the others is known.
    sharing.turn().await?;
    Ok(Some(Running::start("sharing", |stop| sharing.run(stop))))
}

async fn listen(api: &'static str, addr: SocketAddr) -> Result<TcpListener, ManagerError> {
    TcpListener::bind(addr).await.map_err(|source| ManagerError::Listen { api, addr, source })
}

fn address(api: &'static str, listener: &TcpListener) -> Result<SocketAddr, ManagerError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    listener.local_addr().map_err(|source| ManagerError::Listen { api, addr: unknown, source })
}

/// Seconds since 1970.
fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
