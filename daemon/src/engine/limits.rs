//! What every engine allows its peers, and the count of their connections.
//!
//! Invariant: a connection is counted from its admission until its [`Admitted`] is dropped, whatever ends it.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connections of all peers together.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// Connections of one peer: a child opens three a task it shares.
pub(super) const MAX_CONNECTIONS_PER_PEER: usize = 64;
/// A connection without a whole request is closed after this.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// A peer that takes no byte for this long is dropped.
pub(super) const SEND_LIMIT: Duration = Duration::from_secs(30);
/// Time for answers in flight at shutdown.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// What is still read of a peer whose request was refused, bytes: closing with unread input would
/// reset the connection and take the answer with it.
pub(super) const REFUSED_INPUT_BYTES: u64 = 64 << 10;
/// And for how long.
pub(super) const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// Bytes handed to the kernel at once: what one peer gets before it is the next one's turn.
pub(super) const SEND_STEP_BYTES: u64 = 1 << 20;

/// Counts connections; clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct Census(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One connection's place in the limits.
#[derive(Debug)]
pub(super) struct Admitted {
    peer: IpAddr,
    census: Census,
}

impl Census {
    /// A place for one more connection of `peer`; `None` where a limit is reached.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Admitted> {
        let mut counts = self.0.lock();
        let of_peer = counts.by_peer.get(&peer).copied().unwrap_or(0);
        if counts.all >= MAX_CONNECTIONS || of_peer >= MAX_CONNECTIONS_PER_PEER {
            return None;
        }
        counts.all += 1;
        counts.by_peer.insert(peer, of_peer + 1);
        Some(Admitted { peer, census: self.clone() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.census.0.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.by_peer.remove(&self.peer);
            }
        }
    }
}
