//! What is remembered for a while: bounded, each entry fresh for its own time, kept lapsed for a longer one.
//!
//! Pure; time is an argument. Invariant: never more entries than the bound; the oldest make room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// How far an entry may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Fresh,
    /// Only where there is nothing better.
    Lapsed,
}

/// A table that forgets.
pub struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Insertions in order; one that was repeated since is passed over when its turn comes.
    order: VecDeque<(K, u64)>,
    capacity: usize,
    keep: Duration,
    serial: u64,
}

struct Entry<V> {
    value: V,
    since: Instant,
    fresh_until: Instant,
    serial: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Table<K, V> {
    /// At most `capacity` entries, none older than `keep`.
    #[must_use]
    pub fn new(capacity: usize, keep: Duration) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), capacity, keep, serial: 0 }
    }

    pub fn insert(&mut self, key: K, value: V, now: Instant, fresh_until: Instant) {
        self.serial += 1;
        let entry = Entry { value, since: now, fresh_until, serial: self.serial };
        self.entries.insert(key.clone(), entry);
        self.order.push_back((key, self.serial));
        // Repeated keys leave stale places in the queue: it is kept within twice the bound.
        while self.entries.len() > self.capacity || self.order.len() > 2 * self.capacity {
            let Some((key, serial)) = self.order.pop_front() else { return };
            if self.entries.get(&key).is_some_and(|entry| entry.serial == serial) {
                self.entries.remove(&key);
            }
        }
    }

    pub fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// The entry, and how far it may be relied on.
    #[must_use]
    pub fn get(&self, key: &K, now: Instant) -> Option<(Known, V)> {
        let entry = self.entries.get(key)?;
        let known = if now < entry.fresh_until { Known::Fresh } else { Known::Lapsed };
        (now.saturating_duration_since(entry.since) < self.keep).then(|| (known, entry.value.clone()))
    }

    /// How long ago the entry was made.
    #[must_use]
    pub fn age(&self, key: &K, now: Instant) -> Option<Duration> {
        self.entries.get(key).map(|entry| now.saturating_duration_since(entry.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_lapse_and_then_go() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut table = Table::new(2, Duration::from_secs(100));
        table.insert("a", 1, start, at(10));
        assert_eq!(table.get(&"a", at(9)), Some((Known::Fresh, 1)));
        assert_eq!(table.get(&"a", at(10)), Some((Known::Lapsed, 1)));
        assert_eq!(table.age(&"a", at(10)), Some(Duration::from_secs(10)));
        assert_eq!(table.get(&"a", at(100)), None);
        table.insert("a", 2, at(100), at(110));
        table.insert("b", 3, at(100), at(110));
        table.insert("c", 4, at(100), at(110));
        assert_eq!(table.get(&"a", at(101)), None, "the oldest made room");
        assert_eq!(table.get(&"c", at(101)), Some((Known::Fresh, 4)));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_the_newest_is_there(
            keys in prop::collection::vec(0u8..20, 1..300), capacity in 1usize..10
        ) {
            let now = Instant::now();
            let mut table = Table::new(capacity, Duration::from_secs(1));
            for key in keys {
                table.insert(key, key, now, now + Duration::from_secs(1));
                prop_assert_eq!(table.get(&key, now), Some((Known::Fresh, key)));
                prop_assert!(table.entries.len() <= capacity && table.order.len() <= 2 * capacity);
            }
        }
    }
}
