//! The swarm: gets blobs onto this node, from peers and the origin, and lets others have them.
//!
//! One download per blob, shared by everybody here who wants it. Who fetches what from whom is the
//! scheduler's advice ([`orders`]); without one, this node helps itself.
//!
//! Invariant: a blob is given out as complete only after its whole digest matched on this node.

mod buffers;
mod care;
mod claim;
mod context;
mod download;
mod driver;
mod failure;
mod fetch;
mod handover;
mod hold;
mod intake;
mod lease;
pub mod orders;
mod plan;
mod proof;
mod reader;
mod shunned;
mod state;
mod trace;

#[cfg(test)]
mod tests;

use crate::access::Table;
use crate::config::Verify;
use crate::metrics::Metrics;
use crate::mirror::blobs::{Blob, BlobRequest, Blobs, OpenError};
use crate::origin::{Credentials, OriginClient, OriginObject};
use crate::peer::client::PeerClient;
use crate::peer::service::{Found, Holdings};
use crate::status::{BadPeerReport, BySource, TaskReport};
use crate::store::{BlobFile, Store, StoreError};
use context::Context;
use download::{Download, Interest};
use driver::Verdict;
use failure::Failure;
use futures::future::BoxFuture;
use hawker_api::task::TaskId;
use orders::{Announce, Attested, Lease, Notice, Order};
use parking_lot::Mutex;
use reader::{Arriving, Held};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Downloads at once; more are refused, and the runtime goes to the origin.
const MAX_ACTIVE: usize = 256;
/// Ended downloads kept for the status.
const MAX_HISTORY: usize = 128;
/// Parents remembered as failing, and for how long: each is asked by every download, and the next one shall not lose
/// the same time again.
const MAX_FAILING: usize = 1024;
const FAILING_FOR: Duration = Duration::from_secs(10);
/// How long a blob whose origin sent other bytes is left to the runtime's own way.
const WRONG_FOR: Duration = Duration::from_secs(60);
/// Why a lease is declined that came too late.
const NOT_WANTED: &str = "nobody here wants it any more";
/// Blobs in one inventory message.
const INVENTORY_BATCH: usize = 512;

/// What a swarm is made of.
pub struct Parts {
    pub host_id: String,
    pub idc: String,
    pub location: String,
    /// Fetches for others what nobody here wants.
    pub seed: bool,
    pub verify: Verify,
    pub store: Store,
    pub origin: OriginClient,
    pub client: PeerClient,
    pub metrics: Metrics,
    pub announce: Arc<dyn Announce>,
}

/// Handle; clones share the downloads.
#[derive(Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    active: Mutex<HashMap<TaskId, Arc<Download>>>,
    /// With what is still read of them.
    history: Mutex<VecDeque<(TaskReport, Arc<Mutex<BySource>>)>>,
    /// What the origin's own bytes did not match: asked for again, it would be the same again.
    wrong: Mutex<Table<TaskId, ()>>,
    tracker: TaskTracker,
}

