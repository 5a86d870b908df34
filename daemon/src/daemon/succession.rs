//! How a daemon gives everything to the one that follows it, or takes it back: see [`crate::handover`].
//!
//! Invariant: an answer that was begun goes on: its bytes come from the successor's store, or from this process's once
//! more.

use super::{Daemon, Running, StartError};
use crate::handover::{
    Conversation, Door, HandoverError, Heritage, Lock, Message, Place, Relay, RelayServer, Remote, Request,
    ShaperHeritage, Tenure, Welcome, systemd,
};
use crate::mirror::MirrorServer;
use crate::peer::PeerServer;
use crate::status::StatusServer;
use hawker_api::protocol::Protocol;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Longest time for a successor to serve, once it has the store.
const SERVING_LIMIT: Duration = Duration::from_secs(30);
/// A packet that the former programs met is counted within this.
const SETTLE: Duration = Duration::from_millis(20);
/// How long connections that were on their way to a socket of this daemon's own are still accepted.
const ACCEPT_GRACE: Duration = Duration::from_secs(1);
/// Longest time for answers under way: the largest layer over a slow link. A stop in between ends it sooner.
const ANSWERS_LIMIT: Duration = Duration::from_secs(3600);
/// What is left of it once the daemon is told to stop: below the 25 s of an ordinary end.
const STOPPED_LIMIT: Duration = Duration::from_secs(20);

/// What another daemon needs to follow this one.
pub(super) struct Succession {
    /// The store is this daemon's.
    pub(super) lock: Lock,
    pub(super) door: Option<Door>,
    /// Gives blobs to the answers that the daemon before still has.
    pub(super) relay: Option<RelayServer>,
    /// Where answers get their bytes from.
    pub(super) tenure: watch::Sender<Tenure>,
}

impl Succession {
    /// Without a door the daemon runs all the same, and is followed with a gap.
    pub(super) fn open(lock: Lock, dir: &Path, blobs: Arc<Relay>, tenure: watch::Sender<Tenure>) -> Self {
        let relay = RelayServer::start(dir, blobs);
        let relay = relay.map_err(|error| tracing::warn!(%error, "no relay for the daemon before")).ok();
        let door =
            Door::open(dir).map_err(|error| tracing::warn!(%error, "no door for the next daemon")).ok();
        Self { lock, door, relay, tenure }
    }
}

/// How a hand-over ended.
pub enum Handed {
    /// Another process serves, and this one has nothing left to do.
    Over,
    /// It did not come to serve: this process does, anew.
    Back(Box<Daemon>),
}

/// What still has connections.
struct Servers {
    mirror: MirrorServer,
    peers: PeerServer,
    status: StatusServer,
    relay: Option<RelayServer>,
}

impl Daemon {
    /// The next daemon, once it has what it needs to start and waits for the store.
    pub async fn successor(&self) -> Request {
        let Some(door) = &self.succession.door else { return std::future::pending().await };
        loop {
            match self.greet(door.knock().await).await {
                Ok(request) => return request,
                Err(error) => tracing::warn!(%error, "somebody wanted to take over"),
            }
        }
    }

