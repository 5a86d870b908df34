//! Who is there now: live daemons and schedulers, and where each daemon belongs. Soft state in memory, one
//! lock; no I/O, and time is an argument.
//!
//! Invariants: a registration is live until its deadline, which only its own beats move. Whenever clusters or
//! schedulers change, every live daemon's assignment is computed anew before the lock is released, so that
//! what is read and pushed is always of one moment. A cluster with live hosts cannot be retired.

mod assign;
mod elsewhere;
mod listing;
mod seat;

pub use assign::{AssignError, Assigned, Endpoint};
pub(crate) use elsewhere::{Key, Kind, Record};
pub use listing::{Counts, InUse, Listed, LivePeer, LiveScheduler};
pub use seat::Seat;

use super::cluster::Cluster;
use super::host::{Peer, SchedulerHost, Wish};
use crate::placement::Node;
use assign::{Map, Match};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// A registration without beats is stale after this: three beats, one every 5 s.
pub const STALE_AFTER: Duration = Duration::from_secs(15);
/// Most live daemons and schedulers: twice the 100,000 nodes Hawker is built for.
pub const MAX_REGISTRATIONS: usize = 200_000;

/// The bounds of registrations.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    pub stale_after: Duration,
    pub max_registrations: usize,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { stale_after: STALE_AFTER, max_registrations: MAX_REGISTRATIONS }
    }
}

/// Handle to the live registrations.
#[derive(Debug)]
pub struct Directory {
    liveness: Liveness,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    map: Map,
    /// By host id.
    peers: BTreeMap<String, PeerEntry>,
    /// By address.
    schedulers: BTreeMap<String, SchedulerEntry>,
    last_session: u64,
    /// What changed here and other managers do not know yet; `None`: nobody wants to.
    changed: Option<BTreeSet<Key>>,
    /// Registered at the manager of this number, too, and live here.
    elsewhere: BTreeMap<Key, (u32, Record)>,
}

#[derive(Debug)]
struct PeerEntry {
    peer: Peer,
    wish: Wish,
    matched: Match,
    alive: Alive,
    assigned: watch::Sender<Assigned>,
}

#[derive(Debug)]
struct SchedulerEntry {
    host: SchedulerHost,
    alive: Alive,
    /// Never sent on: it is dropped with the entry, and that ends the stream.
    _ended: watch::Sender<()>,
}

/// How long an entry lives and whose it is.
#[derive(Debug, Clone, Copy)]
struct Alive {
    /// 0: nobody's; registered by a single call, or before a restart.
    session: u64,
    /// 0: this one. Others end what they told; the deadline is for registrations here.
    manager: u32,
    deadline: Instant,
    registered_at: SystemTime,
}

impl Directory {
    pub fn new(clusters: Vec<Cluster>, liveness: Liveness) -> Self {
        let state = State { map: Map::new(clusters), ..State::default() };
        Self { liveness, state: Mutex::new(state) }
    }

    /// Where a node would belong; nothing is registered.
    ///
    /// # Errors
    /// A pin to an unknown cluster, or no cluster at all.
    pub fn assign(&self, node: &Node, wish: &Wish) -> Result<Assigned, AssignError> {
        Ok(self.state.lock().assign(node, wish)?.1)
    }

    /// Registers a daemon until the deadline; one that holds a seat keeps it.
    ///
    /// # Errors
    /// As [`Self::assign`], and [`AssignError::Full`].
    pub fn announce(&self, peer: Peer, wish: Wish, now: Instant) -> Result<Assigned, AssignError> {
        let mut state = self.state.lock();
        let (matched, assigned) = state.assign(&peer.node(), &wish)?;
        let alive = self.alive(0, now);
        let key = Key::peer(&peer.id);
        if let Some(entry) = state.peers.get_mut(&peer.id) {
            // Whoever asks here and is registered elsewhere stays there: a question is no registration.
            if entry.alive.manager != 0 {
                return Ok(assigned);
            }
            let changed = entry.peer != peer || entry.wish != wish;
            let alive = Alive { session: entry.alive.session, ..alive };
            (entry.peer, entry.wish, entry.matched, entry.alive) = (peer, wish, matched, alive);
            set(&entry.assigned, assigned.clone());
            if changed {
                state.note(key);
            }
            return Ok(assigned);
        }
        self.has_room(&state)?;
        let entry = PeerEntry { wish, matched, alive, assigned: watch::Sender::new(assigned.clone()), peer };
        state.peers.insert(entry.peer.id.clone(), entry);
        state.note(key);
        Ok(assigned)
    }

    /// Registers a daemon for as long as its seat is held and beats; takes over from an older seat.
    ///
    /// # Errors
    /// As [`Self::announce`].
    pub fn join(
        self: &Arc<Self>,
        peer: Peer,
        wish: Wish,
        now: Instant,
    ) -> Result<(Seat, watch::Receiver<Assigned>), AssignError> {
        let mut state = self.state.lock();
        let (matched, assigned) = state.assign(&peer.node(), &wish)?;
        if !state.peers.contains_key(&peer.id) {
            self.has_room(&state)?;
        }
        let session = state.next_session();
        let (assigned, mut changes) = watch::channel(assigned);
        changes.mark_changed();
        let id = peer.id.clone();
        let entry = PeerEntry { peer, wish, matched, alive: self.alive(session, now), assigned };
        state.peers.insert(id.clone(), entry);
        state.note(Key::peer(&id));
        Ok((Seat::peer(Arc::clone(self), id, session), changes))
    }

