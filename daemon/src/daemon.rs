//! The daemon as one handle: builds every part from its piece of the configuration, in the order in
//! which they need each other, and ends them in the opposite one.
//!
//! Invariant: the mirror opens last and closes first; a runtime never meets a half-built daemon.

mod succession;

pub use succession::Handed;

use crate::config::{Config, EngineChoice, PeerConfig};
use crate::control::identity::{self, IdentityError};
use crate::control::{self, Announcer, Control, ControlParts, Follower, Meter, Node};
use crate::engine::{self, Engine, EngineInfo, EngineUnavailable};
use crate::handover::{
    Conversation, HandoverError, Heritage, Lock, Place, Relay, ShaperHeritage, Tenure, systemd,
};
use crate::jobs::Jobs;
use crate::lifetime::{self, Lifetime};
use crate::metrics::{Metrics, Source};
use crate::mirror::{MirrorError, MirrorLimits, MirrorServer};
use crate::origin::{OriginClient, OriginError};
use crate::peer::client::PeerClient;
use crate::peer::service::PieceService;
use crate::peer::{Pass, PeerServer, PeerServerError};
use crate::shaper::{self, Shaper, ShaperUnavailable};
use crate::status::{
    BySource, ClusterReport, EngineReport, HostReport, Report, StatusError, StatusServer, StoreReport,
    WantsReport,
};
use crate::store::{Store, StoreError};
use crate::swarm::{Parts, Swarm};
use hawker_api::policy::ShaperPolicy;
use hawker_api::protocol::Protocol;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use succession::Succession;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Shaper(#[from] ShaperUnavailable),
    #[error(transparent)]
    Engine(#[from] EngineUnavailable),
    #[error(transparent)]
    Peers(#[from] PeerServerError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error("build the client of the origins: {0}")]
    Origin(#[from] OriginError),
}

/// A running daemon.
pub struct Daemon {
    parts: Arc<Running>,
    peers: PeerServer,
    mirror: MirrorServer,
    status: StatusServer,
    succession: Succession,
    tasks: Vec<AbortOnDropHandle<()>>,
}

/// What the status tells about.
struct Running {
    node: Node,
    config: Config,
    store: Store,
    swarm: Swarm,
    jobs: Jobs,
    control: Control,
    shaper: Shaper,
    metrics: Metrics,
    engine: Arc<dyn Engine>,
    lifetime: Lifetime,
}

impl Daemon {
    /// Builds and starts everything; takes over from a daemon that runs on the same store.
    ///
    /// # Errors
    /// [`StartError`], naming what could not be had.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let (lock, heritage) = Heritage::claim(&config.storage.dir).await?;
        Self::follow(config, lock, heritage).await
    }

    /// As [`Self::bind`], with the store's lock in hand.
    async fn follow(config: Config, lock: Lock, heritage: Option<Heritage>) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let follows = heritage.is_some();
        let mut heritage = heritage.unwrap_or_else(Heritage::alone);
        // First of all: sockets belong for ever to the cgroup they were made in.
        let shaper = shaper_of(&config, &metrics, follows, heritage.shaper.take())?;
        let lifetime = Lifetime::open(&config.storage.dir, counted(&shaper, &metrics));
        if let Some(totals) = heritage.totals().await? {
            lifetime.take_over(&totals);
        }
        let accounting = shaper.accounting();
        let store = open_store(&config).await?;
        let announcer = Arc::new(Announcer::default());
        let origin = OriginClient::accounted(&config.mirror, &config.files, metrics.clone(), &accounting)?;
        let host_id = identity::host_id(store.dir())?;
        let pass = Pass::new(config.peer.auth);
        let client = PeerClient::with_pass(accounting.clone(), pass.clone());
        let swarm = swarm(&config, &host_id, (&store, &origin, client), (&metrics, &announcer));
        let service = PieceService::with_pass(Arc::new(swarm.clone()), accounting, pass.clone());
        let service = Arc::new(service);
        let engine = engine::choose(config.engine, config.peer.send, service)?;
        let (info, telling) = told(&engine, &metrics);
        let peers = serve_peers(&config.peer, &heritage, &shaper, &engine)?;
        shaper.serves_on(peers.addr().port());
        let node = node(&config, host_id, peers.addr().port(), (info, shaper.info()))?;
        let jobs = Jobs::new(swarm.clone(), origin.clone(), announcer.clone());
        let control = Control::start(ControlParts {
            manager: config.manager.clone(),
            cluster: config.cluster.clone(),
            seed_peer: config.seed_peer.clone(),
            node: node.clone(),
            dir: store.dir().to_owned(),
            swarm: swarm.clone(),
            jobs: jobs.clone(),
            announcer,
            accounting: shaper.accounting(),
            meter: meter(&shaper, metrics.clone()),
            follow: follower(&config, &shaper, &origin, &engine),
            pass,
        });
        let (tenure, current) = watch::channel(Tenure::Here);
        let blobs = Arc::new(Relay::new(Arc::new(swarm.clone()), current));
        let parts = Arc::new(Running {
            node,
            config,
            store,
            swarm,
            jobs,
            control,
            shaper,
            metrics: metrics.clone(),
            engine,
            lifetime,
        });
        let reported = Arc::clone(&parts);
        let report = Arc::new(move || reported.report());
        let stored = Arc::new(parts.swarm.clone());
        let from = (&heritage.listeners, follows);
        let config = (&parts.config.metrics, &parts.config.api);
        let status = StatusServer::bind_from(from, config, metrics.clone(), report, stored).await?;
        parts.control.ready().await;
        let mirror = serve_mirror(&parts, &heritage, Arc::<Relay>::clone(&blobs), (origin, metrics))?;
        status.set_started();
        tracing::info!(mirror = %mirror.addr(), peers = %peers.addr(), status = %status.addr(), "ready");
        let succession = Succession::open(lock, parts.store.dir(), blobs, tenure);
        let mut tasks = vec![telling, AbortOnDropHandle::new(tokio::spawn(parts.lifetime.clone().keep()))];
        tasks.extend(heritage.conversation.map(|talk| say_serving(talk, parts.lifetime.clone())));
        systemd::ready();
        Ok(Self { parts, peers, mirror, status, succession, tasks })
    }

    /// Takes over what can change while the daemon runs: the limits of `config.shaper`.
    pub fn reload(&self, config: &Config) {
        self.parts.shaper.apply(&config.shaper);
        tracing::info!(shaper = ?config.shaper, "limits taken over; other changes need a restart");
    }

    /// Lets what runs end, for a bounded time, then stops everything.
    pub async fn shutdown(mut self) {
        // Whoever comes now waits for the store, and is not given half of a daemon.
        self.succession.door = None;
        systemd::stopping();
        systemd::keep(Place::Mirror.name(), self.mirror.socket());
        self.mirror.shutdown().await;
        if let Some(relay) = self.succession.relay.take() {
            relay.shutdown().await;
        }
        self.parts.jobs.shutdown().await;
        self.parts.swarm.shutdown().await;
        self.parts.control.shutdown().await;
        self.peers.shutdown().await;
        self.status.shutdown().await;
        self.parts.lifetime.persist();
    }
}

fn swarm(
    config: &Config,
    host_id: &str,
    (store, origin, client): (&Store, &OriginClient, PeerClient),
    (metrics, announcer): (&Metrics, &Arc<Announcer>),
) -> Swarm {
    let swarm = Swarm::new(Parts {
        host_id: host_id.to_owned(),
        idc: config.host.idc.clone(),
        location: config.host.location.clone(),
        seed: config.seed_peer.enable,
        verify: config.verify,
        store: store.clone(),
        origin: origin.clone(),
        client,
        metrics: metrics.clone(),
        announce: Arc::<Announcer>::clone(announcer),
    });
    swarm.give_back_after_a_stop();
    if let Some(lifetime) = config.storage_ttl {
        swarm.expire_after(lifetime);
    }
    swarm
}

/// In the place of the one before, where there is one, also before it is known what the cluster wants now.
fn shaper_of(
    config: &Config,
    metrics: &Metrics,
    follows: bool,
    heritage: Option<ShaperHeritage>,
) -> Result<Shaper, ShaperUnavailable> {
    let dir = &config.storage.dir;
    let cluster = if follows { control::last_limits(dir) } else { ShaperPolicy::default() };
    Shaper::follow((&config.shaper, cluster), metrics, heritage)
}

/// Tells the daemon before that this one serves, and hears what else it counts to its end.
fn say_serving(conversation: Conversation, lifetime: Lifetime) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = conversation.serving(|totals| lifetime.take_over(&totals)).await {
            tracing::warn!(%error, "the daemon before");
        }
    }))
}

