//! Editing clusters: database first, then the directory, one edit at a time.
//!
//! Invariant: once an edit is answered, placement uses it; an edit is carried through even if whoever
//! asked for it hangs up half-way.

use super::cluster::{Cluster, ClusterEdit, ClusterSpec, MAX_CLUSTERS, SpecError};
use super::directory::{Directory, InUse};
use super::store::{Store, StoreError};
use super::unix_seconds;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

/// An edit of what another manager changed meanwhile is made anew this often.
const EDIT_ATTEMPTS: u32 = 5;

/// Why a cluster was not edited.
#[derive(Debug, thiserror::Error)]
pub(super) enum EditError {
    #[error("there is no cluster {id}")]
    Unknown { id: u64 },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cluster {id} `{name}` is the default cluster: make another one the default first")]
    Default { id: u64, name: String },
    #[error(transparent)]
    InUse(#[from] InUse),
    #[error("there are {MAX_CLUSTERS} clusters already")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the edit was interrupted")]
    Interrupted,
}

/// The revisions that an edit may be made of, where whoever edits said.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected(Option<BTreeSet<u64>>);

impl Expected {
    pub(super) fn one_of(revisions: impl IntoIterator<Item = u64>) -> Self {
        Self(Some(revisions.into_iter().collect()))
    }

    fn fits(&self, revision: u64) -> bool {
        self.0.as_ref().is_none_or(|revisions| revisions.contains(&revision))
    }
}

/// Handle to the clusters; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Clusters {
    inner: Arc<Inner>,
    edits: TaskTracker,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    directory: Arc<Directory>,
    one_at_a_time: Mutex<()>,
}

impl Clusters {
    pub(super) fn new(store: Store, directory: Arc<Directory>) -> Self {
        let inner = Inner { store, directory, one_at_a_time: Mutex::new(()) };
        Self { inner: Arc::new(inner), edits: TaskTracker::new() }
    }

    pub(super) async fn create(&self, edit: ClusterEdit) -> Result<Cluster, EditError> {
        let inner = Arc::clone(&self.inner);
        self.carry_through(async move { inner.create(edit).await }).await
    }

    pub(super) async fn update(
        &self,
        id: u64,
        expected: Expected,
        edit: ClusterEdit,
    ) -> Result<Cluster, EditError> {
        let inner = Arc::clone(&self.inner);
        self.carry_through(async move { inner.update(id, &expected, edit).await }).await
    }

    pub(super) async fn delete(&self, id: u64, expected: Expected) -> Result<(), EditError> {
        let inner = Arc::clone(&self.inner);
        self.carry_through(async move { inner.delete(id, &expected).await }).await
    }

    /// Takes the clusters as they are stored now: another manager edited them.
    pub(super) async fn reload(&self) -> Result<(), EditError> {
        let _edit = self.inner.one_at_a_time.lock().await;
        self.inner.refresh().await
    }

    /// Waits for edits under way.
    pub(super) async fn finish(&self) {
        self.edits.close();
        self.edits.wait().await;
    }

    async fn carry_through<T: Send + 'static>(
        &self,
        edit: impl Future<Output = Result<T, EditError>> + Send + 'static,
    ) -> Result<T, EditError> {
        self.edits.spawn(edit).await.unwrap_or(Err(EditError::Interrupted))
    }
}

impl Inner {
    async fn create(&self, edit: ClusterEdit) -> Result<Cluster, EditError> {
        let _edit = self.one_at_a_time.lock().await;
        let spec = ClusterSpec::create(edit)?;
        if self.directory.clusters().len() >= MAX_CLUSTERS {
            return Err(EditError::Full);
        }
        let id = self.store.insert_cluster(&spec, unix_seconds(SystemTime::now())).await?;
        self.refresh().await?;
        self.known(id)
    }

    async fn update(&self, id: u64, expected: &Expected, edit: ClusterEdit) -> Result<Cluster, EditError> {
        let _edit = self.one_at_a_time.lock().await;
        for attempt in 1.. {
            let current = self.current(id, expected).await?;
            let spec = current.spec.with(edit.clone())?;
            if current.spec.is_default && !spec.is_default {
                return Err(EditError::Default { id, name: current.spec.name });
            }
            let now = unix_seconds(SystemTime::now());
            match self.store.update_cluster(id, current.revision, &spec, now).await {
                Ok(true) => break,
                Ok(false) => {
                    self.refresh().await?;
                    return Err(EditError::Unknown { id });
                }
                // Another manager was faster: what it wrote is edited.
                Err(StoreError::Stale { .. }) if attempt < EDIT_ATTEMPTS => self.refresh().await?,
                Err(error) => return Err(error.into()),
            }
        }
        self.refresh().await?;
        self.known(id)
    }

    async fn delete(&self, id: u64, expected: &Expected) -> Result<(), EditError> {
        let _edit = self.one_at_a_time.lock().await;
        let current = self.current(id, expected).await?;
        if current.spec.is_default {
            return Err(EditError::Default { id, name: current.spec.name });
        }
        // From the directory first: no host can join it any more while the row is deleted.
        self.directory.retire(id)?;
        let deleted = self.store.delete_cluster(id).await;
        self.refresh().await?;
        if deleted? { Ok(()) } else { Err(EditError::Unknown { id }) }
    }

    async fn refresh(&self) -> Result<(), EditError> {
        let (directory, clusters) = (Arc::clone(&self.directory), self.store.clusters().await?);
        // Every live daemon is matched anew: too long for a thread of the runtime where there are 100,000.
        let replaced = tokio::task::spawn_blocking(move || directory.replace_clusters(clusters)).await;
        replaced.map_err(|_| EditError::Interrupted)
    }

    /// The cluster as it is, if that is what whoever edits has seen.
    async fn current(&self, id: u64, expected: &Expected) -> Result<Cluster, EditError> {
        if !expected.fits(self.known(id)?.revision) {
            // What we know may be older than what they saw at another manager.
            self.refresh().await?;
        }
        let current = self.known(id)?;
        if expected.fits(current.revision) { Ok(current) } else { Err(StoreError::Stale { id }.into()) }
    }

    fn known(&self, id: u64) -> Result<Cluster, EditError> {
        self.directory.cluster(id).ok_or(EditError::Unknown { id })
    }
}
