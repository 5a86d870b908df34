//! The manager's clock: forgets stale registrations, and remembers the live schedulers on disk for a restart.

use super::directory::Directory;
use super::host::SchedulerHost;
use super::store::Store;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How late a stale registration may be noticed.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// Sweeps until cancelled. Those who are live then are what the next start counts on, where there is a store to keep them.
pub(super) async fn run(directory: Arc<Directory>, store: Option<Store>, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut remembered = None;
    loop {
        let last = tokio::select! {
            () = cancel.cancelled() => true,
            _ = ticks.tick() => false,
        };
        directory.sweep(Instant::now());
        if let Some(store) = &store {
            remember(&directory, store, &mut remembered).await;
        }
        if last {
            return;
        }
    }
}

/// Writes the live schedulers where they differ from what was written last.
async fn remember(directory: &Directory, store: &Store, remembered: &mut Option<Vec<SchedulerHost>>) {
    let live = directory.schedulers(|_| true, 0, usize::MAX).items;
    let live: Vec<_> = live.into_iter().map(|scheduler| scheduler.host).collect();
    if remembered.as_ref() == Some(&live) {
        return;
    }
    match store.replace_schedulers(&live).await {
        Ok(()) => *remembered = Some(live),
        Err(error) => tracing::warn!(%error, "remember schedulers"),
    }
}
