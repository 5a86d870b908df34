//! One blob on its way to this node: the state its workers, its readers and its children share.
//!
//! Not the decisions (see [`super::state`]) and not the work ([`super::driver`] and its crew).
//!
//! Invariant: every change wakes everybody who waits for one.

use super::claim::Claim;
use super::context::Context;
use super::failure::Failure;
use super::intake::Arrived;
use super::orders::{Attested, Notice, Want};
use super::shunned::unix_ms;
use super::state::{Outcome, State};
use crate::metrics::Source;
use crate::origin::{Credentials, OriginObject};
use crate::status::{BySource, TaskReport};
use crate::store::BlobFile;
use hawker_api::pieces::{Geometry, PieceDigest, PieceSet};
use hawker_api::task::TaskId;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Entries of a disproven piece list: what the origin's bytes are compared with to name who lied.
pub(super) type Disproven = Vec<(u32, PieceDigest, Arc<str>)>;

pub(super) struct Download {
    pub(super) task: TaskId,
    pub(super) context: Arc<Context>,
    /// The list was disproven once: only the origin is asked now.
    pub(super) disproven: Option<Disproven>,
    pub(super) cancel: CancellationToken,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    arrival: watch::Sender<Option<Arc<BlobFile>>>,
    started: SystemTime,
    /// To readers here, who may go on after the download has ended.
    pub(super) delivered: Arc<Mutex<BySource>>,
    /// The trace it belongs to, for others who work for it.
    pub(super) traceparent: OnceLock<String>,
}

