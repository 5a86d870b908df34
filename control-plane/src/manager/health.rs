//! Whether the manager's database answers, for probes that nobody signs in for.
//!
//! Invariant: however many ask, the database is asked once a second.

use super::store::{Store, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const ASK_EVERY: Duration = Duration::from_secs(1);

/// Clones share the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    /// When the last answer came, and whether it was one.
    answered: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Health {
    pub(super) async fn check(&self, store: &Store) -> Result<(), StoreError> {
        // Whoever waits here has its answer from the one who asks.
        let mut answered = self.answered.lock().await;
        match *answered {
            Some((at, true)) if at.elapsed() < ASK_EVERY => return Ok(()),
            Some((at, false)) if at.elapsed() < ASK_EVERY => return Err(StoreError::away()),
            _ => {}
        }
        let result = store.check().await;
        *answered = Some((Instant::now(), result.is_ok()));
        result
    }
}
