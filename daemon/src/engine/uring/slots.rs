//! Where exchanges live, and which operation each waits for.
//!
//! Invariant: a slot is given to somebody else only after the operation started for it has ended. Its watch may end
//! later: each life of a slot has a number of its own, and what is told to a former one is not heard.

use super::exchange::Exchange;
use super::ring::{Token, What};

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    life: u32,
    exchange: Option<Exchange>,
    /// The operation under way, beside the watch; the only one there is.
    pending: Option<What>,
    closing: bool,
}

impl Slots {
    pub(super) fn insert(&mut self, exchange: Exchange) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.exchange = Some(exchange);
        }
        slot
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots in use.
    pub(super) fn all(&self) -> Vec<u32> {
        let used = |(slot, place): (u32, &Slot)| place.exchange.is_some().then_some(slot);
        (0..).zip(&self.slots).filter_map(used).collect()
    }

    /// An exchange that is not closing.
    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Exchange> {
        self.slots.get_mut(slot as usize).filter(|place| !place.closing)?.exchange.as_mut()
    }

    pub(super) fn token(&self, slot: u32, what: What) -> Token {
        Token { slot, life: self.slots.get(slot as usize).map_or(0, |place| place.life), what }
    }

    pub(super) fn is_current(&self, slot: u32, life: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|place| place.life == life && place.exchange.is_some())
    }

    pub(super) fn started(&mut self, slot: u32, what: What) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.pending = Some(what);
        }
    }

    /// Notes the end of an operation. True: the exchange was only waiting for that to be removed.
    pub(super) fn ended(&mut self, slot: u32) -> bool {
        let Some(place) = self.slots.get_mut(slot as usize) else { return false };
        place.pending = None;
        place.closing
    }

    pub(super) fn pending(&self, slot: u32) -> Option<What> {
        self.slots.get(slot as usize)?.pending
    }

    /// No new work for it.
    pub(super) fn close(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.closing = true;
        }
    }

    /// Takes everybody out whose operations may end unseen: the ring is gone. What a fill under way uses is never
    /// closed, since the kernel may still look its descriptors up.
    pub(super) fn leave(&mut self) -> Vec<Exchange> {
        let mut left = Vec::new();
        for Slot { exchange, pending, closing, .. } in self.slots.drain(..) {
            match exchange {
                Some(exchange) if pending == Some(What::Filled) => exchange.abandon(),
                Some(exchange) if !closing => left.push(exchange),
                _ => {}
            }
        }
        self.free.clear();
        left
    }

    /// Takes an exchange without operations out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Exchange> {
        let place = self.slots.get_mut(slot as usize)?;
        let exchange = place.exchange.take()?;
        (place.life, place.closing) = (place.life.wrapping_add(1), false);
        self.free.push(slot);
        Some(exchange)
    }
}
