//! The links to the control plane: the manager says which cluster this node is in, the cluster's
//! scheduler who fetches what from whom. Neither is on the data path: without them the node goes on
//! with what it knows.
//!
//! Invariant: gRPC types stay in here; a daemon never talks to a scheduler of a cluster that it was
//! not placed in.

mod announcer;
mod batch;
pub mod identity;
mod manager;
mod placement;
mod report;
mod session;
mod wire;

pub use announcer::Announcer;
pub use placement::{Placed, PlacementSource};
pub use report::Meter;

use crate::accounting::Accounting;
use crate::config::{ClusterConfig, Fallback, ManagerConfig, SeedPeerConfig};
use crate::jobs::Jobs;
use crate::peer::Pass;
use crate::status::LinkReport;
use crate::swarm::Swarm;
use hawker_api::join::{Joining, MANAGER_KEY};
use hawker_api::node_policy::NodePolicy;
use hawker_api::policy::ShaperPolicy;
use hawker_api::protocol::Protocol;
use hawker_api::v1;
use parking_lot::Mutex;
use placement::PlacementFile;
pub(crate) use placement::last_limits;
use report::Reports;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A start waits at most this long for the scheduler, so that the first pulls already share.
const READY_LIMIT: Duration = Duration::from_secs(2);

/// This node, as it describes itself to the control plane.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: String,
    pub hostname: String,
    pub ip: std::net::IpAddr,
    pub piece_port: u16,
    pub idc: String,
    pub location: String,
    pub seed: bool,
    /// Name and reason, as at the start.
    pub engine: (&'static str, String),
    pub shaper: (&'static str, String),
}

impl Node {
    fn host(&self) -> v1::Host {
        let kind = if self.seed { v1::HostKind::Seed } else { v1::HostKind::Peer };
        v1::Host {
            id: self.id.clone(),
            hostname: self.hostname.clone(),
            ip: self.ip.to_string(),
            piece_port: self.piece_port.into(),
            idc: self.idc.clone(),
            location: self.location.clone(),
            kind: kind.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: self.engine.0.to_owned(),
            engine_reason: cut(&self.engine.1),
            shaper: self.shaper.0.to_owned(),
            shaper_reason: cut(&self.shaper.1),
        }
    }
}

/// A reason is for people and must not keep a node from registering: as much of it as the manager takes of any text.
fn cut(reason: &str) -> String {
    const MAX_REASON_BYTES: usize = 1024;
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

/// State of the two links, for the status.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) manager: Mutex<LinkReport>,
    pub(crate) scheduler: Mutex<LinkReport>,
}

/// What the links are made of.
pub struct ControlParts {
    pub manager: ManagerConfig,
    pub cluster: ClusterConfig,
    pub seed_peer: SeedPeerConfig,
    pub node: Node,
    /// Keeps the last known placement.
    pub dir: PathBuf,
    pub swarm: Swarm,
    pub jobs: Jobs,
    pub announcer: Arc<Announcer>,
    pub accounting: Accounting,
    /// What is reported to the scheduler.
    pub meter: Meter,
    /// Takes over what the cluster wants: the last known at the start, then what the manager says.
    pub follow: Follower,
    /// Is told the key of the cluster this node is in.
    pub pass: Pass,
}

/// Takes over the cluster's limits, and what it says of registries and engine.
pub type Follower = Arc<dyn Fn(&ShaperPolicy, &NodePolicy) + Send + Sync>;

/// Handle to the links.
pub struct Control {
    links: Arc<Links>,
    placement: watch::Receiver<Option<Placed>>,
    announcer: Arc<Announcer>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Control {
    /// Starts both links.
    pub fn start(parts: ControlParts) -> Self {
        let ControlParts {
            manager,
            cluster,
            seed_peer,
            node,
            dir,
            swarm,
            jobs,
            announcer,
            accounting,
            meter,
            follow,
            pass,
        } = parts;
        let (tracker, cancel, links) =
            (TaskTracker::new(), CancellationToken::new(), Arc::new(Links::default()));
        let request = v1::PlaceRequest {
            host: Some(node.host()),
            cluster_id: cluster.id,
            seed_peer_cluster_id: if seed_peer.enable { seed_peer.cluster_id } else { 0 },
            accept_default: cluster.fallback == Fallback::Default,
            protocol: Some(Protocol::spoken().into()),
        };
        let file = PlacementFile::new(&dir, &request);
        let last = file.load();
        if let Some(placed) = &last {
            follow(&placed.limits, &placed.nodes);
        }
        pass.set(last.as_ref().and_then(|placed| placed.peer_key.clone()));
        let (publish, placement) = watch::channel(last);
        if !manager.addrs.is_empty() {
            let link = manager::Link {
                addrs: manager.addrs,
                joining: Joining::new(MANAGER_KEY, manager.join_token_file),
                request,
                file,
                publish,
                links: Arc::clone(&links),
                accounting: accounting.clone(),
                follow,
                pass,
            };
            let stopped = cancel.clone();
            tracker.spawn(async move {
                tokio::select! { () = stopped.cancelled() => {}, () = link.run() => {} }
            });
            let session = session::Link {
                host: node.host(),
                placement: placement.clone(),
                swarm,
                jobs,
                announcer: Arc::clone(&announcer),
                links: Arc::clone(&links),
                accounting,
                reports: Reports::new(meter),
            };
            let stopped = cancel.clone();
            tracker.spawn(async move {
                tokio::select! { () = stopped.cancelled() => {}, () = session.run() => {} }
            });
        }
        Self { links, placement, announcer, tracker, cancel }
    }

    /// Returns once the scheduler is reached, or after 2 s: the node works without it, too.
    pub async fn ready(&self) {
        if !self.tracker.is_empty() {
            let _ = tokio::time::timeout(READY_LIMIT, self.announcer.connected()).await;
        }
    }

    pub fn placement(&self) -> Option<Placed> {
        self.placement.borrow().clone()
    }

    pub fn manager_link(&self) -> LinkReport {
        self.links.manager.lock().clone()
    }

    pub fn scheduler_link(&self) -> LinkReport {
        self.links.scheduler.lock().clone()
    }

    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Drop for Control {
    /// A daemon that failed to start has no session.
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
