//! Jobs: work on many nodes that a person asks for once and that goes on until it is done. The one type so far is
//! `preheat`: an image or file is put on nodes before anybody pulls it.
//!
//! A job has a part in each cluster. A part is worked on by the manager that holds its lease in the database ([`runner`]); what
//! is to be done next is decided by a function ([`part`]); orders go through the schedulers attached here ([`switch`]).
//!
//! Invariants: the manager itself asks no registry for anything and knows no registry's credentials. Two managers on one
//! database never work on the same part, and what one of them began another one finishes.

pub(super) mod orders;
pub(crate) mod part;
mod runner;
pub(crate) mod spec;
pub(crate) mod state;
mod strays;
pub(super) mod switch;

use super::directory::Directory;
use super::store::{Added, Cancelled, Free, Job, JobFilter, NodeCounts, NodeOf, Store, StoreError};
use super::unix_seconds;
use orders::{FromNode, TaskSize};
use parking_lot::Mutex;
use spec::Preheat;
use state::State;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use strays::Strays;
use switch::Switch;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Parts that one manager works on at once; more wait their turn.
const MAX_PARTS: usize = 32;
/// How often it is looked for parts that nobody works on.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A part whose cluster has no scheduler at any manager for this long has failed, seconds.
const NO_SCHEDULER_LIMIT_S: i64 = 60;
/// Reports of nodes waiting for one part; what does not fit is told again.
const QUEUE_REPORTS: usize = 4096;
/// How long a request to cancel waits for the end.
const CANCEL_WAIT: Duration = Duration::from_secs(3);

/// Why a job is not taken on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error("there is no job {id}")]
    Unknown { id: u64 },
    #[error("args.cluster_ids: there is no cluster {id}")]
    UnknownCluster { id: u64 },
    #[error("no node in scope `{scope}`: {clusters}")]
    Nobody { scope: String, clusters: String },
    #[error("job {id} has ended: {state}")]
    Ended { id: u64, state: State },
    #[error("{limit} jobs have not ended yet: no more are taken on")]
    TooMany { limit: i64 },
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A job with everything that is known of it.
#[derive(Debug)]
pub(crate) struct Detailed {
    pub(crate) job: Job,
    pub(crate) counts: NodeCounts,
    pub(crate) tasks: Vec<TaskSize>,
    pub(crate) nodes: Vec<NodeOf>,
}

/// Handle; clones share the work.
#[derive(Debug, Clone)]
pub(crate) struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    directory: Arc<Directory>,
    switch: Switch,
    /// This manager, as the holder of leases.
    me: String,
    /// The parts worked on here, by the name nodes know them by.
    running: Mutex<HashMap<String, Running>>,
    strays: Strays,
    /// There may be work.
    work: Notify,
    /// Seconds since 1970: schedulers need a moment to come back.
    since: i64,
}

#[derive(Debug)]
struct Running {
    job_id: u64,
    reports: mpsc::Sender<FromNode>,
    /// Somebody wants it to end.
    cancel: CancellationToken,
}

impl Jobs {
    pub(crate) fn new(store: Store, directory: Arc<Directory>) -> Self {
        let me = Uuid::new_v4().to_string();
        let (switch, running, strays) = (Switch::default(), Mutex::default(), Strays::default());
        let (work, since) = (Notify::new(), unix_seconds(SystemTime::now()));
        Self(Arc::new(Inner { store, directory, switch, me, running, strays, work, since }))
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.0.switch
    }

    /// Takes a job on. `created_by` is for people; `reach` are the clusters that are his, `None`: all.
    pub(crate) async fn add(
        &self,
        spec: Preheat,
        created_by: &str,
        reach: Option<&[u64]>,
    ) -> Result<u64, JobError> {
        let clusters = self.clusters(&spec, reach)?;
        let uid = Uuid::new_v4().to_string();
        let now = unix_seconds(SystemTime::now());
        match self.0.store.add_job((&uid, &spec, created_by), &clusters, now).await? {
            Added::Job(id) => {
                self.0.work.notify_one();
                Ok(id)
            }
            Added::TooMany => Err(JobError::TooMany { limit: super::store::MAX_UNFINISHED }),
        }
    }

    pub(crate) async fn list(
        &self,
        filter: &JobFilter,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<(Job, NodeCounts)>, usize), JobError> {
        Ok(self.0.store.jobs(filter, skip, limit).await?)
    }

    pub(crate) async fn show(&self, id: u64) -> Result<Detailed, JobError> {
        self.0.store.detailed_job(id).await?.ok_or(JobError::Unknown { id })
    }

