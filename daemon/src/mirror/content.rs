//! Content for the runtime: which way each request goes, and blobs by digest.
//!
//! Invariant: a HEAD never fetches a blob.

use super::blobs::{Blob, BlobRequest, OpenError, ReadError};
use super::body;
use super::range::Selected;
use super::refusal::Refusal;
use super::request::{Get, Head};
use super::route::Reference;
use super::{Mirror, Way, through};
use crate::origin::ObjectKind;
use axum::body::Body;
use axum::response::Response;
use hawker_api::task::TaskId;
use http::{HeaderValue, Method, StatusCode, header};

pub(super) const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// An opened blob, or why it goes straight from the origin to the runtime.
pub(super) enum Opened {
    Here(Box<dyn Blob>),
    Through(&'static str),
}

impl Mirror {
    pub(super) async fn content(&self, mut get: Get) -> Result<Response, Refusal> {
        let task = match get.reference.clone() {
            Reference::Tag(tag) => return self.tag(get, &tag).await,
            Reference::List(listing) => return self.list(&get, &listing).await,
            Reference::Digest(task) => task,
        };
        let way = self.admit(&mut get, &task).await?;
        match (get.object.kind, way) {
            (ObjectKind::Manifest, way) => self.manifest(get, task, way).await,
            (ObjectKind::Blob | ObjectKind::File, way) if get.method == Method::HEAD => {
                self.blob_head(&get, &task, way).await
            }
            (ObjectKind::Blob | ObjectKind::File, Way::Cluster) => self.blob(get, task).await,
            (ObjectKind::Blob | ObjectKind::File, Way::Origin) => {
                through::blob(self, get, task, "private").await
            }
        }
    }

    pub(super) async fn blob(&self, get: Get, task: TaskId) -> Result<Response, Refusal> {
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

    /// The size alone: from here where the blob is held, else from the registry. The head is that of a GET.
    async fn blob_head(&self, get: &Get, task: &TaskId, way: Way) -> Result<Response, Refusal> {
        let held = if way == Way::Cluster { self.blobs.held_size(task) } else { None };
        let (size, passed) = match held {
            Some(size) => (Some(size), None),
            None => {
                let passed = self.pass_head(get, &task.to_string()).await?;
                let length =
                    passed.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                let size = length.and_then(|text| text.parse().ok());
                (size.filter(|_| passed.status() == StatusCode::OK), Some(passed))
            }
        };
        match passed {
            Some(passed) if size.is_none() => Ok(passed),
            _ => Ok(Head { content_type: OCTETS, size, part: None }.answer(get, task, Body::empty())),
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
