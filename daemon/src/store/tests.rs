//! The store against a real directory: restarts, eviction, damage, lack of space.

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
