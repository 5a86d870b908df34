//! The store on real files.

use super::*;
use crate::manager::cluster::{ClusterEdit, ClusterSpec};
use crate::manager::host::SchedulerHost;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

async fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("deep/er/manager.db")).await.unwrap();
    (dir, store)
}

fn spec(name: &str, is_default: bool) -> ClusterSpec {
    let edit =
        ClusterEdit { name: Some(name.to_owned()), is_default: Some(is_default), ..ClusterEdit::default() };
    ClusterSpec::create(edit).unwrap()
}

async fn defaults(store: &Store) -> Vec<String> {
    let clusters = store.clusters().await.unwrap();
    clusters.into_iter().filter(|cluster| cluster.spec.is_default).map(|cluster| cluster.spec.name).collect()
}

#[tokio::test]
async fn directory_and_file_are_made_for_the_owner_only() {
    let (dir, _store) = store().await;
    let file = dir.path().join("deep/er/manager.db");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, FILE_MODE);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manager.db");
    std::fs::write(&file, "this is certainly not a database file ".repeat(100)).unwrap();
    let error = Store::open(&file).await.unwrap_err().to_string();
    assert!(error.contains("manager.db") && error.contains("not a database"), "{error}");
}

#[tokio::test]
async fn exactly_one_cluster_is_the_default() {
    let (_dir, store) = store().await;
    store.first_start("root", "hash", 1).await.unwrap();
    assert_eq!(defaults(&store).await, ["cluster-1"]);
    let second = store.insert_cluster(&spec("b", true), 2).await.unwrap();
    assert_eq!(defaults(&store).await, ["b"]);
    assert!(store.update_cluster(1, &spec("cluster-1", true), 3).await.unwrap());
    assert_eq!(defaults(&store).await, ["cluster-1"]);
    // An edit that fails half-way leaves the default where it was.
    assert!(!store.update_cluster(99, &spec("c", true), 4).await.unwrap());
    let taken = store.update_cluster(second, &spec("cluster-1", true), 4).await.unwrap_err();
    assert!(matches!(taken, StoreError::NameTaken { name } if name == "cluster-1"));
    assert_eq!(defaults(&store).await, ["cluster-1"]);
    assert!(!store.delete_cluster(1).await.unwrap());
    assert!(store.delete_cluster(second).await.unwrap());
}

#[tokio::test]
async fn an_id_is_never_given_twice() {
    let (_dir, store) = store().await;
    let first = store.insert_cluster(&spec("a", false), 1).await.unwrap();
    assert!(store.delete_cluster(first).await.unwrap());
    let second = store.insert_cluster(&spec("a", false), 1).await.unwrap();
    assert!(second > first);
    assert!(!store.delete_cluster(u64::MAX).await.unwrap());
}

#[tokio::test]
async fn a_first_start_is_whole_or_not_at_all() {
    let (_dir, store) = store().await;
    store.insert_cluster(&spec("cluster-1", false), 1).await.unwrap();
    assert!(store.first_start("root", "hash", 1).await.is_err(), "the name is taken");
    assert!(store.is_new().await.unwrap());
}

#[tokio::test]
async fn a_token_is_good_until_it_expires() {
    let (_dir, store) = store().await;
    store.first_start("root", "hash", 1).await.unwrap();
    let root = store.user("root").await.unwrap().unwrap();
    store.add_token(&root, "one", 100, 200).await.unwrap();
    assert_eq!(store.token_owner("one", 199).await.unwrap().unwrap().name, "root");
    assert_eq!(store.token_owner("one", 200).await.unwrap(), None);
    assert_eq!(store.token_owner("two", 100).await.unwrap(), None);
    assert!(store.user("nobody").await.unwrap().is_none());
}

#[tokio::test]
async fn tokens_are_bounded_and_the_next_to_expire_makes_room() {
    let (_dir, store) = store().await;
    store.first_start("root", "hash", 1).await.unwrap();
    let root = store.user("root").await.unwrap().unwrap();
    for number in 0..=1000 {
        store.add_token(&root, &format!("token-{number}"), 1, 100 + number).await.unwrap();
    }
    assert_eq!(store.token_owner("token-0", 2).await.unwrap(), None);
    assert!(store.token_owner("token-1", 2).await.unwrap().is_some());
    assert!(store.token_owner("token-1000", 2).await.unwrap().is_some());
}

#[tokio::test]
async fn schedulers_are_replaced_as_a_whole() {
    let (_dir, store) = store().await;
    let host = |addr: &str| SchedulerHost {
        hostname: "box".to_owned(),
        addr: addr.to_owned(),
        scheduler_cluster_id: 2,
        version: "1".to_owned(),
    };
    store.replace_schedulers(&[host("a:1"), host("b:1")]).await.unwrap();
    store.replace_schedulers(&[host("b:1"), host("c:1")]).await.unwrap();
    assert_eq!(store.schedulers().await.unwrap(), [host("b:1"), host("c:1")]);
}
