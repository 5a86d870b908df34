//! Jobs in the database, their parts in clusters, and the nodes of each part.
//!
//! A part is worked on by the manager that holds its lease. Taking the lease is one conditional UPDATE, so of two managers one
//! gets it; whoever has it renews it, and everything it writes depends on it.
//!
//! Invariants: what has ended does not change; a job has ended exactly when all its parts have.

mod parts;
mod shown;

use super::{Store, StoreError, failed, id_from, id_to};
use crate::manager::jobs::part::Node;
use crate::manager::jobs::spec::{Preheat, RawPreheat};
use crate::manager::jobs::state::State;
use sqlx::{Any, AnyConnection, FromRow, Transaction};

/// Ended jobs that are kept, the newest.
const MAX_ENDED: i64 = 500;
/// Jobs that have not ended; one more is refused.
pub(crate) const MAX_UNFINISHED: i64 = 200;

const UNFINISHED: &str = "('pending', 'running')";

/// A job without its parts.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) uid: String,
    pub(crate) spec: Preheat,
    pub(crate) state: State,
    pub(crate) cancel: bool,
    pub(crate) created_by: String,
    /// Seconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) ended_at: Option<i64>,
    pub(crate) error: String,
}

/// How many nodes came how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeCounts {
    pub(crate) total: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct NodeOf {
    pub(crate) cluster_id: u64,
    pub(crate) host_id: String,
    pub(crate) node: Node,
}

/// A part that a manager could work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) job_id: u64,
    pub(crate) cluster_id: u64,
    /// Nobody has been at it since.
    pub(crate) since: i64,
}

/// What the holder of a part finds when it renews its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Still its own.
    pub(crate) held: bool,
    /// Somebody wants the job to end.
    pub(crate) cancel: bool,
}

/// Which jobs a list is of.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFilter {
    pub(crate) state: Option<State>,
    /// Only those that concern no other clusters; `None`: all.
    pub(crate) clusters: Option<Vec<u64>>,
}

/// What became of a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    Job(u64),
    TooMany,
}

/// What became of the wish to cancel one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    Unknown,
    /// It had ended already.
    Ended(State),
    Noted,
}

#[derive(FromRow)]
struct JobRow {
    id: i64,
    uid: String,
    args: String,
    state: String,
    cancel: i64,
    created_by: String,
    created_at: i64,
    started_at: i64,
    ended_at: i64,
    error: String,
}

#[derive(FromRow)]
struct NodeRow {
    cluster_id: i64,
    host_id: String,
    hostname: String,
    state: String,
    bytes_done: i64,
    bytes_total: i64,
    error: String,
}

const JOB: &str =
    "SELECT id, uid, args, state, cancel, created_by, created_at, started_at, ended_at, error FROM jobs";

