//! The store's accounts over any run of use, crashes and restarts; files that go away under its feet.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const CAPACITY: u64 = 24 * MIB;

/// What may happen to a store.
#[derive(Debug, Clone)]
enum Step {
    /// So many pieces of a blob of so many MiB come; sealed where that is all of them.
    Fetch {
        tag: u8,
        mib: u64,
        pieces: u32,
    },
    /// Somebody serves it, until told otherwise.
    Serve(u8),
    Stop(u8),
    Pin(u8, bool),
    Remove(u8),
    Expire,
    /// The process dies and starts again.
    Crash,
    /// It dies while a blob's files get their new names.
    CrashWhileSealing(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let tag = 0..6u8;
    prop_oneof![
        6 => (tag.clone(), 0..14u64, 0..5u32).prop_map(|(tag, mib, pieces)| Step::Fetch { tag, mib, pieces }),
        2 => tag.clone().prop_map(Step::Serve),
        1 => tag.clone().prop_map(Step::Stop),
        1 => (tag.clone(), any::<bool>()).prop_map(|(tag, pinned)| Step::Pin(tag, pinned)),
        1 => tag.clone().prop_map(Step::Remove),
        1 => Just(Step::Expire),
        1 => Just(Step::Crash),
        1 => tag.prop_map(Step::CrashWhileSealing),
    ]
}

/// A store, who has what of it open, and what is pinned.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    served: BTreeMap<u8, Arc<BlobFile>>,
    pinned: BTreeMap<u8, bool>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), CAPACITY);
        Self { dir, store, served: BTreeMap::new(), pinned: BTreeMap::new() }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Fetch { tag, mib, pieces } => self.fetch(tag, mib * MIB, pieces),
            Step::Serve(tag) => {
                self.served.extend(self.store.get(&task(tag)).unwrap().map(|blob| (tag, blob)));
            }
            Step::Stop(tag) => drop(self.served.remove(&tag)),
            Step::Pin(tag, pinned) => {
                if self.store.pin(&task(tag), pinned).unwrap() {
                    self.pinned.insert(tag, pinned);
                }
            }
            Step::Remove(tag) => {
                self.store.remove(&task(tag)).unwrap();
                self.served.remove(&tag);
                self.pinned.remove(&tag);
            }
            Step::Expire => drop(self.store.expire(std::time::SystemTime::now()).unwrap()),
            Step::Crash => self.crash(),
            Step::CrashWhileSealing(tag) => {
                self.served.clear();
                let (from, to) =
                    (self.store.inner.layout.partial(&task(tag)), self.store.inner.layout.held(&task(tag)));
                if from.pieces.exists() {
                    std::fs::rename(from.pieces, to.pieces).unwrap();
                }
                self.crash();
            }
        }
    }

    fn fetch(&mut self, tag: u8, size: u64, pieces: u32) {
        if self.store.get(&task(tag)).unwrap().is_some_and(|blob| blob.geometry().size() != size) {
            // Another size under the same digest is a lie, and begins anew.
            self.served.remove(&tag);
            self.pinned.remove(&tag);
        }
        let blob = match self.store.create(&task(tag), size) {
            Ok(blob) => blob,
            Err(error) => return assert!(error.is_no_space(), "{error}"),
        };
        for piece in
            (0..blob.geometry().count().min(pieces)).filter(|piece| !blob.has(*piece)).collect::<Vec<_>>()
        {
            write_piece(&blob, piece, tag);
        }
        let all = (0..blob.geometry().count()).all(|piece| blob.has(piece));
        if all && !blob.is_complete() {
            self.store.seal(&blob).unwrap();
        }
    }

    fn crash(&mut self) {
        self.served.clear();
        self.store = store(self.dir.path(), CAPACITY);
    }

    /// Bytes of data files, as the disk has them.
    fn on_disk(&self) -> u64 {
        let dirs = ["blobs", "partial"].map(|name| std::fs::read_dir(self.dir.path().join(name)).unwrap());
        let files = dirs.into_iter().flatten().map(|entry| entry.unwrap());
        let data = files.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "data"));
        data.map(|entry| entry.metadata().unwrap().len()).sum()
    }

    fn holds(&self, tag: u8) -> bool {
        self.store.list().iter().any(|blob| blob.task == task(tag))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn accounts_are_exact_and_nothing_served_or_pinned_goes(steps in proptest::collection::vec(step(), 1..24)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            let used = world.store.report().used_bytes;
            prop_assert_eq!(used, world.on_disk(), "after {:?}", step);
            prop_assert!(used <= CAPACITY);
            for (tag, blob) in &world.served {
                prop_assert!(world.holds(*tag) && !blob.is_retired(), "{} is served, and gone after {:?}", tag, step);
            }
            for (tag, _) in world.pinned.iter().filter(|(_, pinned)| **pinned) {
                prop_assert!(world.holds(*tag), "{} is pinned, and gone after {:?}", tag, step);
            }
        }
        world.crash();
        prop_assert_eq!(world.store.report().used_bytes, world.on_disk());
        for (held, size) in world.store.held() {
            let blob = world.store.get(&held).unwrap().unwrap();
            prop_assert_eq!(blob.geometry().size(), size);
            for piece in 0..blob.geometry().count() {
                blob.check(piece).unwrap();
            }
        }
    }
}

#[test]
fn files_that_go_away_under_our_feet_are_held_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    for tag in [1, 2] {
        put(&store(dir.path(), 0), tag, 5 * MIB);
    }
    // As after a restart: nothing is open.
    let store = store(dir.path(), 0);
    for kind in ["data", "pieces"] {
        let tag = if kind == "data" { 1 } else { 2 };
        let file = dir.path().join("blobs").join(format!("sha256-{}.{kind}", task(tag).hex()));
        std::fs::remove_file(file).unwrap();
        assert!(store.get(&task(tag)).unwrap().is_none(), "{kind}");
        assert_eq!(store.take_evicted(), [task(tag)], "those who were told that it is held are told");
    }
    assert_eq!((store.report().used_bytes, store.held()), (0, Vec::new()));
    assert!(store.report().error.is_some_and(|text| text.contains("open blob")));
    drop(put(&store, 1, 5 * MIB));
    assert_eq!(store.held(), [(task(1), 5 * MIB)]);
}

#[test]
fn what_is_open_is_served_though_its_files_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 0);
    let blob = put(&store, 1, 5 * MIB);
    std::fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    blob.check(0).unwrap();
    // And the store goes on, in a directory made anew.
    std::fs::remove_dir_all(dir.path().join("partial")).unwrap();
    drop(put(&store, 2, 5 * MIB));
    assert!(store.get(&task(2)).unwrap().unwrap().is_complete());
}
