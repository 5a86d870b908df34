//! A registration held by somebody: dropping the seat ends it.
//!
//! Invariant: a seat that was taken over by a newer one neither beats nor ends the newer one.

use super::{Alive, Directory};
use std::sync::Arc;
use std::time::Instant;

/// One registration; see [`Directory::join`].
#[derive(Debug)]
pub struct Seat {
    directory: Arc<Directory>,
    key: Key,
    session: u64,
}

#[derive(Debug)]
enum Key {
    Peer(String),
    Scheduler(String),
}

impl Seat {
    pub(super) fn peer(directory: Arc<Directory>, id: String, session: u64) -> Self {
        Self { directory, key: Key::Peer(id), session }
    }

    pub(super) fn scheduler(directory: Arc<Directory>, addr: String, session: u64) -> Self {
        Self { directory, key: Key::Scheduler(addr), session }
    }

    /// Moves the deadline; `false` once the registration is no longer this one's.
    pub fn beat(&self, now: Instant) -> bool {
        let mut state = self.directory.state();
        let alive: Option<&mut Alive> = match &self.key {
            Key::Peer(id) => state.peers.get_mut(id).map(|entry| &mut entry.alive),
            Key::Scheduler(addr) => state.schedulers.get_mut(addr).map(|entry| &mut entry.alive),
        };
        match alive.filter(|alive| alive.session == self.session) {
            Some(alive) => {
                alive.deadline = now + self.directory.liveness.stale_after;
                true
            }
            None => false,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.directory.state();
        match &self.key {
            Key::Peer(id) => {
                if state.peers.get(id).is_some_and(|entry| entry.alive.session == self.session) {
                    state.peers.remove(id);
                    self.directory.ended(&mut state, super::Key::peer(id));
                }
            }
            Key::Scheduler(addr) => {
                if state.schedulers.get(addr).is_some_and(|entry| entry.alive.session == self.session) {
                    state.schedulers.remove(addr);
                    self.directory.ended(&mut state, super::Key::scheduler(addr));
                    state.serve_all();
                }
            }
        }
    }
}
