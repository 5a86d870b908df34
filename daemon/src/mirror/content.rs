//! Content for the runtime: which way each request goes, and blobs by digest.
//!
//! Invariant: a HEAD never fetches a blob.

use super::blobs::{Blob, BlobRequest, OpenError, ReadError};
use super::body;
use super::range::Selected;
use super::refusal::Refusal;
use super::request::{Get, Head};
use super::route::Reference;
use super::{Mirror, through};
use crate::origin::ObjectKind;
use axum::body::Body;
use axum::response::Response;
use hawker_api::task::TaskId;
use http::{HeaderValue, Method};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An opened blob, or why it goes straight from the origin to the runtime.
pub(super) enum Opened {
    Here(Box<dyn Blob>),
    Through(&'static str),
}

impl Mirror {
    pub(super) async fn content(&self, get: Get) -> Result<Response, Refusal> {
        let task = match &get.reference {
            Reference::Tag(tag) => return self.pass(&get, tag).await,
            Reference::Digest(task) => *task,
        };
        match get.object.kind {
            ObjectKind::Manifest => self.manifest(get, task).await,
            ObjectKind::Blob if get.method == Method::HEAD => self.blob_head(&get, &task).await,
            ObjectKind::Blob => self.blob(get, task).await,
        }
    }

    async fn blob(&self, get: Get, task: TaskId) -> Result<Response, Refusal> {
        let blob = match self.open(&get, task).await? {
            Opened::Here(blob) => blob,
            Opened::Through(reason) => return through::blob(self, get, task, reason).await,
        };
        let size = blob.size();
        let part = match get.wanted.select(size) {
            Selected::Whole => None,
            Selected::Part(part) => Some(part),
            Selected::Unsatisfiable => return Err(Refusal::unsatisfiable(size)),
        };
        let reader = blob.read(part.clone().unwrap_or(0..size));
        match body::begin(reader, blob, &get, self.limits.body_idle).await {
            Ok(begun) => {
                let head = Head { content_type: OCTETS, size: Some(size), part };
                let mut response = head.answer(&get, &task, Body::empty());
                *response.body_mut() = begun.into_body(get.permit);
                Ok(response)
            }
            // The disk filled up between opening and the first byte.
            Err(ReadError::NoSpace(_)) => through::blob(self, get, task, "no_space").await,
            Err(error) => Err(error.into()),
        }
    }

    /// The size alone: from here where the blob is held, else from the registry.
    async fn blob_head(&self, get: &Get, task: &TaskId) -> Result<Response, Refusal> {
        match self.blobs.held_size(task) {
            Some(size) => {
                let head = Head { content_type: OCTETS, size: Some(size), part: None };
                Ok(head.answer(get, task, Body::empty()))
            }
            None => self.pass(get, &task.to_string()).await,
        }
    }

    /// Opens in the swarm, in time. What cannot be stored or found there is left to the origin.
    pub(super) async fn open(&self, get: &Get, task: TaskId) -> Result<Opened, Refusal> {
        let (object, credentials) = (get.object.clone(), get.credentials.clone());
        let opened = get.in_time(self.blobs.open(BlobRequest { task, object, credentials })).await?;
        match opened {
            Ok(blob) => Ok(Opened::Here(blob)),
            Err(OpenError::NoSpace(why)) => Ok(left("no_space", &task, &why)),
            Err(OpenError::Unavailable(why)) => Ok(left("unavailable", &task, &why)),
            Err(error @ OpenError::TooLarge { .. }) => Ok(left("too_large", &task, &error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

fn left(reason: &'static str, task: &TaskId, why: &str) -> Opened {
    tracing::info!(%task, reason, "streamed through from the origin: {why}");
    Opened::Through(reason)
}
