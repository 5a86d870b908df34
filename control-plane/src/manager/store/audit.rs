//! What people did, in the database.
//!
//! Invariant: bounded by age and by number; the oldest go first.

use super::{Store, StoreError, failed};
use sqlx::FromRow;

/// Longest that an entry is kept, seconds: a quarter, in which incidents come to light.
const RETENTION_S: i64 = 90 * 24 * 3600;
/// Most entries.
const MAX_ENTRIES: i64 = 100_000;
const SELECTED: &str = "FROM audit WHERE at >= $1 AND at < $2 AND ($3 = '' OR user_name = $3) \
                        AND ($4 = '' OR action = $4)";

/// One thing that somebody did or tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub(crate) struct AuditEntry {
    pub(crate) id: i64,
    /// Seconds since 1970.
    pub(crate) at: i64,
    /// Empty: nobody was signed in.
    pub(crate) user_name: String,
    pub(crate) action: String,
    pub(crate) object: String,
    /// JSON object.
    pub(crate) detail: String,
    pub(crate) remote: String,
    /// HTTP status; 0: begun.
    pub(crate) outcome: i64,
}

/// Which entries are asked for; what is empty does not matter.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditQuery {
    pub(crate) since: i64,
    pub(crate) until: i64,
    pub(crate) user: String,
    pub(crate) action: String,
}

impl Store {
    /// Writes an entry down, and forgets what is too old or too much.
    pub(crate) async fn add_audit(&self, entry: &AuditEntry) -> Result<i64, StoreError> {
        const ACT: &str = "write the audit log";
        let act = failed(ACT);
        let mut transaction = self.begin(ACT).await?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO audit (at, user_name, action, object, detail, remote, outcome) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
        )
        .bind(entry.at)
        .bind(&entry.user_name)
        .bind(&entry.action)
        .bind(&entry.object)
        .bind(&entry.detail)
        .bind(&entry.remote)
        .bind(entry.outcome)
        .fetch_one(&mut *transaction)
        .await
        .map_err(act)?;
        sqlx::query("DELETE FROM audit WHERE at < $1 OR id <= $2")
            .bind(entry.at - RETENTION_S)
            .bind(id - MAX_ENTRIES)
            .execute(&mut *transaction)
            .await
            .map_err(act)?;
        transaction.commit().await.map_err(act)?;
        Ok(id)
    }

    /// How what was begun ended.
    pub(crate) async fn end_audit(
        &self,
        id: i64,
        object: &str,
        detail: &str,
        outcome: i64,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE audit SET object = $1, detail = $2, outcome = $3 WHERE id = $4")
            .bind(object)
            .bind(detail)
            .bind(outcome)
            .bind(id)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(failed("end an entry of the audit log"))
    }

    /// Entries, the newest first, leaving out the first `skip`; and how many there are.
    pub(crate) async fn audit(
        &self,
        asked: &AuditQuery,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<AuditEntry>, usize), StoreError> {
        const ACT: &str = "read the audit log";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        let query = format!(
            "SELECT id, at, user_name, action, object, detail, remote, outcome {SELECTED} \
             ORDER BY id DESC LIMIT $5 OFFSET $6"
        );
        let items = sqlx::query_as(&query)
            .bind(asked.since)
            .bind(asked.until)
            .bind(&asked.user)
            .bind(&asked.action)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(i64::try_from(skip).unwrap_or(i64::MAX))
            .fetch_all(&mut *moment)
            .await
            .map_err(act)?;
        let query = format!("SELECT COUNT(*) {SELECTED}");
        let total: i64 = sqlx::query_scalar(&query)
            .bind(asked.since)
            .bind(asked.until)
            .bind(&asked.user)
            .bind(&asked.action)
            .fetch_one(&mut *moment)
            .await
            .map_err(act)?;
        Ok((items, usize::try_from(total).unwrap_or_default()))
    }
}