    /// Registers a scheduler for as long as its seat is held and beats; the daemons of its cluster hear of it.
    ///
    /// # Errors
    /// [`AssignError::UnknownSchedulerCluster`], [`AssignError::Full`].
    pub fn join_scheduler(
        self: &Arc<Self>,
        host: SchedulerHost,
        now: Instant,
    ) -> Result<(Seat, watch::Receiver<()>), AssignError> {
        let mut state = self.state.lock();
        state.knows_scheduler_cluster(&host)?;
        if !state.schedulers.contains_key(&host.addr) {
            self.has_room(&state)?;
        }
        let session = state.next_session();
        let (ended, end) = watch::channel(());
        let addr = host.addr.clone();
        state
            .schedulers
            .insert(addr.clone(), SchedulerEntry { host, alive: self.alive(session, now), _ended: ended });
        state.note(Key::scheduler(&addr));
        state.serve_all();
        Ok((Seat::scheduler(Arc::clone(self), addr, session), end))
    }

    /// Counts these schedulers as live until the deadline: they were when a former manager was last asked.
    /// Those of clusters that are gone, or beyond the bound, are left out.
    pub fn restore_schedulers(&self, hosts: Vec<SchedulerHost>, now: Instant) {
        let mut state = self.state.lock();
        for host in hosts {
            if state.knows_scheduler_cluster(&host).is_ok() && self.has_room(&state).is_ok() {
                let entry =
                    SchedulerEntry { alive: self.alive(0, now), _ended: watch::Sender::new(()), host };
                state.schedulers.insert(entry.host.addr.clone(), entry);
            }
        }
        state.serve_all();
    }

    /// Takes the clusters as they are stored now.
    pub fn replace_clusters(&self, clusters: Vec<Cluster>) {
        let mut state = self.state.lock();
        state.map = Map::new(clusters);
        state.match_all();
    }

    /// Forgets a cluster, unless it has live hosts.
    ///
    /// # Errors
    /// [`InUse`] names how many and some of them.
    pub fn retire(&self, cluster_id: u64) -> Result<(), InUse> {
        let mut state = self.state.lock();
        listing::unused(&state, cluster_id)?;
        state.map = state.map.without(cluster_id);
        state.match_all();
        Ok(())
    }

    /// Forgets the registrations whose deadline has passed.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        let ended = |alive: &Alive| alive.manager == 0 && alive.deadline <= now;
        let peers = state.peers.extract_if(.., |_, entry| ended(&entry.alive));
        let peers: Vec<Key> = peers.map(|(id, _)| Key::peer(&id)).collect();
        let schedulers = state.schedulers.extract_if(.., |_, entry| ended(&entry.alive));
        let schedulers: Vec<Key> = schedulers.map(|(addr, _)| Key::scheduler(&addr)).collect();
        let served_anew = !schedulers.is_empty();
        for key in peers.into_iter().chain(schedulers) {
            self.ended(&mut state, key);
        }
        if served_anew {
            state.serve_all();
        }
    }

    fn alive(&self, session: u64, now: Instant) -> Alive {
        Alive {
            session,
            manager: 0,
            deadline: now + self.liveness.stale_after,
            registered_at: SystemTime::now(),
        }
    }

    fn has_room(&self, state: &State) -> Result<(), AssignError> {
        let limit = self.liveness.max_registrations;
        if state.peers.len() + state.schedulers.len() < limit {
            Ok(())
        } else {
            Err(AssignError::Full { limit })
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn assign(&self, node: &Node, wish: &Wish) -> Result<(Match, Assigned), AssignError> {
        let matched = self.map.matched(node, wish.pin)?;
        let assigned = self.map.served(&matched, wish.accept_default, |cluster| self.endpoints(cluster))?;
        Ok((matched, assigned))
    }

    fn endpoints(&self, scheduler_cluster_id: u64) -> Vec<Endpoint> {
        let serving = |entry: &&SchedulerEntry| entry.host.scheduler_cluster_id == scheduler_cluster_id;
        self.schedulers.values().filter(serving).map(|entry| Endpoint::of(&entry.host)).collect()
    }

    fn knows_scheduler_cluster(&self, host: &SchedulerHost) -> Result<(), AssignError> {
        let id = host.scheduler_cluster_id;
        let known = self.map.clusters.iter().any(|cluster| cluster.scheduler_cluster_id() == id);
        if known { Ok(()) } else { Err(AssignError::UnknownSchedulerCluster { id }) }
    }

    /// The clusters are others now: every daemon is matched anew.
    fn match_all(&mut self) {
        for entry in self.peers.values_mut() {
            match self.map.matched(&entry.peer.node(), entry.wish.pin) {
                Ok(matched) => entry.matched = matched,
                // Its cluster cannot be deleted while it is live: an edit behind our back. It keeps what it has.
                Err(error) => tracing::warn!(host = %entry.peer.hostname, %error, "cannot place a live host"),
            }
        }
        self.serve_all();
    }

    /// The schedulers are others now: who serves each daemon is worked out anew; those for whom something
    /// changed hear of it. Cheap beside matching, as schedulers come and go more often than scopes.
    fn serve_all(&self) {
        // Schedulers are few and daemons many: collect the endpoints of each cluster once.
        let mut endpoints: BTreeMap<u64, Vec<Endpoint>> = BTreeMap::new();
        for entry in self.schedulers.values() {
            endpoints.entry(entry.host.scheduler_cluster_id).or_default().push(Endpoint::of(&entry.host));
        }
        let live = |cluster| endpoints.get(&cluster).cloned().unwrap_or_default();
        for entry in self.peers.values() {
            if let Ok(assigned) = self.map.served(&entry.matched, entry.wish.accept_default, live) {
                set(&entry.assigned, assigned);
            }
        }
    }

    fn next_session(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }
}

fn set(current: &watch::Sender<Assigned>, new: Assigned) {
    current.send_if_modified(|current| {
        let changed = *current != new;
        if changed {
            *current = new;
        }
        changed
    });
}

#[cfg(test)]
mod tests;