impl Swarm {
    pub fn new(parts: Parts) -> Self {
        let context = Arc::new(Context {
            host_id: parts.host_id.into(),
            idc: parts.idc,
            location: parts.location,
            seed: parts.seed,
            verify: parts.verify,
            store: parts.store,
            origin: parts.origin,
            client: parts.client,
            metrics: parts.metrics,
            announce: parts.announce,
            shunned: shunned::Shunned::default(),
            failing: Mutex::new(Table::new(MAX_FAILING, FAILING_FOR)),
            buffers: buffers::Buffers::default(),
            cancel: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        let (active, history, tracker) = (Mutex::default(), Mutex::default(), TaskTracker::new());
        let wrong = Mutex::new(Table::new(MAX_HISTORY, WRONG_FOR));
        Self { inner: Arc::new(Inner { context, active, history, wrong, tracker }) }
    }

    /// Acts on what the scheduler said.
    pub fn order(&self, order: Order) {
        match order {
            Order::Connected => self.introduce(),
            Order::Disconnected => {
                for download in self.downloads() {
                    download.update(|_| ());
                }
            }
            Order::Assignment(assignment) => {
                if let Some(download) = self.download(&assignment.task) {
                    let context = Arc::clone(&download.context);
                    let now = tokio::time::Instant::now();
                    let failing = |parent: &String| context.failing.lock().get(parent, now).is_some();
                    download.update(|state| {
                        state.assigned(assignment, |parent| context.source(parent));
                        state.known_to_fail(failing);
                    });
                }
            }
            Order::Lease(lease) => self.leased(lease),
            Order::Revoked { id } => {
                for download in self.downloads() {
                    if download.state().leases.contains_key(&id) {
                        download.update(|state| state.leases.remove(&id));
                    }
                }
            }
            Order::AskPieceList { task } => self.tell_pieces(task),
            Order::ListReset { task, reason } => self.list_reset(task, &reason),
        }
    }

    /// Ends all downloads; what arrived stays on disk for the next start.
    pub async fn shutdown(&self) {
        self.inner.context.cancel.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }

    /// Running downloads and the last that ended.
    pub fn tasks(&self) -> Vec<TaskReport> {
        let mut tasks: Vec<_> = self.downloads().iter().map(|download| download.report()).collect();
        let history = self.inner.history.lock();
        let current = |(report, delivered): &(TaskReport, Arc<Mutex<BySource>>)| TaskReport {
            delivered: *delivered.lock(),
            ..report.clone()
        };
        tasks.extend(history.iter().map(current));
        tasks
    }

    pub fn bad_peers(&self) -> Vec<BadPeerReport> {
        self.inner.context.shunned.report(Instant::now())
    }

    fn downloads(&self) -> Vec<Arc<Download>> {
        self.inner.active.lock().values().cloned().collect()
    }

    fn download(&self, task: &TaskId) -> Option<Arc<Download>> {
        self.inner.active.lock().get(task).cloned()
    }

    fn introduce(&self) {
        let announce = &self.inner.context.announce;
        for batch in self.inner.context.store.held().chunks(INVENTORY_BATCH) {
            announce.tell(Notice::Inventory(batch.to_vec()));
        }
        for download in self.downloads() {
            // Leases of the former session that are still being worked on are told with the Want.
            for notice in download.introduction() {
                announce.tell(notice);
            }
            // The former session's word; this one's scheduler may know better.
            download.update(|state| state.refused = None);
        }
    }

    fn leased(&self, lease: Lease) {
        let Lease { id, task, object, pieces, size, traceparent } = lease;
        let declined = |detail: String| {
            let outcome = orders::LeaseOutcome::Declined { detail };
            self.inner.context.announce.tell(Notice::LeaseEnded { task, id, outcome });
        };
        if !self.inner.context.origin.allows_object(&object) {
            return declined(format!("{} is not on the allow-list of this node", object.registry));
        }
        if let Some(Ok(blob)) = self.stored(&task)
            && blob.is_complete()
        {
            self.inner.context.announce.tell(Notice::Finished { task, size: blob.geometry().size() });
            return declined("held here already".to_owned());
        }
        if self.inner.context.closing.is_cancelled() {
            return declined(OpenError::HandedOver.to_string());
        }
        // One that has ended and is being cleared away takes no more.
        let running = self.download(&task).filter(|download| download.state().outcome.is_none());
        let download = match running {
            Some(download) => download,
            // A seed is told to fetch what nobody here asked for: anonymously, credentials are never passed on.
            None if self.inner.context.seed => {
                let span = trace::lease(&task, &pieces, traceparent.as_deref());
                match span.in_scope(|| self.join(task, object.clone(), Credentials::none())) {
                    Ok(download) => download,
                    Err(error) => return declined(error.to_string()),
                }
            }
            // Whoever wanted it here changed their mind while the lease was on its way.
            None => return declined(NOT_WANTED.to_owned()),
        };
        let taken = download.update(|state| {
            let running = state.outcome.is_none();
            if running {
                state.announced_size = state.announced_size.or(size);
                state.leased(id, pieces, object);
            }
            running
        });
        if !taken {
            declined(NOT_WANTED.to_owned());
        }
    }

    /// The piece list of a blob, for a scheduler that lost it.
    fn tell_pieces(&self, task: TaskId) {
        let Some(Ok(blob)) = self.stored(&task) else { return };
        let attester = Arc::clone(&self.inner.context.host_id);
        let digests = blob
            .digests()
            .into_iter()
            .map(|(first, digest)| Attested { first, digests: vec![digest], attester: Arc::clone(&attester) })
            .collect();
        let (size, proven) = (blob.geometry().size(), blob.is_complete());
        self.inner.context.announce.tell(Notice::PieceList { task, size, digests, proven });
    }

    fn list_reset(&self, task: TaskId, reason: &str) {
        let Some(download) = self.download(&task) else { return };
        if download.disproven.is_some() {
            return; // This node is the one that goes by the origin alone.
        }
        tracing::warn!(%task, reason, "the piece list was disproven; starting over");
        download.fail(Failure::ListReset(reason.to_owned()));
    }

    fn stored(&self, task: &TaskId) -> Option<Result<Arc<BlobFile>, StoreError>> {
        self.inner.context.store.get(task).transpose()
    }

    /// The download of `task`: the one that runs, or a new one.
    fn join(
        &self,
        task: TaskId,
        object: OriginObject,
        credentials: Credentials,
    ) -> Result<Arc<Download>, OpenError> {
        let mut active = self.inner.active.lock();
        // Under the lock: what is active when it closes is all there will be.
        if self.inner.context.closing.is_cancelled() {
            return Err(OpenError::HandedOver);
        }
        if let Some(download) = active.get(&task).filter(|download| download.state().outcome.is_none()) {
            if !credentials.is_none() {
                // Together: credentials are for the registry they came with.
                download.update(|state| (state.object, state.credentials) = (object, credentials));
            }
            return Ok(Arc::clone(download));
        }
        if active.len() >= MAX_ACTIVE {
            return Err(OpenError::Unavailable(format!("{MAX_ACTIVE} downloads are running")));
        }
        let context = Arc::clone(&self.inner.context);
        Ok(self.start(&mut active, Download::new(context, task, object, credentials, None)))
    }

    fn start(&self, active: &mut HashMap<TaskId, Arc<Download>>, download: Arc<Download>) -> Arc<Download> {
        active.insert(download.task, Arc::clone(&download));
        let (swarm, driven) = (self.clone(), Arc::clone(&download));
        // Below whoever is the first to want it.
        let span = trace::download(&download);
        let driving = async move {
            let verdict = driver::drive(Arc::clone(&driven)).await;
            trace::ended(&driven);
            swarm.ended(&driven, &verdict);
        };
        self.inner.tracker.spawn(driving.instrument(span));
        download
    }

    fn ended(&self, download: &Arc<Download>, verdict: &Verdict) {
        let mut active = self.inner.active.lock();
        if active.get(&download.task).is_some_and(|current| Arc::ptr_eq(current, download)) {
            active.remove(&download.task);
        }
        if let Verdict::Disproven(list) = verdict {
            let again = {
                let (context, state) = (Arc::clone(&download.context), download.state());
                let (object, credentials) = (state.object.clone(), state.credentials.clone());
                Download::new(context, download.task, object, credentials, Some(list.clone()))
            };
            // Under the same lock, so that no new reader starts from the wrong list in between.
            self.start(&mut active, again);
        }
        drop(active);
        let well = matches!(download.state().outcome, Some(state::Outcome::Verified));
        self.inner.context.metrics.downloaded(well, download.age());
        if matches!(verdict, Verdict::OriginWrong) {
            let now = tokio::time::Instant::now();
            self.inner.wrong.lock().insert(download.task, (), now, now + WRONG_FOR);
        }
        let mut history = self.inner.history.lock();
        history.push_front((download.report(), Arc::clone(&download.delivered)));
        history.truncate(MAX_HISTORY);
    }

    async fn open(&self, request: BlobRequest) -> Result<Box<dyn Blob>, OpenError> {
        let BlobRequest { task, object, credentials } = request;
        let context = Arc::clone(&self.inner.context);
        let store = context.store.clone();
        let stored = tokio::task::spawn_blocking(move || store.get(&task)).await;
        if let Ok(Ok(Some(blob))) = stored
            && blob.is_complete()
        {
            return Ok(Box::new(Held { context, blob }));
        }
        if self.inner.wrong.lock().get(&task, tokio::time::Instant::now()).is_some() {
            return Err(OpenError::Wrong { task });
        }
        let download = self.join(task, object, credentials)?;
        let interest = Interest::new(&download);
        let mut changes = download.changes();
        loop {
            changes.borrow_and_update();
            {
                let state = download.state();
                if let Some(state::Outcome::Failed(failure)) = &state.outcome {
                    return Err(failure.open_error());
                }
                if let Some(blob) = &state.blob {
                    let blob = Arc::clone(blob);
                    drop(state);
                    return Ok(Box::new(Arriving { interest, blob }));
                }
            }
            // The sender lives in the download, which lives here.
            let _ = changes.changed().await;
        }
    }
}

impl Blobs for Swarm {
    fn open(&self, request: BlobRequest) -> BoxFuture<'_, Result<Box<dyn Blob>, OpenError>> {
        Box::pin(Self::open(self, request))
    }

    fn wanted(&self, image: orders::Image) {
        self.tell(Notice::Image(image));
    }

    fn held_size(&self, task: &TaskId) -> Option<u64> {
        let blob = self.stored(task)?.ok().filter(|blob| blob.is_complete());
        blob.map(|blob| blob.geometry().size())
    }
}

impl Holdings for Swarm {
    fn find(&self, task: &TaskId) -> Found {
        match self.stored(task) {
            Some(Ok(blob)) => Found::Here(blob),
            Some(Err(error)) => {
                self.inner.context.store.note_error(&error);
                Found::Nothing
            }
            None => self.download(task).map_or(Found::Nothing, |download| Found::Coming(download.arrival())),
        }
    }

    fn spoiled(&self, task: &TaskId, error: &StoreError) {
        tracing::warn!(%task, %error, "a stored blob is damaged; dropping it");
        self.inner.context.store.note_error(error);
        if self.download(task).is_some() {
            return; // A download is on it: its proof finds the damage and fetches the piece again.
        }
        if let Err(error) = self.inner.context.store.remove(task) {
            tracing::warn!(%error, "remove a damaged blob");
        }
        self.inner.context.announce.tell(Notice::Dropped(vec![*task]));
    }
}
