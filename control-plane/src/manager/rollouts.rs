//! How images come into clusters: what schedulers tell is gathered and written every few seconds, so that every manager
//! on the database can show it.
//!
//! Not how far an image is (the schedulers') and not how it is shown (`rest`).
//!
//! Invariant: bounded in memory and in the database; of an image in a cluster only the last word is kept.

use super::store::{Store, StoreError};
use super::unix_seconds;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

const WRITE_EVERY: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Images waiting for the database.
const MAX_PENDING: usize = 10_000;

/// One image in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    pub(crate) cluster_id: u64,
    /// Digest of the manifest.
    pub(crate) manifest: String,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) nodes_done: u64,
    pub(crate) nodes_wanted: u64,
    pub(crate) nodes_total: u64,
    /// Seconds since 1970.
    pub(crate) started_at: i64,
    pub(crate) eta_at: Option<i64>,
    pub(crate) stragglers: Vec<Straggler>,
    pub(crate) updated_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Straggler {
    pub(crate) host_id: String,
    pub(crate) bytes_done: u64,
    pub(crate) reason: String,
}

/// Handle; clones share what is pending.
#[derive(Debug, Clone, Default)]
pub(super) struct Rollouts {
    pending: Arc<Mutex<BTreeMap<(u64, String), Rollout>>>,
}

impl Rollouts {
    pub(super) fn told(&self, rollout: Rollout) {
        let key = (rollout.cluster_id, rollout.manifest.clone());
        let mut pending = self.pending.lock();
        if pending.len() < MAX_PENDING || pending.contains_key(&key) {
            pending.insert(key, rollout);
        }
    }

    async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let rollouts: Vec<Rollout> = std::mem::take(&mut *self.pending.lock()).into_values().collect();
        if rollouts.is_empty() {
            return Ok(());
        }
        let written = store.write_rollouts(&rollouts).await;
        if written.is_err() {
            let mut pending = self.pending.lock();
            for rollout in rollouts {
                // What came meanwhile is newer.
                pending.entry((rollout.cluster_id, rollout.manifest.clone())).or_insert(rollout);
            }
        }
        written
    }
}

/// Writes and prunes until cancelled; the last words are written then.
pub(super) async fn run(rollouts: Rollouts, store: Store, cancel: CancellationToken) {
    let (mut pruned, mut failing) = (None::<Instant>, false);
    loop {
        let last = tokio::select! {
            () = cancel.cancelled() => true,
            () = tokio::time::sleep(WRITE_EVERY) => false,
        };
        let mut result = rollouts.write(&store).await;
        if result.is_ok() && pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
            pruned = Some(Instant::now());
            result = store.prune_rollouts(unix_seconds(SystemTime::now())).await;
        }
        if let (Err(error), false) = (&result, failing) {
            tracing::warn!(%error, "keep how images come into clusters");
        }
        failing = result.is_err();
        if last {
            return;
        }
    }
}
