//! What a runtime asks for: path and `?ns=` taken apart and checked.
//!
//! Invariant: what comes out is well formed and on the allow-list; nothing of the path is used as it came.

use super::answer::Refusal;
use crate::origin::{ObjectKind, OriginClient, OriginObject};
use hawker_api::task::TaskId;
use http::{Method, Uri};

/// Longest repository name (OCI distribution specification).
const MAX_NAME_BYTES: usize = 255;
/// Longest tag.
const MAX_TAG_BYTES: usize = 128;

#[derive(Debug)]
pub(super) enum Resource {
    /// `/v2/`
    Base,
    Health,
    /// By digest: through the swarm.
    Content(Wanted),
    /// By tag: the registry's to answer.
    Passed {
        registry: String,
        path: String,
    },
}

#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) task: TaskId,
    pub(super) object: OriginObject,
}

pub(super) fn parse(method: &Method, uri: &Uri, origin: &OriginClient) -> Result<Resource, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::Unsupported { what: format!("{method}: this is a pull-through mirror") });
    }
    let path = uri.path();
    match path {
        "/healthz" => return Ok(Resource::Health),
        "/v2" | "/v2/" => return Ok(Resource::Base),
        _ => {}
    }
    let unsupported = || Refusal::Unsupported { what: path.chars().take(MAX_NAME_BYTES).collect() };
    let rest = path.strip_prefix("/v2/").ok_or_else(unsupported)?;
    let (kind, name, reference) = split(rest).ok_or_else(unsupported)?;
    if !is_name(name) {
        return Err(Refusal::Name { name: name.chars().take(MAX_NAME_BYTES).collect() });
    }
    let is_tag = kind == ObjectKind::Manifest && !reference.contains(':');
    if is_tag && !is_tag_name(reference) {
        return Err(Refusal::Tag { tag: reference.chars().take(MAX_TAG_BYTES).collect() });
    }
    let registry = registry(uri, origin)?;
    if is_tag {
        return Ok(Resource::Passed { registry, path: path.to_owned() });
    }
    let task = reference.parse().map_err(Refusal::Digest)?;
    let repository = name.to_owned();
    Ok(Resource::Content(Wanted { task, object: OriginObject { registry, repository, kind } }))
}

fn split(rest: &str) -> Option<(ObjectKind, &str, &str)> {
    let (front, reference) = rest.rsplit_once('/')?;
    let (name, kind) = front.rsplit_once('/')?;
    match kind {
        "blobs" => Some((ObjectKind::Blob, name, reference)),
        "manifests" => Some((ObjectKind::Manifest, name, reference)),
        _ => None,
    }
}

fn registry(uri: &Uri, origin: &OriginClient) -> Result<String, Refusal> {
    let query = uri.query().unwrap_or_default();
    let ns = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "ns");
    let registry = match ns {
        Some((_, ns)) => ns.into_owned(),
        None => origin.only_registry().ok_or(Refusal::NoRegistry)?.to_owned(),
    };
    if !origin.allows(&registry) {
        return Err(Refusal::Denied { registry: registry.chars().take(MAX_NAME_BYTES).collect() });
    }
    Ok(registry)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*`
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && name.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = component.split(alphanumeric).filter(|separator| !separator.is_empty());
    let allowed =
        |separator: &str| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
    component.starts_with(alphanumeric) && component.ends_with(alphanumeric) && { separators }.all(allowed)
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag_name(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MAX_TAG_BYTES && tag.starts_with(word) && tag.chars().all(|c| word(c) || ".-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for name in ["a", "library/alpine", "a.b_c__d-e---f/0", "x/y/z"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", "A", "a//b", "/a", "a/", "..", "a/../b", "a..b", "a___b", "-a", "a-", "a%2e", "a b", "ä"]
        {
            assert!(!is_name(name), "{name}");
        }
        assert!(!is_name(&"a".repeat(256)));
    }

    #[test]
    fn tags_are_those_of_the_specification() {
        assert!(is_tag_name("latest") && is_tag_name("_v1.2-rc") && is_tag_name(&"t".repeat(128)));
        for tag in ["", ".x", "-x", "a/b", "a%41", &"t".repeat(129)] {
            assert!(!is_tag_name(tag), "{tag}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_cannot_leave_its_directory(name in "[a-z0-9./_%-]{0,30}") {
            if is_name(&name) {
                prop_assert!(!name.contains("..") && !name.contains("//") && !name.starts_with('/'));
            }
        }
    }
}
