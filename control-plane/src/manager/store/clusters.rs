//! Clusters in the database.
//!
//! Invariant: exactly one cluster is the default (also a unique index), whatever edit fails half-way.

use super::{Store, StoreError, failed, id_from, id_to};
use crate::manager::cluster::{Cluster, ClusterSpec};
use crate::placement::{RawScopes, Scopes};
use hawker_api::policy::ClusterPolicy;
use sqlx::{Any, FromRow, Transaction};
use std::sync::Arc;

#[derive(FromRow)]
struct Row {
    id: i64,
    name: String,
    bio: String,
    /// A truth: SQLite's BOOLEAN is no type that both databases answer with.
    is_default: i64,
    scopes: String,
    config: String,
    created_at: i64,
    updated_at: i64,
    revision: i64,
}

impl Store {
    /// All clusters by ascending id.
    pub(crate) async fn clusters(&self) -> Result<Vec<Cluster>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, name, bio, CAST(is_default AS INTEGER) AS is_default, scopes, config, created_at, \
             updated_at, revision FROM clusters ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed("list clusters"))?;
        rows.into_iter().map(Cluster::try_from).collect()
    }

    /// Adds a cluster and returns its id; one that is the default takes that over.
    pub(crate) async fn insert_cluster(&self, spec: &ClusterSpec, now: i64) -> Result<u64, StoreError> {
        let act = failed("insert cluster");
        let mut transaction = self.begin_write("insert cluster").await?;
        let id = insert(&mut transaction, spec, now).await?;
        transaction.commit().await.map_err(act)?;
        Ok(id)
    }

    /// Replaces what people set of a cluster, of which they saw this revision; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it has another revision, [`StoreError::NameTaken`].
    pub(crate) async fn update_cluster(
        &self,
        id: u64,
        revision: u64,
        spec: &ClusterSpec,
        now: i64,
    ) -> Result<bool, StoreError> {
        let act = failed("update cluster");
        let Some(row_id) = id_to(id) else { return Ok(false) };
        let mut transaction = self.begin_write("update cluster").await?;
        let there: Option<i64> = sqlx::query_scalar("SELECT revision FROM clusters WHERE id = $1")
            .bind(row_id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(act)?;
        let Some(there) = there else { return Ok(false) };
        if id_from(there)? != revision {
            return Err(StoreError::Stale { id });
        }
        if spec.is_default {
            resign_default(&mut transaction).await?;
        }
        sqlx::query(
            "UPDATE clusters SET name = $1, bio = $2, is_default = $3, scopes = $4, config = $5, updated_at = $6, \
             revision = revision + 1 WHERE id = $7",
        )
        .bind(&spec.name)
        .bind(&spec.bio)
        .bind(spec.is_default)
        .bind(scopes_json(spec)?)
        .bind(config_json(spec)?)
        .bind(now)
        .bind(row_id)
        .execute(&mut *transaction)
        .await
        .map_err(|error| taken_or(error, spec, "update cluster"))?;
        transaction.commit().await.map_err(act)?;
        Ok(true)
    }

    /// `false` if there is no such cluster, or it is the default.
    pub(crate) async fn delete_cluster(&self, id: u64) -> Result<bool, StoreError> {
        let Some(id) = id_to(id) else { return Ok(false) };
        let done = sqlx::query("DELETE FROM clusters WHERE id = $1 AND NOT is_default")
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(failed("delete cluster"))?;
        Ok(done.rows_affected() > 0)
    }
}

pub(super) async fn insert(
    transaction: &mut Transaction<'_, Any>,
    spec: &ClusterSpec,
    now: i64,
) -> Result<u64, StoreError> {
    if spec.is_default {
        resign_default(transaction).await?;
    }
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO clusters (name, bio, is_default, scopes, config, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) RETURNING id",
    )
    .bind(&spec.name)
    .bind(&spec.bio)
    .bind(spec.is_default)
    .bind(scopes_json(spec)?)
    .bind(config_json(spec)?)
    .bind(now)
    .fetch_one(&mut **transaction)
    .await
    .map_err(|error| taken_or(error, spec, "insert cluster"))?;
    id_from(id)
}

async fn resign_default(transaction: &mut Transaction<'_, Any>) -> Result<(), StoreError> {
    sqlx::query("UPDATE clusters SET is_default = FALSE WHERE is_default")
        .execute(&mut **transaction)
        .await
        .map_err(failed("change the default cluster"))?;
    Ok(())
}

fn taken_or(error: sqlx::Error, spec: &ClusterSpec, act: &'static str) -> StoreError {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => StoreError::NameTaken { name: spec.name.clone() },
        _ => StoreError::Query { act, source: error },
    }
}

fn scopes_json(spec: &ClusterSpec) -> Result<String, StoreError> {
    to_json(spec, &spec.scopes.to_raw())
}

fn config_json(spec: &ClusterSpec) -> Result<String, StoreError> {
    to_json(spec, &spec.config)
}

fn to_json(spec: &ClusterSpec, part: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(part).map_err(|error| broken(&spec.name, &error))
}

fn broken(name: &str, problem: &impl ToString) -> StoreError {
    StoreError::Row { row: format!("cluster `{name}`"), problem: problem.to_string() }
}

impl TryFrom<Row> for Cluster {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let raw: RawScopes = serde_json::from_str(&row.scopes).map_err(|error| broken(&row.name, &error))?;
        let scopes = Scopes::check(&raw).map_err(|error| broken(&row.name, &error))?;
        let config = serde_json::from_str(&row.config).map_err(|error| broken(&row.name, &error))?;
        let policy = ClusterPolicy::read(&config).map_err(|error| broken(&row.name, &error))?;
        Ok(Self {
            id: id_from(row.id)?,
            spec: ClusterSpec {
                name: row.name,
                bio: row.bio,
                is_default: row.is_default != 0,
                scopes,
                config,
                policy: Arc::new(policy),
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            revision: id_from(row.revision)?,
        })
    }
}
