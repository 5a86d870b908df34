//! Gathers what happened to tasks into few messages.
//!
//! Invariant: order is kept: what was told before something urgent is sent before it.

use super::wire;
use crate::swarm::orders::{Attested, Notice};
use hawker_api::task::TaskId;
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A lease is told to be alive this often; the scheduler gives up on one after ten times that.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Leases whose last sign of life is remembered.
const MAX_ALIVE: usize = 4096;

#[derive(Default)]
pub(super) struct Batch {
    tasks: BTreeMap<TaskId, v1::TaskProgress>,
    alive: HashMap<u64, Instant>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Takes a notice in; what has to go out now comes back, in order.
    pub(super) fn add(&mut self, notice: Notice, now: Instant) -> Vec<Kind> {
        match notice {
            Notice::Size { task, size } => self.task(task).size = size,
            Notice::Piece { task, size, piece, attested } => {
                let progress = self.task(task);
                progress.size = size;
                progress.pieces.push(piece);
                if let Some(digest) = attested {
                    // The attester is whoever sends this: the scheduler knows who that is.
                    let attested = Attested { first: piece, digests: vec![digest], attester: "".into() };
                    wire::push_run(&mut progress.attested, attested);
                }
            }
            Notice::LeaseAlive { task, id } => {
                if self.alive.len() > MAX_ALIVE {
                    self.alive.clear();
                }
                let recently =
                    self.alive.get(&id).is_some_and(|last| now.duration_since(*last) < ALIVE_EVERY);
                if !recently {
                    self.alive.insert(id, now);
                    self.task(task).live_leases.push(id);
                }
            }
            Notice::LeaseExtended { task, id, pieces } => {
                let pieces = Some(wire::piece_range(&pieces));
                self.task(task).extended.push(v1::LeaseExtended { id, pieces });
            }
            urgent => {
                let mut messages = self.flush();
                messages.push(wire::urgent(urgent));
                return messages;
            }
        }
        Vec::new()
    }

    /// Everything gathered so far.
    pub(super) fn flush(&mut self) -> Vec<Kind> {
        if self.tasks.is_empty() {
            return Vec::new();
        }
        let tasks = std::mem::take(&mut self.tasks).into_values().collect();
        vec![Kind::Progress(v1::Progress { tasks })]
    }

    fn task(&mut self, task: TaskId) -> &mut v1::TaskProgress {
        self.tasks
            .entry(task)
            .or_insert_with(|| v1::TaskProgress { task: task.to_string(), ..v1::TaskProgress::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_gather_and_urgent_messages_push_them_out() {
        let task = TaskId::from_digest(hawker_api::task::Algorithm::Sha256, &[1; 32]).unwrap();
        let (mut batch, now) = (Batch::default(), Instant::now());
        for piece in 3..6 {
            let attested = Some([7; 32]);
            assert!(batch.add(Notice::Piece { task, size: 99, piece, attested }, now).is_empty());
            assert!(batch.add(Notice::LeaseAlive { task, id: 5 }, now).is_empty());
        }
        let messages = batch.add(Notice::Finished { task, size: 99 }, now);
        let [Kind::Progress(progress), Kind::Finished(_)] = messages.as_slice() else {
            panic!("{messages:?}")
        };
        let [told] = progress.tasks.as_slice() else { panic!() };
        assert_eq!(
            (told.size, told.pieces.as_slice(), told.live_leases.as_slice()),
            (99, &[3, 4, 5][..], &[5][..])
        );
        assert_eq!((told.attested.len(), told.attested[0].first, told.attested[0].digests.len()), (1, 3, 96));
        assert!(batch.is_empty() && batch.flush().is_empty());
    }
}
