//! What a runtime gets instead: in time, by name, and cut rather than completed.

use crate::lab::{Lab, begun, blob_path, no_origin, noise};
use crate::script::{Step, answer};
use crate::table::{Plan, Read, task};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn an_opening_that_hangs_is_503_in_time() {
    let lab = Lab::new([(task(b"x"), Plan::HangsOpening)], no_origin).await;
    for path in [blob_path(&task(b"x")), format!("/v2/a/manifests/{}?ns=reg.test", task(b"x"))] {
        let answer = lab.get(&path, "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, None));
        assert!(answer.text().contains("no answer within"), "{}", answer.text());
    }
    assert!(lab.counted("hawker_fallback_total{reason=\"timeout\"} 2"));
}

#[tokio::test]
async fn an_error_before_the_first_byte_is_503_and_after_it_a_cut() {
    let (early, late) = (task(b"early"), task(b"late"));
    let part = Read::Bytes(noise(2000));
    let lab = Lab::new(
        [
            (early, Plan::Reads(5000, vec![Read::Mismatch])),
            (late, Plan::Reads(5000, vec![part, Read::Slow(Duration::from_millis(50)), Read::Mismatch])),
        ],
        no_origin,
    )
    .await;
    assert_eq!(lab.get(&blob_path(&early), "").await.status, 503);
    let cut = lab.get(&blob_path(&late), "").await;
    assert_eq!((cut.status, cut.header("content-length")), (200, Some("5000")));
    assert!(!cut.is_complete());
    assert_eq!(cut.body, noise(2000));
}

#[tokio::test]
async fn what_the_origin_says_reaches_the_runtime_as_it_can_use_it() {
    let digest = task(b"x");
    for (status, seen) in [(401, 401), (403, 403), (404, 404), (429, 503), (408, 503), (500, 503)] {
        let lab = Lab::new([(digest, Plan::Unavailable)], move |_| {
            let challenge = "WWW-Authenticate: Bearer realm=\"https://auth.test\"\r\nRetry-After: 9\r\n";
            answer(&format!("{status} X"), challenge, b"")
        })
        .await;
        for path in [
            "/v2/a/manifests/v1?ns=reg.test".to_owned(),
            blob_path(&digest),
            format!("/v2/a/manifests/{digest}?ns=reg.test"),
        ] {
            let got = lab.get(&path, "").await;
            assert_eq!(got.status, seen, "{status} {path}");
            assert_eq!(
                got.header("www-authenticate").is_some(),
                seen == 401 || seen < 500 && path.contains("v1")
            );
            assert_eq!(got.header("retry-after"), None);
        }
    }
    let silent = Lab::new([], |_| vec![Step::Stall]).await;
    assert_eq!(silent.get("/v2/a/manifests/v1?ns=reg.test", "").await.status, 503);
    let mut stalls = answer("200 OK", "Content-Length: 10\r\n", b"{");
    stalls.push(Step::Stall);
    let stalls = Lab::new([], move |_| stalls.clone()).await;
    assert_eq!(stalls.get("/v2/a/manifests/v1?ns=reg.test", "").await.status, 503);
}

/// Docker's daemon names no registry: it has mirrors of Docker Hub alone.
#[tokio::test]
async fn who_names_no_registry_means_docker_hub() {
    let lab = Lab::new([], no_origin).await;
    let answer = lab.get("/v2/a/manifests/v1", "").await;
    assert!(answer.status == 503 && answer.text().contains("docker.io answered"), "{}", answer.text());
}

#[tokio::test]
async fn bad_requests_are_named() {
    let lab = Lab::new([], no_origin).await;
    let hex = "ab".repeat(32);
    let long = "a".repeat(300);
    for (method, path, status, parts) in [
        ("GET", format!("/v2/a/blobs/sha256:{hex}?ns=evil.test"), 403, ["DENIED", "evil.test"]),
        ("GET", "/v2/a/manifests/v1?ns=evil.test".to_owned(), 403, ["DENIED", "mirror.registries"]),
        ("GET", "/v2/a/manifests/v1?ns=reg.test%2f..%2f".to_owned(), 403, ["DENIED", "reg.test/../"]),
        ("GET", "/v2/quay.test/a/manifests/v1".to_owned(), 400, ["NAME_UNKNOWN", "ns="]),
        ("GET", "/v2/quay:80/a/manifests/v1".to_owned(), 400, ["NAME_UNKNOWN", "ns="]),
        ("GET", format!("/v2/a/../b/blobs/sha256:{hex}?ns=reg.test"), 400, ["NAME_INVALID", ".."]),
        ("GET", format!("/v2/%2e%2e/blobs/sha256:{hex}?ns=reg.test"), 400, ["NAME_INVALID", "%2e%2e"]),
        ("GET", format!("/v2/UPPER/blobs/sha256:{hex}?ns=reg.test"), 400, ["NAME_INVALID", "UPPER"]),
        ("GET", format!("/v2/{long}/blobs/sha256:{hex}?ns=reg.test"), 400, ["NAME_INVALID", "aaa"]),
        ("GET", "/v2/x:80/a/manifests/v1?ns=reg.test".to_owned(), 400, ["NAME_INVALID", "x:80/a"]),
        ("GET", "/v2/a/blobs/sha256:abc?ns=reg.test".to_owned(), 400, ["DIGEST_INVALID", "64"]),
        ("GET", "/v2/a/blobs/md5:abc?ns=reg.test".to_owned(), 400, ["DIGEST_INVALID", "md5"]),
        ("GET", "/v2/a/tags/v1?ns=reg.test".to_owned(), 404, ["UNSUPPORTED", "tags"]),
        ("GET", "/v2/a/referrers/v1?ns=reg.test".to_owned(), 400, ["DIGEST_INVALID", "v1"]),
        ("POST", "/v2/a/blobs/uploads/?ns=reg.test".to_owned(), 405, ["UNSUPPORTED", "POST"]),
        ("DELETE", format!("/v2/a/blobs/sha256:{hex}?ns=reg.test"), 405, ["UNSUPPORTED", "DELETE"]),
        ("GET", "/metrics".to_owned(), 404, ["UNSUPPORTED", "/metrics"]),
    ] {
        let answer = lab.send(method, &path, "").await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{method} {path}: {text}");
        assert!(text.starts_with("{\"errors\":[{") && parts.iter().all(|part| text.contains(part)), "{text}");
    }
    assert!(lab.origin.heads().is_empty() && lab.table.opened.load(Ordering::SeqCst) == 0);
    assert_eq!(lab.get("/v2/", "").await.text(), "{}");
    assert_eq!(lab.get("/healthz", "").await.status, 200);
}

#[tokio::test]
async fn one_request_too_many_is_503_at_once() {
    let hang = task(b"hang");
    let reads = vec![Read::Bytes(noise(10)), Read::Hang];
    let lab = Lab::with_requests([(hang, Plan::Reads(100, reads))], no_origin, 1).await;
    let mut first = begun(&lab, &hang).await;
    let second = lab.get(&blob_path(&hang), "").await;
    assert_eq!((second.status, second.header("retry-after")), (503, None));
    assert!(lab.counted("hawker_fallback_total{reason=\"overloaded\"} 1"));
    assert_eq!(lab.get("/v2/", "").await.status, 200, "the probe still works");
    lab.mirror.shutdown().await;
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8_lossy(&rest);
    let body = rest.split("\r\n\r\n").nth(1).map_or(0, str::len);
    assert!(rest.contains("content-length: 100") && body < 100, "cut by the drain limit, not completed");
}

#[tokio::test]
async fn dropping_the_mirror_ends_it() {
    let hang = task(b"hang");
    let lab = Lab::new([(hang, Plan::Reads(100, vec![Read::Bytes(noise(10)), Read::Hang]))], no_origin).await;
    let addr = lab.mirror.addr();
    let mut body = begun(&lab, &hang).await;
    drop(lab);
    let mut rest = Vec::new();
    body.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}
