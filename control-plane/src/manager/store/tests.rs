//! What is SQLite's own: its file.

use super::*;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn directory_and_file_are_made_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deep/er, 100%?/manager.db");
    let _store = Store::open(&file.clone().into()).await.unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, backend::FILE_MODE);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manager.db");
    std::fs::write(&file, "this is certainly not a database file ".repeat(100)).unwrap();
    let error = Store::open(&file.into()).await.unwrap_err().to_string();
    assert!(error.contains("manager.db") && error.contains("not a database"), "{error}");
}

#[tokio::test]
async fn an_edit_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::from(dir.path().join("manager.db"));
    let store = Store::open(&database).await.unwrap();
    let secret = store.peer_secret().await.unwrap();
    store.close().await;
    assert_eq!(Store::open(&database).await.unwrap().peer_secret().await.unwrap(), secret);
}
