//! Jobs as people are told of them: a page of the list, and one with what it consists of and its nodes.
//!
//! Invariant: an answer is of one moment: its nodes are those that it counts, and in a job that has ended none works.

use super::{Job, JobFilter, JobRow, NodeCounts, NodeOf, from_json};
use crate::manager::jobs::Detailed;
use crate::manager::jobs::orders::TaskSize;
use crate::manager::jobs::state::State;
use crate::manager::store::{Store, StoreError, failed, id_from, id_to, numbers};
use sqlx::AnyConnection;
use std::collections::HashMap;

/// A job, and how many of its nodes came how far.
type Counted = (Job, NodeCounts);

impl Store {
    /// The newest first; and how many there are.
    pub(crate) async fn jobs(
        &self,
        filter: &JobFilter,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<Counted>, usize), StoreError> {
        const ACT: &str = "list jobs";
        let (act, mut moment) = (failed(ACT), self.moment(ACT).await?);
        // An empty text stands for any state.
        let state = filter.state.map_or("", State::name);
        let theirs = filter.clusters.as_ref().map_or_else(String::new, |clusters| {
            let list = numbers(clusters);
            format!(
                " AND NOT EXISTS (SELECT 1 FROM job_parts p WHERE p.job_id = jobs.id AND p.cluster_id NOT IN ({list}))"
            )
        });
        let rows: Vec<JobRow> = sqlx::query_as(&format!(
            "{} WHERE ($1 = '' OR state = $1){theirs} ORDER BY id DESC LIMIT $2 OFFSET $3",
            super::JOB
        ))
        .bind(state)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(i64::try_from(skip).unwrap_or(i64::MAX))
        .fetch_all(&mut *moment)
        .await
        .map_err(act)?;
        let total: i64 =
            sqlx::query_scalar(&format!("SELECT COUNT(*) FROM jobs WHERE ($1 = '' OR state = $1){theirs}"))
                .bind(state)
                .fetch_one(&mut *moment)
                .await
                .map_err(act)?;
        let jobs: Vec<Job> = rows.into_iter().map(Job::try_from).collect::<Result<_, _>>()?;
        let mut counts = count(&mut moment, &jobs).await?;
        let counted = jobs.into_iter().map(|job| {
            let counts = counts.remove(&job.id).unwrap_or_default();
            (job, counts)
        });
        Ok((counted.collect(), usize::try_from(total).unwrap_or(0)))
    }

    /// A job with everything that is known of it.
    pub(crate) async fn detailed_job(&self, id: u64) -> Result<Option<Detailed>, StoreError> {
        const ACT: &str = "read a job";
        let Some(row) = id_to(id) else { return Ok(None) };
        let mut moment = self.moment(ACT).await?;
        let Some(job) = super::job(&mut moment, row).await? else { return Ok(None) };
        let tasks = tasks(&mut moment, row).await?;
        let nodes = super::nodes(&mut moment, row).await?;
        let mut counts = NodeCounts::default();
        for NodeOf { node, .. } in &nodes {
            counts.add(node.state, 1);
        }
        Ok(Some(Detailed { job, counts, tasks, nodes }))
    }
}

impl NodeCounts {
    fn add(&mut self, state: State, count: u64) {
        self.total += count;
        match state {
            State::Succeeded => self.succeeded += count,
            State::Failed => self.failed += count,
            State::Pending | State::Running | State::Cancelled => {}
        }
    }
}

async fn count(connection: &mut AnyConnection, jobs: &[Job]) -> Result<HashMap<u64, NodeCounts>, StoreError> {
    let ids: Vec<u64> = jobs.iter().map(|job| job.id).collect();
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(&format!(
        "SELECT job_id, state, COUNT(*) FROM job_nodes WHERE job_id IN ({}) GROUP BY job_id, state",
        numbers(&ids)
    ))
    .persistent(false)
    .fetch_all(connection)
    .await
    .map_err(failed("count jobs' nodes"))?;
    let mut counts = HashMap::<u64, NodeCounts>::new();
    for (job, state, count) in rows {
        let job = id_from(job)?;
        counts.entry(job).or_default().add(super::read_state(job, &state)?, id_from(count)?);
    }
    Ok(counts)
}

/// What a job consists of, as its parts found out, each thing once.
async fn tasks(connection: &mut AnyConnection, job: i64) -> Result<Vec<TaskSize>, StoreError> {
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT tasks FROM job_parts WHERE job_id = $1 ORDER BY cluster_id")
            .bind(job)
            .fetch_all(connection)
            .await
            .map_err(failed("read a job's tasks"))?;
    let mut tasks: Vec<TaskSize> = Vec::new();
    for text in rows.iter().filter(|text| !text.is_empty()) {
        let more: Vec<TaskSize> = from_json(id_from(job)?, text)?;
        tasks.extend(more);
    }
    tasks.sort_by(|a, b| (b.bytes, &a.task).cmp(&(a.bytes, &b.task)));
    tasks.dedup();
    Ok(tasks)
}