impl Download {
    pub(super) fn new(
        context: Arc<Context>,
        task: TaskId,
        object: OriginObject,
        credentials: Credentials,
        disproven: Option<Disproven>,
    ) -> Arc<Self> {
        let cancel = context.cancel.child_token();
        Arc::new(Self {
            task,
            context,
            disproven,
            cancel,
            state: Mutex::new(State::new(object, credentials, Instant::now())),
            changes: watch::channel(0).0,
            arrival: watch::channel(None).0,
            started: SystemTime::now(),
            delivered: Arc::default(),
            traceparent: OnceLock::new(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state and wakes everybody.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changes.send_modify(|changes| *changes += 1);
        result
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Wakes when the size is known and there is a file; closes when the download is dropped.
    pub(super) fn arrival(&self) -> watch::Receiver<Option<Arc<BlobFile>>> {
        self.arrival.subscribe()
    }

    pub(super) fn blob(&self) -> Option<Arc<BlobFile>> {
        self.state.lock().blob.clone()
    }

    /// The file for a blob of `size` bytes, made where this is the first to know the size.
    pub(super) async fn attach(self: &Arc<Self>, size: u64) -> Result<Arc<BlobFile>, Failure> {
        if let Some(blob) = self.blob() {
            if blob.geometry().size() == size {
                return Ok(blob);
            }
            let known = blob.geometry().size();
            return Err(Failure::Store(format!("size of {} is {known} here and {size} there", self.task)));
        }
        Geometry::new(size).map_err(Failure::TooLarge)?;
        let (store, task) = (self.context.store.clone(), self.task);
        let created = tokio::task::spawn_blocking(move || store.create(&task, size)).await;
        let created = created.map_err(|_| Failure::Shutdown)?;
        let evicted = self.context.store.take_evicted();
        if !evicted.is_empty() {
            self.context.announce.tell(Notice::Dropped(evicted));
        }
        let blob = created.map_err(|error| {
            self.context.store.note_error(&error);
            if error.is_no_space() {
                Failure::NoSpace(error.to_string())
            } else {
                Failure::Store(error.to_string())
            }
        })?;
        let blob = self.update(|state| Arc::clone(state.blob.get_or_insert(blob)));
        self.arrival.send_replace(Some(Arc::clone(&blob)));
        self.context.announce.tell(Notice::Size { task: self.task, size });
        Ok(blob)
    }

    /// Declares a piece that was written and matched held, and tells everybody. Nothing happens where
    /// another source had it first.
    pub(super) fn commit(
        &self,
        arrived: &Arrived,
        source: Source,
        attester: Option<Arc<str>>,
    ) -> Result<(), Failure> {
        let committed = arrived.commit().map_err(|error| {
            self.context.store.note_error(&error);
            Failure::Store(error.to_string())
        });
        if !committed? {
            return Ok(());
        }
        let (piece, geometry) = (arrived.piece(), arrived.blob().geometry());
        let range = geometry.range(piece);
        let attester = attester.unwrap_or_else(|| Arc::clone(&self.context.host_id));
        self.update(|state| {
            State::count(&mut state.fetched, source, range.end - range.start);
            state.origins.insert(piece, (source, attester));
            state.last_progress = Instant::now();
            state.origin_stopped = None;
        });
        let attested = (source == Source::Origin && self.disproven.is_none()).then(|| arrived.digest());
        self.context.announce.tell(Notice::Piece { task: self.task, size: geometry.size(), piece, attested });
        Ok(())
    }

    pub(super) fn release(&self, piece: u32, claim: &Claim) {
        self.update(|state| state.release(piece, claim));
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.update(|state| state.end(Outcome::Failed(failure)));
    }

    /// How long it has been under way.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }

    /// Where a piece came from; what was here before counts as local.
    pub(super) fn source_of(&self, piece: u32) -> Source {
        self.state.lock().origins.get(&piece).map_or(Source::Local, |(source, _)| *source)
    }

    /// What the scheduler is told at the start of the download and of every session.
    pub(super) fn introduction(&self) -> Vec<Notice> {
        if self.disproven.is_some() {
            return Vec::new();
        }
        let state = self.state.lock();
        let size = state.blob.as_ref().map(|blob| blob.geometry().size());
        let held = state.blob.as_ref().map_or_else(PieceSet::new, |blob| blob.held());
        let mut notices = Vec::new();
        if let (Some(blob), Some(size)) = (&state.blob, size)
            && !held.is_empty()
        {
            let own = Arc::clone(&self.context.host_id);
            let digests = blob.digests().into_iter().map(|(piece, digest)| Attested {
                first: piece,
                digests: vec![digest],
                attester: state
                    .origins
                    .get(&piece)
                    .map_or_else(|| Arc::clone(&own), |(_, by)| Arc::clone(by)),
            });
            let digests = digests.collect();
            notices.push(Notice::PieceList { task: self.task, size, digests, proven: false });
        }
        let fetching = state.leases.values().map(|lease| lease.pieces.clone()).collect();
        let object = state.object.clone();
        let traceparent = self.traceparent.get().cloned();
        notices.insert(0, Notice::Want(Want { task: self.task, object, size, held, fetching, traceparent }));
        notices
    }

    pub(super) fn report(&self) -> TaskReport {
        let state = self.state.lock();
        let described = match &state.outcome {
            None => "downloading".to_owned(),
            Some(Outcome::Verified) => "complete".to_owned(),
            Some(Outcome::Failed(failure)) => format!("failed: {failure}"),
        };
        let (size, total, held) = state
            .blob
            .as_ref()
            .map_or((0, 0, 0), |blob| (blob.geometry().size(), blob.geometry().count(), blob.held().len()));
        TaskReport {
            task: self.task.to_string(),
            size,
            pieces_held: held,
            pieces_total: total,
            state: described,
            delivered: *self.delivered.lock(),
            fetched: state.fetched,
            started_unix_ms: unix_ms(self.started),
            finished_unix_ms: state.ended.map(unix_ms),
        }
    }
}

/// Somebody here waits for the blob.
pub(super) struct Interest(pub(super) Arc<Download>);

impl Interest {
    pub(super) fn new(download: &Arc<Download>) -> Self {
        download.update(|state| state.interest += 1);
        Self(Arc::clone(download))
    }
}

impl Clone for Interest {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.update(|state| {
            state.interest -= 1;
            state.last_interest = Instant::now();
        });
    }
}
