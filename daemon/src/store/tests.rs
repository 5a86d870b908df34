//! The store against a real directory: restarts, eviction, damage, lack of space.

mod care;

use super::*;
use hawker_api::units::ByteSize;

const MIB: u64 = 1 << 20;

fn store(dir: &Path, capacity: u64) -> Store {
    Store::open(&StorageConfig { dir: dir.to_owned(), capacity: ByteSize(capacity) }).unwrap()
}

fn task(tag: u8) -> TaskId {
    TaskId::from_digest(hawker_api::task::Algorithm::Sha256, &[tag; 32]).unwrap()
}

fn put(store: &Store, tag: u8, size: u64) -> Arc<BlobFile> {
    let blob = store.create(&task(tag), size).unwrap();
    for piece in 0..blob.geometry().count() {
        write_piece(&blob, piece, tag);
    }
    store.seal(&blob).unwrap();
    blob
}

fn write_piece(blob: &BlobFile, piece: u32, fill: u8) {
    let range = blob.geometry().range(piece);
    let bytes = vec![fill; usize::try_from(range.end - range.start).unwrap()];
    blob.write(&bytes, range.start).unwrap();
    blob.commit(piece, *blake3::hash(&bytes).as_bytes()).unwrap();
}

#[test]
fn a_restart_keeps_whole_and_partial_blobs() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = store(dir.path(), 0);
        put(&store, 1, 5 * MIB);
        let partial = store.create(&task(2), 9 * MIB).unwrap();
        write_piece(&partial, 1, 9);
    }
    let store = store(dir.path(), 0);
    assert_eq!(store.held(), [(task(1), 5 * MIB)]);
    let whole = store.get(&task(1)).unwrap().unwrap();
    assert!(whole.is_complete() && whole.has(0) && whole.has(1));
    whole.check(1).unwrap();
    let partial = store.get(&task(2)).unwrap().unwrap();
    assert!(!partial.is_complete());
    assert_eq!(partial.held().iter().collect::<Vec<_>>(), [1]);
    partial.check(1).unwrap();
    assert_eq!(store.report().used_bytes, 14 * MIB);
}

#[test]
fn damage_on_disk_is_found_before_use() {
    let dir = tempfile::tempdir().unwrap();
    put(&store(dir.path(), 0), 1, 5 * MIB);
    let data = dir.path().join("blobs").join(format!("sha256-{}.data", task(1).hex()));
    let file = OpenOptions::new().write(true).open(&data).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff], 4 * MIB + 17).unwrap();
    let reopened = store(dir.path(), 0);
    let blob = reopened.get(&task(1)).unwrap().unwrap();
    blob.check(0).unwrap();
    assert!(matches!(blob.check(1), Err(StoreError::Corrupt { piece: 1, .. })));
    // A file cut short is not used at all.
    file.set_len(MIB).unwrap();
    assert!(store(dir.path(), 0).get(&task(1)).unwrap().is_none());
}

#[test]
fn eviction_takes_the_oldest_that_nobody_uses() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 12 * MIB);
    let used = put(&store, 1, 4 * MIB);
    drop(put(&store, 2, 4 * MIB));
    drop(put(&store, 3, 4 * MIB));
    drop(put(&store, 4, 4 * MIB));
    assert!(store.get(&task(2)).unwrap().is_none(), "the oldest idle blob goes");
    assert!(store.get(&task(1)).unwrap().is_some(), "a blob in use stays");
    let error = store.create(&task(5), 9 * MIB).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(store.report().error.is_some_and(|text| text.contains("capacity")));
    drop(used);
    drop(store.create(&task(7), 1).unwrap());
    assert!(store.report().error.is_some(), "that a byte fits does not mean that 9 MiB do");
    store.create(&task(6), 12 * MIB).unwrap();
    assert_eq!(store.report().error, None);
}

#[test]
fn a_forgotten_piece_is_gone_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    {
        let blob = store(dir.path(), 0).create(&task(1), 9 * MIB).unwrap();
        write_piece(&blob, 0, 1);
        write_piece(&blob, 2, 2);
        let mut wrong = hawker_api::pieces::PieceSet::new();
        wrong.insert(0);
        blob.forget(&wrong).unwrap();
    }
    let blob = store(dir.path(), 0).get(&task(1)).unwrap().unwrap();
    assert_eq!(blob.held().iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn an_empty_blob_can_be_held() {
    let dir = tempfile::tempdir().unwrap();
    let blob = put(&store(dir.path(), 0), 1, 0);
    assert_eq!(blob.geometry().count(), 0);
    assert!(store(dir.path(), 0).get(&task(1)).unwrap().unwrap().is_complete());
}

#[test]
fn directories_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("blobs")).unwrap();
    put(&store(dir.path(), 0), 1, 10);
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.path().join("blobs")), 0o700);
    assert_eq!(mode(dir.path().join("blobs").join(format!("sha256-{}.data", task(1).hex()))), 0o600);
}

#[test]
fn a_pinned_blob_stays_whatever_happens_until_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = store(dir.path(), 8 * MIB);
        drop(put(&store, 1, 4 * MIB));
        assert!(store.pin(&task(1), true).unwrap());
        assert!(!store.pin(&task(9), true).unwrap(), "nothing to pin");
    }
    let store = store(dir.path(), 8 * MIB);
    for tag in 2..6 {
        drop(put(&store, tag, 4 * MIB));
    }
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    let mut expired = store.expire(later).unwrap();
    assert_eq!((expired.pop(), expired.pop()), (Some(task(5)), None), "all others were evicted before");
    assert_eq!(
        store.list().iter().map(|blob| (blob.task, blob.pinned)).collect::<Vec<_>>(),
        [(task(1), true)]
    );
    assert!(store.create(&task(7), 8 * MIB).unwrap_err().is_no_space());
    assert!(store.pin(&task(1), false).unwrap());
    store.create(&task(7), 8 * MIB).unwrap();
    assert!(store.get(&task(1)).unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path().join("pins")).unwrap().count(), 0);
}

#[test]
fn what_is_read_does_not_expire_and_use_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    {
        let store = store(dir.path(), 0);
        for tag in [1, 2] {
            let blob = put(&store, tag, MIB);
            blob.file().set_modified(now - 3 * hour).unwrap();
        }
    }
    let used = store(dir.path(), 0);
    let reading = used.get(&task(1)).unwrap().unwrap();
    assert_eq!(used.expire(now - hour).unwrap(), [task(2)]);
    assert!(used.expire(now + hour).unwrap().is_empty(), "it is being read");
    drop((reading, used));
    assert!(store(dir.path(), 0).expire(now - hour).unwrap().is_empty(), "it was used a moment ago");
}

#[test]
fn a_crash_between_two_steps_leaves_nothing_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    put(&store(dir.path(), 0), 1, 5 * MIB);
    let (blobs, partial) = (dir.path().join("blobs"), dir.path().join("partial"));
    let name = format!("sha256-{}", task(1).hex());
    // As if the power failed after the journal was renamed and before the data was.
    std::fs::rename(blobs.join(format!("{name}.data")), partial.join(format!("{name}.data"))).unwrap();
    let reopened = store(dir.path(), 0);
    assert_eq!(reopened.report().used_bytes, 0);
    for place in [blobs, partial] {
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 0);
    }
}