/// Takes over what the cluster wants, as far as the node's file lets it.
fn follower(config: &Config, shaper: &Shaper, origin: &OriginClient, engine: &Arc<dyn Engine>) -> Follower {
    let (limits, origin, engine) = (shaper.follower(), origin.clone(), Arc::clone(engine));
    let engine = (config.engine == EngineChoice::Auto).then_some(engine);
    Arc::new(move |policy, nodes| {
        limits(policy);
        origin.follow(nodes.registries.as_deref());
        if let Some(engine) = &engine {
            engine.follow(nodes.engine);
        }
    })
}

/// Which engine serves, said here and kept in the metric.
fn told(engine: &Arc<dyn Engine>, metrics: &Metrics) -> (EngineInfo, AbortOnDropHandle<()>) {
    let info = engine.info().borrow().clone();
    tracing::info!(engine = info.name, reason = info.reason, "serving engine");
    (info, AbortOnDropHandle::new(tokio::spawn(tell_engine(metrics.clone(), engine.info()))))
}

fn serve_peers(
    config: &PeerConfig,
    heritage: &Heritage,
    shaper: &Shaper,
    engine: &Arc<dyn Engine>,
) -> Result<PeerServer, PeerServerError> {
    let listener = if shaper.shares_group() {
        heritage.listeners.tcp(Place::Peer, config.addr)
    } else {
        heritage.listeners.own_tcp(Place::Peer, config.addr)
    };
    let listener = listener.map_err(|source| PeerServerError::new(config.addr, source))?;
    PeerServer::serve(config, listener, Arc::clone(engine))
}

