//! Manifests by digest: small tasks, answered in one piece with the media type they have of their own.
//!
//! A HEAD fetches too: the GET for the same bytes follows at once, and a cluster asks its registry once
//! instead of once per node.
//!
//! Invariant: nothing is answered before the whole manifest is here, and it is never larger than the limit.

use super::blobs::ReadError;
use super::body;
use super::content::Opened;
use super::refusal::Refusal;
use super::request::{Get, Head};
use super::{MAX_MANIFEST_BYTES, Mirror, Way, media_type, through};
use crate::metrics::Source;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hawker_api::task::TaskId;
use http::Method;

impl Mirror {
    pub(super) async fn manifest(&self, get: Get, task: TaskId, way: Way) -> Result<Response, Refusal> {
        let opened = match way {
            Way::Cluster => self.open(&get, task).await?,
            Way::Origin => Opened::Through("private"),
        };
        let bytes = match opened {
            Opened::Here(blob) => {
                let size = blob.size();
                check_size(size)?;
                let reader = blob.read(0..size);
                match body::begin(reader, blob, &get, self.limits.body_idle).await {
                    Ok(begun) => get.in_time(begun.collect(MAX_MANIFEST_BYTES)).await??,
                    Err(ReadError::NoSpace(_)) => self.manifest_through(&get, &task, "no_space").await?,
                    Err(error) => return Err(error.into()),
                }
            }
            Opened::Through(reason) => self.manifest_through(&get, &task, reason).await?,
        };
        self.access.vouch(&get.object, &bytes);
        if way == Way::Cluster && get.method == Method::GET {
            self.pulled(&get.object, task, &bytes);
        }
        let content_type = media_type::of_manifest(&bytes);
        let head = Head { content_type, size: Some(bytes.len() as u64), part: None };
        Ok(head.answer(&get, &task, Body::from(bytes)))
    }

    async fn manifest_through(
        &self,
        get: &Get,
        task: &TaskId,
        reason: &'static str,
    ) -> Result<Bytes, Refusal> {
        self.metrics.fallback(reason);
        let body = get.in_time(self.origin.open(&get.object, task, &get.credentials, None)).await??;
        check_size(body.total().unwrap_or_default())?;
        let reader = Box::new(through::Verified::new(body, task, None));
        let begun = body::begin(reader, (), get, self.limits.body_idle).await?;
        let bytes = get.in_time(begun.collect(MAX_MANIFEST_BYTES)).await??;
        if get.method != Method::HEAD {
            self.metrics.delivered(Source::Origin, bytes.len() as u64);
        }
        Ok(bytes)
    }
}

fn check_size(size: u64) -> Result<(), Refusal> {
    if size > MAX_MANIFEST_BYTES {
        let message = format!("a manifest of {size} bytes is larger than {MAX_MANIFEST_BYTES}");
        return Err(Refusal::elsewhere("too_large", message));
    }
    Ok(())
}
