//! What an image or a URL is at this moment: the digest or version, and everything that belongs to it.
//!
//! Invariant: the origin is asked as nobody or by the node's own account; what a tag means is the registry's word alone.

use super::JobError;
use super::content;
use super::orders::{Found, Named, Wanted};
use crate::mirror::files;
use crate::origin::{MANIFEST_TYPES, ObjectKind, OriginClient, OriginObject, PassRequest};
use crate::swarm::Swarm;
use hawker_api::image::{ImageReference, Version};
use hawker_api::task::{Algorithm, TaskId};
use http::{HeaderValue, Method};
use sha2::{Digest, Sha256};

/// Header of a registry's answer with the digest of what it is about.
const CONTENT_DIGEST: &str = "docker-content-digest";

pub(super) async fn resolve(
    swarm: &Swarm,
    origin: &OriginClient,
    wanted: &Wanted,
) -> Result<Found, JobError> {
    match &wanted.what {
        Named::Url(url) => {
            let file = files::identify(origin, url).await.map_err(|error| match error {
                files::UrlError::Origin(error) => JobError::origin(url, error),
                other => JobError::Url(other),
            })?;
            Ok(Found { task: file.task, object: file.object, tasks: vec![(file.task, file.size)] })
        }
        Named::Image(text) => {
            let reference: ImageReference = text.parse().map_err(JobError::Reference)?;
            let object = OriginObject {
                registry: crate::config::canonical_host(&reference.registry),
                repository: reference.repository.clone(),
                kind: ObjectKind::Manifest,
                version: String::new(),
            };
            let task = match &reference.version {
                Version::Digest(task) => *task,
                Version::Tag(tag) => {
                    let asked = of_tag(origin, &object, tag).await;
                    asked.map_err(|error| error.into_job(&reference))?
                }
            };
            let name = reference.to_string();
            let content = content::of_image(swarm, task, &object, (&name, &wanted.platforms)).await?;
            let tasks = content.items.iter().map(|item| (item.task, item.size)).collect();
            Ok(Found { task, object, tasks })
        }
    }
}

enum TagError {
    Origin(crate::origin::OriginError),
    Large,
}

impl TagError {
    fn into_job(self, reference: &ImageReference) -> JobError {
        let what = reference.to_string();
        match self {
            Self::Origin(error) => JobError::origin(&format!("image {what}"), error),
            Self::Large => JobError::Manifest { what, problem: "is larger than manifests are".to_owned() },
        }
    }
}

/// What the registry says a tag means.
async fn of_tag(origin: &OriginClient, object: &OriginObject, tag: &str) -> Result<TaskId, TagError> {
    let mut request = PassRequest {
        method: Method::HEAD,
        object: object.clone(),
        reference: tag.to_owned(),
        list: None,
        accept: vec![HeaderValue::from_static(MANIFEST_TYPES)],
        credentials: super::credentials(object),
    };
    let answer = origin.fetch(&request).await.map_err(TagError::Origin)?;
    if !answer.status.is_success() {
        return Err(TagError::Origin(answer.into_error(&request)));
    }
    let stated = answer.headers.get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
    if let Some(task) = stated.and_then(|text| text.parse::<TaskId>().ok()).filter(TaskId::is_content) {
        return Ok(task);
    }
    // A registry that does not say: the digest is that of the bytes.
    request.method = Method::GET;
    let mut answer = origin.fetch(&request).await.map_err(TagError::Origin)?;
    if !answer.status.is_success() {
        return Err(TagError::Origin(answer.into_error(&request)));
    }
    let (mut hash, mut length) = (Sha256::new(), 0u64);
    while let Some(chunk) = answer.body.chunk().await.map_err(TagError::Origin)? {
        length += chunk.len() as u64;
        if length > crate::mirror::MAX_MANIFEST_BYTES {
            return Err(TagError::Large);
        }
        hash.update(&chunk);
    }
    TaskId::from_digest(Algorithm::Sha256, &hash.finalize()).ok_or(TagError::Large)
}
