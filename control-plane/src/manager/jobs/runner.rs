//! Works on one part of a job for as long as this manager holds its lease: carries orders out and reports in, and writes down
//! what changed.
//!
//! Invariant: nothing is ordered or written after the lease was lost.

use super::orders::{FromNode, Order};
use super::part::{Known, Part};
use super::switch::ToNode;
use super::{Free, Jobs, QUEUE_REPORTS, Running};
use crate::manager::cluster::Cluster;
use crate::manager::store::StoreError;
use crate::manager::unix_seconds;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Life of a lease, seconds: five renewals, and a good deal more than managers' clocks differ.
pub(super) const LEASE_S: i64 = 15;
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// What time decides is looked at this often, and what changed is written this often.
const STEP_EVERY: Duration = Duration::from_millis(250);
const WRITE_EVERY: Duration = Duration::from_secs(1);

struct Work {
    jobs: Jobs,
    free: Free,
    cluster: Cluster,
    /// What nodes know it by.
    name: String,
    part: Part,
    reports: mpsc::Receiver<FromNode>,
    cancel: CancellationToken,
    found_written: bool,
}

/// How it went on with a part.
enum Ended {
    /// Done: written down.
    Concluded,
    /// Another manager has it now.
    Lost,
    /// This manager stops: somebody else goes on.
    Stopped,
}

/// Runs until the part has ended, the lease is lost, or `stop`.
pub(super) async fn run(jobs: Jobs, free: Free, cluster: Cluster, stop: CancellationToken) {
    let (job_id, cluster_id) = (free.job_id, free.cluster_id);
    let ended = match Work::begin(jobs.clone(), free, cluster).await {
        Ok(Some(mut work)) => {
            let ended = work.until(&stop).await;
            jobs.0.running.lock().remove(&work.name);
            ended
        }
        Ok(None) => Ok(Ended::Lost),
        Err(error) => Err(error),
    };
    match ended {
        Ok(Ended::Concluded) => {}
        Ok(Ended::Lost) => tracing::warn!(job_id, cluster_id, "another manager took over a part of a job"),
        Ok(Ended::Stopped) => {
            if let Err(error) =
                jobs.0.store.release_part(free, &jobs.0.me, unix_seconds(SystemTime::now())).await
            {
                tracing::warn!(job_id, cluster_id, %error, "a part of a job is free only when its lease ends");
            }
        }
        // The lease ends by itself, and whoever reaches the database then goes on.
        Err(error) => tracing::warn!(job_id, cluster_id, %error, "a part of a job is left"),
    }
}

impl Work {
    async fn begin(jobs: Jobs, free: Free, cluster: Cluster) -> Result<Option<Self>, StoreError> {
        let store = &jobs.0.store;
        let Some(job) = store.job(free.job_id).await? else { return Ok(None) };
        let nodes = store.job_nodes(free.job_id).await?;
        let mine = nodes.into_iter().filter(|node| node.cluster_id == free.cluster_id);
        let known = Known {
            target: store.part_target(free).await?,
            nodes: mine.map(|node| (node.host_id, node.node)).collect(),
        };
        let found_written = known.target.is_some();
        let shown = format!("cluster {} `{}`", cluster.id, cluster.spec.name);
        let name = super::strays::name(&job.uid, free.cluster_id);
        let (sender, reports) = mpsc::channel(QUEUE_REPORTS);
        let cancel = CancellationToken::new();
        if job.cancel {
            cancel.cancel();
        }
        let running = Running { job_id: job.id, reports: sender, cancel: cancel.clone() };
        jobs.0.running.lock().insert(name.clone(), running);
        tracing::info!(job = job.id, cluster = cluster.spec.name, "working on a job");
        let part = Part::new(job.spec, shown, known, Instant::now());
        Ok(Some(Self { jobs, free, cluster, name, part, reports, cancel, found_written }))
    }

    async fn until(&mut self, stop: &CancellationToken) -> Result<Ended, StoreError> {
        let ticks = |every| {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut steps, mut writes, mut renewals) =
            (ticks(STEP_EVERY), ticks(WRITE_EVERY), ticks(RENEW_EVERY));
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    return Ok(if self.write().await? { Ended::Stopped } else { Ended::Lost });
                }
                () = self.cancel.cancelled() => {
                    let orders = self.part.cancel();
                    self.send(orders);
                }
                Some(report) = self.reports.recv() => {
                    self.part.heard(report, Instant::now());
                    // What came with it belongs to the same moment.
                    while let Ok(report) = self.reports.try_recv() {
                        self.part.heard(report, Instant::now());
                    }
                    self.step();
                }
                _ = steps.tick() => self.step(),
                _ = writes.tick() => if !self.write().await? { return Ok(Ended::Lost) },
                _ = renewals.tick() => {
                    let until = unix_seconds(SystemTime::now()) + LEASE_S;
                    let lease = self.jobs.0.store.renew_part(self.free, &self.jobs.0.me, until).await?;
                    if !lease.held {
                        return Ok(Ended::Lost);
                    }
                    if lease.cancel {
                        self.cancel.cancel();
                    }
                }
            }
            if let Some(outcome) = self.part.outcome().cloned() {
                if !self.write().await? {
                    return Ok(Ended::Lost);
                }
                let (state, error) = (outcome.state, outcome.error);
                tracing::info!(job = self.free.job_id, cluster = self.cluster.spec.name, %state, error, "a job's part ended");
                let (store, now) = (&self.jobs.0.store, unix_seconds(SystemTime::now()));
                store.end_part(self.free, &self.jobs.0.me, (state, &error), now).await?;
                return Ok(Ended::Concluded);
            }
        }
    }

    fn step(&mut self) {
        let live = self.jobs.0.directory.nodes_of(self.free.cluster_id);
        let orders = self.part.step(&live, Instant::now());
        self.send(orders);
    }

    fn send(&self, orders: Vec<(String, Order)>) {
        for (host_id, order) in orders {
            let order = ToNode { host_id, job: self.name.clone(), order };
            self.jobs.0.switch.send(self.cluster.scheduler_cluster_id(), &order);
        }
    }

    /// `false`: the lease is lost.
    async fn write(&mut self) -> Result<bool, StoreError> {
        let nodes = self.part.take_changed();
        let found = self.part.found().filter(|_| !self.found_written);
        if nodes.is_empty() && found.is_none() {
            return Ok(true);
        }
        let written = self.jobs.0.store.write_part(self.free, &self.jobs.0.me, found, &nodes).await?;
        self.found_written |= self.part.found().is_some();
        Ok(written)
    }
}
