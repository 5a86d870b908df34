//! Parts of jobs: taken under a lease, written by whoever holds it, given back and ended.
//!
//! Invariant: what is written depends on the lease, in the same transaction.

use super::{
    Free, Lease, Store, StoreError, UNFINISHED, conclude, failed, from_json, id_from, id_to, to_json,
};
use crate::manager::jobs::orders::{Target, TaskSize};
use crate::manager::jobs::part::Node;
use crate::manager::jobs::state::State;
use sqlx::{Any, Transaction};

impl Store {
    /// Parts that nobody works on, the oldest first.
    pub(crate) async fn free_parts(&self, now: i64, limit: i64) -> Result<Vec<Free>, StoreError> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(&format!(
            "SELECT p.job_id, p.cluster_id, CASE WHEN p.lease_until > j.created_at THEN p.lease_until ELSE j.created_at END \
             FROM job_parts p JOIN jobs j ON j.id = p.job_id \
             WHERE p.state IN {UNFINISHED} AND p.lease_until < $1 ORDER BY p.job_id, p.cluster_id LIMIT $2"
        ))
        .bind(now)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(failed("look for work"))?;
        let free = |(job, cluster, since): (i64, i64, i64)| {
            Ok(Free { job_id: id_from(job)?, cluster_id: id_from(cluster)?, since })
        };
        rows.into_iter().map(free).collect()
    }

    /// Takes a part until `until`; `false`: another manager has it, or it has ended.
    pub(crate) async fn take_part(
        &self,
        part: Free,
        holder: &str,
        (now, until): (i64, i64),
    ) -> Result<bool, StoreError> {
        const ACT: &str = "take a part of a job";
        let act = failed(ACT);
        let (Some(job), Some(cluster)) = (id_to(part.job_id), id_to(part.cluster_id)) else {
            return Ok(false);
        };
        let mut transaction = self.begin(ACT).await?;
        let taken = sqlx::query(&format!(
            "UPDATE job_parts SET state = 'running', holder = $1, lease_until = $2 \
             WHERE job_id = $3 AND cluster_id = $4 AND lease_until < $5 AND state IN {UNFINISHED}"
        ))
        .bind(holder)
        .bind(until)
        .bind(job)
        .bind(cluster)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("UPDATE jobs SET state = 'running', started_at = $1 WHERE id = $2 AND state = 'pending'")
            .bind(now)
            .bind(job)
            .execute(&mut *transaction)
            .await
            .map_err(act)?;
        transaction.commit().await.map_err(act)?;
        Ok(true)
    }

    /// Whether nothing is left to be done for the job with this `uid` in a cluster: one that was forgotten had ended.
    pub(crate) async fn part_has_ended(&self, uid: &str, cluster_id: u64) -> Result<bool, StoreError> {
        let unfinished: i64 = sqlx::query_scalar(&format!(
            "SELECT COUNT(*) FROM job_parts p JOIN jobs j ON j.id = p.job_id \
             WHERE j.uid = $1 AND p.cluster_id = $2 AND p.state IN {UNFINISHED}"
        ))
        .bind(uid)
        .bind(id_to(cluster_id).unwrap_or(-1))
        .fetch_one(&self.pool)
        .await
        .map_err(failed("look whether a part of a job has ended"))?;
        Ok(unfinished == 0)
    }

    /// What was found out in a part before.
    pub(crate) async fn part_target(&self, part: Free) -> Result<Option<Target>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("SELECT target FROM job_parts WHERE job_id = $1 AND cluster_id = $2")
                .bind(id_to(part.job_id).unwrap_or(-1))
                .bind(id_to(part.cluster_id).unwrap_or(-1))
                .fetch_optional(&self.pool)
                .await
                .map_err(failed("read a part of a job"))?;
        match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => from_json(part.job_id, text).map(Some),
        }
    }

    /// Renews a lease.
    pub(crate) async fn renew_part(&self, part: Free, holder: &str, until: i64) -> Result<Lease, StoreError> {
        let act = failed("renew the lease of a part of a job");
        let (Some(job), Some(cluster)) = (id_to(part.job_id), id_to(part.cluster_id)) else {
            return Ok(Lease { held: false, cancel: false });
        };
        let renewed = sqlx::query(&format!(
            "UPDATE job_parts SET lease_until = $1 \
             WHERE job_id = $2 AND cluster_id = $3 AND holder = $4 AND state IN {UNFINISHED}"
        ))
        .bind(until)
        .bind(job)
        .bind(cluster)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(act)?;
        let cancel: Option<i64> = sqlx::query_scalar("SELECT cancel FROM jobs WHERE id = $1")
            .bind(job)
            .fetch_optional(&self.pool)
            .await
            .map_err(act)?;
        Ok(Lease { held: renewed.rows_affected() > 0, cancel: cancel == Some(1) })
    }

    /// Writes what changed in a part; `false`: it is not this manager's any more, and nothing was written.
    pub(crate) async fn write_part(
        &self,
        part: Free,
        holder: &str,
        found: Option<(&Target, &[TaskSize])>,
        nodes: &[(String, Node)],
    ) -> Result<bool, StoreError> {
        const ACT: &str = "write a part of a job";
        let act = failed(ACT);
        let (Some(job), Some(cluster)) = (id_to(part.job_id), id_to(part.cluster_id)) else {
            return Ok(false);
        };
        let mut transaction = self.begin(ACT).await?;
        if !own(&mut transaction, (job, cluster), holder).await? {
            return Ok(false);
        }
        if let Some((target, tasks)) = found {
            sqlx::query("UPDATE job_parts SET target = $1, tasks = $2 WHERE job_id = $3 AND cluster_id = $4")
                .bind(to_json(target)?)
                .bind(to_json(&tasks)?)
                .bind(job)
                .bind(cluster)
                .execute(&mut *transaction)
                .await
                .map_err(act)?;
        }
        for (host_id, node) in nodes {
            write_node(&mut transaction, (job, cluster), host_id, node).await?;
        }
        transaction.commit().await.map_err(act)?;
        Ok(true)
    }

    /// Gives a part back, for another manager to take at once.
    pub(crate) async fn release_part(&self, part: Free, holder: &str, now: i64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE job_parts SET lease_until = $4 WHERE job_id = $1 AND cluster_id = $2 AND holder = $3",
        )
        .bind(id_to(part.job_id).unwrap_or(-1))
        .bind(id_to(part.cluster_id).unwrap_or(-1))
        .bind(holder)
        .bind(now - 1)
        .execute(&self.pool)
        .await
        .map_err(failed("give a part of a job back"))?;
        Ok(())
    }

    /// Ends a part, and the job with the last of them.
    pub(crate) async fn end_part(
        &self,
        part: Free,
        holder: &str,
        (state, error): (State, &str),
        now: i64,
    ) -> Result<(), StoreError> {
        const ACT: &str = "end a part of a job";
        let act = failed(ACT);
        let (Some(job), Some(cluster)) = (id_to(part.job_id), id_to(part.cluster_id)) else { return Ok(()) };
        let mut transaction = self.begin_write(ACT).await?;
        sqlx::query(&format!(
            "UPDATE job_parts SET state = $1, error = $2, lease_until = 0 \
             WHERE job_id = $3 AND cluster_id = $4 AND holder = $5 AND state IN {UNFINISHED}"
        ))
        .bind(state.name())
        .bind(error)
        .bind(job)
        .bind(cluster)
        .bind(holder)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        conclude(&mut transaction, job, now).await?;
        transaction.commit().await.map_err(act)
    }
}

