//! Backups that move between databases, and files that are none.

use super::*;
use crate::manager::bandwidth::{Key, Rows};
use crate::manager::cluster::ClusterSpec;
use crate::manager::store::testing::Schema;
use crate::usage::Usage;

async fn filled(database: &Database) {
    let store = Store::open(database).await.unwrap();
    store.first_start("root", "hash \"ü\"", 5).await.unwrap();
    let spec = ClusterSpec { name: "b".to_owned(), is_default: false, ..ClusterSpec::first() };
    store.insert_cluster(&spec, 6).await.unwrap();
    let key = Key { step: 10, at: 100, cluster_id: 1, host: "a".to_owned() };
    store.add_bandwidth(&Rows::from([(key, Usage::from_fields([1 << 40; 15]))])).await.unwrap();
    store.peer_secret().await.unwrap();
    store.beat("this one", 7).await.unwrap();
    store.close().await;
}

/// All lines but of what the header says of the maker.
fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

/// From `from` to `to`: everything is there, and goes on.
async fn moves(from: &Database, to: &Database) {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    filled(from).await;
    let rows = backup(from, &first).await.unwrap();
    assert!(rows >= 5, "{rows}");
    assert_eq!(restore(to, &first).await.unwrap(), rows);
    backup(to, &second).await.unwrap();
    assert_eq!(lines(&first), lines(&second));
    let store = Store::open(to).await.unwrap();
    let spec = ClusterSpec { name: "c".to_owned(), is_default: false, ..ClusterSpec::first() };
    assert_eq!(store.insert_cluster(&spec, 6).await.unwrap(), 3);
    let hash = store.user("root").await.unwrap().unwrap().password_hash;
    assert_eq!(hash.as_deref(), Some("hash \"ü\""));
    assert!(store.fellows("").await.unwrap().is_empty(), "who lives is no part of it");
    store.close().await;
    let again = restore(to, &first).await.unwrap_err();
    assert!(matches!(again, BackupError::NotEmpty { .. }), "{again}");
    let taken = backup(from, &first).await.unwrap_err().to_string();
    assert!(taken.contains("create") && taken.contains("first"), "{taken}");
}

#[tokio::test]
async fn a_file_moves_to_another_file() {
    let dir = tempfile::tempdir().unwrap();
    moves(&dir.path().join("one.db").into(), &dir.path().join("two.db").into()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn a_file_moves_to_postgres() {
    let (dir, schema) = (tempfile::tempdir().unwrap(), Schema::make().await);
    moves(&dir.path().join("one.db").into(), &schema.database()).await;
    schema.drop().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn postgres_moves_to_a_file_and_to_postgres() {
    let (dir, from, to) = (tempfile::tempdir().unwrap(), Schema::make().await, Schema::make().await);
    moves(&from.database(), &to.database()).await;
    let file = dir.path().join("backup");
    backup(&to.database(), &file).await.unwrap();
    restore(&dir.path().join("two.db").into(), &file).await.unwrap();
    from.drop().await;
    to.drop().await;
}

#[tokio::test]
async fn what_is_no_whole_backup_of_this_version_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (from, file) = (Database::from(dir.path().join("one.db")), dir.path().join("backup"));
    filled(&from).await;
    backup(&from, &file).await.unwrap();
    let whole = std::fs::read_to_string(&file).unwrap();
    let schema = newest(Dialect::Sqlite);
    let cut = &whole[..whole.len() - 20];
    let (_, body) = whole.split_once('\n').unwrap();
    let newer = whole.replace(&format!("\"schema\":{schema}"), "\"schema\":9999");
    let older = whole.replace(&format!("\"schema\":{schema}"), "\"schema\":1");
    let foreign_table = whole.replace("\"table\":\"clusters\"", "\"table\":\"sqlite_master\"");
    let without_a_row = whole.replacen("[1,\"root\"", "#", 1);
    for (text, says) in [
        (cut, "ends early"),
        (body, "is no backup of Hawker"),
        ("PNG", "is no backup of Hawker"),
        ("", "is no backup of Hawker"),
        (&newer, "database version 9999; this is version"),
        (&older, "database version 1; this is version"),
        (&foreign_table, "no table `sqlite_master`"),
        (&without_a_row, "line"),
    ] {
        std::fs::write(&file, text).unwrap();
        let to = Database::from(dir.path().join("two.db"));
        let error = restore(&to, &file).await.unwrap_err().to_string();
        assert!(error.contains(says) || says == "ends early" && error.contains("line"), "{says}: {error}");
    }
    let store = Store::open(&dir.path().join("two.db").into()).await.unwrap();
    assert!(store.is_new().await.unwrap() && store.clusters().await.unwrap().is_empty());
}
