//! An image fetched through the mirror as a runtime does it: manifest by tag and by digest, then its smallest
//! content, each compared with its digest; and the daemon's counters before and after.
//!
//! Credentials are nobody's: for a registry that wants a token, the anonymous one is asked for at the registry's
//! own realm. Invariant: bytes count as proof only if their SHA-256 is the digest they were asked by.

use super::catalog as c;
use super::report::{Canary, Finding};
use super::web::{Answer, MAX_BODY_BYTES, Web};
use crate::disk::Disk;
use crate::wanted::{DOCKER_HUB, Registry};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// Media types a runtime accepts.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// How often the counters are read until they have moved: they are written when the body's end was sent.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The daemon's status document.
pub(super) struct Status(Value);

impl Status {
    pub(super) fn ask(web: &dyn Web, addr: SocketAddr) -> Result<Self, String> {
        let url = format!("http://{addr}/status");
        let answer = web.get(&url, &[]).map_err(|error| format!("GET {url}: {error}"))?;
        match serde_json::from_slice(&answer.body) {
            Ok(value) if answer.status == 200 => Ok(Self(value)),
            _ => Err(format!("GET {url}: {}", answer.reason())),
        }
    }

    pub(super) fn store_error(&self) -> Option<&str> {
        self.0["store"]["error"].as_str()
    }

    /// Why there is no manager.
    pub(super) fn manager_error(&self) -> Option<&str> {
        self.0["manager"]["error"].as_str()
    }

    /// Bytes given to runtimes, by source.
    fn delivered(&self) -> Vec<(String, u64)> {
        let sources = self.0["delivered"].as_object().into_iter().flatten();
        sources.filter_map(|(source, bytes)| Some((source.clone(), bytes.as_u64()?))).collect()
    }
}

/// An image reference's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) registry: String,
    pub(super) repository: String,
    /// Tag or digest.
    pub(super) wanted: String,
}

impl Reference {
    /// As runtimes read it: `debian` is `docker.io/library/debian:latest`.
    pub(super) fn parse(image: &str) -> Self {
        let (registry, rest) = match image.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            Some(_) => (DOCKER_HUB, image.to_owned()),
            None => (DOCKER_HUB, format!("library/{image}")),
        };
        let (repository, wanted) = if let Some((name, digest)) = rest.split_once('@') {
            // A tag beside a digest says nothing more.
            (name.split(':').next().unwrap_or(name), digest)
        } else {
            rest.rsplit_once(':').unwrap_or((&rest, "latest"))
        };
        let (repository, wanted) = (repository.to_owned(), wanted.to_owned());
        Self { registry: registry.to_owned(), repository, wanted }
    }
}

pub(super) struct Probe<'a> {
    pub(super) web: &'a dyn Web,
    pub(super) mirror: SocketAddr,
    pub(super) status: SocketAddr,
}

impl Probe<'_> {
    pub(super) fn pull(&self, image: &str, before: Result<&Status, &String>) -> Result<Canary, Finding> {
        let reference = Reference::parse(image);
        let mut session = Session { probe: self, reference: &reference, token: None };
        let first = session.get("manifests", &reference.wanted)?;
        let digest = sha256(&first.body);
        let said = first.header("docker-content-digest").unwrap_or_default().to_owned();
        let expected = if reference.wanted.contains(':') { &reference.wanted } else { &said };
        if expected.starts_with("sha256:") && *expected != digest {
            return Err(Finding::new(
                &c::CANARY_DIGEST,
                format!("{image}: asked for {expected}, got {digest}"),
            ));
        }
        let mut manifest: Value = serde_json::from_slice(&first.body)
            .map_err(|error| failed(&format!("{image}: the manifest is no JSON: {error}")))?;
        if let Some(child) = of_this_machine(&manifest) {
            manifest = serde_json::from_slice(&session.checked("manifests", &child)?)
                .map_err(|error| failed(&format!("{image}: manifest {child} is no JSON: {error}")))?;
        }
        let (blob, size) =
            smallest(&manifest).ok_or_else(|| failed(&format!("{image}: nothing in it is small enough")))?;
        let bytes = session.checked("blobs", &blob)?.len() as u64;
        if bytes != size {
            return Err(failed(&format!("{image}: {blob} has {bytes} bytes, the manifest says {size}")));
        }
        let sources = before.map_or_else(|_| Ok(Vec::new()), |before| self.counted(before, bytes))?;
        Ok(Canary { image: image.to_owned(), digest, bytes, sources })
    }

    /// By how much the daemon's counters moved.
    fn counted(&self, before: &Status, bytes: u64) -> Result<Vec<(String, u64)>, Finding> {
        let before = before.delivered();
        let mut moved = 0;
        for _ in 0..LOOKS {
            let now = Status::ask(self.web, self.status).map(|status| status.delivered()).unwrap_or_default();
            let old = |source: &String| {
                before.iter().find(|(known, _)| known == source).map_or(0, |(_, bytes)| *bytes)
            };
            let sources: Vec<_> = now
                .into_iter()
                .map(|(source, now)| (source.clone(), now.saturating_sub(old(&source))))
                .collect();
            moved = sources.iter().map(|(_, bytes)| bytes).sum();
            if moved >= bytes {
                return Ok(sources);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let evidence = format!("{bytes} bytes came, http://{}/status counted {moved}", self.status);
        Err(Finding::new(&c::CANARY_UNCOUNTED, evidence))
    }
}

/// The requests for one image.
struct Session<'a> {
    probe: &'a Probe<'a>,
    reference: &'a Reference,
    token: Option<String>,
}

