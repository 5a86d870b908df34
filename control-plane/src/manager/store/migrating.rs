//! Databases of older versions, with data in them, become those of this one.

use super::testing::{Schema, sqlite};
use super::*;
use crate::manager::unix_seconds;
use sqlx::Executor;
use sqlx::migrate::Migrator;
use std::collections::BTreeSet;
use std::time::SystemTime;

/// A database as the first version left it.
async fn made_by_the_first(database: &Database) {
    let pool = database.connect().await.unwrap();
    let all = database.dialect().migrations();
    let first = Migrator { migrations: all.migrations[..1].to_vec().into(), ..Migrator::DEFAULT };
    assert_eq!(first.migrations[0].version, 1);
    first.run(&pool).await.unwrap();
    let far = unix_seconds(SystemTime::now()) + 1000;
    for sql in [
        "INSERT INTO clusters (name, bio, is_default, scopes, config, created_at, updated_at) VALUES \
         ('cluster-1', 'the first', TRUE, '{\"cidrs\": [\"10.1.0.0/16\"]}', \
         '{\"shaper\": {\"uploadLimit\": \"100Mbps\"}}', 5, 6), ('b', '', FALSE, '{}', '{}', 7, 7)",
        "INSERT INTO users (name, password_hash, created_at) VALUES ('root', 'hash', 5)",
        &format!("INSERT INTO tokens (hash, user_id, created_at, expires_at) VALUES ('t', 1, 5, {far})"),
        "INSERT INTO schedulers (addr, hostname, cluster_id, version) VALUES ('a:1', 'a', 1, '0.1.0')",
    ] {
        pool.execute(sql).await.unwrap();
    }
    pool.close().await;
}

async fn has_what_the_first_left(database: &Database) {
    let store = Store::open(database).await.unwrap();
    let clusters = store.clusters().await.unwrap();
    let names: Vec<_> = clusters.iter().map(|cluster| (cluster.id, cluster.spec.name.as_str())).collect();
    assert_eq!(names, [(1, "cluster-1"), (2, "b")]);
    let first = &clusters[0];
    assert!(first.spec.is_default && !clusters[1].spec.is_default);
    assert_eq!((first.created_at, first.updated_at, first.revision), (5, 6, 1));
    assert_eq!(first.spec.scopes.to_raw().cidrs, ["10.1.0.0/16"]);
    assert_eq!(first.spec.policy.shaper.upload_limit.0, 12_500_000);
    assert_eq!(store.user("root").await.unwrap().unwrap().password_hash.as_deref(), Some("hash"));
    let owner = store.session("t", "bearer", unix_seconds(SystemTime::now())).await.unwrap();
    assert_eq!(owner.unwrap().name, "root");
    assert_eq!(store.schedulers().await.unwrap()[0].addr, "a:1");
    store.peer_secret().await.unwrap();
    store.close().await;
    // A second start finds nothing to do.
    Store::open(database).await.unwrap();
}

#[tokio::test]
async fn sqlite_moves_forward_with_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::from(dir.path().join("manager.db"));
    made_by_the_first(&database).await;
    has_what_the_first_left(&database).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn postgres_moves_forward_with_its_data() {
    let schema = Schema::make().await;
    made_by_the_first(&schema.database()).await;
    has_what_the_first_left(&schema.database()).await;
    schema.drop().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn managers_that_start_at_once_migrate_once() {
    let schema = Schema::make().await;
    let database = schema.database();
    let starts = (0..4).map(|_| Store::open(&database));
    for store in futures::future::join_all(starts).await {
        store.unwrap().peer_secret().await.unwrap();
    }
    schema.drop().await;
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |dialect: Dialect| -> Vec<_> {
        let migrations = dialect.migrations().iter();
        migrations.map(|migration| (migration.version, migration.description.to_string())).collect()
    };
    assert_eq!(names(Dialect::Sqlite), names(Dialect::Postgres));
}

/// Tables and their columns.
async fn columns(store: &Store, sql: &str) -> BTreeSet<(String, String)> {
    let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&store.pool).await.unwrap();
    rows.into_iter().collect()
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn both_databases_have_the_same_tables() {
    let ((_dir, file), schema) = (sqlite().await, Schema::make().await);
    let server = schema.open().await;
    let of_file = columns(
        &file,
        "SELECT tables.name, columns.name AS col FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns \
         WHERE tables.type = 'table' AND tables.name NOT LIKE '%sql%'",
    )
    .await;
    let of_server = columns(
        &server,
        "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name NOT LIKE '%sql%'",
    )
    .await;
    assert!(of_file.len() > 5, "{of_file:?}");
    assert_eq!(of_file, of_server);
    schema.drop().await;
}