impl Store {
    /// Adds a job with a part for each cluster, and forgets the oldest that ended.
    pub(crate) async fn add_job(
        &self,
        (uid, spec, created_by): (&str, &Preheat, &str),
        clusters: &[u64],
        now: i64,
    ) -> Result<Added, StoreError> {
        const ACT: &str = "add a job";
        let act = failed(ACT);
        let mut transaction = self.begin_write(ACT).await?;
        let unfinished: i64 =
            sqlx::query_scalar(&format!("SELECT COUNT(*) FROM jobs WHERE state IN {UNFINISHED}"))
                .fetch_one(&mut *transaction)
                .await
                .map_err(act)?;
        if unfinished >= MAX_UNFINISHED {
            return Ok(Added::TooMany);
        }
        sqlx::query(&format!(
            "DELETE FROM jobs WHERE state NOT IN {UNFINISHED} AND id NOT IN \
             (SELECT id FROM jobs WHERE state NOT IN {UNFINISHED} ORDER BY id DESC LIMIT $1)"
        ))
        .bind(MAX_ENDED)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        let args = to_json(&spec.to_raw())?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO jobs (uid, kind, args, state, created_by, created_at) \
             VALUES ($1, 'preheat', $2, 'pending', $3, $4) RETURNING id",
        )
        .bind(uid)
        .bind(args)
        .bind(created_by)
        .bind(now)
        .fetch_one(&mut *transaction)
        .await
        .map_err(act)?;
        for cluster in clusters.iter().filter_map(|id| id_to(*id)) {
            sqlx::query("INSERT INTO job_parts (job_id, cluster_id, state) VALUES ($1, $2, 'pending')")
                .bind(id)
                .bind(cluster)
                .execute(&mut *transaction)
                .await
                .map_err(act)?;
        }
        transaction.commit().await.map_err(act)?;
        id_from(id).map(Added::Job)
    }

    pub(crate) async fn job(&self, id: u64) -> Result<Option<Job>, StoreError> {
        let Some(id) = id_to(id) else { return Ok(None) };
        let mut connection = self.connection("read a job").await?;
        job(&mut connection, id).await
    }

    /// The clusters a job is for.
    pub(crate) async fn job_clusters(&self, id: u64) -> Result<Vec<u64>, StoreError> {
        let rows: Vec<i64> = sqlx::query_scalar("SELECT cluster_id FROM job_parts WHERE job_id = $1")
            .bind(id_to(id).unwrap_or(-1))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("read a job's clusters"))?;
        rows.into_iter().map(id_from).collect()
    }

    pub(crate) async fn job_nodes(&self, id: u64) -> Result<Vec<NodeOf>, StoreError> {
        let Some(id) = id_to(id) else { return Ok(Vec::new()) };
        let mut connection = self.connection("read a job's nodes").await?;
        nodes(&mut connection, id).await
    }

    /// Notes that a job is to end. Parts that nobody works on end here and now.
    pub(crate) async fn cancel_job(&self, id: u64, now: i64) -> Result<Cancelled, StoreError> {
        const ACT: &str = "cancel a job";
        let act = failed(ACT);
        let Some(id) = id_to(id) else { return Ok(Cancelled::Unknown) };
        let mut transaction = self.begin_write(ACT).await?;
        let state: Option<String> = sqlx::query_scalar("SELECT state FROM jobs WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(act)?;
        let Some(state) = state else { return Ok(Cancelled::Unknown) };
        let state = read_state(id_from(id)?, &state)?;
        if state.has_ended() {
            return Ok(Cancelled::Ended(state));
        }
        sqlx::query("UPDATE jobs SET cancel = 1 WHERE id = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(act)?;
        sqlx::query(&format!(
            "UPDATE job_nodes SET state = 'cancelled' WHERE job_id = $1 AND state IN {UNFINISHED} AND cluster_id IN \
             (SELECT cluster_id FROM job_parts WHERE job_id = $1 AND lease_until < $2)"
        ))
        .bind(id)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        sqlx::query(&format!(
            "UPDATE job_parts SET state = 'cancelled' WHERE job_id = $1 AND lease_until < $2 AND state IN {UNFINISHED}"
        ))
        .bind(id)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(act)?;
        conclude(&mut transaction, id, now).await?;
        transaction.commit().await.map_err(act)?;
        Ok(Cancelled::Noted)
    }
}

async fn job(connection: &mut AnyConnection, id: i64) -> Result<Option<Job>, StoreError> {
    let row: Option<JobRow> = sqlx::query_as(&format!("{JOB} WHERE id = $1"))
        .bind(id)
        .fetch_optional(connection)
        .await
        .map_err(failed("read a job"))?;
    row.map(Job::try_from).transpose()
}

async fn nodes(connection: &mut AnyConnection, job: i64) -> Result<Vec<NodeOf>, StoreError> {
    let rows: Vec<NodeRow> = sqlx::query_as(
        "SELECT cluster_id, host_id, hostname, state, bytes_done, bytes_total, error FROM job_nodes \
         WHERE job_id = $1 ORDER BY cluster_id, hostname, host_id",
    )
    .bind(job)
    .fetch_all(connection)
    .await
    .map_err(failed("read a job's nodes"))?;
    rows.into_iter().map(NodeOf::try_from).collect()
}

/// Ends the job whose parts have all ended.
async fn conclude(transaction: &mut Transaction<'_, Any>, job: i64, now: i64) -> Result<(), StoreError> {
    let act = failed("end a job");
    let parts: Vec<(String, String)> =
        sqlx::query_as("SELECT state, error FROM job_parts WHERE job_id = $1 ORDER BY cluster_id")
            .bind(job)
            .fetch_all(&mut **transaction)
            .await
            .map_err(act)?;
    let id = id_from(job)?;
    let parts: Vec<(State, String)> = parts
        .into_iter()
        .map(|(state, error)| Ok((read_state(id, &state)?, error)))
        .collect::<Result<_, StoreError>>()?;
    if parts.iter().any(|(state, _)| !state.has_ended()) {
        return Ok(());
    }
    let is = |wanted: State| parts.iter().find(|(state, _)| *state == wanted);
    let (state, error) = match (is(State::Failed), is(State::Cancelled)) {
        (_, Some(_)) => (State::Cancelled, ""),
        (Some((_, error)), None) => (State::Failed, error.as_str()),
        (None, None) => (State::Succeeded, ""),
    };
    sqlx::query(&format!(
        "UPDATE jobs SET state = $1, error = $2, ended_at = $3 WHERE id = $4 AND state IN {UNFINISHED}"
    ))
    .bind(state.name())
    .bind(error)
    .bind(now)
    .bind(job)
    .execute(&mut **transaction)
    .await
    .map_err(act)?;
    Ok(())
}

fn broken(job: u64, problem: &impl ToString) -> StoreError {
    StoreError::Row { row: format!("job {job}"), problem: problem.to_string() }
}

fn read_state(job: u64, text: &str) -> Result<State, StoreError> {
    text.parse().map_err(|error: crate::manager::jobs::state::StateError| broken(job, &error))
}

fn from_json<T: serde::de::DeserializeOwned>(job: u64, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| broken(job, &error))
}

