//! One daemon alone with a runtime that asks nonsense, an origin that misbehaves, a disk that is full:
//! each a clear answer in bounded time, nothing hung, no wrong byte.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod scripted;

use scripted::{Lone, Script, digest_of};

#[tokio::test]
async fn nonsense_of_a_runtime_is_named() {
    let lone = Lone::start(Script::blob(b"content"), "").await;
    let digest = digest_of(b"content");
    let zeros = "0".repeat(64);
    let cases = [
        ("/v2/a/blobs/sha256:123?ns=registry.test".to_owned(), 400, "DIGEST_INVALID"),
        (format!("/v2/a/blobs/md5:{zeros}?ns=registry.test"), 400, "`md5` is not supported"),
        (format!("/v2/a/blobs/sha256:{}?ns=registry.test", "G".repeat(64)), 400, "position 0"),
        (format!("/v2/a/blobs/{digest}?ns=evil.example"), 403, "`evil.example` is not on the allow-list"),
        (format!("/v2/a/%2e%2e/b/blobs/{digest}"), 400, "NAME_INVALID"),
        (format!("/v2/../../etc/blobs/{digest}"), 400, "NAME_INVALID"),
        (format!("/v2/A/blobs/{digest}"), 400, "NAME_INVALID"),
        ("/v2/a/manifests/-bad".to_owned(), 400, "`-bad` is neither a tag nor a digest"),
        ("/v2/a/tags/latest".to_owned(), 404, "UNSUPPORTED"),
        ("/v2/_catalog".to_owned(), 404, "UNSUPPORTED"),
        ("/etc/passwd".to_owned(), 404, "UNSUPPORTED"),
    ];
    for (path, status, text) in cases {
        let answer = lone.ask("GET", &path, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(text), "{path}: {}", answer.text());
    }
    assert_eq!(lone.ask("PUT", &format!("/v2/a/blobs/{digest}"), "").await.status, 405);
    assert_eq!(lone.ask("GET", "/v2/", "").await.status, 200);
    assert_eq!(lone.ask("GET", "/healthz", "").await.status, 200);
}

#[tokio::test]
async fn ranges_are_served_or_refused() {
    let lone = Lone::start(Script::blob(b"0123456789"), "").await;
    let path = format!("/v2/a/b/blobs/{}?ns=registry.test", digest_of(b"0123456789"));
    let part = lone.ask("GET", &path, "Range: bytes=3-5\r\n").await;
    assert_eq!((part.status, part.text().as_str()), (206, "345"));
    assert!(part.head.contains("content-range: bytes 3-5/10"), "{}", part.head);
    let past = lone.ask("GET", &path, "Range: bytes=10-\r\n").await;
    assert_eq!(past.status, 416);
    assert!(past.head.contains("content-range: bytes */10"), "{}", past.head);
    let odd = lone.ask("GET", &path, "Range: lines=1-2\r\n").await;
    assert_eq!((odd.status, odd.text().as_str()), (200, "0123456789"));
    let head = lone.ask("HEAD", &path, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains("content-length: 10"), "{}", head.head);
}

#[tokio::test]
async fn what_the_origin_says_is_passed_on_in_a_form_that_helps_the_runtime() {
    let challenge = "WWW-Authenticate: Bearer realm=\"https://auth.test/token\"\r\n";
    let cases = [
        (Script::status(404, ""), 404, ""),
        (Script::status(401, challenge), 401, "www-authenticate: bearer realm=\"https://auth.test/token\""),
        (Script::status(403, ""), 403, ""),
        (Script::status(500, ""), 503, "answered 500"),
        (Script::status(429, ""), 503, "answered 429"),
        (Script::status(408, ""), 503, "answered 408"),
    ];
    for (script, status, text) in cases {
        let lone = Lone::start(script, "").await;
        for path in [format!("/v2/a/blobs/{}", digest_of(b"x")), "/v2/a/manifests/latest".to_owned()] {
            let answer = lone.ask("GET", &path, "").await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            assert!(answer.whole().to_lowercase().contains(text), "{path}: {}", answer.whole());
        }
    }
}

#[tokio::test]
async fn an_origin_that_lies_about_length_or_content_never_yields_a_complete_body() {
    let good = b"the right content".as_slice();
    let path = format!("/v2/a/blobs/{}", digest_of(good));
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nthe right content";
    let wrong = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\nthe wrong content";
    let unasked = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-21/22\r\nContent-Length: 17\r\n\
                   Connection: close\r\n\r\nthe right content";
    for script in [short, wrong, unasked] {
        let lone = Lone::start(Script::raw(script), "").await;
        let answer = lone.ask("GET", &path, "").await;
        let complete = answer.status == 200 && answer.body.len() as u64 == answer.length().unwrap_or(0);
        assert!(!complete, "{script}: {}", answer.whole());
        assert_ne!(answer.status, 429);
    }
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_behind() {
    let content = b"moved content";
    let storage = Script::blob(content).start().await;
    let lone =
        Lone::start(Script::redirect(&format!("http://localhost:{}/moved", storage.addr.port())), "").await;
    let path = format!("/v2/a/blobs/{}", digest_of(content));
    let answer = lone.ask("GET", &path, "Authorization: Bearer secret\r\n").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, content.as_slice()), "{}", answer.whole());
    assert!(lone.origin.requests().iter().all(|request| request.contains("Bearer secret")));
    assert!(storage.requests().iter().all(|request| !request.contains("secret")), "{:?}", storage.requests());
    let circle = Lone::start(Script::redirect("/again"), "").await;
    let answer = circle.ask("GET", &path, "").await;
    assert_eq!(answer.status, 503, "{}", answer.whole());
    assert!(answer.text().contains("redirect"), "{}", answer.text());
}

#[tokio::test]
async fn a_full_disk_costs_the_store_and_not_the_pull() {
    let content: Vec<u8> = (0..6_u32 << 20).map(|offset| (offset % 251) as u8).collect();
    let lone = Lone::start(Script::blob(&content), "storage.capacity=1MiB").await;
    let answer = lone.ask("GET", &format!("/v2/a/blobs/{}", digest_of(&content)), "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == content);
    let status = lone.status().await;
    assert!(status["store"]["error"].as_str().unwrap().contains("no space"), "{}", status["store"]);
    assert_eq!(status["delivered"]["origin"].as_u64().unwrap(), content.len() as u64);
}

#[tokio::test]
async fn a_silent_origin_is_a_quick_refusal() {
    let lone = Lone::start(Script::silent(), "").await;
    let started = std::time::Instant::now();
    let answer = lone.ask("GET", &format!("/v2/a/blobs/{}", digest_of(b"x")), "").await;
    assert_eq!(answer.status, 503, "{}", answer.whole());
    // The bound is part of the contract; twice that is a hang.
    assert!(started.elapsed() < 2 * hawker_daemon::mirror::TTFB_LIMIT, "{:?}", started.elapsed());
}
