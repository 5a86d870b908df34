//! `oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]`: the files of an OCI artifact, as ORAS and others push them.
//!
//! Invariant: each file is asked for by its digest.

use super::{Item, Wanted, challenge, inside};
use crate::daemon::Mirror;
use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use serde::Deserialize;
use std::collections::HashMap;

const TITLE: &str = "org.opencontainers.image.title";
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// Largest manifest, bytes: as much as the mirror passes.
const MAX_MANIFEST_BYTES: usize = 8 << 20;

#[derive(Debug, PartialEq, Eq)]
struct Reference {
    registry: String,
    repository: String,
    /// Tag or digest.
    version: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

pub(super) fn resolve(mirror: &Mirror, text: &str, wanted: &Wanted) -> Result<Vec<Item>> {
    let mut reference =
        parse(text).with_context(|| format!("`{text}` is not oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]"))?;
    let mut session = Session { mirror, wanted, authorization: None };
    let mut manifest = session.manifest(&reference)?;
    if !manifest.manifests.is_empty() {
        reference.version = choose(&manifest.manifests, wanted.platform.as_deref())?.to_owned();
        manifest = session.manifest(&reference)?;
    }
    if manifest.layers.is_empty() {
        bail!("{text} has no files");
    }
    manifest.layers.iter().map(|layer| session.item(&reference, layer)).collect()
}

fn parse(text: &str) -> Option<Reference> {
    let (registry, rest) = text.strip_prefix("oci://")?.split_once('/')?;
    let (repository, version) = match (rest.split_once('@'), rest.rsplit_once(':')) {
        (Some((name, digest)), _) => (name.split_once(':').map_or(name, |(name, _)| name), digest),
        (None, Some((name, tag))) => (name, tag),
        (None, None) => (rest, "latest"),
    };
    let plain = |text: &str, more: &[char]| {
        !text.is_empty()
            && !text.contains("..")
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(&c))
    };
    let good = plain(registry, &[':']) && plain(repository, &['/']) && plain(version, &[':']);
    good.then(|| Reference {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        version: version.to_owned(),
    })
}

/// The digest of the manifest for `platform`, or of the only one.
fn choose<'a>(manifests: &'a [Descriptor], platform: Option<&str>) -> Result<&'a str> {
    let name = |manifest: &Descriptor| {
        manifest.platform.as_ref().map(|it| format!("{}/{}", it.os, it.architecture)).unwrap_or_default()
    };
    match (platform, manifests) {
        (None, [only]) => Ok(&only.digest),
        (None, many) => {
            let names: Vec<_> = many.iter().map(name).collect();
            bail!("it is there for several platforms, choose one with --platform: {}", names.join(", "))
        }
        (Some(platform), many) => {
            let found = many.iter().find(|manifest| name(manifest) == platform);
            Ok(&found.with_context(|| format!("it is not there for {platform}"))?.digest)
        }
    }
}

struct Session<'a> {
    mirror: &'a Mirror,
    wanted: &'a Wanted,
    authorization: Option<String>,
}

impl Session<'_> {
    fn manifest(&mut self, reference: &Reference) -> Result<Manifest> {
        let path = path(reference, "manifests", &reference.version);
        let mut answer = self.ask(&path)?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            let header = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
            let challenge = header.context("the registry refused, and did not say what it wants")?;
            self.authorization = Some(challenge::answer(challenge, self.wanted.user.as_deref())?);
            answer = self.ask(&path)?;
        }
        let status = answer.status();
        let what = format!("{}/{}:{}", reference.registry, reference.repository, reference.version);
        let body = answer.bytes().with_context(|| format!("read the manifest of {what}"))?;
        if !status.is_success() {
            bail!("the manifest of {what}: {status} {}", String::from_utf8_lossy(&body).trim());
        }
        if body.len() > MAX_MANIFEST_BYTES {
            bail!("the manifest of {what} has {} bytes, more than {MAX_MANIFEST_BYTES}", body.len());
        }
        serde_json::from_slice(&body).with_context(|| format!("read the manifest of {what}"))
    }

    fn ask(&self, path: &str) -> Result<reqwest::blocking::Response> {
        let mut request = self.mirror.client()?.get(self.mirror.url(path)).header("accept", ACCEPT);
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        Ok(request.send().map_err(|error| self.mirror.failed(&error))?)
    }

    fn headers(&self) -> Vec<(String, String)> {
        let mut headers = self.wanted.headers.clone();
        headers.extend(self.authorization.iter().map(|value| ("authorization".to_owned(), value.clone())));
        headers
    }

    fn item(&self, reference: &Reference, layer: &Descriptor) -> Result<Item> {
        let hex = layer.digest.split_once(':').map_or(layer.digest.as_str(), |(_, hex)| hex);
        let name = layer.annotations.get(TITLE).map_or(hex, String::as_str);
        Ok(Item {
            path: path(reference, "blobs", &layer.digest),
            headers: self.headers(),
            digest: Some(layer.digest.clone()),
            name: inside(name)?,
        })
    }
}

fn path(reference: &Reference, kind: &str, version: &str) -> String {
    format!("/v2/{}/{kind}/{version}?ns={}", reference.repository, reference.registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let parts = |text: &str| parse(text).map(|it| (it.registry, it.repository, it.version));
        let expected = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(parts("oci://ghcr.io/a/b:v1"), expected("ghcr.io", "a/b", "v1"));
        assert_eq!(parts("oci://reg:5000/a"), expected("reg:5000", "a", "latest"));
        assert_eq!(parts("oci://r/a:v1@sha256:ab"), expected("r", "a", "sha256:ab"));
        for text in
            ["oci://a", "oci:///a", "oci://a/", "oci://a/b:", "oci://a/../b", "oci://a/b?x", "http://a/b"]
        {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    #[test]
    fn platforms() {
        let manifests: Vec<Descriptor> = serde_json::from_str(
            r#"[{"digest":"d1","platform":{"os":"linux","architecture":"amd64"}},{"digest":"d2","platform":{"os":"linux","architecture":"arm64"}}]"#,
        )
        .unwrap();
        assert_eq!(choose(&manifests, Some("linux/arm64")).unwrap(), "d2");
        assert_eq!(choose(&manifests[..1], None).unwrap(), "d1");
        assert!(choose(&manifests, None).unwrap_err().to_string().contains("linux/amd64, linux/arm64"));
        assert!(choose(&manifests, Some("windows/amd64")).is_err());
    }
}
