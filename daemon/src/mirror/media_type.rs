//! The media type of a manifest, from the manifest itself: by digest there is nobody else to ask.
//!
//! Invariant: what is returned can stand in a `Content-Type` as it is, without parameters.

use http::HeaderValue;
use serde::Deserialize;
use serde::de::IgnoredAny;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_SIGNED_V1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const UNKNOWN: &str = "application/octet-stream";
/// Longest media type believed, characters (RFC 6838 allows 127 on each side).
const MAX_TYPE_CHARS: usize = 255;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: Option<String>,
    manifests: Option<Vec<Described>>,
    layers: Option<Vec<IgnoredAny>>,
    config: Option<Described>,
    fs_layers: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    #[serde(default)]
    media_type: Option<String>,
}

pub(super) fn of_manifest(bytes: &[u8]) -> HeaderValue {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else {
        return HeaderValue::from_static(UNKNOWN);
    };
    let own = manifest.media_type.as_deref().filter(|text| is_media_type(text));
    own.and_then(|text| HeaderValue::from_str(text).ok())
        .unwrap_or_else(|| HeaderValue::from_static(guessed(&manifest)))
}

/// OCI made the field optional and Docker's version 1 has none: the shape tells.
fn guessed(manifest: &Manifest) -> &'static str {
    let docker = |described: &Described| {
        described.media_type.as_deref().is_some_and(|text| text.starts_with("application/vnd.docker."))
    };
    match manifest {
        Manifest { manifests: Some(list), .. } if !list.is_empty() && list.iter().all(docker) => DOCKER_LIST,
        Manifest { manifests: Some(_), .. } => OCI_INDEX,
        Manifest { config: Some(config), .. } if docker(config) => DOCKER_MANIFEST,
        Manifest { config: Some(_), .. } | Manifest { layers: Some(_), .. } => OCI_MANIFEST,
        Manifest { fs_layers: Some(_), signatures: Some(_), .. } => DOCKER_SIGNED_V1,
        Manifest { fs_layers: Some(_), .. } => DOCKER_V1,
        _ => UNKNOWN,
    }
}

/// `type/subtype` of RFC 6838's restricted names.
fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
        !part.is_empty() && part.bytes().all(legal)
    };
    text.len() <= MAX_TYPE_CHARS && text.split_once('/').is_some_and(|(kind, sub)| name(kind) && name(sub))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_field_else_by_shape() {
        for (text, expected) in [
            (r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#, OCI_INDEX),
            (r#"{"mediaType":"text/html; charset=x","layers":[]}"#, OCI_MANIFEST),
            (r#"{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json"}]}"#, OCI_INDEX),
            (
                r#"{"manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}]}"#,
                DOCKER_LIST,
            ),
            (
                r#"{"config":{"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[]}"#,
                DOCKER_MANIFEST,
            ),
            (
                r#"{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}"#,
                OCI_MANIFEST,
            ),
            (r#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#, DOCKER_SIGNED_V1),
            ("{}", UNKNOWN),
            ("not json", UNKNOWN),
        ] {
            assert_eq!(of_manifest(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(own in "\\PC{0,30}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            of_manifest(&bytes);
            let header = of_manifest(serde_json::json!({ "mediaType": own, "layers": [] }).to_string().as_bytes());
            prop_assert!(!header.to_str().unwrap().contains(';'));
        }
    }
}