fn serve_mirror(
    parts: &Running,
    heritage: &Heritage,
    blobs: Arc<Relay>,
    (origin, metrics): (OriginClient, Metrics),
) -> Result<MirrorServer, MirrorError> {
    let config = &parts.config.mirror;
    let listener = heritage.listeners.tcp(Place::Mirror, config.addr).and_then(TcpListener::from_std);
    let listener = listener.map_err(|source| MirrorError::Bind { addr: config.addr, source })?;
    MirrorServer::serve(config, listener, blobs, (origin, metrics, MirrorLimits::default()))
}

/// What this process counts, for the totals.
fn counted(shaper: &Shaper, metrics: &Metrics) -> lifetime::Meter {
    let (classes, metrics) = (shaper.counter(), metrics.clone());
    Arc::new(move || lifetime::Own { classes: classes(), delivered: delivered(&metrics) })
}

/// What the scheduler is told: the links' traffic, and what the runtimes were given.
fn meter(shaper: &Shaper, metrics: Metrics) -> Meter {
    let meter = shaper.meter();
    Arc::new(move || Some((meter()?, delivered(&metrics))))
}

fn delivered(metrics: &Metrics) -> BySource {
    let mut total = BySource::default();
    for (source, bytes) in metrics.delivered_totals() {
        match source {
            Source::Local => total.local += bytes,
            Source::PeerSameZone => total.peer_same_zone += bytes,
            Source::PeerCrossZone => total.peer_cross_zone += bytes,
            Source::Seed => total.seed += bytes,
            Source::Origin => total.origin += bytes,
        }
    }
    total
}

