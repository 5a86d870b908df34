//! Hosts that are registered at other managers of the same database: the same maps and the same rules, but they live
//! as long as their manager says so.
//!
//! Invariant: whoever is live here is never displaced by what is heard from elsewhere; that waits until the
//! registration here has ended.

use super::{Alive, Directory, PeerEntry, SchedulerEntry, State};
use crate::manager::host::{Peer, SchedulerHost, Wish};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Peer = 0,
    Scheduler = 1,
}

/// What a registration is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// Host id, or a scheduler's address.
    pub(crate) id: String,
}

/// A registration, as managers tell each other of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// Since: seconds since 1970.
    Peer {
        peer: Peer,
        wish: Wish,
        registered_at: u64,
    },
    Scheduler {
        host: SchedulerHost,
        registered_at: u64,
    },
}

impl Key {
    pub(super) fn peer(id: &str) -> Self {
        Self { kind: Kind::Peer, id: id.to_owned() }
    }

    pub(super) fn scheduler(addr: &str) -> Self {
        Self { kind: Kind::Scheduler, id: addr.to_owned() }
    }
}

impl Directory {
    /// Begins to note what changes here, for others. A directory that is not shared notes nothing.
    pub(crate) fn share(&self) {
        self.state().changed.get_or_insert_default();
    }

    /// Takes out at most `most` of what changed here: registrations as they are now, `None` those that ended.
    pub(crate) fn take_changes(&self, most: usize) -> Vec<(Key, Option<Record>)> {
        let mut state = self.state();
        let changed = state
            .changed
            .iter_mut()
            .flat_map(|changed| std::iter::from_fn(|| changed.pop_first()).take(most).collect::<Vec<_>>());
        let changed: Vec<Key> = changed.collect();
        changed
            .into_iter()
            .map(|key| {
                let record = state.record(&key);
                (key, record)
            })
            .collect()
    }

    /// What was taken and not told.
    pub(crate) fn changed_still(&self, keys: impl IntoIterator<Item = Key>) {
        let mut state = self.state();
        keys.into_iter().for_each(|key| state.note(key));
    }

    /// Everything that is registered here counts as changed.
    pub(crate) fn all_changed(&self) {
        let mut state = self.state();
        let here = |alive: &Alive| alive.manager == 0;
        let peers = state.peers.iter().filter(|(_, entry)| here(&entry.alive)).map(|(id, _)| Key::peer(id));
        let schedulers = state.schedulers.iter().filter(|(_, entry)| here(&entry.alive));
        let keys: Vec<Key> = peers.chain(schedulers.map(|(addr, _)| Key::scheduler(addr))).collect();
        keys.into_iter().for_each(|key| state.note(key));
    }

    /// Takes in what the manager with this number, not 0, told.
    pub(crate) fn learn(&self, manager: u32, changes: Vec<(Key, Option<Record>)>) {
        let mut state = self.state();
        for (key, record) in changes {
            if state.held_by(&key) == Some(0) {
                match record {
                    Some(record) => drop(state.elsewhere.insert(key, (manager, record))),
                    None => state.no_longer_elsewhere(&key, manager),
                }
                continue;
            }
            match record {
                Some(record) => self.settle(&mut state, key, manager, record),
                None if state.held_by(&key) == Some(manager) => state.remove(&key),
                None => {}
            }
        }
        state.serve_all();
    }

    /// Forgets what a manager told: it is gone.
    pub(crate) fn forget(&self, manager: u32) {
        let mut state = self.state();
        state.peers.retain(|_, entry| entry.alive.manager != manager);
        state.schedulers.retain(|_, entry| entry.alive.manager != manager);
        state.elsewhere.retain(|_, (of, _)| *of != manager);
        state.serve_all();
    }

    /// Whoever was registered elsewhere meanwhile takes the place of a registration that ended here.
    pub(super) fn ended(&self, state: &mut State, key: Key) {
        if let Some((manager, record)) = state.elsewhere.remove(&key) {
            self.settle(state, key.clone(), manager, record);
        }
        state.note(key);
    }

    fn settle(&self, state: &mut State, key: Key, manager: u32, record: Record) {
        if state.held_by(&key).is_none() && self.has_room(state).is_err() {
            return;
        }
        let alive = |registered_at| Alive {
            session: 0,
            manager,
            deadline: Instant::now(),
            registered_at: SystemTime::UNIX_EPOCH + Duration::from_secs(registered_at),
        };
        match record {
            Record::Peer { peer, wish, registered_at } => {
                // Its manager knows a cluster that we do not: we hear of that within a second.
                let Ok((matched, assigned)) = state.assign(&peer.node(), &wish) else { return };
                let assigned = watch::Sender::new(assigned);
                let entry = PeerEntry { peer, wish, matched, alive: alive(registered_at), assigned };
                state.peers.insert(key.id, entry);
            }
            Record::Scheduler { host, registered_at } => {
                let ended = watch::Sender::new(());
                let entry = SchedulerEntry { host, alive: alive(registered_at), _ended: ended };
                state.schedulers.insert(key.id, entry);
            }
        }
    }
}

impl State {
    /// Notes that something changed here, where anybody wants to know.
    pub(super) fn note(&mut self, key: Key) {
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
        }
    }

    /// Which manager has it; 0: this one.
    fn held_by(&self, key: &Key) -> Option<u32> {
        match key.kind {
            Kind::Peer => self.peers.get(&key.id).map(|entry| entry.alive.manager),
            Kind::Scheduler => self.schedulers.get(&key.id).map(|entry| entry.alive.manager),
        }
    }

    fn remove(&mut self, key: &Key) {
        match key.kind {
            Kind::Peer => drop(self.peers.remove(&key.id)),
            Kind::Scheduler => drop(self.schedulers.remove(&key.id)),
        }
    }

    fn no_longer_elsewhere(&mut self, key: &Key, manager: u32) {
        if self.elsewhere.get(key).is_some_and(|(of, _)| *of == manager) {
            self.elsewhere.remove(key);
        }
    }

    /// A registration of this manager, to be told.
    fn record(&self, key: &Key) -> Option<Record> {
        let seconds = |alive: &Alive| {
            let since = alive.registered_at.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        match key.kind {
            Kind::Peer => self.peers.get(&key.id).filter(|entry| entry.alive.manager == 0).map(|entry| {
                let (peer, wish) = (entry.peer.clone(), entry.wish);
                Record::Peer { peer, wish, registered_at: seconds(&entry.alive) }
            }),
            Kind::Scheduler => {
                let here = self.schedulers.get(&key.id).filter(|entry| entry.alive.manager == 0);
                here.map(|entry| Record::Scheduler {
                    host: entry.host.clone(),
                    registered_at: seconds(&entry.alive),
                })
            }
        }
    }
}
