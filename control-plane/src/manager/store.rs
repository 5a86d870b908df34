//! What the manager keeps in its database: clusters, users, tokens, the last known schedulers, the history of
//! bandwidth. All SQL of the manager is below this module, and all of it is written for SQLite and PostgreSQL alike: a
//! statement is one text with `$1` (but for the values of many rows), values are `i64`, `f64`, `String` or bytes (a truth is 0 or 1), and what
//! differs is in [`backend`].
//!
//! Invariants: what is read back was checked when it was written and is checked again when it is read;
//! a row that no longer passes is an error that names it, never skipped. One contract suite (`contract`) runs on
//! both databases.

mod audit;
mod backend;
mod backup;
mod bandwidth;
mod clusters;
mod jobs;
mod lists;
mod registrations;
mod rollouts;
mod schedulers;
mod secrets;
mod sessions;
mod tasks;
mod users;

pub(super) use audit::{AuditEntry, AuditQuery};
pub use backend::{Database, DatabaseError};
pub use backup::{BackupError, backup, restore};
pub(super) use bandwidth::Step;
pub(crate) use jobs::{Added, Cancelled, Free, Job, JobFilter, MAX_UNFINISHED, NodeCounts, NodeOf};
pub(super) use lists::Entry;
pub(super) use sessions::{AccessToken, MAX_ACCESS_TOKENS_PER_USER};
pub(super) use users::{Edited, MAX_ACCOUNTS, NewAccount};

use backend::Dialect;
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Transaction};
use std::time::Duration;

/// What makes writers wait for each other in PostgreSQL, over all managers: "hawker" in ASCII.
const WRITERS_LOCK: i64 = 0x6861_776b_6572;

const CHECK: &str = "ask the database whether it is there";
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("create database {database}: {source}")]
    Create { database: String, source: std::io::Error },
    #[error("open database {database}: {source}")]
    Open { database: String, source: sqlx::Error },
    #[error("migrate database {database}: {source}")]
    Migrate { database: String, source: MigrateError },
    #[error("{act}: {source}")]
    Query { act: &'static str, source: sqlx::Error },
    #[error("read {row} from the database: {problem}")]
    Row { row: String, problem: String },
    #[error("a cluster named `{name}` exists already")]
    NameTaken { name: String },
    #[error("a user named `{name}` exists already")]
    UserNameTaken { name: String },
    #[error("cluster {id} was changed by somebody else meanwhile")]
    Stale { id: u64 },
}

impl StoreError {
    /// It was asked a moment ago and did not answer.
    pub(super) fn away() -> Self {
        Self::Query { act: CHECK, source: sqlx::Error::PoolTimedOut }
    }

    /// The database is away for the time being; what was asked for may work soon.
    pub(super) fn is_unavailable(&self) -> bool {
        let source = match self {
            Self::Query { source, .. } | Self::Open { source, .. } => source,
            _ => return false,
        };
        match source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            // What breaks in the middle of a message of the protocol.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_away(&code)),
            _ => false,
        }
    }

    /// The database's disk is full.
    pub(super) fn is_full(&self) -> bool {
        let Self::Query { source: sqlx::Error::Database(error), .. } = self else { return false };
        error.code().is_some_and(|code| code == SQLITE_FULL || code == POSTGRES_DISK_FULL)
    }
}

const SQLITE_FULL: &str = "13";
const POSTGRES_DISK_FULL: &str = "53100";

/// Codes of PostgreSQL (appendix A of its manual): connection lost, too many connections, shutting down or starting,
/// read-only after a fail-over; and SQLite's "busy" and "cannot open".
fn is_away(code: &str) -> bool {
    let classes = ["08", "57P", "53300", "25006"];
    classes.iter().any(|class| code.starts_with(class)) && code.len() == 5 || ["5", "14"].contains(&code)
}

/// Handle to the database; clones share the connections.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pool: AnyPool,
    dialect: Dialect,
}

impl Store {
    /// Opens the database, making SQLite's file and its directory where they do not exist, and migrates it.
    ///
    /// # Errors
    /// It cannot be made or reached, is no database, or was written by a newer Hawker.
    pub(super) async fn open(database: &Database) -> Result<Self, StoreError> {
        let (pool, dialect) = (database.connect().await?, database.dialect());
        let failed = |source| StoreError::Migrate { database: database.to_string(), source };
        dialect.migrations().run(&pool).await.map_err(failed)?;
        Ok(Self { pool, dialect })
    }

    /// Whether the database answers.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let asked = sqlx::query("SELECT 1").execute(&self.pool);
        let answered = tokio::time::timeout(CHECK_LIMIT, asked).await.map_err(|_| StoreError::away())?;
        answered.map(drop).map_err(failed(CHECK))
    }

    /// Whether other managers may work with it, too.
    pub(super) fn is_shared(&self) -> bool {
        self.dialect == Dialect::Postgres
    }

    /// Waits for statements under way and closes the connections.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn connection(&self, act: &'static str) -> Result<PoolConnection<Any>, StoreError> {
        self.pool.acquire().await.map_err(failed(act))
    }

    /// A transaction that only reads: all its statements see what was there at the first of them, as an answer must whose
    /// parts are to agree. It ends when it is dropped.
    async fn moment(&self, act: &'static str) -> Result<Transaction<'static, Any>, StoreError> {
        self.pool.begin_with(self.dialect.begin_moment()).await.map_err(failed(act))
    }

    /// A transaction that changes something. In SQLite there is one at a time; in PostgreSQL others may go on at
    /// the same time, and see or change what this one has not locked.
    async fn begin(&self, act: &'static str) -> Result<Transaction<'static, Any>, StoreError> {
        self.pool.begin_with(self.dialect.begin()).await.map_err(failed(act))
    }

    /// A transaction that reads and then writes: on either database, and over all managers, there is one at a
    /// time. For edits by people, not for what every node causes.
    async fn begin_write(&self, act: &'static str) -> Result<Transaction<'static, Any>, StoreError> {
        let mut transaction = self.begin(act).await?;
        if self.dialect == Dialect::Postgres {
            let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITERS_LOCK);
            lock.execute(&mut *transaction).await.map_err(failed(act))?;
        }
        Ok(transaction)
    }
}

fn failed(act: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
    move |source| StoreError::Query { act, source }
}

/// Ids are positive in every table; a row with another one was not written by us.
fn id_from(row: i64) -> Result<u64, StoreError> {
    u64::try_from(row)
        .map_err(|_| StoreError::Row { row: format!("id {row}"), problem: "is negative".to_owned() })
}

/// Numbers for an `IN (…)`, which takes no array on both databases; never empty.
fn numbers(ids: &[u64]) -> String {
    let known: Vec<String> = ids.iter().filter_map(|id| id_to(*id)).map(|id| id.to_string()).collect();
    if known.is_empty() { "-1".to_owned() } else { known.join(", ") }
}

/// `None`: larger than any id in the database.
fn id_to(id: u64) -> Option<i64> {
    i64::try_from(id).ok()
}

#[cfg(test)]
mod contract;
#[cfg(test)]
mod migrating;
#[cfg(test)]
mod moments;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
