//! Whose turn it is: peers one after the other, each with one of its connections.
//!
//! A turn moves at most a fixed number of bytes, so that peers share the loop by bytes, however many
//! connections one of them opens.
//!
//! Invariant: a slot is queued at most once.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct Turns {
    peers: VecDeque<IpAddr>,
    slots: HashMap<IpAddr, VecDeque<u32>>,
    /// By slot.
    queued: Vec<bool>,
    count: usize,
}

impl Turns {
    pub(super) fn push(&mut self, peer: IpAddr, slot: u32) {
        let place = slot as usize;
        if self.queued.len() <= place {
            self.queued.resize(place + 1, false);
        }
        if std::mem::replace(&mut self.queued[place], true) {
            return;
        }
        self.count += 1;
        let slots = self.slots.entry(peer).or_default();
        if slots.is_empty() {
            self.peers.push_back(peer);
        }
        slots.push_back(slot);
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        let peer = self.peers.pop_front()?;
        let slots = self.slots.get_mut(&peer)?;
        let slot = slots.pop_front()?;
        if slots.is_empty() {
            self.slots.remove(&peer);
        } else {
            self.peers.push_back(peer);
        }
        self.queued[slot as usize] = false;
        self.count -= 1;
        Some(slot)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_take_turns_whatever_they_open() {
        let mut turns = Turns::default();
        let (many, one) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for slot in 0..4 {
            turns.push(many, slot);
        }
        turns.push(one, 9);
        turns.push(one, 9);
        assert_eq!(turns.len(), 5);
        let order: Vec<u32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [0, 9, 1, 2, 3]);
        assert_eq!(turns.len(), 0);
    }
}
