//! Nodes that say they are at work for a job that nobody here works on. Where it has ended, they are told to leave it: the first
//! order to do so may be lost with a connection, or there was nobody to give it.
//!
//! Invariant: bounded; who does not fit says so again.

use super::orders::{FromNode, Order, Phase, Said};
use super::switch::ToNode;
use super::{Inner, StoreError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that are looked after at once.
const MAX_STRAYS: usize = 4096;

/// By the name that nodes know the work by.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<BTreeSet<(String, String)>>);

impl Strays {
    pub(super) fn note(&self, report: FromNode) {
        let FromNode { host_id, job, said } = report;
        let mut strays = self.0.lock();
        if matches!(said, Said::Hold(progress) if progress.phase == Phase::Running)
            && strays.len() < MAX_STRAYS
        {
            strays.insert((job, host_id));
        }
    }

    fn take(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_job: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (job, host_id) in std::mem::take(&mut *self.0.lock()) {
            by_job.entry(job).or_default().push(host_id);
        }
        by_job
    }
}

impl Inner {
    /// Tells those to leave it whose job has ended. What is left to another manager, or to nobody yet, is none of ours.
    pub(super) async fn stop_strays(&self) -> Result<(), StoreError> {
        for (job, hosts) in self.strays.take() {
            let Some((uid, cluster_id)) = named(&job) else { continue };
            let Some(cluster) = self.directory.cluster(cluster_id) else { continue };
            if !self.store.part_has_ended(uid, cluster_id).await? {
                continue;
            }
            tracing::info!(
                job,
                nodes = hosts.len(),
                "nodes work for a job that has ended; telling them to stop"
            );
            for host_id in hosts {
                let order = ToNode { host_id, job: job.clone(), order: Order::Stop };
                self.switch.send(cluster.scheduler_cluster_id(), &order);
            }
        }
        Ok(())
    }
}

/// What nodes know a part by: of the job with this `uid` in this cluster.
pub(super) fn name(uid: &str, cluster_id: u64) -> String {
    format!("{uid}/{cluster_id}")
}

fn named(name: &str) -> Option<(&str, u64)> {
    let (uid, cluster_id) = name.rsplit_once('/')?;
    Some((uid, cluster_id.parse().ok()?))
}
