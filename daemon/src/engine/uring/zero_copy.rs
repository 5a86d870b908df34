//! Sends by reference to a mapping (`SEND_ZC`): what is under way, what it keeps alive, and whether it pays.
//!
//! Such a send ends twice: for its exchange when the socket has taken the bytes, and for the mapping when the kernel has
//! told that it needs the pages no more. No byte of a mapping is ever read here: where the file has become shorter, the
//! kernel's own look-up fails (`EFAULT`), and nobody gets a `SIGBUS`.
//!
//! Invariant: a mapping lives until the kernel has told the end of every send from it.

use super::ring::Token;
use crate::store::BlobFile;
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::sync::{Arc, Weak};

/// Sends under way at once; beyond, pieces go by splice.
const MAX_FLIGHTS: usize = 512;
/// Mappings kept for blobs that are in use, beside those of sends under way.
const MAX_MAPPINGS: usize = 64;
/// Sends that the kernel may copy before it is noticed, if they are at least half of all.
pub(super) const COPIES_TOLERATED: u32 = 8;
/// `IORING_NOTIF_USAGE_ZC_COPIED` of <linux/io_uring.h>, in the result of a notification.
const COPIED: u32 = 1 << 31;

pub(super) struct ZeroCopy {
    tolerated: u32,
    on: bool,
    mappings: Vec<(Weak<BlobFile>, Arc<MmapRaw>)>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    told: u32,
    copied: u32,
}

/// A send that the kernel has not told the end of.
struct Flight {
    mapping: Arc<MmapRaw>,
    exchange: Token,
    /// The socket has taken its bytes, or will not.
    ended: bool,
}

impl ZeroCopy {
    pub(super) fn new(tolerated: u32) -> Self {
        let (mappings, flights, free) = (Vec::new(), Vec::new(), Vec::new());
        Self { tolerated, on: true, mappings, flights, free, told: 0, copied: 0 }
    }

    /// Whether one more may be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.on && self.flights.len() - self.free.len() < MAX_FLIGHTS
    }

    pub(super) fn turn_off(&mut self) {
        self.on = false;
        self.mappings.clear();
    }

    /// Notes a send for `exchange`: its number, and where its bytes lie.
    pub(super) fn begin(
        &mut self,
        blob: &Arc<BlobFile>,
        offset: usize,
        exchange: Token,
    ) -> io::Result<(u32, *const u8)> {
        let mapping = self.mapping(blob)?;
        if offset >= mapping.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = mapping.as_ptr().wrapping_add(offset);
        let number = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            u32::try_from(self.flights.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.flights.get_mut(number as usize) {
            *place = Some(Flight { mapping, exchange, ended: false });
        }
        Ok((number, start))
    }

    fn mapping(&mut self, blob: &Arc<BlobFile>) -> io::Result<Arc<MmapRaw>> {
        let known = self.mappings.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(blob)));
        if let Some((_, mapping)) = known {
            return Ok(Arc::clone(mapping));
        }
        let bytes = usize::try_from(blob.geometry().size()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mapping = Arc::new(MmapOptions::new().len(bytes).map_raw_read_only(blob.file())?);
        if self.mappings.len() >= MAX_MAPPINGS {
            self.mappings.remove(0);
        }
        self.mappings.push((Arc::downgrade(blob), Arc::clone(&mapping)));
        Ok(mapping)
    }

    /// A send has ended for its exchange, which is returned; with `more`, the kernel still needs the pages.
    pub(super) fn ended(&mut self, number: u32, more: bool) -> Option<Token> {
        let flight = self.flights.get_mut(number as usize)?.as_mut()?;
        flight.ended = true;
        let exchange = flight.exchange;
        if !more {
            self.land(number);
        }
        Some(exchange)
    }

    /// The kernel needs the pages of a send no more. In words, once: why it is off from now on.
    pub(super) fn notified(&mut self, number: u32, result: i32) -> Option<String> {
        self.land(number);
        self.told += 1;
        self.copied += u32::from(result.cast_unsigned() & COPIED != 0);
        if !self.on || self.copied < self.tolerated || self.copied * 2 < self.told {
            return None;
        }
        self.turn_off();
        Some(format!(
            "the kernel copied {} of {} sends (as on loopback, veth, and interfaces without scatter-gather)",
            self.copied, self.told
        ))
    }

    /// The kernel does not take such sends. In words, once: why it is off from now on.
    pub(super) fn refused(&mut self) -> Option<String> {
        if !self.on {
            return None;
        }
        self.turn_off();
        Some("the kernel refuses SEND_ZC that tells of its copies (as Linux before 6.2 does)".to_owned())
    }

    fn land(&mut self, number: u32) {
        if self.flights.get_mut(number as usize).and_then(Option::take).is_some() {
            self.free.push(number);
        }
    }

    /// Unmaps blobs that nobody has open any more.
    pub(super) fn tick(&mut self) {
        self.mappings.retain(|(blob, _)| blob.strong_count() > 0);
    }
}

impl Drop for ZeroCopy {
    fn drop(&mut self) {
        // The ring may go on with a send that has not begun: its addresses must not become somebody else's.
        for flight in self.flights.drain(..).flatten().filter(|flight| !flight.ended) {
            std::mem::forget(flight.mapping);
        }
    }
}