fn to_json(part: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(part)
        .map_err(|error| StoreError::Row { row: "a new job".to_owned(), problem: error.to_string() })
}

impl TryFrom<JobRow> for Job {
    type Error = StoreError;

    fn try_from(row: JobRow) -> Result<Self, StoreError> {
        let id = id_from(row.id)?;
        let raw: RawPreheat = from_json(id, &row.args)?;
        let at = |seconds: i64| (seconds != 0).then_some(seconds);
        Ok(Self {
            id,
            uid: row.uid,
            spec: Preheat::check(&raw).map_err(|error| broken(id, &error))?,
            state: read_state(id, &row.state)?,
            cancel: row.cancel != 0,
            created_by: row.created_by,
            created_at: row.created_at,
            started_at: at(row.started_at),
            ended_at: at(row.ended_at),
            error: row.error,
        })
    }
}

impl TryFrom<NodeRow> for NodeOf {
    type Error = StoreError;

    fn try_from(row: NodeRow) -> Result<Self, StoreError> {
        let state = row.state.parse().map_err(|error| StoreError::Row {
            row: format!("node {} of a job", row.hostname),
            problem: crate::manager::jobs::state::StateError::to_string(&error),
        })?;
        Ok(Self {
            cluster_id: id_from(row.cluster_id)?,
            host_id: row.host_id,
            node: Node {
                hostname: row.hostname,
                state,
                bytes_done: u64::try_from(row.bytes_done).unwrap_or(0),
                bytes_total: u64::try_from(row.bytes_total).unwrap_or(0),
                error: row.error,
            },
        })
    }
}

#[cfg(test)]
mod tests;
