//! The tasks that something happens to, and how much: the space-saving sketch of Metwally et al. (2005) over a bounded
//! number of entries.
//!
//! Invariant: a task that got more than a thousandth of all bytes since the last time it was asked is in the answer; no
//! figure is less than the truth, and only one that displaced another may be more.

use hawker_api::task::TaskId;
use std::collections::BTreeMap;

/// Entries.
const MAX_TASKS: usize = 1024;

/// Bytes that hosts got of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) bytes: u64,
    /// Of these from the origin.
    pub(super) origin: u64,
}

#[derive(Debug, Default)]
pub(super) struct Busy {
    tasks: BTreeMap<TaskId, Moved>,
}

impl Busy {
    /// Something happened to `task`: so much was moved, maybe nothing.
    pub(super) fn add(&mut self, task: &TaskId, bytes: u64, origin: u64) {
        if !self.tasks.contains_key(task) && self.tasks.len() >= MAX_TASKS {
            // Nothing moved: not worth the place of one where something did.
            let least = self.tasks.iter().min_by_key(|(_, moved)| moved.bytes);
            let Some((evicted, floor)) = least.map(|(id, moved)| (*id, *moved)) else { return };
            if bytes == 0 && floor.bytes > 0 {
                return;
            }
            self.tasks.remove(&evicted);
            self.tasks.insert(*task, Moved { bytes: floor.bytes, origin: 0 });
        }
        let moved = self.tasks.entry(*task).or_default();
        moved.bytes = moved.bytes.saturating_add(bytes);
        moved.origin = moved.origin.saturating_add(origin);
    }

    /// Takes out the busiest, at most `most`; the others are forgotten.
    pub(super) fn take(&mut self, most: usize) -> Vec<(TaskId, Moved)> {
        let mut all: Vec<_> = std::mem::take(&mut self.tasks).into_iter().collect();
        all.sort_by_key(|(_, moved)| std::cmp::Reverse(moved.bytes));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawker_api::task::Algorithm;
    use proptest::prelude::*;

    fn task(number: u32) -> TaskId {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        TaskId::from_digest(Algorithm::Sha256, &digest).unwrap()
    }

    #[test]
    fn the_busiest_come_first_and_are_told_once() {
        let mut busy = Busy::default();
        for (number, bytes) in [(1, 5), (2, 9), (1, 1), (3, 0)] {
            busy.add(&task(number), bytes, bytes / 2);
        }
        let told = busy.take(2);
        assert_eq!(told[0], (task(2), Moved { bytes: 9, origin: 4 }));
        assert_eq!(told[1], (task(1), Moved { bytes: 6, origin: 2 }));
        assert!(busy.take(2).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn who_got_much_is_never_lost(
            events in proptest::collection::vec((0..5000_u32, 1..1000_u64), 1..4000),
            heavy in 0..5000_u32,
        ) {
            let (mut busy, mut truth) = (Busy::default(), BTreeMap::<u32, u64>::new());
            for (at, (number, bytes)) in events.into_iter().enumerate() {
                let number = if at % 3 == 0 { heavy } else { number };
                busy.add(&task(number), bytes, 0);
                *truth.entry(number).or_default() += bytes;
            }
            let all: u64 = truth.values().sum();
            let told: BTreeMap<_, _> = busy.take(MAX_TASKS).into_iter().collect();
            for (number, bytes) in truth {
                match told.get(&task(number)) {
                    Some(moved) => prop_assert!(moved.bytes >= bytes),
                    None => prop_assert!(bytes <= all / 1000),
                }
            }
        }
    }
}
