//! What a manifest refers to, as far as its registry looked: content that must be in the same repository.
//!
//! Pure. Invariant: what a registry takes without having it (layers with `urls` of their own, non-distributable
//! ones, a `subject`) is left out: whoever may push could name any digest there.

use hawker_api::task::TaskId;
use serde::Deserialize;

/// Most references believed of one manifest; larger indexes are proven one by one.
const MAX_REFERENCES: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    urls: Vec<String>,
}

pub(super) fn of(manifest: &[u8]) -> Vec<TaskId> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else { return Vec::new() };
    let all = manifest.config.into_iter().chain(manifest.layers).chain(manifest.manifests);
    let checked = all.filter(|descriptor| descriptor.urls.is_empty() && is_kept(&descriptor.media_type));
    let tasks = checked.filter_map(|descriptor| descriptor.digest.parse::<TaskId>().ok());
    tasks.filter(TaskId::is_content).take(MAX_REFERENCES).collect()
}

fn is_kept(media_type: &str) -> bool {
    !media_type.contains("nondistributable") && !media_type.contains(".foreign.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_registry_looked_for_is_vouched_for() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let image = serde_json::json!({
            "config": { "digest": digest("aa") },
            "layers": [
                { "digest": digest("bb"), "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip" },
                { "digest": digest("cc"), "urls": ["https://elsewhere.example/layer"] },
                { "digest": digest("dd"), "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" },
                { "digest": digest("ee"), "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar" },
                { "digest": "md5:1234" },
            ],
            "subject": { "digest": digest("ff") },
        });
        let found: Vec<String> = of(image.to_string().as_bytes()).iter().map(TaskId::to_string).collect();
        assert_eq!(found, [digest("aa"), digest("bb")]);
        let index =
            serde_json::json!({ "manifests": [{ "digest": digest("11") }, { "digest": digest("22") }] });
        assert_eq!(of(index.to_string().as_bytes()).len(), 2);
        let long: Vec<_> = (0..2000).map(|_| serde_json::json!({ "digest": digest("33") })).collect();
        let long = serde_json::json!({ "manifests": long });
        assert_eq!(of(long.to_string().as_bytes()).len(), MAX_REFERENCES);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            of(&bytes);
        }
    }
}
