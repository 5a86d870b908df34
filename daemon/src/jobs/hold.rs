//! Having an image or a file on this node: every part of it held, whole and proven.
//!
//! Invariant: it ends well only when the store holds all of it; blobs are fetched a bounded number at a time over all jobs.

use super::JobError;
use super::content::{self, Item};
use super::orders::{Held, HoldState};
use crate::mirror::blobs::{BlobRequest, OpenError};
use crate::origin::{ObjectKind, OriginClient, OriginError};
use crate::swarm::Swarm;
use crate::swarm::orders::{Image, Notice};
use futures::stream::{FuturesUnordered, StreamExt};
use hawker_api::task::TaskId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Attempts at one blob; the pause grows with each.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn hold(
    swarm: &Swarm,
    origin: &OriginClient,
    blobs: &Arc<Semaphore>,
    wanted: &Held,
    progress: &watch::Sender<HoldState>,
) -> Result<(), JobError> {
    let Held { task, object, platforms, name } = wanted;
    if !origin.allows_object(object) {
        let registry = object.registry.clone();
        return Err(JobError::NotAllowed(match object.kind {
            ObjectKind::File => OriginError::FileNotAllowed { host: registry },
            ObjectKind::Blob | ObjectKind::Manifest => OriginError::NotAllowed { registry },
        }));
    }
    let items = if object.kind == ObjectKind::Manifest {
        let content = content::of_image(swarm, *task, object, (name, platforms)).await?;
        for image in content.images {
            let (name, manifest, parts) = (name.clone(), image.manifest, image.parts);
            swarm.tell(Notice::Image(Image { name, manifest, parts }));
        }
        content.items
    } else {
        vec![Item { task: *task, object: object.clone(), size: 0 }]
    };
    let sums = Sums::new(&items, progress);
    let mut fetches: FuturesUnordered<_> = items.iter().map(|item| one(swarm, blobs, item, &sums)).collect();
    while let Some(fetched) = fetches.next().await {
        fetched?;
    }
    Ok(())
}

/// One blob, with patience for what passes.
async fn one(swarm: &Swarm, blobs: &Semaphore, item: &Item, sums: &Sums<'_>) -> Result<(), JobError> {
    let mut attempt = 1;
    loop {
        let fetched = {
            // Never closed.
            let _permit = blobs.acquire().await;
            let request = BlobRequest {
                task: item.task,
                object: item.object.clone(),
                credentials: super::credentials(&item.object),
            };
            swarm.hold(request, |size, held| sums.note(item.task, size, held)).await
        };
        match fetched {
            Ok(size) => {
                sums.note(item.task, size, size);
                return Ok(());
            }
            Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                tracing::info!(task = %item.task, %error, attempt, "a job tries again");
            }
            Err(OpenError::Origin(error)) => return Err(JobError::origin(&item.task.to_string(), error)),
            Err(error) => return Err(JobError::Blob { task: item.task, detail: error.to_string() }),
        }
        tokio::time::sleep(PAUSE * attempt).await;
        attempt += 1;
    }
}

fn may_pass(error: &OpenError) -> bool {
    match error {
        OpenError::Origin(error) => error.is_retryable(),
        OpenError::Unavailable(_) | OpenError::TimedOut { .. } => true,
        OpenError::NoSpace(_)
        | OpenError::TooLarge { .. }
        | OpenError::Wrong { .. }
        | OpenError::HandedOver => false,
    }
}

/// How far all blobs together are.
struct Sums<'a> {
    /// Of each: its size, and how much of it is here.
    of: Mutex<BTreeMap<TaskId, (u64, u64)>>,
    progress: &'a watch::Sender<HoldState>,
}

impl<'a> Sums<'a> {
    fn new(items: &[Item], progress: &'a watch::Sender<HoldState>) -> Self {
        let of = Mutex::new(items.iter().map(|item| (item.task, (item.size, 0))).collect());
        let sums = Self { of, progress };
        sums.tell();
        sums
    }

    fn note(&self, task: TaskId, size: u64, held: u64) {
        self.of.lock().insert(task, (size, held));
        self.tell();
    }

    fn tell(&self) {
        let sum = |(total, done): (u64, u64), (size, held): &(u64, u64)| {
            (total.saturating_add(*size), done.saturating_add(*held))
        };
        let (bytes_total, bytes_done) = self.of.lock().values().fold((0, 0), sum);
        self.progress.send_if_modified(|state| {
            let changed = (state.bytes_total, state.bytes_done) != (bytes_total, bytes_done);
            (state.bytes_total, state.bytes_done) = (bytes_total, bytes_done);
            changed
        });
    }
}
