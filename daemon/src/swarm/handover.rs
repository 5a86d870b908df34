//! How the swarm lets go of its downloads when another daemon takes the store over.
//!
//! Invariant: when [`Swarm::hand_over`] returns, nothing of this process writes into the store any more.

use super::Swarm;
use super::failure::Failure;
use std::time::{Duration, Instant};

/// Longest wait for pieces under way: what is cut is fetched again. A piece of 4 MiB at 16 Mbit/s.
const PIECES_LIMIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Swarm {
    /// Begins no more pieces, waits for those under way, ends all downloads and gives the store up. Readers are told where
    /// the rest is.
    pub(crate) async fn hand_over(&self) {
        let context = &self.inner.context;
        {
            // Nothing joins from here on.
            let _active = self.inner.active.lock();
            context.closing.cancel();
        }
        let deadline = Instant::now() + PIECES_LIMIT;
        let under_way = || self.downloads().iter().any(|download| !download.state().is_idle());
        while under_way() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for download in self.downloads() {
            download.fail(Failure::HandedOver);
            download.state().revoke_claims();
        }
        self.inner.tracker.close();
        context.cancel.cancel();
        self.inner.tracker.wait().await;
        context.store.give_up();
    }
}