    /// Ends a job; returns once it has ended, or after a short while.
    pub(crate) async fn cancel(&self, id: u64) -> Result<(), JobError> {
        match self.0.store.cancel_job(id, unix_seconds(SystemTime::now())).await? {
            Cancelled::Unknown => return Err(JobError::Unknown { id }),
            Cancelled::Ended(state) => return Err(JobError::Ended { id, state }),
            Cancelled::Noted => {}
        }
        for running in self.0.running.lock().values().filter(|running| running.job_id == id) {
            running.cancel.cancel();
        }
        let ended = async {
            while !self.0.store.job(id).await?.is_none_or(|job| job.state.has_ended()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, JobError>(())
        };
        tokio::time::timeout(CANCEL_WAIT, ended).await.unwrap_or(Ok(()))
    }

    /// What a node said of an order.
    pub(crate) fn heard(&self, report: FromNode) {
        let running = self.0.running.lock();
        let Some(part) = running.get(&report.job) else { return self.0.strays.note(report) };
        if part.reports.try_send(report).is_err() {
            tracing::debug!("a report on a job has no room; it is told again");
        }
    }

    /// Which clusters a job is for. At least one of them has somebody to do it.
    fn clusters(&self, spec: &Preheat, reach: Option<&[u64]>) -> Result<Vec<u64>, JobError> {
        let mut known = self.0.directory.clusters();
        known.retain(|cluster| reach.is_none_or(|reach| reach.contains(&cluster.id)));
        let chosen: Vec<_> = if spec.cluster_ids.is_empty() {
            known
        } else {
            let find = |id: &u64| {
                let found = known.iter().find(|cluster| cluster.id == *id).cloned();
                found.ok_or(JobError::UnknownCluster { id: *id })
            };
            spec.cluster_ids.iter().map(find).collect::<Result<_, _>>()?
        };
        let in_scope = |id: u64| {
            let nodes = self.0.directory.nodes_of(id);
            if spec.scope == spec::Scope::Seeds {
                nodes.iter().any(|node| node.seed)
            } else {
                !nodes.is_empty()
            }
        };
        // Clusters without anybody are left out where all were meant, and an error where they were named.
        let all = spec.cluster_ids.is_empty();
        let (with, without): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|cluster| in_scope(cluster.id));
        if with.is_empty() || (!all && !without.is_empty()) {
            let what = if spec.scope == spec::Scope::Seeds { "seed peer" } else { "node" };
            let named: Vec<_> = without
                .iter()
                .take(5)
                .map(|cluster| format!("cluster {} `{}` has no live {what}", cluster.id, cluster.spec.name))
                .collect();
            return Err(JobError::Nobody { scope: spec.scope.to_string(), clusters: named.join(", ") });
        }
        Ok(with.into_iter().map(|cluster| cluster.id).collect())
    }
}

/// Looks for work until cancelled, and does it; what is under way then is given back.
pub(super) async fn run(jobs: Jobs, cancel: CancellationToken) {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let mut failing = false;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            () = jobs.0.work.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let taken = jobs.take_work(&tracker, &stop).await;
        let looked = taken.and(jobs.0.stop_strays().await);
        if let (Err(error), false) = (&looked, failing) {
            tracing::warn!(%error, "look for jobs");
        }
        failing = looked.is_err();
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

impl Jobs {
    async fn take_work(&self, tracker: &TaskTracker, stop: &CancellationToken) -> Result<(), StoreError> {
        let now = unix_seconds(SystemTime::now());
        let free = self.0.store.free_parts(now, 4 * MAX_PARTS as i64).await?;
        for part in free {
            if tracker.len() >= MAX_PARTS {
                return Ok(());
            }
            let cluster = self.0.directory.cluster(part.cluster_id);
            let reaches =
                cluster.as_ref().is_some_and(|cluster| self.0.switch.reaches(cluster.scheduler_cluster_id()));
            let hopeless = cluster.is_none() || part.since.max(self.0.since) + NO_SCHEDULER_LIMIT_S < now;
            if (reaches || hopeless)
                && self.0.store.take_part(part, &self.0.me, (now, now + runner::LEASE_S)).await?
            {
                match cluster.filter(|_| reaches) {
                    Some(cluster) => {
                        tracker.spawn(runner::run(self.clone(), part, cluster, stop.clone()));
                    }
                    None => self.give_up(part, now).await?,
                }
            }
        }
        Ok(())
    }

    async fn give_up(&self, part: Free, now: i64) -> Result<(), StoreError> {
        let error = match self.0.directory.cluster(part.cluster_id) {
            Some(cluster) => format!(
                "cluster {} `{}`: none of its schedulers was connected to a manager for {NO_SCHEDULER_LIMIT_S} s",
                cluster.id, cluster.spec.name
            ),
            None => format!("cluster {} was deleted", part.cluster_id),
        };
        self.0.store.end_part(part, &self.0.me, (State::Failed, &error), now).await
    }
}
