//! How images come into clusters, in the database.
//!
//! Invariant: an image's start is the earliest that was ever told, whatever schedulers forget.

use super::{Store, StoreError, failed, id_from};
use crate::manager::rollouts::{Rollout, Straggler};
use sqlx::FromRow;

/// How long an image is remembered that nothing is told of, seconds.
const KEPT_S: i64 = 7 * 24 * 3600;

#[derive(FromRow)]
struct Row {
    cluster_id: i64,
    manifest: String,
    name: String,
    bytes: i64,
    nodes_done: i64,
    nodes_wanted: i64,
    nodes_total: i64,
    started_at: i64,
    eta_at: i64,
    stragglers: String,
    updated_at: i64,
}

impl Store {
    pub(crate) async fn write_rollouts(&self, rollouts: &[Rollout]) -> Result<(), StoreError> {
        const ACT: &str = "write rollouts";
        let act = failed(ACT);
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut transaction = self.begin(ACT).await?;
        for rollout in rollouts {
            let stragglers = serde_json::to_string(&rollout.stragglers).map_err(|error| StoreError::Row {
                row: format!("rollout {}", rollout.name),
                problem: error.to_string(),
            })?;
            sqlx::query(
                "INSERT INTO rollouts (cluster_id, manifest, name, bytes, nodes_done, nodes_wanted, nodes_total, \
                 started_at, eta_at, stragglers, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
                 ON CONFLICT (cluster_id, manifest) DO UPDATE SET name = excluded.name, bytes = excluded.bytes, \
                 nodes_done = excluded.nodes_done, nodes_wanted = excluded.nodes_wanted, \
                 nodes_total = excluded.nodes_total, eta_at = excluded.eta_at, stragglers = excluded.stragglers, \
                 updated_at = excluded.updated_at, started_at = CASE WHEN rollouts.started_at < excluded.started_at \
                 THEN rollouts.started_at ELSE excluded.started_at END",
            )
            .bind(number(rollout.cluster_id))
            .bind(&rollout.manifest)
            .bind(&rollout.name)
            .bind(number(rollout.bytes))
            .bind(number(rollout.nodes_done))
            .bind(number(rollout.nodes_wanted))
            .bind(number(rollout.nodes_total))
            .bind(rollout.started_at)
            .bind(rollout.eta_at.unwrap_or(0))
            .bind(stragglers)
            .bind(rollout.updated_at)
            .execute(&mut *transaction)
            .await
            .map_err(act)?;
        }
        transaction.commit().await.map_err(act)
    }

    /// Those told of last first; of these clusters, or of all. And how many there are.
    pub(crate) async fn rollouts(
        &self,
        clusters: Option<&[u64]>,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<Rollout>, usize), StoreError> {
        const ACT: &str = "list rollouts";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        let theirs = clusters
            .map_or_else(String::new, |ids| format!(" WHERE cluster_id IN ({})", super::numbers(ids)));
        let rows: Vec<Row> = sqlx::query_as(&format!(
            "SELECT cluster_id, manifest, name, bytes, nodes_done, nodes_wanted, nodes_total, started_at, eta_at, \
             stragglers, updated_at FROM rollouts{theirs} \
             ORDER BY updated_at DESC, cluster_id, manifest LIMIT $1 OFFSET $2"
        ))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(i64::try_from(skip).unwrap_or(i64::MAX))
        .fetch_all(&mut *moment)
        .await
        .map_err(act)?;
        let total: i64 = sqlx::query_scalar(&format!("SELECT COUNT(*) FROM rollouts{theirs}"))
            .fetch_one(&mut *moment)
            .await
            .map_err(act)?;
        let rollouts = rows.into_iter().map(Rollout::try_from).collect::<Result<_, _>>()?;
        Ok((rollouts, usize::try_from(total).unwrap_or(0)))
    }

    pub(crate) async fn prune_rollouts(&self, now: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM rollouts WHERE updated_at < $1")
            .bind(now - KEPT_S)
            .execute(&self.pool)
            .await
            .map_err(failed("forget old rollouts"))?;
        Ok(())
    }
}

impl TryFrom<Row> for Rollout {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let stragglers: Vec<Straggler> = serde_json::from_str(&row.stragglers).map_err(|error| {
            StoreError::Row { row: format!("rollout {}", row.name), problem: error.to_string() }
        })?;
        Ok(Self {
            cluster_id: id_from(row.cluster_id)?,
            manifest: row.manifest,
            name: row.name,
            bytes: id_from(row.bytes)?,
            nodes_done: id_from(row.nodes_done)?,
            nodes_wanted: id_from(row.nodes_wanted)?,
            nodes_total: id_from(row.nodes_total)?,
            started_at: row.started_at,
            eta_at: (row.eta_at != 0).then_some(row.eta_at),
            stragglers,
            updated_at: row.updated_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_both;
    use super::*;

    on_both! { the_last_word_counts_and_the_first_start, }

    async fn the_last_word_counts_and_the_first_start(store: &Store) {
        let straggler = Straggler { host_id: "a".into(), bytes_done: 3, reason: "slow".into() };
        let first = Rollout {
            cluster_id: 1,
            manifest: "sha256:0".into(),
            name: "r/a:1".into(),
            bytes: 10,
            nodes_done: 1,
            nodes_wanted: 2,
            nodes_total: 5,
            started_at: 100,
            eta_at: Some(130),
            stragglers: vec![straggler],
            updated_at: 110,
        };
        let other = Rollout { cluster_id: 2, updated_at: 105, ..first.clone() };
        store.write_rollouts(&[first.clone(), other.clone()]).await.unwrap();
        assert_eq!(store.rollouts(None, 0, 10).await.unwrap(), (vec![first.clone(), other], 2));
        // From a scheduler that was restarted.
        let last = Rollout {
            nodes_done: 2,
            stragglers: Vec::new(),
            eta_at: None,
            started_at: 115,
            updated_at: 120,
            ..first
        };
        store.write_rollouts(std::slice::from_ref(&last)).await.unwrap();
        let (listed, total) = store.rollouts(Some(&[1, 3]), 0, 10).await.unwrap();
        assert_eq!((listed, total), (vec![Rollout { started_at: 100, ..last }], 1));
        store.prune_rollouts(106 + KEPT_S).await.unwrap();
        assert_eq!(store.rollouts(None, 0, 10).await.unwrap().1, 1);
    }
}
