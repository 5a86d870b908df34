//! Drives one download from its first Want to its end: staffs parents, leases and the proof.
//!
//! Invariant: when it returns, all work for the download has ended and everybody was told how.

use super::download::{Disproven, Download};
use super::failure::Failure;
use super::fetch;
use super::lease::{self, Errand, FetchError};
use super::orders::{LeaseOutcome, Notice, Parent};
use super::proof;
use super::state::Outcome;
use crate::store::{BlobFile, StoreError};
use hawker_api::pieces::MAX_PIECES;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tracing::Instrument;

/// Decisions that depend on time are looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// A download nobody waits for goes on this long: clients come back, and siblings may need it.
const LINGER: Duration = Duration::from_secs(30);
/// Own attempts at the origin without a new piece in between.
const MAX_OWN_ATTEMPTS: u32 = 3;

/// Time between two own attempts at the origin.
const OWN_PAUSE: Duration = Duration::from_secs(1);

/// What a member of the crew reports when it ends.
enum Ended {
    Parent,
    Lease(u64, Result<(), FetchError>),
    Own(Result<(), FetchError>),
    Proof(Result<bool, StoreError>),
}

/// How the download ended, for whoever keeps the list of them.
pub(super) enum Verdict {
    Ended,
    /// The origin itself sent other bytes than the digest's.
    OriginWrong,
    /// The list was wrong: fetch again from the origin and see who lied.
    Disproven(Disproven),
}

pub(super) async fn drive(download: Arc<Download>) -> Verdict {
    if let Some(blob) = stored(&download).await
        && let Err(failure) = download.attach(blob.geometry().size()).await
    {
        download.fail(failure);
    }
    for notice in download.introduction() {
        download.context.announce.tell(notice);
    }
    let mut driver = Driver {
        download,
        crew: JoinSet::new(),
        proving: false,
        own: false,
        own_attempts: 0,
        own_not_before: Instant::now(),
    };
    driver.run().await;
    driver.crew.shutdown().await;
    driver.end().await
}

/// What an earlier life of the daemon left of the blob.
async fn stored(download: &Download) -> Option<Arc<BlobFile>> {
    let (store, task) = (download.context.store.clone(), download.task);
    let found = tokio::task::spawn_blocking(move || store.get(&task)).await.ok()?;
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "start a blob anew");
        None
    })
}

struct Driver {
    download: Arc<Download>,
    crew: JoinSet<Ended>,
    proving: bool,
    own: bool,
    own_attempts: u32,
    own_not_before: Instant,
}

impl Driver {
    async fn run(&mut self) {
        let mut changes = self.download.changes();
        while self.download.state().outcome.is_none() {
            changes.borrow_and_update();
            self.learn_size().await;
            self.staff();
            tokio::select! {
                () = self.download.cancel.cancelled() => self.download.fail(Failure::Shutdown),
                _ = changes.changed() => {}
                Some(Ok(ended)) = self.crew.join_next() => self.ended(ended),
                () = tokio::time::sleep(TICK) => self.abandon_if_unwanted(),
            }
        }
    }

    async fn learn_size(&self) {
        let size = {
            let state = self.download.state();
            if state.blob.is_some() { None } else { state.announced_size }
        };
        if let Some(size) = size
            && let Err(failure) = self.download.attach(size).await
        {
            self.download.fail(failure);
        }
    }

    /// Starts the work there is.
    fn staff(&mut self) {
        if !self.proving
            && let Some(blob) = self.download.blob()
        {
            self.proving = true;
            let download = Arc::clone(&self.download);
            self.crew.spawn(async move { Ended::Proof(proof::whole(download, blob).await) });
        }
        if self.download.disproven.is_none() {
            self.staff_parents();
            self.staff_leases();
        }
        self.staff_own();
    }

    /// Who was shunned for another blob is of no use to this one either.
    fn retire_shunned(&self) {
        let (now, shunned) = (Instant::now(), &self.download.context.shunned);
        let refused: Vec<Parent> = {
            let state = self.download.state();
            let working = state.parents.values().filter(|parent| !parent.retired);
            working
                .map(|known| known.parent.clone())
                .filter(|parent| shunned.contains(&parent.host_id, now))
                .collect()
        };
        for parent in refused {
            let detail = format!("{} sent wrong bytes of another blob", parent.addr);
            fetch::refuse(&self.download, &parent, 0, detail);
        }
    }

