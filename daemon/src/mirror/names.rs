//! What images are called. A runtime asks for a tag once and for digests from then on; people know the tag.
//!
//! Invariant: bounded; a name leads to no content and gives no right.

use super::Mirror;
use crate::access::Table;
use crate::jobs::content::{self, Shape};
use crate::origin::OriginObject;
use crate::swarm::orders::Image;
use hawker_api::task::TaskId;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Most manifests whose name is remembered, and for how long: from the tag to the last manifest of a pull.
const MAX_NAMES: usize = 4096;
const REMEMBERED: Duration = Duration::from_secs(3600);

type Key = (String, String, TaskId);

pub(super) struct Names(Mutex<Table<Key, String>>);

impl Names {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Table::new(MAX_NAMES, REMEMBERED)))
    }

    /// Whoever asks for `manifest` of this repository means `name`.
    fn set(&self, object: &OriginObject, manifest: TaskId, name: String) {
        let now = Instant::now();
        self.0.lock().insert(key(object, manifest), name, now, now + REMEMBERED);
    }

    fn get(&self, object: &OriginObject, manifest: TaskId) -> Option<String> {
        Some(self.0.lock().get(&key(object, manifest), Instant::now())?.1)
    }
}

fn key(object: &OriginObject, manifest: TaskId) -> Key {
    (object.registry.clone(), object.repository.clone(), manifest)
}

impl Mirror {
    /// A tag of a repository means this manifest now.
    pub(super) fn called(&self, object: &OriginObject, manifest: TaskId, tag: &str) {
        self.names.set(object, manifest, format!("{}/{}:{tag}", object.registry, object.repository));
    }

    /// Somebody here pulls what this manifest describes: the cluster hears which image that is.
    pub(super) fn pulled(&self, object: &OriginObject, manifest: TaskId, bytes: &[u8]) {
        let name = self.names.get(object, manifest);
        match (content::shape(bytes), name) {
            (Some(Shape::Index(children)), Some(name)) => {
                for child in children {
                    self.names.set(object, child, name.clone());
                }
            }
            (Some(Shape::Parts(parts)), name) => {
                let by_digest = || format!("{}/{}@{manifest}", object.registry, object.repository);
                self.blobs.wanted(Image { name: name.unwrap_or_else(by_digest), manifest, parts });
            }
            (Some(Shape::Index(_)) | None, _) => {}
        }
    }
}