/// Whether a part is still its holder's; while the transaction lasts it stays so.
async fn own(
    transaction: &mut Transaction<'_, Any>,
    (job, cluster): (i64, i64),
    holder: &str,
) -> Result<bool, StoreError> {
    let own = sqlx::query(&format!(
        "UPDATE job_parts SET holder = $1 WHERE job_id = $2 AND cluster_id = $3 AND holder = $1 AND state IN {UNFINISHED}"
    ))
    .bind(holder)
    .bind(job)
    .bind(cluster)
    .execute(&mut **transaction)
    .await
    .map_err(failed("look whose a part of a job is"))?;
    Ok(own.rows_affected() > 0)
}

async fn write_node(
    transaction: &mut Transaction<'_, Any>,
    (job, cluster): (i64, i64),
    host_id: &str,
    node: &Node,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO job_nodes (job_id, cluster_id, host_id, hostname, state, bytes_done, bytes_total, error) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (job_id, cluster_id, host_id) DO UPDATE SET \
         state = excluded.state, bytes_done = excluded.bytes_done, bytes_total = excluded.bytes_total, \
         error = excluded.error",
    )
    .bind(job)
    .bind(cluster)
    .bind(host_id)
    .bind(&node.hostname)
    .bind(node.state.name())
    .bind(i64::try_from(node.bytes_done).unwrap_or(i64::MAX))
    .bind(i64::try_from(node.bytes_total).unwrap_or(i64::MAX))
    .bind(&node.error)
    .execute(&mut **transaction)
    .await
    .map_err(failed("write a node of a job"))?;
    Ok(())
}
