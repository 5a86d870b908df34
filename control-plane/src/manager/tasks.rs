//! Tasks as the clusters' schedulers tell of them: gathered in memory, written with the history of bandwidth.
//!
//! Why told and not asked: a manager has the streams of some schedulers only, and every answer must be the same at each of
//! them; what is told lies in the database that they share. Only tasks that something happens to are told.

use serde::{Deserialize, Serialize};

/// Longest name of a task, bytes: `sha512:` and 128 digits fit.
pub(super) const MAX_TASK_BYTES: usize = 256;
/// Hosts kept of a task.
pub(super) const MAX_TASK_HOSTS: usize = 32;

/// A task in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownTask {
    pub(super) cluster_id: u64,
    pub(super) task: String,
    /// Its size; 0: not known.
    pub(super) bytes: u64,
    pub(super) pieces: u32,
    /// Nodes that hold it complete, and nodes that want it.
    pub(super) holders: u32,
    pub(super) downloading: u32,
    /// What nodes got of it, and of that from the origin.
    pub(super) moved_bytes: u64,
    pub(super) origin_bytes: u64,
    /// When something last happened to it, seconds since 1970.
    pub(super) last_seen: i64,
    /// Some of the nodes.
    pub(super) hosts: Vec<TaskHost>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskHost {
    pub(super) host_id: String,
    /// It matched the whole digest.
    pub(super) complete: bool,
    pub(super) pieces: u32,
}

#[derive(Debug, Clone)]
pub(super) struct TaskQuery {
    pub(super) cluster_id: Option<u64>,
    pub(super) task: Option<String>,
    pub(super) skip: i64,
    pub(super) limit: i64,
}

impl KnownTask {
    /// This task as it is told now; what an earlier telling moved is kept.
    pub(super) fn after(self, earlier: &Self) -> Self {
        Self {
            moved_bytes: self.moved_bytes.saturating_add(earlier.moved_bytes),
            origin_bytes: self.origin_bytes.saturating_add(earlier.origin_bytes),
            ..self
        }
    }
}