/// Keeps the metric at what the engine says of itself.
async fn tell_engine(metrics: Metrics, mut info: watch::Receiver<EngineInfo>) {
    loop {
        let now = info.borrow_and_update().clone();
        metrics.set_engine(now.name, &now.reason);
        if info.changed().await.is_err() {
            return;
        }
    }
}

async fn open_store(config: &Config) -> Result<Store, StoreError> {
    let storage = config.storage.clone();
    let dir = storage.dir.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&storage)).await;
    opened.unwrap_or_else(|_| Err(StoreError::Open { dir, source: std::io::ErrorKind::Interrupted.into() }))
}

fn node(
    config: &Config,
    id: String,
    piece_port: u16,
    (engine, shaper): (EngineInfo, shaper::Info),
) -> Result<Node, IdentityError> {
    let ip = match (config.host.advertise_ip, config.manager.addrs.first()) {
        (Some(ip), _) => ip,
        (None, Some(manager)) => identity::address_towards(manager)?,
        // Alone: there is nobody to reach this node.
        (None, None) => IpAddr::from(Ipv4Addr::LOCALHOST),
    };
    Ok(Node {
        id,
        hostname: config.host.hostname.clone(),
        ip,
        piece_port,
        idc: config.host.idc.clone(),
        location: config.host.location.clone(),
        seed: config.seed_peer.enable,
        engine: (engine.name, engine.reason),
        shaper: (shaper.mode, shaper.reason),
    })
}

impl Running {
    fn report(&self) -> Report {
        let (node, info, store) = (&self.node, self.engine.info().borrow().clone(), self.store.report());
        let (shaper, peers) = self.shaper.report();
        Report {
            host: HostReport {
                id: node.id.clone(),
                hostname: node.hostname.clone(),
                ip: node.ip.to_string(),
                piece_port: node.piece_port,
                idc: node.idc.clone(),
                location: node.location.clone(),
                kind: if node.seed { "seed" } else { "peer" }.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: Protocol::spoken().to_string(),
            },
            cluster: self.control.placement().map(|placed| ClusterReport {
                id: placed.cluster_id,
                name: placed.cluster_name,
                reason: placed.reason,
                source: placed.source.name().to_owned(),
                fell_back: placed.fell_back,
                wants: WantsReport {
                    registries: placed
                        .nodes
                        .registries
                        .map(|rules| rules.into_iter().map(|rule| rule.host).collect()),
                    engine: placed.nodes.engine.name(),
                },
            }),
            manager: self.control.manager_link(),
            scheduler: self.control.scheduler_link(),
            engine: EngineReport { name: info.name.to_owned(), reason: info.reason },
            shaper,
            warnings: self.warnings(store.error.as_deref()),
            store: StoreReport {
                dir: self.store.dir().display().to_string(),
                used_bytes: store.used_bytes,
                capacity_bytes: self.config.storage.capacity.0,
                complete_blobs: store.complete_blobs,
                partial_blobs: store.partial_blobs,
                error: store.error,
            },
            delivered: delivered(&self.metrics),
            lifetime: self.lifetime.totals(),
            tasks: self.swarm.tasks(),
            peers,
            bad_peers: self.swarm.bad_peers(),
        }
    }

    fn warnings(&self, store_error: Option<&str>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(error) = store_error {
            warnings.push(format!("store: {error}"));
        }
        if self.config.manager.addrs.is_empty() {
            warnings.push("no manager is configured: this node shares with nobody".to_owned());
        } else if !self.control.scheduler_link().connected {
            warnings.push("no scheduler: pulls use known peers and the origin".to_owned());
        }
        warnings
    }
}
