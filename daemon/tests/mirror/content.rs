//! What a runtime gets: blobs, ranges, heads, manifests, tags.

use crate::lab::{Lab, TTFB, blob_path, no_origin, noise};
use crate::script::answer;
use crate::table::{self, Plan, Read, task};
use bytes::Bytes;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn blobs_come_whole_and_in_ranges() {
    let bytes = noise(100_000);
    let task = task(&bytes);
    let lab = Lab::new([(task, Plan::Held(bytes.clone()))], no_origin).await;
    let whole = lab.get(&blob_path(&task), "Authorization: Bearer x\r\nAccept-Encoding: gzip\r\n").await;
    assert_eq!((whole.status, &whole.body[..]), (200, &bytes[..]));
    for (name, value) in [
        ("content-length", "100000"),
        ("docker-content-digest", &task.to_string()),
        ("etag", &format!("\"{task}\"")),
        ("content-type", "application/octet-stream"),
        ("accept-ranges", "bytes"),
        ("oci-namespace", "reg.test"),
    ] {
        assert_eq!(whole.header(name), Some(value), "{name}");
    }
    assert_eq!(whole.header("content-encoding"), None);
    let asked = lab.table.asked.lock().unwrap().take().unwrap();
    assert_eq!((asked.object.registry.as_str(), asked.object.repository.as_str()), ("reg.test", "team/app"));
    assert!(!asked.credentials.is_none());
    let part = lab.get(&blob_path(&task), "Range: bytes=99990-\r\n").await;
    assert_eq!((part.status, &part.body[..]), (206, &bytes[99_990..]));
    assert_eq!(part.header("content-range"), Some("bytes 99990-99999/100000"));
    let past = lab.get(&blob_path(&task), "Range: bytes=100000-\r\n").await;
    assert_eq!((past.status, past.header("content-range")), (416, Some("bytes */100000")));
    let several = lab.get(&blob_path(&task), "Range: bytes=0-1,5-6\r\n").await;
    assert_eq!((several.status, several.body.len()), (200, 100_000));
    assert!(lab.origin.heads().is_empty());
}

#[tokio::test]
async fn a_blob_of_nothing_is_served() {
    let lab = Lab::new([(task(b""), Plan::Held(Bytes::new()))], no_origin).await;
    for headers in ["", "Range: bytes=0-\r\n"] {
        let answer = lab.get(&blob_path(&task(b"")), headers).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    }
}

#[tokio::test]
async fn a_head_never_fetches_a_blob() {
    let held = noise(1000);
    let (held_task, other) = (task(&held), task(b"other"));
    let lab =
        Lab::new([(held_task, Plan::Held(held))], |_| answer("200 OK", "Content-Length: 77\r\n", b"")).await;
    let here = lab.send("HEAD", &blob_path(&held_task), "").await;
    assert_eq!((here.status, here.header("content-length"), here.body.len()), (200, Some("1000"), 0));
    assert!(lab.origin.heads().is_empty());
    let there = lab.send("HEAD", &blob_path(&other), "").await;
    assert_eq!((there.status, there.header("content-length"), there.body.len()), (200, Some("77"), 0));
    assert!(lab.origin.heads()[0].starts_with("head /v2/team/app/blobs/sha256:"));
    assert_eq!(lab.table.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn manifests_by_digest_have_their_own_type() {
    let manifest =
        Bytes::from_static(br#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#);
    let task = task(&manifest);
    let huge = Plan::Reads(9 << 20, vec![]);
    let huge_task = table::task(b"huge");
    let lab = Lab::new([(task, Plan::Held(manifest.clone())), (huge_task, huge)], no_origin).await;
    let path = format!("/v2/library/nginx/manifests/{task}?ns=docker.io");
    let got = lab.get(&path, "").await;
    assert_eq!((got.status, &got.body[..]), (200, &manifest[..]));
    let head = lab.send("HEAD", &path, "").await;
    assert!(head.body.is_empty());
    for name in ["content-type", "content-length", "docker-content-digest", "etag"] {
        assert!(got.header(name).is_some() && got.header(name) == head.header(name), "{name}");
    }
    assert_eq!(got.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    let refused = lab.get(&format!("/v2/a/manifests/{huge_task}?ns=docker.io"), "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("larger than"), "{}", refused.text());
}

#[tokio::test]
async fn a_reader_that_is_slow_but_alive_is_waited_for() {
    let bytes = noise(5000);
    let reads = vec![Read::Slow(TTFB * 3), Read::Bytes(bytes.clone())];
    let lab = Lab::new([(task(&bytes), Plan::Reads(5000, reads))], no_origin).await;
    let answer = lab.get(&blob_path(&task(&bytes)), "").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &bytes[..]));
}

#[tokio::test]
async fn tags_pass_to_the_registry() {
    let lab = Lab::new([], |_| {
        let headers = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\nSet-Cookie: a=b\r\n\
                       Docker-Content-Digest: sha256:ab\r\nETag: \"x\"\r\n";
        answer("200 OK", headers, b"{}")
    })
    .await;
    let path = "/v2/team/app/manifests/v1?ns=reg.test";
    let got = lab.get(path, "Authorization: Basic mine\r\nAccept: a/b\r\nAccept: c/d\r\n").await;
    assert_eq!((got.status, got.text().as_str()), (200, "{}"));
    assert_eq!(got.header("content-type"), Some("application/vnd.oci.image.manifest.v1+json"));
    assert_eq!((got.header("docker-content-digest"), got.header("etag")), (Some("sha256:ab"), Some("\"x\"")));
    assert_eq!(got.header("set-cookie"), None);
    let head = lab.origin.heads().remove(0);
    for line in
        ["get /v2/team/app/manifests/v1 http", "authorization: basic mine", "accept: a/b", "accept: c/d"]
    {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    let head = lab.send("HEAD", path, "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("2"), 0));
    assert_eq!(lab.table.opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_registry_may_stand_before_the_name() {
    let lab = Lab::new([], |_| answer("200 OK", "", b"{}")).await;
    for (path, asked) in [
        ("/v2/reg.test/a/b/manifests/v1", "get /v2/a/b/manifests/v1 "),
        ("/v2/corp.test:5000/a/manifests/v1", "get /v2/a/manifests/v1 "),
        ("/v2/reg.test/a/manifests/v1?ns=docker.io", "get /v2/reg.test/a/manifests/v1 "),
        ("/v2/a/manifests/v1?ns=registry-1.docker.io", "get /v2/a/manifests/v1 "),
    ] {
        assert_eq!(lab.get(path, "").await.status, 200, "{path}");
        let head = lab.origin.heads().pop().unwrap();
        assert!(head.starts_with(asked), "{path}: {head}");
    }
}
