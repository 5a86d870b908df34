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
    // Asked first what it means: there was no digest to take the content by, so the content is asked for too.
    for (head, method) in lab.origin.heads().iter().zip(["head", "get"]) {
        let line = format!("{method} /v2/team/app/manifests/v1 http");
        for line in [line.as_str(), "authorization: basic mine", "accept: a/b", "accept: c/d"] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
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

#[tokio::test]
async fn a_tags_content_comes_from_the_cluster() {
    let manifest =
        Bytes::from_static(br#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#);
    let digest = task(&manifest);
    let headers = format!(
        "Content-Type: application/vnd.oci.image.index.v1+json\r\nDocker-Content-Digest: {digest}\r\n\
         Content-Length: {}\r\n",
        manifest.len()
    );
    let lab =
        Lab::new([(digest, Plan::Held(manifest.clone()))], move |_| answer("200 OK", &headers, b"")).await;
    let path = "/v2/team/app/manifests/v1?ns=reg.test";
    let head = lab.send("HEAD", path, "Accept: a/b\r\n").await;
    let got = lab.get(path, "Accept: a/b\r\n").await;
    assert_eq!((head.status, got.status, &got.body[..]), (200, 200, &manifest[..]));
    for name in ["content-type", "content-length", "docker-content-digest"] {
        assert!(got.header(name).is_some() && got.header(name) == head.header(name), "{name}");
    }
    assert_eq!(lab.origin.heads().len(), 1, "one HEAD at the registry for both");
    // Another caller, or one that takes other types, is answered by the registry.
    lab.get(path, "Accept: a/b\r\nAuthorization: Basic other\r\n").await;
    lab.get(path, "Accept: c/d\r\n").await;
    assert_eq!(lab.origin.heads().len(), 3);
}

#[tokio::test]
async fn lists_are_the_registrys() {
    let lab = Lab::new([], |head| {
        let headers = "Content-Type: application/json\r\nOCI-Filters-Applied: artifactType\r\n\
                       Link: </v2/team/app/tags/list?last=b&n=2>; rel=\"next\"\r\n";
        if head.contains("/v2/team/app/") {
            answer("200 OK", headers, b"{}")
        } else {
            answer("404 X", "", b"")
        }
    })
    .await;
    let digest = task(b"x");
    let tags =
        lab.get("/v2/team/app/tags/list?n=2&ns=reg.test&evil=1", "Authorization: Basic mine\r\n").await;
    assert_eq!((tags.status, tags.text().as_str()), (200, "{}"));
    assert_eq!(
        tags.header("link"),
        Some("</v2/team/app/tags/list?last=b&n=2&ns=reg.test>; rel=\"next\""),
        "the next page comes by the same way"
    );
    let path = format!("/v2/team/app/referrers/{digest}?artifactType=a%2Fb&ns=reg.test");
    let referrers = lab.get(&path, "").await;
    assert_eq!((referrers.status, referrers.header("oci-filters-applied")), (200, Some("artifactType")));
    assert_eq!(lab.get("/v2/other/tags/list?ns=reg.test", "").await.status, 404);
    let heads = lab.origin.heads();
    assert!(
        heads[0].starts_with("get /v2/team/app/tags/list?n=2 ") && heads[0].contains("basic mine"),
        "{}",
        heads[0]
    );
    let expected = format!("get /v2/team/app/referrers/{digest}?artifacttype=a%2fb ");
    assert!(heads[1].starts_with(&expected), "{}", heads[1]);
}

#[tokio::test]
async fn what_a_registry_goes_on_sending_is_bounded() {
    // Of no stated length, and without an end.
    let chunk = [b"900000\r\n".as_slice(), &noise(9 << 20), b"\r\n"].concat();
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let lab = Lab::new([], move |_| answer("200 OK", headers, &chunk)).await;
    let refused = lab.get("/v2/team/app/tags/list?ns=reg.test", "").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("sent more than 8388608 bytes"), "{}", refused.text());
}