    fn staff_parents(&mut self) {
        self.retire_shunned();
        let new: Vec<Parent> = {
            let mut state = self.download.state();
            let unstaffed = state.parents.values_mut().filter(|parent| !parent.staffed && !parent.retired);
            let staffed = |parent: &mut super::state::ParentState| {
                parent.staffed = true;
                parent.parent.clone()
            };
            unstaffed.map(staffed).collect()
        };
        for parent in new {
            let download = Arc::clone(&self.download);
            let fetching = async move {
                let host_id = parent.host_id.clone();
                fetch::from_parent(Arc::clone(&download), parent).await;
                // Assigned again meanwhile: it gets new workers.
                if let Some(state) = download.state().parents.get_mut(&host_id) {
                    state.staffed = false;
                    state.has = hawker_api::pieces::PieceSet::new();
                }
                Ended::Parent
            };
            self.crew.spawn(fetching.in_current_span());
        }
    }

    fn staff_leases(&mut self) {
        let new: Vec<(u64, Errand)> = {
            let mut state = self.download.state();
            let unstaffed = state.leases.iter_mut().filter(|(_, lease)| !lease.staffed);
            unstaffed
                .map(|(id, lease)| {
                    lease.staffed = true;
                    let (object, pieces) = (lease.object.clone(), lease.pieces.clone());
                    (*id, Errand { object, pieces, lease: Some(*id) })
                })
                .collect()
        };
        for (id, errand) in new {
            let download = Arc::clone(&self.download);
            let fetching = async move {
                let revoked = revoked(&download, id);
                tokio::select! {
                    () = revoked => Ended::Lease(id, Ok(())),
                    fetched = lease::from_origin(Arc::clone(&download), errand) => Ended::Lease(id, fetched),
                }
            };
            self.crew.spawn(fetching.in_current_span());
        }
    }

    fn staff_own(&mut self) {
        let connected = self.download.context.announce.is_connected();
        let due = {
            let state = self.download.state();
            let disproven = self.download.disproven.is_some() && state.outcome.is_none();
            disproven || state.own_fetch_is_due(connected, Instant::now())
        };
        let all_held = self.download.blob().is_some_and(|blob| blob.held().len() == blob.geometry().count());
        if self.own || !due || all_held || Instant::now() < self.own_not_before {
            return;
        }
        self.own = true;
        let download = Arc::clone(&self.download);
        let object = download.state().object.clone();
        let fetching = async move {
            let errand = Errand { object, pieces: 0..MAX_PIECES, lease: None };
            Ended::Own(lease::from_origin(download, errand).await)
        };
        self.crew.spawn(fetching.in_current_span());
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Parent => self.download.update(|_| ()),
            Ended::Lease(id, result) => self.lease_ended(id, result),
            Ended::Own(Ok(())) => {
                // What is still missing is being fetched by others: no need to look at once.
                (self.own, self.own_attempts) = (false, 0);
                self.own_not_before = Instant::now() + OWN_PAUSE;
            }
            Ended::Own(Err(error)) => self.own_failed(error),
            Ended::Proof(Ok(true)) => self.download.update(|state| state.end(Outcome::Verified)),
            Ended::Proof(Ok(false)) => self.download.fail(Failure::Mismatch),
            Ended::Proof(Err(error)) => self.download.fail(Failure::Store(error.to_string())),
        }
    }

    fn lease_ended(&self, id: u64, result: Result<(), FetchError>) {
        let task = self.download.task;
        if self.download.update(|state| state.leases.remove(&id)).is_none() {
            return; // Revoked: the scheduler knows.
        }
        let outcome = result.as_ref().map_or_else(FetchError::outcome, |()| LeaseOutcome::Done);
        self.download.context.announce.tell(Notice::LeaseEnded { task, id, outcome });
        match result {
            Ok(()) => {}
            Err(FetchError::Local(failure)) => self.download.fail(failure),
            Err(FetchError::Origin(error)) => {
                tracing::info!(%task, %error, "a lease on the origin ended early");
                // The origin's own refusal: whoever waits here gets it as it is. Others may have
                // better credentials, so the scheduler goes on without this node.
                let fatal = self.download.blob().is_none() && !error.is_retryable();
                if fatal {
                    self.download.fail(Failure::Origin(error));
                }
            }
        }
    }

    fn own_failed(&mut self, error: FetchError) {
        self.own = false;
        self.own_attempts += 1;
        self.own_not_before = Instant::now() + OWN_PAUSE;
        let error = match error {
            FetchError::Local(failure) => return self.download.fail(failure),
            FetchError::Origin(error) => error,
        };
        tracing::info!(task = %self.download.task, %error, "the origin did not help");
        let give_up = {
            let state = self.download.state();
            let parents = state.parents.values().any(|parent| !parent.retired && !parent.has.is_empty());
            let hopeless = state.blob.is_none() || !error.is_retryable();
            !parents && (hopeless || self.own_attempts >= MAX_OWN_ATTEMPTS)
        };
        if give_up {
            self.download.fail(Failure::Origin(error));
        }
    }

    fn abandon_if_unwanted(&self) {
        let unwanted = {
            let state = self.download.state();
            let since = state.last_interest.max(state.last_progress);
            state.interest == 0 && state.leases.is_empty() && since.elapsed() > LINGER
        };
        if unwanted {
            self.download.fail(Failure::Abandoned);
        }
    }

    async fn end(self) -> Verdict {
        let outcome = self.download.state().outcome.clone();
        match outcome {
            None => Verdict::Ended,
            Some(Outcome::Verified) => {
                seal(&self.download).await;
                Verdict::Ended
            }
            Some(Outcome::Failed(Failure::Mismatch)) => disproved(&self.download).await,
            Some(Outcome::Failed(failure)) => {
                if matches!(failure, Failure::ListReset(_)) {
                    remove(&self.download).await;
                }
                farewell(&self.download, &failure);
                Verdict::Ended
            }
        }
    }
}

