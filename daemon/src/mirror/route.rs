//! What a path of the mirror asks for. Pure.
//!
//! Invariant: names, tags and digests in a [`Route`] are well formed; nothing is percent-decoded, so no
//! encoding can smuggle what the grammar forbids.

use super::lists::Listing;
use super::refusal::Refusal;
use crate::origin::{ObjectKind, name};
use hawker_api::task::TaskId;

/// What is asked for. `name` may still begin with a registry's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Ping,
    Content { name: &'a str, kind: ObjectKind, reference: Reference },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(TaskId),
    List(Listing),
}

pub(super) fn parse(path: &str) -> Result<Route<'_>, Refusal> {
    let Some(rest) = path.strip_prefix("/v2").filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Err(Refusal::no_such_path(path));
    };
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(Route::Ping);
    }
    let (head, reference) = rest.rsplit_once('/').ok_or_else(|| Refusal::no_such_path(path))?;
    // `rsplit_once` may meet a name without an endpoint: `/v2/manifests/x` has no name.
    let (name, endpoint) = head.rsplit_once('/').unwrap_or(("", head));
    let kind = match endpoint {
        "manifests" | "referrers" => ObjectKind::Manifest,
        "tags" if reference == "list" => ObjectKind::Manifest,
        "blobs" => ObjectKind::Blob,
        "uploads" => return Err(Refusal::unsupported("pushing", "push to the registry itself")),
        _ => return Err(Refusal::no_such_path(path)),
    };
    if kind == ObjectKind::Blob && reference == "uploads" {
        return Err(Refusal::unsupported("pushing", "push to the registry itself"));
    }
    if !could_be_name(name) {
        return Err(Refusal::name(name));
    }
    let reference = match endpoint {
        "tags" => Reference::List(Listing::Tags),
        "referrers" => Reference::List(Listing::Referrers(digest(reference)?)),
        _ => parse_reference(kind, reference)?,
    };
    Ok(Route::Content { name, kind, reference })
}

fn parse_reference(kind: ObjectKind, text: &str) -> Result<Reference, Refusal> {
    // Only a tag lacks the colon, and only a manifest has tags.
    if kind == ObjectKind::Manifest && !text.contains(':') {
        if !name::is_tag(text) {
            return Err(Refusal::tag(text));
        }
        return Ok(Reference::Tag(text.to_owned()));
    }
    digest(text).map(Reference::Digest)
}

fn digest(text: &str) -> Result<TaskId, Refusal> {
    let task: TaskId = text.parse().map_err(|error| Refusal::digest(&error))?;
    // The address of a file is no digest, whatever it looks like.
    task.is_content().then_some(task).ok_or_else(|| Refusal::not_a_digest(text))
}

/// A repository name, or one behind `host:port/` (how CRI-O and podman name the upstream).
fn could_be_name(name: &str) -> bool {
    name::is_repository(name)
        || name.split_once('/').is_some_and(|(host, rest)| {
            let port = host.rsplit_once(':').map(|(_, port)| port);
            let is_port =
                port.is_some_and(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
            is_port && name.len() <= name::MAX_NAME_CHARS && name::is_repository(rest)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(path: &str) -> String {
        let refusal = parse(path).unwrap_err();
        format!("{} {}", refusal.status().as_u16(), refusal.code())
    }

    #[test]
    fn paths_of_the_pull_api() {
        let hex = "ab".repeat(32);
        let task: TaskId = format!("sha256:{hex}").parse().unwrap();
        let content = |name, kind, reference| Ok(Route::Content { name, kind, reference });
        for ping in ["/v2", "/v2/"] {
            assert_eq!(parse(ping).unwrap(), Route::Ping);
        }
        let (tag, digest) = (Reference::Tag("v1".to_owned()), Reference::Digest(task));
        let same = |path: &str, expected: Result<Route<'_>, ()>| {
            assert_eq!(parse(path).map_err(|_| ()), expected, "{path}");
        };
        same("/v2/a/b/manifests/v1", content("a/b", ObjectKind::Manifest, tag.clone()));
        same(&format!("/v2/a/manifests/{task}"), content("a", ObjectKind::Manifest, digest.clone()));
        same(&format!("/v2/a/blobs/{task}"), content("a", ObjectKind::Blob, digest));
        same(
            "/v2/manifests/blobs/manifests/v1",
            content("manifests/blobs", ObjectKind::Manifest, tag.clone()),
        );
        let list = |listing| content("a/b", ObjectKind::Manifest, Reference::List(listing));
        same("/v2/a/b/tags/list", list(Listing::Tags));
        same(&format!("/v2/a/b/referrers/{task}"), list(Listing::Referrers(task)));
        same("/v2/reg.corp:5000/a/manifests/v1", content("reg.corp:5000/a", ObjectKind::Manifest, tag));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let hex = "ab".repeat(32);
        let blob = |name: &str| format!("/v2/{name}/blobs/sha256:{hex}");
        for name in ["..", "a/../b", "%2e%2e", "a%2fb", "A", "a//b", "", "x:y/a", &"a".repeat(256)] {
            assert_eq!(code(&blob(name)), "400 NAME_INVALID", "{name}");
        }
        for digest in [
            "sha256:abc",
            "md5:abc",
            "latest",
            "sha256%3Aab",
            &format!("url:{hex}"),
            &format!("sha256:{}", "AB".repeat(32)),
        ] {
            assert_eq!(code(&format!("/v2/a/blobs/{digest}")), "400 DIGEST_INVALID", "{digest}");
        }
        assert_eq!(code("/v2/a/manifests/.x"), "400 MANIFEST_INVALID");
        assert_eq!(code("/v2/a/tags/v1"), "404 UNSUPPORTED");
        assert_eq!(code("/v2/a/referrers/v1"), "400 DIGEST_INVALID");
        assert_eq!(code("/v2/a/blobs/uploads/"), "404 UNSUPPORTED");
        assert_eq!(code("/v2/a"), "404 UNSUPPORTED");
        assert_eq!(code("/v1/a/manifests/x"), "404 UNSUPPORTED");
        assert_eq!(code("/v2a/manifests/x"), "404 UNSUPPORTED");
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/v2/)?\\PC{0,60}") {
            let _ = parse(&path);
        }

        #[test]
        fn what_passes_is_clean(
            name in "[a-zA-Z0-9./%:_-]{1,20}", endpoint in "manifests|blobs", reference in "[a-zA-Z0-9:.%/-]{1,20}"
        ) {
            if let Ok(Route::Content { name, .. }) = parse(&format!("/v2/{name}/{endpoint}/{reference}")) {
                prop_assert!(!name.contains("..") && !name.contains('%'), "{name}");
            }
        }
    }
}