impl Session<'_> {
    /// Content by digest, compared with it.
    fn checked(&mut self, kind: &str, digest: &str) -> Result<Vec<u8>, Finding> {
        let answer = self.get(kind, digest)?;
        let got = sha256(&answer.body);
        if digest.starts_with("sha256:") && got != digest {
            return Err(Finding::new(&c::CANARY_DIGEST, format!("{kind}/{digest}: the bytes have {got}")));
        }
        Ok(answer.body)
    }

    fn get(&mut self, kind: &str, wanted: &str) -> Result<Answer, Finding> {
        let Reference { registry, repository, .. } = self.reference;
        let url = format!("http://{}/v2/{repository}/{kind}/{wanted}?ns={registry}", self.probe.mirror);
        let mut answer = self.ask(&url)?;
        if answer.status == 401 && self.token.is_none() {
            let challenge = answer.header("www-authenticate").unwrap_or_default().to_owned();
            self.token = anonymous_token(self.probe.web, &challenge);
            if self.token.is_some() {
                answer = self.ask(&url)?;
            }
        }
        if answer.status == 200 {
            Ok(answer)
        } else {
            Err(failed(&format!("GET {url}: {}", answer.reason())))
        }
    }

    fn ask(&self, url: &str) -> Result<Answer, Finding> {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("accept", ACCEPT)];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        self.probe.web.get(url, &headers).map_err(|error| failed(&format!("GET {url}: {error}")))
    }
}

fn failed(evidence: &str) -> Finding {
    Finding::new(&c::CANARY_FAILED, evidence)
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// `Bearer realm="https://…",service="…",scope="…"`: a token for nobody in particular, from a realm with TLS.
fn anonymous_token(web: &dyn Web, challenge: &str) -> Option<String> {
    let parameters = challenge.strip_prefix("Bearer ")?;
    let value = |name: &str| {
        let after = parameters.split(&format!("{name}=\"")).nth(1)?;
        after.split('"').next().map(str::to_owned)
    };
    let mut url = url::Url::parse(&value("realm")?).ok().filter(|url| url.scheme() == "https")?;
    for name in ["service", "scope"] {
        if let Some(value) = value(name) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    let answer = web.get(url.as_str(), &[]).ok()?;
    let document: Value = serde_json::from_slice(&answer.body).ok()?;
    let token = document["token"].as_str().or_else(|| document["access_token"].as_str())?;
    Some(token.to_owned())
}

/// Of an index, the manifest for this machine, else the first.
fn of_this_machine(index: &Value) -> Option<String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let manifests = index["manifests"].as_array()?;
    let ours = manifests.iter().find(|entry| {
        entry["platform"]["os"] == "linux" && entry["platform"]["architecture"] == architecture
    });
    ours.or(manifests.first())?["digest"].as_str().map(str::to_owned)
}

/// The smallest of configuration and layers.
fn smallest(manifest: &Value) -> Option<(String, u64)> {
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let blobs = layers.chain(std::iter::once(&manifest["config"]));
    let sized = blobs.filter_map(|blob| Some((blob["digest"].as_str()?.to_owned(), blob["size"].as_u64()?)));
    sized.filter(|(_, size)| (1..MAX_BODY_BYTES).contains(size)).min_by_key(|(_, size)| *size)
}

/// An image of a mirrored registry that containerd has.
pub(super) fn known_image(disk: &Disk, registries: &[Registry]) -> Option<String> {
    let mirrored =
        |name: &&String| registries.iter().any(|registry| Reference::parse(name).registry == registry.host());
    images(disk).iter().find(|name| !name.starts_with("sha256:") && mirrored(name)).cloned()
}

pub(super) fn present(disk: &Disk, image: &str) -> Option<Finding> {
    let there = images(disk).iter().any(|name| name == image);
    there.then(|| Finding::new(&c::IMAGE_PRESENT, format!("containerd has {image}")))
}

/// Names of Kubernetes' images in containerd; none where it cannot be asked.
fn images(disk: &Disk) -> Vec<String> {
    if !disk.is_whole_machine() {
        return Vec::new();
    }
    let words = ["--connect-timeout", "2s", "--namespace", "k8s.io", "images", "ls", "--quiet"];
    let Ok(output) = Command::new("ctr").args(words).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect()
}
