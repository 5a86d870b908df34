//! What an image consists of: its index, the manifests of the platforms that are wanted, their parts. The reading is a
//! function of the bytes; the bytes come from the swarm, like everything that a digest names.
//!
//! Invariant: a manifest is read up to a limit, and its parts are counted up to another.

use super::JobError;
use crate::mirror::MAX_MANIFEST_BYTES;
use crate::mirror::blobs::{BlobRequest, Blobs};
use crate::origin::{ObjectKind, OriginObject};
use crate::swarm::Swarm;
use hawker_api::image::{Platform, Platforms};
use hawker_api::task::TaskId;
use serde::Deserialize;

/// Most manifests of one image, its indexes included: a well-known image has a dozen platforms.
const MAX_MANIFESTS: usize = 64;
/// Most configurations and layers of one image for all platforms: manifests of 127 layers are the most that runtimes take.
const MAX_PARTS: usize = 64 * 128;

/// One thing to get.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) task: TaskId,
    pub(super) object: OriginObject,
    pub(super) size: u64,
}

/// A manifest of one platform, with its parts.
#[derive(Debug)]
pub(super) struct OneImage {
    pub(super) manifest: TaskId,
    pub(super) parts: Vec<(TaskId, u64)>,
}

/// All there is to get of an image.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) items: Vec<Item>,
    pub(super) images: Vec<OneImage>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    media_type: String,
    platform: Option<RawPlatform>,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// What a manifest leads to.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Manifests of the platforms that are wanted.
    Index(Vec<TaskId>),
    Parts(Vec<(TaskId, u64)>),
}

/// Walks from the manifest or index `root` to everything it consists of.
pub(super) async fn of_image(
    swarm: &Swarm,
    root: TaskId,
    object: &OriginObject,
    (name, platforms): (&str, &Platforms),
) -> Result<Content, JobError> {
    let mut content = Content::default();
    let mut ahead = vec![root];
    while let Some(task) = ahead.pop() {
        if content.items.iter().any(|item| item.task == task) {
            continue; // Named twice.
        }
        let problem = |problem: String| JobError::Manifest { what: name.to_owned(), problem };
        let bytes = bytes(swarm, task, object, name).await?;
        content.items.push(Item { task, object: object.clone(), size: bytes.len() as u64 });
        match read(&bytes, name, platforms)? {
            Shape::Index(manifests) => ahead.extend(manifests),
            Shape::Parts(parts) => content.images.push(OneImage { manifest: task, parts }),
        }
        if content.items.len() + ahead.len() > MAX_MANIFESTS {
            return Err(problem(format!("has more than {MAX_MANIFESTS} manifests")));
        }
    }
    let blob = OriginObject { kind: ObjectKind::Blob, ..object.clone() };
    let mut parts: Vec<(TaskId, u64)> =
        content.images.iter().flat_map(|image| image.parts.iter().copied()).collect();
    parts.sort_unstable();
    parts.dedup_by_key(|(task, _)| *task);
    if parts.len() > MAX_PARTS {
        let problem = format!("has more than {MAX_PARTS} parts");
        return Err(JobError::Manifest { what: name.to_owned(), problem });
    }
    // The largest first: they take the longest.
    parts.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    content.items.extend(parts.into_iter().map(|(task, size)| Item { task, object: blob.clone(), size }));
    Ok(content)
}

/// What a manifest leads to, for all platforms; `None`: it is none that is understood.
pub(crate) fn shape(bytes: &[u8]) -> Option<Shape> {
    read(bytes, "", &Platforms::All).ok()
}

