//! Work that the manager wants done here: what an image or a URL is ([`resolve`]), and having it on this node
//! before anybody asks ([`hold`]). Orders come through the scheduler's session, and so does what is said of them.
//!
//! Not who is to do what (the manager's) and not how bytes come (the swarm's).
//!
//! Invariant: under one name one thing is done once, however often it is ordered; an order makes this node ask nothing that
//! is not on its own allow-list, with nobody's credentials or the node's own account there.

pub(crate) mod content;
mod hold;
pub mod orders;
mod resolve;

use crate::mirror::files;
use crate::origin::{Credentials, ObjectKind, OriginClient, OriginObject};
use crate::swarm::Swarm;
use crate::swarm::orders::{Announce, Notice};
use orders::{HoldPhase, HoldState, JobOrder, JobReport, JobTask, Said};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Jobs at work on this node; more are refused, and the manager says so.
const MAX_JOBS: usize = 32;
/// Blobs fetched for jobs at once: enough to fill a link, few enough to leave room to who waits.
const MAX_BLOBS: usize = 6;
/// Jobs whose end is remembered, so that it can be told again.
const MAX_ENDED: usize = 256;
/// What changed is told this often, and that it did not change, this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Handle; clones share the jobs.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    swarm: Swarm,
    origin: OriginClient,
    announce: Arc<dyn Announce>,
    known: Mutex<Known>,
    blobs: Arc<Semaphore>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

#[derive(Default)]
struct Known {
    /// Work under way: what ends it, and how far it is.
    running: BTreeMap<String, (CancellationToken, watch::Receiver<HoldState>)>,
    /// Names of those that only find something out.
    resolving: Vec<String>,
    ended: VecDeque<(String, HoldState)>,
}

impl Jobs {
    pub fn new(swarm: Swarm, origin: OriginClient, announce: Arc<dyn Announce>) -> Self {
        let (tracker, cancel, blobs) =
            (TaskTracker::new(), CancellationToken::new(), Arc::new(Semaphore::new(MAX_BLOBS)));
        Self(Arc::new(Inner { swarm, origin, announce, known: Mutex::default(), blobs, tracker, cancel }))
    }

    /// Does what is ordered; never waits.
    pub fn order(&self, order: JobOrder) {
        match order.task {
            JobTask::Resolve(wanted) => self.resolve(order.job, wanted),
            JobTask::Hold(wanted) => self.hold(order.job, wanted),
            JobTask::Stop => self.stop(&order.job),
        }
    }

