//! What the scheduler knows of its busiest tasks, for who lists them.
//!
//! Invariant: bounded, however many tasks and hosts there are.

use super::busy::Moved;
use super::core::Core;
use super::messages::HostId;
use super::task::Task;
use hawker_api::task::TaskId;

/// Hosts named of a task.
const MAX_HOSTS: usize = 32;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) task: TaskId,
    pub(super) size: Option<u64>,
    pub(super) pieces: u32,
    pub(super) holders: usize,
    pub(super) downloading: usize,
    pub(super) moved: Moved,
    pub(super) hosts: Vec<Holder>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) host: HostId,
    pub(super) complete: bool,
    pub(super) pieces: u32,
}

impl Core {
    /// The tasks that something happened to since the last call, the busiest first, at most `most`.
    pub(super) fn summaries(&mut self, most: usize) -> Vec<Summary> {
        let busiest = self.busy.take(most);
        let nothing = Task::default();
        let known = busiest.into_iter().map(|(id, moved)| {
            // One that everybody dropped is told, too: nobody has it.
            summary(id, self.tasks.get(&id).unwrap_or(&nothing), moved)
        });
        known.collect()
    }
}

fn summary(id: TaskId, task: &Task, moved: Moved) -> Summary {
    let complete =
        task.complete.iter().map(|host| Holder { host: host.clone(), complete: true, pieces: task.count() });
    let partial = task.wants.keys().map(|host| Holder {
        host: host.clone(),
        complete: false,
        pieces: task.partial.get(host).map_or(0, |held| held.len()),
    });
    Summary {
        task: id,
        size: task.size(),
        pieces: task.count(),
        holders: task.complete.len(),
        downloading: task.wants.len(),
        moved,
        hosts: partial.chain(complete).take(MAX_HOSTS).collect(),
    }
}
