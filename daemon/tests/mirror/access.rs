//! Who gets what is held: whom the registry lets have it, asked once, by the caller's own credentials.

use crate::lab::{Lab, noise};
use crate::script::{Step, answer};
use crate::table::{Answer, Plan, task};
use bytes::Bytes;
use hawker_api::task::TaskId;
use hawker_daemon::config::{AccessMode, Outage, References, RegistryPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const RIGHT: &str = "Authorization: Basic cmlnaHQ=\r\n";
const WRONG: &str = "Authorization: Basic d3Jvbmc=\r\n";

/// A private image, all of it held here, and what its registry says.
struct Image {
    layer: Bytes,
    manifest: Bytes,
}

impl Image {
    fn new() -> Self {
        let layer = noise(3000);
        let text = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "layers": [{ "digest": task(&layer).to_string() }],
        });
        Self { layer, manifest: text.to_string().into() }
    }

    fn layer(&self) -> TaskId {
        task(&self.layer)
    }

    fn manifest(&self) -> TaskId {
        task(&self.manifest)
    }

    fn plans(&self) -> [(TaskId, Plan); 2] {
        [(self.layer(), Plan::Held(self.layer.clone())), (self.manifest(), Plan::Held(self.manifest.clone()))]
    }

    fn paths(&self) -> [String; 2] {
        [self.path("manifests", &self.manifest().to_string()), self.path("blobs", &self.layer().to_string())]
    }

    fn path(&self, endpoint: &str, reference: &str) -> String {
        format!("/v2/team/secret/{endpoint}/{reference}?ns=reg.test")
    }

    /// The registry: lets RIGHT into `team/secret`, everybody into `open/image`, which holds the same manifest.
    fn registry(&self) -> impl Fn(&str) -> Vec<Step> + Send + Sync + 'static {
        let (layer, manifest) = (self.layer().to_string(), self.manifest().to_string());
        let (layer_bytes, manifest_bytes) = (self.layer.clone(), self.manifest.clone());
        move |head| {
            let open = head.contains("/v2/open/image/");
            if !open && !head.contains("authorization: basic cmlnahq=") {
                let status = if head.contains("authorization: basic") { "403 X" } else { "401 X" };
                return answer(status, "WWW-Authenticate: Basic realm=\"reg\"\r\n", b"");
            }
            let is_blob = head.contains(&format!("/blobs/{layer}"));
            // As docker-registry: no manifest of a type that the caller does not name.
            let by_digest = head.contains(&format!("/manifests/{manifest}"))
                && head.contains("application/vnd.oci.image.manifest.v1+json");
            let is_manifest = by_digest || head.contains("/manifests/v1");
            let (bytes, digest) = match (is_blob && !open, is_manifest) {
                (true, _) => (&layer_bytes, &layer),
                (_, true) => (&manifest_bytes, &manifest),
                _ => return answer("404 X", "", b""),
            };
            let headers = format!(
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n\
                 Docker-Content-Digest: {digest}\r\nContent-Length: {}\r\n",
                bytes.len()
            );
            answer("200 OK", &headers, if head.starts_with("head") { b"" } else { bytes })
        }
    }

    async fn lab(&self, policy: RegistryPolicy) -> Lab {
        Lab::with_policy(self.plans(), self.registry(), 16, policy).await
    }
}

fn asked(lab: &Lab) -> Vec<String> {
    let first = |head: &String| head.lines().next().unwrap().split(" http/").next().unwrap().to_owned();
    lab.origin.heads().iter().map(first).collect()
}

fn mode(access: AccessMode) -> RegistryPolicy {
    RegistryPolicy { access, ..RegistryPolicy::default() }
}

