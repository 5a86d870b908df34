//! The daemon as one handle: builds every part from its piece of the configuration, in the order in
//! which they need each other, and ends them in the opposite one.
//!
//! Invariant: the mirror opens last and closes first; a runtime never meets a half-built daemon.

use crate::config::Config;
use crate::control::identity::{self, IdentityError};
use crate::control::{Announcer, Control, ControlParts, Node};
use crate::engine::{self, Engine, EngineUnavailable};
use crate::metrics::{Metrics, Source};
use crate::mirror::{MirrorError, MirrorServer};
use crate::origin::{OriginClient, OriginError};
use crate::peer::client::PeerClient;
use crate::peer::service::PieceService;
use crate::peer::{PeerServer, PeerServerError};
use crate::shaper::{Shaper, ShaperUnavailable};
use crate::status::{
    BySource, ClusterReport, EngineReport, HostReport, Report, StatusError, StatusServer, StoreReport,
};
use crate::store::{Store, StoreError};
use crate::swarm::{Parts, Swarm};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
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
}

/// What the status tells about.
struct Running {
    node: Node,
    config: Config,
    store: Store,
    swarm: Swarm,
    control: Control,
    shaper: Shaper,
    metrics: Metrics,
    engine: Arc<dyn Engine>,
}

impl Daemon {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// [`StartError`], naming what could not be had.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        // First of all: sockets belong for ever to the cgroup they were made in.
        let shaper = Shaper::start(&config.shaper, &metrics)?;
        let accounting = shaper.accounting();
        let store = open_store(&config).await?;
        let announcer = Arc::new(Announcer::default());
        let origin = OriginClient::accounted(&config.mirror, metrics.clone(), &accounting)?;
        let host_id = identity::host_id(store.dir())?;
        let swarm = Swarm::new(Parts {
            host_id: host_id.clone(),
            idc: config.host.idc.clone(),
            location: config.host.location.clone(),
            verify: config.verify,
            store: store.clone(),
            origin: origin.clone(),
            client: PeerClient::new(accounting.clone()),
            metrics: metrics.clone(),
            announce: announcer.clone(),
        });
        let service = Arc::new(PieceService::new(Arc::new(swarm.clone()), accounting));
        let engine = engine::choose(config.engine, config.peer.send, service)?;
        let info = engine.info();
        tracing::info!(engine = info.name, reason = info.reason, "serving engine");
        metrics.set_engine(info.name, &info.reason);
        let peers = PeerServer::bind(&config.peer, Arc::clone(&engine)).await?;
        shaper.serves_on(peers.addr().port());
        let node = node(&config, host_id, peers.addr().port(), (info.name, shaper.info().mode))?;
        let control = Control::start(ControlParts {
            manager_addrs: config.manager.addrs.clone(),
            cluster: config.cluster.clone(),
            seed_peer: config.seed_peer.clone(),
            node: node.clone(),
            dir: store.dir().to_owned(),
            swarm: swarm.clone(),
            announcer,
            accounting: shaper.accounting(),
        });
        let blobs = Arc::new(swarm.clone());
        let parts = Arc::new(Running {
            node,
            config,
            store,
            swarm,
            control,
            shaper,
            metrics: metrics.clone(),
            engine,
        });
        let reported = Arc::clone(&parts);
        let report = Arc::new(move || reported.report());
        let status =
            StatusServer::bind(&parts.config.metrics, &parts.config.api, metrics.clone(), report).await?;
        parts.control.ready().await;
        let mirror = MirrorServer::bind(&parts.config.mirror, blobs, origin, metrics).await?;
        status.set_started();
        tracing::info!(mirror = %mirror.addr(), peers = %peers.addr(), status = %status.addr(), "ready");
        Ok(Self { parts, peers, mirror, status })
    }

    /// Takes over what can change while the daemon runs: the limits of `config.shaper`.
    pub fn reload(&self, config: &Config) {
        self.parts.shaper.apply(&config.shaper);
        tracing::info!(shaper = ?config.shaper, "limits taken over; other changes need a restart");
    }

    /// Lets what runs end, for a bounded time, then stops everything.
    pub async fn shutdown(self) {
        self.mirror.shutdown().await;
        self.parts.swarm.shutdown().await;
        self.parts.control.shutdown().await;
        self.peers.shutdown().await;
        self.status.shutdown().await;
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
    (engine, shaper): (&'static str, &'static str),
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
        engine,
        shaper,
    })
}

impl Running {
    fn report(&self) -> Report {
        let (node, info, store) = (&self.node, self.engine.info(), self.store.report());
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
            },
            cluster: self.control.placement().map(|placed| ClusterReport {
                id: placed.cluster_id,
                name: placed.cluster_name,
                reason: placed.reason,
                source: placed.source.name().to_owned(),
                fell_back: placed.fell_back,
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
            delivered: self.delivered(),
            tasks: self.swarm.tasks(),
            peers,
            bad_peers: self.swarm.bad_peers(),
        }
    }

    fn delivered(&self) -> BySource {
        let mut total = BySource::default();
        for (source, bytes) in self.metrics.delivered_totals() {
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
