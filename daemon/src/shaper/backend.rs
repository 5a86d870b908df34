//! The seam between what is wanted of the node's traffic and who does it: the kernel's programs (`kernel`) or this
//! process (`portable`). Plain data both ways.
//!
//! Invariant: both backends hold the same limits by the same arithmetic ([`hawker_abi::clock`]); the end-to-end cases
//! run the daemon on each.

use super::netlink::LinkBytes;
use hawker_abi::{Class, Counters, Limit, PeerAddr, PeerState};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Counts and limits the traffic of this process.
pub(crate) trait Backend: Send + Sync {
    /// Follows new orders from now on; what is under way goes on under them.
    ///
    /// # Errors
    /// The kernel refused; the former orders may hold in part.
    fn apply(&self, orders: &Orders) -> Result<(), BackendError>;

    /// The process is about to connect to `far_end`, for `class`.
    fn expect(&self, far_end: SocketAddr, class: Class);

    /// Bytes that a socket took or gave. Only for who cannot see the wire.
    fn moved(&self, peer: IpAddr, class: Class, direction: Direction, bytes: u64);

    /// How many of `bytes` may be sent to a peer, and when. They count as sent from here on.
    fn pace(&self, peer: IpAddr, bytes: u64) -> Grant;

    /// Everything counted since the start; entries of forgotten peers may be missing or begin anew.
    ///
    /// # Errors
    /// The kernel refused.
    fn read(&self, scope: Scope<'_>) -> Result<Reading, BackendError>;
}

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{act}: {detail}")]
pub(crate) struct BackendError {
    pub(super) act: &'static str,
    pub(super) detail: String,
}

pub(crate) use crate::metrics::Direction;

/// How limits are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No limits: count only.
    #[default]
    Account,
    /// The shared clock, by pacing each connection.
    Clock,
    /// The shared clock, by departure times that the `fq` queue keeps.
    Departure,
    /// The twin's clock, asked before each write: for connections that the kernel paces no longer.
    Grants,
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    pub mode: Mode,
    /// Where this node serves pieces: connections to it are uploads.
    pub piece_port: u16,
    /// Upload to all peers together, bytes per second; 0: no limit.
    pub total_rate: u64,
    /// Rate of one part of weight, bytes per second; 0: the total is not divided.
    pub level: u64,
    /// Of peers that have no entry.
    pub default_limit: Limit,
    pub peers: HashMap<PeerAddr, Limit>,
}

impl Orders {
    /// The limit and weight of a peer.
    pub(super) fn limit(&self, peer: &PeerAddr) -> Limit {
        self.peers.get(peer).copied().unwrap_or(self.default_limit)
    }
}

/// Leave to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// At least 1 where anything was asked for.
    pub bytes: u64,
    /// Wait this long first.
    pub wait: Duration,
}

impl Grant {
    /// All of it, now.
    #[must_use]
    pub fn all(bytes: u64) -> Self {
        Self { bytes, wait: Duration::ZERO }
    }
}

/// How much to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    All,
    /// The classes, and the state of these peers: cheap enough for many times a second.
    Peers(&'a [PeerAddr]),
}

/// Counted since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// By class, in the order of [`Class::ALL`]. Complete, whatever peers were forgotten.
    pub classes: [Counters; 4],
    pub flows: Vec<(PeerAddr, Class, Counters)>,
    pub peers: Vec<(PeerAddr, PeerState)>,
    /// All classes together as interfaces of software count: a packet that is yet to be segmented is one.
    pub(super) whole: LinkBytes,
}

impl Reading {
    /// All classes together, as frames on the wire.
    pub(super) fn wire(&self) -> LinkBytes {
        let all = self.classes.iter().fold(Counters::default(), |sum, class| sum.plus(*class));
        LinkBytes { sent: all.tx_bytes, received: all.rx_bytes }
    }
}
