//! Files by URL through a whole cluster: shared, verified where a digest is known, and given only to whom the
//! origin gives them.

use super::support::{Blob, Cluster, MIB, Terms, content};

const URL: &str = "http://files.test/models/weights.bin";

fn tagged(tag: &str) -> Terms {
    Terms { headers: vec![("etag", format!("\"{tag}\""))], keys: Vec::new() }
}

async fn body(request: reqwest::RequestBuilder) -> (u16, Vec<u8>) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_costs_the_origin_one_copy_and_a_new_version_is_another_file() {
    let cluster = Cluster::start(0, 4).await;
    let first = content(10, 21 * MIB + 5);
    cluster.publish_file("weights.bin", &first, tagged("v1"));
    let gets = (0..4).map(|node| body(cluster.file(node, URL)));
    for (status, bytes) in futures::future::join_all(gets).await {
        assert!(status == 200 && bytes == first);
    }
    let (sent, size) = (cluster.origin_bytes(), first.len() as u64);
    assert!(sent <= size + size / 50, "the origin sent {sent} for {size}");

    let answer = cluster.file(0, URL).header("range", "bytes=4194300-4194309").send().await.unwrap();
    assert_eq!(answer.status(), 206);
    let task = answer.headers()["hawker-task"].to_str().unwrap().to_owned();
    assert!(task.starts_with("url:"), "{task}");
    assert_eq!(answer.headers()["etag"], format!("\"{task}\""));
    assert!(answer.bytes().await.unwrap() == first[4_194_300..4_194_310]);
    // Going on with a file of another version would give a mixture: the whole is sent.
    let stale = cluster.file(0, URL).header("range", "bytes=5-").header("if-range", "\"url:00\"");
    assert_eq!(body(stale).await.0, 200);

    let second = content(11, 3 * MIB);
    cluster.publish_file("weights.bin", &second, tagged("v2"));
    for node in 0..4 {
        assert!(body(cluster.file(node, URL)).await.1 == second, "node {node} has the old version");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_the_origin_refuses_gets_nothing_from_the_cluster_either() {
    let cluster = Cluster::start(0, 2).await;
    let bytes = content(12, 5 * MIB);
    let keys = vec!["Bearer right", "X-Amz-Signature=one", "X-Amz-Signature=two"];
    cluster.publish_file("weights.bin", &bytes, Terms { keys: keys.clone(), ..tagged("v1") });
    let right = |node| cluster.file(node, URL).header("authorization", "Bearer right");
    assert!(body(right(0)).await.1 == bytes);
    assert_eq!(body(cluster.file(0, URL)).await.0, 403);
    assert_eq!(body(cluster.file(1, URL).header("authorization", "Bearer wrong")).await.0, 403);
    let header = |key| cluster.file(0, URL).header("hawker-forward-x-key", key);
    cluster.publish_file("weights.bin", &bytes, Terms { keys: vec!["k"], ..tagged("v1") });
    assert_eq!(body(header("other")).await.0, 403);
    assert!(body(header("k")).await.1 == bytes);
    assert_eq!(body(cluster.file(0, URL).header("hawker-forward-host", "x")).await.0, 400);
    cluster.publish_file("weights.bin", &bytes, Terms { keys, ..tagged("v1") });
    // Signatures differ from caller to caller; the file is one.
    let before = cluster.origin_bytes();
    for (node, signature) in [(0, "one"), (1, "two")] {
        let signed = format!("{URL}?X-Amz-Signature={signature}");
        assert!(body(cluster.file(node, &signed)).await.1 == bytes);
        assert_eq!(body(cluster.file(node, &format!("{URL}?X-Amz-Signature=three"))).await.0, 403);
    }
    assert!(cluster.origin_bytes() - before < 100, "a probe is a byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_digest_is_kept_whoever_states_it() {
    let cluster = Cluster::start(0, 2).await;
    let (blob, other) = (Blob::new(content(13, 6 * MIB)), Blob::new(content(14, 100)));
    cluster.publish_file("weights.bin", &blob.bytes, tagged("v1"));
    let wanted = cluster.file(0, URL).header("hawker-digest", &blob.digest).send().await.unwrap();
    assert_ne!(wanted.headers()["hawker-task"], blob.digest, "the caller's word is no name");
    assert!(wanted.bytes().await.unwrap() == blob.bytes);
    // Held content is not to be had by naming its digest with some other URL.
    let secret = cluster.publish(content(16, 3 * MIB));
    assert!(cluster.pull(0, &secret).await.unwrap() == secret.bytes);
    let guess = cluster.file(0, URL).header("hawker-digest", &secret.digest).send().await.unwrap();
    assert!(guess.bytes().await.is_err(), "cut: it is not what the URL has");
    assert_eq!(body(cluster.file(0, URL).header("hawker-digest", "md5:00")).await.0, 400);

    let stated = {
        use base64::Engine;
        use sha2::Digest;
        base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(&blob.bytes))
    };
    let terms = Terms { headers: vec![("repr-digest", format!("sha-256=:{stated}:"))], keys: Vec::new() };
    cluster.publish_file("weights.bin", &blob.bytes, terms);
    let found = cluster.file(0, URL).send().await.unwrap();
    assert_eq!(found.headers()["hawker-task"], blob.digest);
    assert!(found.bytes().await.unwrap() == blob.bytes);
    let before = cluster.origin_bytes();
    assert!(body(cluster.file(1, URL)).await.1 == blob.bytes);
    assert!(cluster.origin_bytes() - before < 100, "known by its digest, it comes from the other node");
    let contradicted = cluster.file(0, URL).header("hawker-digest", &other.digest);
    assert_eq!(body(contradicted).await.0, 409);
    cluster.publish_file("weights.bin", &blob.bytes, tagged("v1"));
    // Not what was wanted: an error before or within the body, never its end.
    let wrong = cluster.file(1, URL).header("hawker-digest", &other.digest).send().await.unwrap();
    assert!(!wrong.status().is_success() || wrong.bytes().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_no_version_is_passed_through_and_other_hosts_are_refused() {
    let cluster = Cluster::start(0, 1).await;
    let bytes = content(15, 2 * MIB);
    cluster.publish_file("weights.bin", &bytes, Terms::default());
    for _ in 0..2 {
        let before = cluster.origin_bytes();
        assert!(body(cluster.file(0, URL)).await.1 == bytes);
        assert!(cluster.origin_bytes() - before >= bytes.len() as u64, "it may have changed: asked again");
    }
    cluster.publish_file("empty", &[], tagged("e"));
    assert_eq!(body(cluster.file(0, "http://files.test/empty")).await, (200, Vec::new()));
    for url in [
        "http://169.254.169.254/latest",
        "http://localhost/x",
        "http://other.test/x",
        "http://files.test.evil/x",
    ] {
        let (status, text) = body(cluster.file(0, url)).await;
        assert_eq!(status, 403, "{url}");
        assert!(String::from_utf8(text).unwrap().contains("files.origins"));
    }
    assert_eq!(body(cluster.file(0, "ftp://files.test/x")).await.0, 400);
    assert_eq!(body(cluster.file(0, "http://files.test/missing")).await.0, 404);
}