async fn bytes(swarm: &Swarm, task: TaskId, object: &OriginObject, name: &str) -> Result<Vec<u8>, JobError> {
    let what = format!("{name} ({task})");
    let failed = |problem: String| JobError::Manifest { what: what.clone(), problem };
    let request = BlobRequest { task, object: object.clone(), credentials: super::credentials(object) };
    let blob = Blobs::open(swarm, request).await.map_err(|error| match error {
        crate::mirror::blobs::OpenError::Origin(error) => JobError::origin(&what, error),
        other => failed(other.to_string()),
    })?;
    if blob.size() > MAX_MANIFEST_BYTES {
        return Err(failed(format!("{} bytes, more than {MAX_MANIFEST_BYTES}", blob.size())));
    }
    let (mut reader, mut bytes) = (blob.read(0..blob.size()), Vec::new());
    while let Some(more) = reader.next().await.map_err(|error| failed(error.to_string()))? {
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

fn read(bytes: &[u8], name: &str, platforms: &Platforms) -> Result<Shape, JobError> {
    let problem = |problem: String| JobError::Manifest { what: name.to_owned(), problem };
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| problem(format!("is no manifest: {error}")))?;
    let task = |descriptor: &Descriptor| {
        let task: TaskId = descriptor.digest.parse().map_err(|error| problem(format!("{error}")))?;
        if task.is_content() { Ok(task) } else { Err(problem(format!("`{task}` is no digest"))) }
    };
    if let Some(list) = manifest.manifests {
        let chosen = choose(&list, name, platforms)?;
        return Ok(Shape::Index(chosen.into_iter().map(task).collect::<Result<_, _>>()?));
    }
    let (Some(config), Some(layers)) = (manifest.config, manifest.layers) else {
        let old = manifest.fs_layers.is_some();
        let text = if old { "is a manifest of Docker's version 1" } else { "is no manifest of an image" };
        return Err(problem(format!("{text}: not supported by jobs")));
    };
    // Foreign layers are not in the registry, by their definition.
    let here = |layer: &&Descriptor| layer.urls.is_empty() && !layer.media_type.contains("foreign");
    let parts = std::iter::once(&config).chain(layers.iter().filter(here));
    Ok(Shape::Parts(parts.map(|part| Ok((task(part)?, part.size))).collect::<Result<_, JobError>>()?))
}

fn choose<'a>(
    list: &'a [Descriptor],
    name: &str,
    platforms: &Platforms,
) -> Result<Vec<&'a Descriptor>, JobError> {
    let platform = |descriptor: &Descriptor| {
        let RawPlatform { os, architecture, variant } = descriptor.platform.as_ref()?;
        // Attestations are listed as manifests for nothing.
        (os != "unknown").then(|| Platform {
            os: os.clone(),
            architecture: architecture.clone(),
            variant: variant.clone(),
        })
    };
    let wanted = match platforms {
        Platforms::All => return Ok(list.iter().collect()),
        Platforms::Own => vec![Platform::own()],
        Platforms::Of(wanted) => wanted.clone(),
    };
    let mut chosen: Vec<&Descriptor> = Vec::new();
    for wanted in &wanted {
        let fits = |entry: &&Descriptor| platform(entry).is_none_or(|there| wanted.takes(&there));
        let named = |entry: &&Descriptor| platform(entry).is_some();
        // Entries without a platform are for nobody in particular; they count where nothing else is there.
        let mut found: Vec<_> = list.iter().filter(named).filter(fits).collect();
        if found.is_empty() && !list.iter().any(|entry| entry.platform.is_some()) {
            found = list.iter().collect();
        }
        if found.is_empty() {
            let mut there: Vec<String> =
                list.iter().filter_map(platform).map(|platform| platform.to_string()).collect();
            there.dedup();
            let (what, wanted) = (name.to_owned(), wanted.to_string());
            return Err(JobError::Platform { what, wanted, there: there.join(", ") });
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:8888888888888888888888888888888888888888888888888888888888888888";

    fn index(platforms: &[&str]) -> Vec<u8> {
        let entry = |(index, text): (usize, &&str)| {
            let mut parts = text.split('/');
            let mut next = || parts.next().unwrap_or_default();
            serde_json::json!({
                "digest": format!("sha256:{index:064x}"), "size": 7,
                "platform": { "os": next(), "architecture": next(), "variant": next() },
            })
        };
        let list: Vec<_> = platforms.iter().enumerate().map(entry).collect();
        serde_json::to_vec(&serde_json::json!({ "manifests": list })).unwrap()
    }

    fn chosen(list: &[&str], wanted: &[&str]) -> Result<Vec<u8>, String> {
        let platforms = Platforms::read(wanted).unwrap();
        match read(&index(list), "x", &platforms).map_err(|error| error.to_string())? {
            Shape::Index(tasks) => Ok(tasks.iter().map(|task| task.digest()[31]).collect()),
            Shape::Parts(_) => panic!("an index"),
        }
    }

    #[test]
    fn the_platforms_that_are_wanted_are_taken() {
        let list = ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "unknown/unknown"];
        assert_eq!(chosen(&list, &["linux/arm64"]).unwrap(), [1]);
        assert_eq!(chosen(&list, &["linux/arm"]).unwrap(), [2, 3]);
        assert_eq!(chosen(&list, &["linux/arm/v7", "linux/amd64"]).unwrap(), [3, 0]);
        assert_eq!(chosen(&list, &["all"]).unwrap(), [0, 1, 2, 3, 4]);
        let error = chosen(&list[..2], &["windows/amd64"]).unwrap_err();
        assert_eq!(error, "x is not there for windows/amd64; it is for linux/amd64, linux/arm64/v8");
    }

    #[test]
    fn parts_without_what_is_elsewhere() {
        let manifest = serde_json::json!({
            "config": { "digest": DIGEST, "size": 3 },
            "layers": [
                { "digest": DIGEST.replace('8', "7"), "size": 9 },
                { "digest": DIGEST.replace('8', "9"), "size": 9, "urls": ["https://elsewhere/"] },
            ],
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let Shape::Parts(parts) = read(&bytes, "x", &Platforms::Own).unwrap() else { panic!("a manifest") };
        assert_eq!(parts.iter().map(|(_, size)| *size).collect::<Vec<_>>(), [3, 9]);
    }

    #[test]
    fn what_is_no_manifest_is_named() {
        for (bytes, says) in [
            ("<html>", "is no manifest"),
            ("{}", "no manifest of an image"),
            (r#"{"fsLayers":[]}"#, "Docker's version 1"),
            (r#"{"manifests":[{"digest":"x","size":1}]}"#, "no algorithm"),
            (r#"{"config":{"digest":"sha256:../..","size":1},"layers":[]}"#, "5 characters"),
            (r#"{"manifests":[{"digest":"x","size":-1}]}"#, "is no manifest"),
        ] {
            let error = read(bytes.as_bytes(), "ghcr.io/a/b:v1", &Platforms::Own).unwrap_err().to_string();
            assert!(error.starts_with("ghcr.io/a/b:v1: ") && error.contains(says), "{bytes}: {error}");
        }
    }
}