#[tokio::test]
async fn what_is_held_goes_to_whom_the_registry_lets_have_it() {
    let image = Image::new();
    let lab = image.lab(RegistryPolicy::default()).await;
    let tag = image.path("manifests", "v1");
    for path in image.paths().iter().chain([&tag]) {
        for method in ["GET", "HEAD"] {
            assert_eq!(lab.send(method, path, "").await.status, 401, "{method} {path}");
            assert_eq!(lab.send(method, path, WRONG).await.status, 403, "{method} {path}");
        }
        let got = lab.get(path, RIGHT).await;
        assert_eq!(got.status, 200, "{path}");
        // And they still don't, once it was given to somebody.
        assert_eq!(lab.get(path, "").await.status, 401, "{path}");
        assert_eq!(lab.get(path, WRONG).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_pull_costs_one_head_a_caller_and_repository() {
    let image = Image::new();
    let lab = image.lab(RegistryPolicy::default()).await;
    let [manifest, layer] = image.paths();
    let tag = image.path("manifests", "v1");
    for (method, path) in
        [("HEAD", &tag), ("GET", &manifest), ("GET", &layer), ("HEAD", &layer), ("GET", &tag)]
    {
        assert_eq!(lab.send(method, path, RIGHT).await.status, 200, "{method} {path}");
    }
    assert_eq!(asked(&lab), ["head /v2/team/secret/manifests/v1"]);
    // By digest alone it is one HEAD of the manifest.
    let lab = image.lab(RegistryPolicy::default()).await;
    for path in [&manifest, &layer, &layer] {
        assert_eq!(lab.get(path, RIGHT).await.status, 200);
    }
    assert_eq!(asked(&lab), [format!("head /v2/team/secret/manifests/{}", image.manifest())]);
    // Registries that do not look at what manifests refer to are asked for each digest, once.
    let strict = RegistryPolicy { references: References::Head, ..RegistryPolicy::default() };
    let lab = image.lab(strict).await;
    for path in [&manifest, &layer, &layer] {
        assert_eq!(lab.get(path, RIGHT).await.status, 200);
    }
    assert_eq!(asked(&lab).len(), 2);
}

#[tokio::test]
async fn a_digest_from_another_repository_is_no_way_in() {
    let image = Image::new();
    let lab = image.lab(RegistryPolicy::default()).await;
    let open = |endpoint: &str, digest: TaskId| format!("/v2/open/image/{endpoint}/{digest}?ns=reg.test");
    // The caller may pull from `open/image`, and the layer is held; but it is not in there.
    assert_eq!(lab.get(&open("blobs", image.layer()), "").await.status, 404);
    assert_eq!(lab.get(&open("blobs", image.layer()), RIGHT).await.status, 404);
    // Nor does being let in there open the other one.
    assert_eq!(lab.get(&open("manifests", image.manifest()), "").await.status, 200);
    assert_eq!(lab.get(&image.paths()[1], "").await.status, 401);
}

#[tokio::test]
async fn public_only_keeps_nothing_private() {
    let image = Image::new();
    let lab = image.lab(mode(AccessMode::PublicOnly)).await;
    for path in image.paths() {
        assert_eq!(lab.get(&path, RIGHT).await.status, 200, "{path}");
        assert_eq!(lab.get(&path, "").await.status, 401, "{path}");
    }
    assert_eq!(lab.table.opened.load(Ordering::SeqCst), 0, "straight from the registry");
    assert!(lab.counted("hawker_fallback_total{reason=\"private\"} 4"));
    let open = format!("/v2/open/image/manifests/{}?ns=reg.test", image.manifest());
    assert_eq!(lab.get(&open, RIGHT).await.status, 200);
    let asked = lab.table.asked.lock().unwrap().take().unwrap();
    assert!(asked.credentials.is_none(), "what is for everybody is fetched as nobody");
}

#[tokio::test]
async fn trust_node_asks_nobody() {
    let image = Image::new();
    let lab = image.lab(mode(AccessMode::TrustNode)).await;
    for path in image.paths() {
        assert_eq!(lab.get(&path, "").await.status, 200);
    }
    assert!(lab.origin.heads().is_empty());
}

#[tokio::test]
async fn a_challenge_is_shown_where_that_is_wanted() {
    let image = Image::new();
    let shown = |answer: &Answer| answer.header("www-authenticate").map(str::to_owned);
    let quiet = image.lab(RegistryPolicy::default()).await;
    let open = image.lab(RegistryPolicy { relay_challenge: true, ..RegistryPolicy::default() }).await;
    for path in image.paths().iter().chain([&image.path("manifests", "v1")]) {
        assert_eq!(shown(&quiet.get(path, "").await), None, "{path}");
        let refused = open.get(path, "").await;
        assert_eq!(
            (refused.status, shown(&refused).as_deref()),
            (401, Some("Basic realm=\"reg\"")),
            "{path}"
        );
    }
    // One that leads credentials elsewhere in a way we do not know is not.
    let policy = RegistryPolicy { relay_challenge: true, ..RegistryPolicy::default() };
    let odd = "WWW-Authenticate: Bearer realm=\"ftp://evil.test/\"\r\n";
    let lab = Lab::with_policy([], move |_| answer("401 X", odd, b""), 16, policy).await;
    let refused = lab.get(&image.paths()[0], "").await;
    assert_eq!((refused.status, shown(&refused)), (401, None));
}

#[tokio::test]
async fn nobody_gets_a_token_for_what_is_public() {
    let image = Image::new();
    let manifest = image.manifest.clone();
    let lab = Lab::with_policy(
        image.plans(),
        move |head| {
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
            if head.starts_with("get /token?") {
                assert!(!head.contains("authorization"), "{head}");
                let scope = "service=s&scope=repository%3ateam%2fsecret%3apull";
                return match head.contains(scope) {
                    true => answer("200 OK", "", b"{\"token\":\"for-nobody\"}"),
                    false => answer("400 X", "", b""),
                };
            }
            if head.contains("authorization: bearer for-nobody") {
                return answer("200 OK", &format!("Content-Length: {}\r\n", manifest.len()), b"");
            }
            let realm = format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"\r\n");
            answer("401 X", &realm, b"")
        },
        16,
        RegistryPolicy::default(),
    )
    .await;
    let [manifest, layer] = image.paths();
    assert_eq!(lab.get(&manifest, "").await.status, 200);
    assert_eq!(lab.get(&layer, "").await.status, 200);
    assert_eq!(lab.origin.heads().len(), 3, "{:?}", asked(&lab));
    // Who comes with credentials is judged by those.
    assert_eq!(lab.get(&manifest, "Authorization: Bearer wrong\r\n").await.status, 401);
}

/// A registry that can be taken down.
async fn fragile(image: &Image, outage: Outage) -> (Lab, Arc<AtomicBool>) {
    let (down, registry) = (Arc::new(AtomicBool::new(false)), image.registry());
    let fails = Arc::clone(&down);
    let policy = RegistryPolicy { outage, ..RegistryPolicy::default() };
    let origin = move |head: &str| {
        if fails.load(Ordering::SeqCst) { answer("502 X", "", b"") } else { registry(head) }
    };
    (Lab::with_policy(image.plans(), origin, 16, policy).await, down)
}

#[tokio::test]
async fn while_the_registry_is_down_the_last_answer_counts_where_that_is_wanted() {
    let image = Image::new();
    let tag = image.path("manifests", "v1");
    for outage in [Outage::Refuse, Outage::LastKnown] {
        let (lab, down) = fragile(&image, outage).await;
        let get = async |path: &str, headers: &str| lab.get(path, headers).await;
        assert_eq!(get(&tag, RIGHT).await.header("hawker-last-known"), None);
        down.store(true, Ordering::SeqCst);
        // Answered for a few seconds in any case: so quickly nothing changes.
        assert_eq!(get(&tag, RIGHT).await.status, 200);
        tokio::time::sleep(hawker_daemon::mirror::TAG_LIFE).await;
        let later = get(&tag, RIGHT).await;
        let expected = if outage == Outage::LastKnown { 200 } else { 503 };
        assert_eq!(later.status, expected, "{outage:?}");
        assert_eq!(later.header("hawker-last-known").is_some(), outage == Outage::LastKnown);
        assert_eq!(lab.counted("hawker_last_known_total{kind=\"tag\"} 1"), outage == Outage::LastKnown);
        // Who was not let in before is not let in now.
        for headers in ["", WRONG] {
            assert_eq!(get(&tag, headers).await.status, 503);
            assert_eq!(get(&image.paths()[1], headers).await.status, 503);
        }
        // The pull that had begun goes on: what it may have is known for five minutes.
        assert_eq!(get(&image.paths()[1], RIGHT).await.status, 200);
    }
}
