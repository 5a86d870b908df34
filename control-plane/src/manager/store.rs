//! What the manager keeps on disk: clusters, users, tokens, the last known schedulers. All SQL of the
//! manager is below this module; statements keep to what SQLite and PostgreSQL share.
//!
//! Invariant: what is read back was checked when it was written and is checked again when it is read;
//! a row that no longer passes is an error that names it, never skipped.

mod clusters;
mod schedulers;
mod users;

pub(super) use users::Caller;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections to the database; SQLite has one writer at a time anyway.
const MAX_CONNECTIONS: u32 = 8;
/// How long a request waits for a connection or for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The database holds password hashes: nobody else reads it.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o750;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("create database {path}: {source}", path = .path.display())]
    Create { path: PathBuf, source: std::io::Error },
    #[error("open database {path}: {source}", path = .path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("migrate database {path}: {source}", path = .path.display())]
    Migrate { path: PathBuf, source: MigrateError },
    #[error("{act}: {source}")]
    Query { act: &'static str, source: sqlx::Error },
    #[error("read {row} from the database: {problem}")]
    Row { row: String, problem: String },
    #[error("a cluster named `{name}` exists already")]
    NameTaken { name: String },
}

/// Handle to the database; clones share the connections.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, making it and its directory where they do not exist, and migrates it.
    ///
    /// # Errors
    /// The file cannot be made, is no database, or was written by a newer Hawker.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        create(path).map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // An answered edit survives a power cut; edits are rare enough to pay for it.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
        MIGRATIONS
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        Ok(Self { pool })
    }

    /// Waits for statements under way and closes the file.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(parent)?;
    }
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map(drop)
}

fn failed(act: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { act, source }
}

/// Ids are positive in every table; a row with another one was not written by us.
fn id_from(row: i64) -> Result<u64, StoreError> {
    u64::try_from(row)
        .map_err(|_| StoreError::Row { row: format!("id {row}"), problem: "is negative".to_owned() })
}

/// `None`: larger than any id in the database.
fn id_to(id: u64) -> Option<i64> {
    i64::try_from(id).ok()
}

#[cfg(test)]
mod tests;
