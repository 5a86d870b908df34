//! What the engine tells of itself while it runs: how it sends, what has stopped to work, and whether its cluster wants
//! it at all.
//!
//! Invariant: what was lost stays told.

use crate::engine::{EngineInfo, PORTABLE};
use hawker_api::node_policy::EnginePolicy;
use std::sync::Arc;
use tokio::sync::watch;

pub(super) const IO_URING: &str = "io_uring";

/// Clones tell the same.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    told: Arc<watch::Sender<EngineInfo>>,
    threads: usize,
    lost: Arc<parking_lot::Mutex<Lost>>,
    /// Why it was chosen, and how it sends.
    reason: Arc<str>,
}

#[derive(Debug, Default)]
struct Lost {
    rings: usize,
    /// In words, in the order in which it happened.
    why: Vec<String>,
    /// The cluster wants the portable engine.
    set_aside: bool,
}

impl Standing {
    pub(super) fn new(reason: String, threads: usize) -> Self {
        let told = watch::channel(EngineInfo { name: IO_URING, reason: reason.clone() }).0;
        Self { told: Arc::new(told), threads, lost: Arc::default(), reason: reason.into() }
    }

    pub(super) fn info(&self) -> watch::Receiver<EngineInfo> {
        self.told.subscribe()
    }

    /// New connections are the twin's, or the rings' again.
    pub(super) fn follow(&self, policy: EnginePolicy) {
        let mut lost = self.lost.lock();
        let set_aside = policy == EnginePolicy::Portable;
        if lost.set_aside != set_aside {
            tracing::info!(engine = policy.name(), "the cluster's policy for new connections");
            lost.set_aside = set_aside;
            self.tell(&lost);
        }
    }

    pub(super) fn is_set_aside(&self) -> bool {
        self.lost.lock().set_aside
    }

    /// A ring is of no more use; the twin serves in its place.
    pub(super) fn ring_failed(&self, number: usize, why: &str) {
        tracing::error!(
            ring = number,
            why,
            "a ring of the serving engine failed; the portable engine serves in its place"
        );
        let mut lost = self.lost.lock();
        lost.rings += 1;
        lost.why.push(format!("ring {number} failed ({why}): the portable engine serves in its place"));
        self.tell(&lost);
    }

    /// Zero-copy sends bring nothing here.
    pub(super) fn zero_copy_off(&self, why: &str) {
        tracing::warn!(why, "peer.send: zc is off; pieces go by splice");
        let mut lost = self.lost.lock();
        let why = format!("zc is off, splice instead: {why}");
        if !lost.why.contains(&why) {
            lost.why.push(why);
        }
        self.tell(&lost);
    }

    fn tell(&self, lost: &Lost) {
        let name = if lost.set_aside || lost.rings >= self.threads { PORTABLE } else { IO_URING };
        let policy = lost
            .set_aside
            .then_some("the cluster wants it (engine: portable), and the node's file says auto");
        let reason = policy.into_iter().chain(std::iter::once(&*self.reason));
        let reason = reason.chain(lost.why.iter().map(String::as_str));
        let reason = reason.collect::<Vec<_>>().join("; ");
        self.told.send_replace(EngineInfo { name, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_sets_rings_aside_and_takes_them_back() {
        let standing = Standing::new("because".into(), 1);
        let info = standing.info();
        standing.follow(EnginePolicy::Portable);
        assert!(standing.is_set_aside());
        let told = info.borrow().clone();
        assert_eq!(told.name, PORTABLE);
        assert!(
            told.reason.starts_with("the cluster wants it") && told.reason.ends_with("because"),
            "{}",
            told.reason
        );
        standing.follow(EnginePolicy::Auto);
        assert!(!standing.is_set_aside());
        assert_eq!(*info.borrow(), EngineInfo { name: IO_URING, reason: "because".to_owned() });
    }

    #[test]
    fn what_was_lost_stays_told() {
        let standing = Standing::new("because".into(), 2);
        let info = standing.info();
        standing.zero_copy_off("copied");
        standing.zero_copy_off("copied");
        assert_eq!(info.borrow().reason, "because; zc is off, splice instead: copied");
        standing.ring_failed(1, "EBADF");
        assert_eq!(info.borrow().name, IO_URING, "one of two still serves");
        standing.ring_failed(0, "EIO");
        let told = info.borrow().clone();
        assert_eq!(told.name, PORTABLE);
        for part in ["because", "copied", "ring 1 failed (EBADF)", "ring 0 failed (EIO)"] {
            assert!(told.reason.contains(part), "{part}: {}", told.reason);
        }
    }
}
