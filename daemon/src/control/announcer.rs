//! The way from the swarm to the scheduler session: a bounded queue that exists while there is one.
//!
//! Invariant: telling never waits. A queue that overflows ends the session, and the next one begins
//! with everything that still holds, so nothing is lost by it.

use crate::swarm::orders::{Announce, Notice};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// Notices waiting for the network.
const QUEUE_NOTICES: usize = 8192;

pub struct Announcer {
    queue: Mutex<Option<mpsc::Sender<Notice>>>,
    connected: watch::Sender<bool>,
}

impl Default for Announcer {
    fn default() -> Self {
        Self { queue: Mutex::new(None), connected: watch::channel(false).0 }
    }
}

impl Announcer {
    /// Begins a session: notices go to the returned queue until the next call or [`Self::detach`].
    pub(super) fn attach(&self) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(QUEUE_NOTICES);
        *self.queue.lock() = Some(sender);
        receiver
    }

    /// The scheduler was told everything that holds.
    pub(super) fn introduced(&self) {
        self.connected.send_replace(true);
    }

    pub(super) fn detach(&self) {
        *self.queue.lock() = None;
        self.connected.send_replace(false);
    }

    /// Waits for a session.
    pub(super) async fn connected(&self) {
        // The sender lives in `self`: this cannot fail.
        let _ = self.connected.subscribe().wait_for(|connected| *connected).await;
    }
}

impl Announce for Announcer {
    fn tell(&self, notice: Notice) {
        let mut queue = self.queue.lock();
        if let Some(sender) = queue.as_ref()
            && sender.try_send(notice).is_err()
        {
            tracing::warn!("the scheduler does not keep up; beginning a new session");
            *queue = None;
        }
    }

    fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }
}
