//! Blobs and manifests by digest: through the swarm, or straight through where nothing can be kept.
//!
//! Invariant: the headers are those of the exact bytes that follow; a body that cannot be completed
//! is cut, never filled up.

use super::answer::Refusal;
use super::blobs::{Blob, BlobReader, BlobRequest, OpenError, ReadError};
use super::request::Wanted;
use super::{FIRST_BYTE_LIMIT, Mirror, Permit, through};
use crate::origin::{Credentials, ObjectKind};
use crate::peer::request::ByteRange;
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use hawker_api::task::TaskId;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use std::ops::Range;

/// Largest manifest (the OCI distribution specification asks registries to take 4 MiB).
const MAX_MANIFEST_BYTES: u64 = 8 << 20;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Mirror {
    pub(super) async fn content(
        &self,
        wanted: Wanted,
        request: Request<Body>,
        permit: Permit,
    ) -> Result<Response<Body>, Refusal> {
        let (method, headers) = (request.method(), request.headers());
        if *method == Method::HEAD && !self.blobs.holds(&wanted.task) {
            // Whether something exists is no reason to fetch it.
            let kind = if wanted.object.kind == ObjectKind::Blob { "blobs" } else { "manifests" };
            let path = format!("/v2/{}/{kind}/{}", wanted.object.repository, wanted.task);
            return self.pass(&wanted.object.registry, &path, request, permit).await;
        }
        let credentials = Credentials::new(headers.get(AUTHORIZATION).cloned());
        let range = headers.get(RANGE).and_then(|value| ByteRange::parse(value.as_bytes()));
        let head_only = *method == Method::HEAD;
        let answering = async {
            let Wanted { task, object } = wanted;
            let opened = self.blobs.open(BlobRequest {
                task,
                object: object.clone(),
                credentials: credentials.clone(),
            });
            match opened.await {
                Ok(blob) if object.kind == ObjectKind::Manifest => manifest(&task, &*blob, head_only).await,
                Ok(blob) => content(&task, &*blob, range, head_only, permit),
                Err(OpenError::NoSpace(detail)) => {
                    tracing::warn!(%task, detail, "streaming through without keeping it");
                    self.metrics.fallback("no_space");
                    through::answer(self, &task, &object, &credentials, range, permit).await
                }
                Err(OpenError::Unavailable(detail)) => {
                    tracing::warn!(%task, detail, "streaming through without the swarm");
                    self.metrics.fallback("unavailable");
                    through::answer(self, &task, &object, &credentials, range, permit).await
                }
                Err(error) => Err(error.into()),
            }
        };
        let answered = tokio::time::timeout(FIRST_BYTE_LIMIT, answering).await;
        answered.unwrap_or_else(|_| Err(Refusal::TooSlow { seconds: FIRST_BYTE_LIMIT.as_secs() }))
    }
}

fn content(
    task: &TaskId,
    blob: &dyn Blob,
    range: Option<ByteRange>,
    head_only: bool,
    permit: Permit,
) -> Result<Response<Body>, Refusal> {
    let size = blob.size();
    let part = match range {
        None => None,
        Some(range) => Some(range.within(size).ok_or(Refusal::Range { size })?),
    };
    let body =
        if head_only { Body::empty() } else { streamed(blob.read(part.clone().unwrap_or(0..size)), permit) };
    Ok(head(task, Some(size), part, "application/octet-stream", body))
}

/// A head for `part` of a blob (all of it: `None`), and its body.
pub(super) fn head(
    task: &TaskId,
    size: Option<u64>,
    part: Option<Range<u64>>,
    content_type: &'static str,
    body: Body,
) -> Response<Body> {
    let mut answer = Response::new(body);
    let length = part.as_ref().map_or(size, |part| Some(part.end - part.start));
    if let Some(part) = part {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let size = size.map_or_else(|| "*".to_owned(), |size| size.to_string());
        let value = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        insert(&mut answer, CONTENT_RANGE.as_str(), value);
    }
    if let Some(length) = length {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert(&mut answer, "docker-content-digest", task.to_string());
    insert(&mut answer, ETAG.as_str(), format!("\"{task}\""));
    answer
}

fn insert(answer: &mut Response<Body>, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// A body that ends cleanly only if the reader does.
pub(super) fn streamed(reader: Box<dyn BlobReader>, permit: Permit) -> Body {
    Body::from_stream(stream::try_unfold((reader, permit), |(mut reader, permit)| async move {
        match reader.next().await {
            Ok(Some(bytes)) => Ok(Some((bytes, (reader, permit)))),
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "cutting a body");
                Err(error)
            }
        }
    }))
}

async fn manifest(task: &TaskId, blob: &dyn Blob, head_only: bool) -> Result<Response<Body>, Refusal> {
    let size = blob.size();
    if size > MAX_MANIFEST_BYTES {
        let detail = format!("manifest of {size} bytes is larger than {MAX_MANIFEST_BYTES}");
        return Err(Refusal::Unavailable(detail));
    }
    let mut bytes = Vec::new();
    let mut reader = blob.read(0..size);
    let failed = |error: ReadError| Refusal::Unavailable(error.to_string());
    while let Some(more) = reader.next().await.map_err(failed)? {
        bytes.extend_from_slice(&more);
    }
    let content_type = media_type(&bytes);
    let body = if head_only { Body::empty() } else { Body::from(Bytes::from(bytes)) };
    let mut answer = head(task, Some(size), None, OCI_MANIFEST, body);
    insert(&mut answer, CONTENT_TYPE.as_str(), content_type);
    Ok(answer)
}

/// The manifest's own word on its type, else what its shape says.
fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Shape>(manifest) {
        Ok(Shape { media_type: Some(media_type), .. }) => media_type,
        Ok(Shape { manifests: Some(_), .. }) => OCI_INDEX.to_owned(),
        _ => OCI_MANIFEST.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_its_type_or_shows_it() {
        assert_eq!(media_type(br#"{"mediaType":"application/x"}"#), "application/x");
        assert_eq!(media_type(br#"{"schemaVersion":2,"manifests":[]}"#), OCI_INDEX);
        assert_eq!(media_type(br#"{"schemaVersion":2,"layers":[]}"#), OCI_MANIFEST);
        assert_eq!(media_type(b"junk"), OCI_MANIFEST);
    }
}
