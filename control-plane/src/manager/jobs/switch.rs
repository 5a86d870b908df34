//! The schedulers whose streams end at this manager: the way orders take to nodes.
//!
//! Invariant: sending never waits; an order that a slow scheduler does not take is lost, and is repeated by whoever sent it.

use super::orders::Order;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Orders waiting for one scheduler: more than are sent at once to all nodes of a job.
const QUEUE_ORDERS: usize = 1024;

/// An order for one node.
#[derive(Debug, Clone)]
pub(crate) struct ToNode {
    pub(crate) host_id: String,
    /// Names the work.
    pub(crate) job: String,
    pub(crate) order: Order,
}

/// Handle; clones share the schedulers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    /// By their cluster and a number.
    attached: Mutex<BTreeMap<(u64, u64), mpsc::Sender<ToNode>>>,
}

/// A scheduler's end; dropping it detaches the scheduler.
#[derive(Debug)]
pub(crate) struct Attached {
    switch: Switch,
    key: (u64, u64),
    orders: mpsc::Receiver<ToNode>,
}

impl Switch {
    /// Takes in a scheduler of this scheduler cluster.
    pub(crate) fn attach(&self, scheduler_cluster_id: u64) -> Attached {
        let (sender, orders) = mpsc::channel(QUEUE_ORDERS);
        let key = (scheduler_cluster_id, self.0.next.fetch_add(1, Ordering::Relaxed));
        self.0.attached.lock().insert(key, sender);
        Attached { switch: self.clone(), key, orders }
    }

    pub(crate) fn reaches(&self, scheduler_cluster_id: u64) -> bool {
        self.0
            .attached
            .lock()
            .range((scheduler_cluster_id, 0)..=(scheduler_cluster_id, u64::MAX))
            .next()
            .is_some()
    }

    /// To every scheduler of the cluster: one of them has the node.
    pub(crate) fn send(&self, scheduler_cluster_id: u64, order: &ToNode) {
        let attached = self.0.attached.lock();
        for sender in attached.range((scheduler_cluster_id, 0)..=(scheduler_cluster_id, u64::MAX)) {
            if sender.1.try_send(order.clone()).is_err() {
                tracing::debug!(scheduler_cluster_id, job = order.job, "a scheduler does not take an order");
            }
        }
    }
}

impl Attached {
    /// The next order for one of its nodes. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<ToNode> {
        self.orders.recv().await
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.switch.0.attached.lock().remove(&self.key);
    }
}