    /// Ends all work.
    pub async fn shutdown(&self) {
        self.0.cancel.cancel();
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    fn tell(&self, job: &str, said: Said) {
        self.0.announce.tell(Notice::Job(JobReport { job: job.to_owned(), said }));
    }

    fn resolve(&self, job: String, wanted: orders::Wanted) {
        {
            let mut known = self.0.known.lock();
            if known.resolving.contains(&job) {
                return;
            }
            if known.resolving.len() >= MAX_JOBS {
                drop(known);
                let error = format!("this node finds out {MAX_JOBS} things already");
                return self.tell(&job, Said::Resolved(Err(error)));
            }
            known.resolving.push(job.clone());
        }
        let jobs = self.clone();
        self.0.tracker.spawn(async move {
            let found = tokio::select! {
                () = jobs.0.cancel.cancelled() => return,
                found = resolve::resolve(&jobs.0.swarm, &jobs.0.origin, &wanted) => found,
            };
            jobs.0.known.lock().resolving.retain(|name| *name != job);
            if let Err(error) = &found {
                tracing::info!(job, %error, "a job's image or file was not found out");
            }
            jobs.tell(&job, Said::Resolved(found.map_err(|error| error.to_string())));
        });
    }

    fn hold(&self, job: String, wanted: orders::Held) {
        let mut known = self.0.known.lock();
        let ended = known.ended.iter().find(|(name, _)| *name == job).map(|(_, state)| state.clone());
        let now = known.running.get(&job).map(|(_, state)| state.borrow().clone());
        if let Some(state) = ended.or(now) {
            drop(known);
            return self.tell(&job, Said::Hold(state));
        }
        if known.running.len() >= MAX_JOBS {
            drop(known);
            let error = format!("this node works for {MAX_JOBS} jobs already");
            return self.tell(&job, Said::Hold(HoldState::failed(error)));
        }
        let cancel = self.0.cancel.child_token();
        let (progress, state) = watch::channel(HoldState::default());
        known.running.insert(job.clone(), (cancel.clone(), state.clone()));
        drop(known);
        let jobs = self.clone();
        self.0.tracker.spawn(async move {
            let telling = jobs.keep_telling(&job, state);
            let held = async {
                tokio::select! {
                    () = cancel.cancelled() => Err(None),
                    held = hold::hold(&jobs.0.swarm, &jobs.0.origin, &jobs.0.blobs, &wanted, &progress) => held.map_err(Some),
                }
            };
            let outcome = tokio::select! { () = telling => return, held = held => held };
            let last = progress.borrow().clone();
            let state = match outcome {
                Ok(()) => HoldState { phase: HoldPhase::Succeeded, bytes_done: last.bytes_total, ..last },
                Err(None) => HoldState { phase: HoldPhase::Stopped, ..last },
                Err(Some(error)) => {
                    tracing::warn!(job, %error, "a job failed here");
                    HoldState { phase: HoldPhase::Failed, error: error.to_string(), ..last }
                }
            };
            jobs.ended(&job, state);
        });
    }

    /// Tells how far a job is, until it is dropped.
    async fn keep_telling(&self, job: &str, mut state: watch::Receiver<HoldState>) {
        loop {
            let told = state.borrow_and_update().clone();
            self.tell(job, Said::Hold(told));
            tokio::time::sleep(TELL_EVERY).await;
            // An end of the sender is the end of the job, which is told by whoever ends it.
            let _ = tokio::time::timeout(ALIVE_EVERY - TELL_EVERY, state.changed()).await;
        }
    }

    fn ended(&self, job: &str, state: HoldState) {
        let mut known = self.0.known.lock();
        known.running.remove(job);
        known.ended.push_front((job.to_owned(), state.clone()));
        known.ended.truncate(MAX_ENDED);
        drop(known);
        self.tell(job, Said::Hold(state));
    }

    fn stop(&self, job: &str) {
        let running = self.0.known.lock().running.get(job).map(|(cancel, _)| cancel.clone());
        match running {
            Some(cancel) => cancel.cancel(),
            // Never begun here, or ended: either way nothing is done under this name from now on.
            None => {
                let known = self.0.known.lock();
                let ended = known.ended.iter().find(|(name, _)| name == job).map(|(_, state)| state.clone());
                drop(known);
                match ended {
                    Some(state) => self.tell(job, Said::Hold(state)),
                    None => {
                        let state = HoldState { phase: HoldPhase::Stopped, ..HoldState::default() };
                        self.ended(job, state);
                    }
                }
            }
        }
    }
}

/// With whose credentials a job asks: of files, nobody's.
fn credentials(object: &OriginObject) -> Credentials {
    match object.kind {
        ObjectKind::File => Credentials::none(),
        ObjectKind::Blob | ObjectKind::Manifest => Credentials::account(),
    }
}

/// Why a job does not get on, in words for whoever ordered it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    NotAllowed(crate::origin::OriginError),
    #[error("there is no {what}: {registry} answered {status}")]
    Absent { what: String, registry: String, status: u16 },
    #[error(
        "{what} is private or does not exist: {registry} answered {status}, and a job has no credentials but the account that a node may have there (jobAccount)"
    )]
    Private { what: String, registry: String, status: u16 },
    #[error(transparent)]
    Origin(crate::origin::OriginError),
    #[error("{0}")]
    Reference(hawker_api::image::ReferenceError),
    #[error("{0}")]
    Url(files::UrlError),
    #[error("{what}: {problem}")]
    Manifest { what: String, problem: String },
    #[error("{what} is not there for {wanted}; it is for {there}")]
    Platform { what: String, wanted: String, there: String },
    #[error("{task}: {detail}")]
    Blob { task: hawker_api::task::TaskId, detail: String },
}

impl JobError {
    /// What an origin's answer means for a job that wanted `what`.
    pub(crate) fn origin(what: &str, error: crate::origin::OriginError) -> Self {
        use crate::origin::OriginError;
        let what = what.to_owned();
        match error {
            OriginError::NotAllowed { .. } | OriginError::FileNotAllowed { .. } => Self::NotAllowed(error),
            OriginError::Status { registry, status: status @ (404 | 410), .. } => {
                Self::Absent { what, registry, status }
            }
            OriginError::Status { registry, status: status @ (401 | 403), .. } => {
                Self::Private { what, registry, status }
            }
            other => Self::Origin(other),
        }
    }
}