    async fn greet(&self, conversation: Conversation) -> Result<Request, HandoverError> {
        let programs = self.parts.shaper.programs();
        let mut descriptors: Vec<(&str, BorrowedFd<'_>)> = vec![
            (Place::Mirror.name(), self.mirror.socket()),
            (Place::Peer.name(), self.peers.socket()),
            (Place::Metrics.name(), self.status.socket()),
        ];
        let links = programs.as_ref().map(|programs| programs.links.clone()).unwrap_or_default();
        descriptors.extend(links.into_iter().map(|link| (Heritage::LINK, link)));
        let maps = programs.as_ref().map(|programs| programs.maps.clone()).unwrap_or_default();
        descriptors.extend(maps.into_iter().map(|map| (Heritage::MAP, map)));
        let welcome = Welcome {
            protocol: Protocol::spoken(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            descriptors: descriptors.iter().map(|(name, _)| (*name).to_owned()).collect(),
            cgroup: programs.as_ref().map(|programs| programs.cgroup.to_owned()),
            former: programs.as_ref().and_then(|programs| programs.former.map(Path::to_owned)),
            orders: programs.as_ref().map(|programs| programs.settings.into()),
            yielded: programs.as_ref().map(|programs| programs.yielded).unwrap_or_default(),
        };
        let descriptors: Vec<_> = descriptors.into_iter().map(|(_, descriptor)| descriptor).collect();
        Request::greet(conversation, welcome, &descriptors).await
    }

    /// Gives the store up, waits until the other serves, and ends what is under way here. `stop`: sooner.
    ///
    /// # Errors
    /// The other failed, and this process cannot take everything back.
    pub async fn hand_over(self, request: Request, stop: &CancellationToken) -> Result<Handed, StartError> {
        let Request { conversation, version } = request;
        tracing::info!(version, "handing over");
        let Self { parts, peers, mirror, status, succession, tasks } = self;
        let Succession { lock, door, relay, tenure } = succession;
        drop(door);
        parts.jobs.shutdown().await;
        parts.control.shutdown().await;
        tenure.send_replace(Tenure::Between);
        parts.swarm.hand_over().await;
        drop(tasks);
        parts.lifetime.persist();
        drop(lock);
        let servers = Servers { mirror, peers, status, relay };
        let served = watch_over(&conversation, &parts).await;
        match served {
            Ok(pid) => {
                systemd::followed_by(pid);
                tracing::info!(pid, "another daemon serves; ending what is under way here");
                parts.shaper.make_way();
                tenure.send_replace(Tenure::There(Arc::new(Remote::of(parts.store.dir()))));
                servers.drain(stop.clone()).await;
                let last = Message::Totals(parts.lifetime.totals());
                if let Err(error) = conversation.send(&last, &[]).await {
                    tracing::warn!(%error, "tell the last totals");
                }
                Ok(Handed::Over)
            }
            Err(error) => {
                tracing::error!(%error, "the other daemon did not come to serve; taking the store back");
                drop(conversation);
                let mut daemon = take_back(&parts, &servers).await?;
                tenure.send_replace(Tenure::There(Arc::new(daemon.parts.swarm.clone())));
                let draining = tokio::spawn(servers.drain(stop.clone()));
                daemon.tasks.push(AbortOnDropHandle::new(draining));
                Ok(Handed::Back(Box::new(daemon)))
            }
        }
    }
}

/// Answers the other's questions until it serves.
async fn watch_over(conversation: &Conversation, parts: &Running) -> Result<u32, HandoverError> {
    let serves = async {
        conversation.send(&Message::Yours, &[]).await?;
        loop {
            match conversation.next().await?.0 {
                Message::Counting => {
                    sleep(SETTLE).await;
                    conversation.send(&Message::Totals(parts.lifetime.totals()), &[]).await?;
                }
                Message::Serving { pid } => return Ok(pid),
                other => return Err(HandoverError::Confused(format!("{other:?} while it starts"))),
            }
        }
    };
    let late = |_| Err(HandoverError::Talk { act: "wait for", source: io::ErrorKind::TimedOut.into() });
    timeout(SERVING_LIMIT, serves).await.unwrap_or_else(late)
}

/// A daemon of this process in the place of one that gave everything up.
async fn take_back(parts: &Running, servers: &Servers) -> Result<Daemon, StartError> {
    let dir = parts.store.dir();
    let failed = |source| HandoverError::File { act: "take back", path: dir.to_owned(), source };
    let lock = Lock::take_within(dir, SERVING_LIMIT).await?;
    let held = || HandoverError::Held { dir: dir.to_owned(), detail: "the other daemon has it".to_owned() };
    let lock = lock.ok_or_else(held)?;
    let own = |socket: BorrowedFd<'_>| socket.try_clone_to_owned();
    let sockets = [
        (Place::Mirror, servers.mirror.socket()),
        (Place::Peer, servers.peers.socket()),
        (Place::Metrics, servers.status.socket()),
    ];
    let sockets = sockets.into_iter().map(|(place, socket)| Ok((place.name().to_owned(), own(socket)?)));
    let sockets: Vec<(String, OwnedFd)> = sockets.collect::<io::Result<_>>().map_err(failed)?;
    let shaper = match parts.shaper.programs() {
        None => None,
        Some(programs) => {
            let links = programs.links.into_iter().map(own).collect::<io::Result<_>>().map_err(failed)?;
            let maps = programs.maps.into_iter().map(own).collect::<io::Result<_>>().map_err(failed)?;
            let (cgroup, former) = (programs.cgroup.to_owned(), programs.former.map(Path::to_owned));
            let (settings, yielded) = (programs.settings, programs.yielded);
            Some(ShaperHeritage { links, settings, maps, yielded, cgroup, former })
        }
    };
    parts.shaper.leave_to_others();
    let heritage = Heritage::of_this_process(sockets, shaper);
    let daemon = Daemon::follow(parts.config.clone(), lock, Some(heritage)).await?;
    daemon.parts.lifetime.take_over(&parts.lifetime.totals());
    Ok(daemon)
}

impl Servers {
    /// Ends what is under way.
    async fn drain(self, stop: CancellationToken) {
        let Self { mirror, peers, status, relay } = self;
        let limit = || async {
            let stopped = async {
                stop.cancelled().await;
                sleep(STOPPED_LIMIT).await;
            };
            let _ = timeout(ANSWERS_LIMIT, stopped).await;
        };
        let relay = async {
            if let Some(relay) = relay {
                relay.drain(limit()).await;
            }
        };
        let peers = async {
            sleep(ACCEPT_GRACE).await;
            peers.shutdown().await;
        };
        tokio::join!(mirror.drain(limit()), peers, status.shutdown(), relay);
    }
}