/// Tells the scheduler that nothing more comes of this download.
fn farewell(download: &Download, failure: &Failure) {
    let (task, announce) = (download.task, &download.context.announce);
    tracing::info!(%task, %failure, "download ended");
    let leases: Vec<u64> = download.state().leases.keys().copied().collect();
    for id in leases {
        let outcome = LeaseOutcome::Declined { detail: failure.to_string() };
        announce.tell(Notice::LeaseEnded { task, id, outcome });
    }
    announce.tell(Notice::Abandoned { task, detail: failure.to_string() });
}

/// Ends when the lease is no longer in the list.
async fn revoked(download: &Download, id: u64) {
    let mut changes = download.changes();
    while download.state().leases.contains_key(&id) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The whole digest matched: the store keeps the blob, the cluster hears of it.
async fn seal(download: &Arc<Download>) {
    let Some(blob) = download.blob() else { return };
    let (store, task, size) = (download.context.store.clone(), download.task, blob.geometry().size());
    let sealing = Arc::clone(&blob);
    let sealed = tokio::task::spawn_blocking(move || store.seal(&sealing)).await;
    match sealed {
        Ok(Ok(())) => {
            let liars = liars(download, &blob);
            if download.disproven.is_some() {
                tracing::warn!(%task, ?liars, "the piece list had entries the origin contradicts");
                download.context.announce.tell(Notice::Mismatch { task, attesters: liars });
            }
            download.context.announce.tell(Notice::Finished { task, size });
        }
        Ok(Err(error)) => {
            tracing::warn!(%task, %error, "the blob was delivered and cannot be kept");
            download.context.store.note_error(&error);
            download.context.announce.tell(Notice::Abandoned { task, detail: error.to_string() });
        }
        Err(_shutdown) => {}
    }
}

/// Attesters of entries that the origin's own bytes contradict.
fn liars(download: &Download, blob: &BlobFile) -> Vec<String> {
    let entries = download.disproven.iter().flatten();
    let wrong = entries.filter(|(piece, digest, _)| blob.digest(*piece) != Some(*digest));
    let names: HashSet<&Arc<str>> = wrong.map(|(_, _, attester)| attester).collect();
    names.into_iter().filter(|name| **name != download.context.host_id).map(|name| name.to_string()).collect()
}

/// All pieces matched the list, the whole did not: drop everything and find out who lied.
async fn disproved(download: &Arc<Download>) -> Verdict {
    let task = download.task;
    let Some(blob) = download.blob() else { return Verdict::Ended };
    let list: Disproven = {
        let state = download.state();
        let own = &download.context.host_id;
        let attester =
            |piece| state.origins.get(&piece).map_or_else(|| Arc::clone(own), |(_, by)| Arc::clone(by));
        blob.digests().into_iter().map(|(piece, digest)| (piece, digest, attester(piece))).collect()
    };
    remove(download).await;
    let attesters: HashSet<_> = list.iter().map(|(_, _, attester)| attester.to_string()).collect();
    tracing::warn!(%task, ?attesters, "all pieces matched and the whole digest did not");
    let fetched_here_alone = {
        let fetched = download.state().fetched;
        fetched.origin == blob.geometry().size()
    };
    if download.disproven.is_some() || fetched_here_alone {
        // The origin's own bytes don't match the digest: nobody here can help that.
        let detail = "the origin's bytes do not match the digest".to_owned();
        download.context.announce.tell(Notice::Mismatch { task, attesters: Vec::new() });
        download.context.announce.tell(Notice::Abandoned { task, detail });
        return Verdict::OriginWrong;
    }
    Verdict::Disproven(list)
}

async fn remove(download: &Download) {
    let (store, task) = (download.context.store.clone(), download.task);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.remove(&task)).await {
        tracing::warn!(%error, "remove a blob that is wrong");
    }
}
