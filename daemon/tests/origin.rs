//! The origin client against origins that misbehave in every way we know of.

#![expect(clippy::unwrap_used, reason = "test code may panic")]

#[path = "origin/account.rs"]
mod account;
#[path = "origin/script.rs"]
mod script;

use hawker_api::task::TaskId;
use hawker_daemon::config::{ClusterRegistries, MirrorConfig, Registry};
use hawker_daemon::metrics::Metrics;
use hawker_daemon::origin::{
    Credentials, ObjectKind, OriginClient, OriginError, OriginLimits, OriginObject, PassRequest,
};
use http::{HeaderMap, HeaderValue, Method, header};
use script::{Script, Step, answer};
use std::ops::Range;
use std::time::{Duration, Instant};

const SHORT: OriginLimits = OriginLimits {
    connect: Duration::from_millis(500),
    head: Duration::from_millis(500),
    idle: Duration::from_millis(300),
};
/// Far above the limits in `SHORT`, far below a hang.
const NOT_HUNG: Duration = Duration::from_secs(10);

fn client(script: &Script) -> OriginClient {
    let server = format!("http://{}", script.addr).parse().unwrap();
    let registries = vec![Registry::new("reg.test", server)];
    let config = MirrorConfig {
        addr: ([127, 0, 0, 1], 0).into(),
        registries,
        cluster_registries: ClusterRegistries::Narrow,
    };
    OriginClient::with_limits(&config, Metrics::new(), SHORT).unwrap()
}

fn task() -> TaskId {
    format!("sha256:{}", "ab".repeat(32)).parse().unwrap()
}

fn object(kind: ObjectKind) -> OriginObject {
    OriginObject {
        registry: "reg.test".to_owned(),
        repository: "team/app".to_owned(),
        kind,
        version: String::new(),
    }
}

fn credentials() -> Credentials {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
    Credentials::from_headers(&headers)
}

struct Got {
    total: Option<u64>,
    range: (u64, Option<u64>),
    bytes: Vec<u8>,
}

async fn get(script: &Script, range: Option<Range<u64>>) -> Result<Got, OriginError> {
    let started = Instant::now();
    let result = async {
        let mut body = client(script).open(&object(ObjectKind::Blob), &task(), &credentials(), range).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Got { total: body.total(), range: body.range(), bytes })
    };
    let result = result.await;
    assert!(started.elapsed() < NOT_HUNG);
    result
}

async fn failure(steps: Vec<Step>, range: Option<Range<u64>>) -> OriginError {
    let script = Script::start(move |_| steps.clone()).await;
    get(&script, range).await.map(|got| got.bytes).unwrap_err()
}

#[tokio::test]
async fn the_request_is_what_a_registry_expects() {
    let script =
        Script::start(|_| answer("206 Partial Content", "Content-Range: bytes 2-4/9\r\n", b"cde")).await;
    let got = get(&script, Some(2..5)).await.unwrap();
    assert_eq!((got.total, got.range, got.bytes.as_slice()), (Some(9), (2, Some(5)), &b"cde"[..]));
    let head = script.heads().remove(0);
    for line in [
        &format!("get /v2/team/app/blobs/{} http/1.1\r\n", task()),
        "range: bytes=2-4\r\n",
        "authorization: bearer secret\r\n",
        "accept-encoding: identity\r\n",
        &format!("host: {}\r\n", script.addr),
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(!format!("{:?}", credentials()).contains("secret"));
}

#[tokio::test]
async fn manifests_are_asked_for_by_type() {
    let script = Script::start(|_| answer("200 OK", "", b"{}")).await;
    client(&script).open(&object(ObjectKind::Manifest), &task(), &Credentials::none(), None).await.unwrap();
    let head = script.heads().remove(0);
    assert!(head.contains("/manifests/sha256:") && head.contains("application/vnd.oci.image.index.v1+json"));
    assert!(!head.contains("authorization") && !head.contains("range:"));
}

#[tokio::test]
async fn an_origin_may_ignore_the_range_or_send_less() {
    let whole = Script::start(|_| answer("200 OK", "", b"abcdef")).await;
    let got = get(&whole, Some(2..u64::MAX)).await.unwrap();
    assert_eq!((got.total, got.range, got.bytes.len()), (Some(6), (0, Some(6)), 6));
    assert!(whole.heads()[0].contains("range: bytes=2-\r\n"));
    let less = Script::start(|_| answer("206 X", "Content-Range: bytes 0-1/*\r\n", b"ab")).await;
    let got = get(&less, Some(0..100)).await.unwrap();
    assert_eq!((got.total, got.range), (None, (0, Some(2))));
    let chunked =
        Script::start(|_| answer("200 OK", "Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n")).await;
    let got = get(&chunked, None).await.unwrap();
    assert_eq!((got.total, got.range, got.bytes.as_slice()), (None, (0, None), &b"abc"[..]));
}

#[tokio::test]
async fn a_range_of_an_empty_object_is_an_empty_object() {
    let empty = Script::start(|_| answer("416 X", "Content-Range: bytes */0\r\n", b"nothing")).await;
    let got = get(&empty, Some(0..u64::MAX)).await.unwrap();
    assert_eq!((got.total, got.range, got.bytes.len()), (Some(0), (0, Some(0)), 0));
    let past = failure(answer("416 X", "Content-Range: bytes */10\r\n", b""), Some(20..30)).await;
    assert_eq!(past.status(), Some(416));
}

#[tokio::test]
async fn statuses_come_with_challenge_and_bounded_body() {
    let challenge = "WWW-Authenticate: Bearer realm=\"https://auth.test/token\"\r\n";
    let error = failure(answer("401 Unauthorized", challenge, b"no"), None).await;
    let OriginError::Status { status, challenge, body, .. } = error else { panic!("{error}") };
    assert_eq!((status, &body[..]), (401, &b"no"[..]));
    assert_eq!(challenge.as_deref(), Some("Bearer realm=\"https://auth.test/token\""));
    let error = failure(answer("500 Oops", "", &vec![b'x'; 1 << 20]), None).await;
    assert!(error.is_retryable());
    let OriginError::Status { status: 500, body, .. } = error else { panic!("{error}") };
    assert_eq!(body.len(), 64 << 10);
    let error = failure(answer("404 Not Found", "", b""), None).await;
    assert_eq!((error.status(), error.is_retryable()), (Some(404), false));
}

#[tokio::test]
async fn wrong_lengths_are_errors() {
    let short = failure(answer("200 OK", "Content-Length: 10\r\n", b"abc"), None).await;
    assert!(matches!(short, OriginError::Length { expected: 10, got: 3, .. }), "{short:?}");
    let short = answer(
        "206 X",
        "Content-Range: bytes 0-4/9\r\nTransfer-Encoding: chunked\r\n",
        b"1\r\na\r\n0\r\n\r\n",
    );
    let short = failure(short, Some(0..5)).await;
    assert!(matches!(short, OriginError::Length { expected: 5, got: 1, .. }), "{short:?}");
    let long = answer(
        "206 X",
        "Content-Range: bytes 0-1/9\r\nTransfer-Encoding: chunked\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
    );
    let long = failure(long, Some(0..2)).await;
    assert!(matches!(long, OriginError::Length { expected: 2, got: 3, .. }), "{long:?}");
    let cut = failure(answer("200 OK", "Transfer-Encoding: chunked\r\n", b"3\r\nab"), None).await;
    assert!(matches!(cut, OriginError::Failed { .. }), "{cut:?}");
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    for (headers, range) in [
        ("Content-Range: bytes 3-4/9\r\n", Some(2..4)),
        ("Content-Range: bytes 2-4/9\r\n", Some(2..4)),
        ("Content-Range: bytes 2-9/9\r\n", Some(2..20)),
        ("Content-Range: bytes 2-3/9\r\nContent-Length: 3\r\n", Some(2..4)),
        ("Content-Range: bytes 0-1/2\r\n", None),
        ("", Some(2..4)),
        ("Content-Type: multipart/byteranges; boundary=x\r\n", Some(2..4)),
        ("Content-Range: bytes 2-3/9\r\nContent-Encoding: gzip\r\n", Some(2..4)),
    ] {
        let error = failure(answer("206 Partial Content", headers, b"cde"), range).await;
        assert!(matches!(error, OriginError::Failed { .. }), "{headers}: {error:?}");
    }
    let script = Script::start(|_| vec![]).await;
    assert!(get(&script, Some(5..5)).await.is_err());
    assert!(script.heads().is_empty(), "an empty range is not worth a request");
}

#[tokio::test]
async fn redirects_lose_the_credentials_and_the_right_to_challenge() {
    let store = Script::start(|head| {
        if head.starts_with("get /ok") {
            answer("200 OK", "", b"blob")
        } else {
            answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"evil\"\r\n", b"")
        }
    })
    .await;
    for (path, expected) in [("ok?signature=s3cret", Ok(4)), ("denied", Err(401))] {
        let location = format!("Location: http://{}/{path}\r\n", store.addr);
        let registry = Script::start(move |head| {
            if head.contains("/moved") {
                answer("302 Found", &location, b"")
            } else {
                answer("307 Temporary Redirect", "Location: /moved\r\n", b"")
            }
        })
        .await;
        let result = get(&registry, Some(0..4)).await;
        let heads = registry.heads();
        assert!(heads.iter().all(|head| head.contains("authorization: bearer secret")), "{heads:?}");
        match result {
            Ok(got) => assert_eq!(Ok(got.bytes.len()), expected),
            Err(OriginError::Status { status, challenge, .. }) => {
                assert_eq!((Err(status), challenge), (expected, None));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(store.heads().len(), 2);
    assert!(store.heads().iter().all(|head| !head.contains("authorization") && head.contains("range:")));
}

#[tokio::test]
async fn redirects_end() {
    let script = Script::start(|_| answer("302 Found", "Location: /again\r\n", b"")).await;
    let error = get(&script, None).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_eq!(script.heads().len(), 6);
    let nowhere = failure(answer("302 Found", "Location: file:///etc/passwd\r\n", b""), None).await;
    assert!(matches!(nowhere, OriginError::Failed { .. }));
}

#[tokio::test]
async fn stalls_end() {
    let silent = failure(vec![Step::Stall], None).await;
    assert!(silent.to_string().contains("no answer within"), "{silent}");
    let mut steps = answer("200 OK", "Content-Length: 10\r\n", b"abc");
    steps.push(Step::Stall);
    let stalled = failure(steps, None).await;
    assert!(stalled.to_string().contains("no byte for"), "{stalled}");
    let mut steps = answer("500 Oops", "Content-Length: 10\r\n", b"abc");
    steps.push(Step::Stall);
    assert_eq!(failure(steps, None).await.status(), Some(500));
}

#[tokio::test]
async fn what_is_no_http_or_nobody_is_an_error() {
    let garbage = failure(vec![Step::Send(b"\x16\x03\x01 hello\r\n\r\n".to_vec())], None).await;
    assert!(garbage.is_retryable());
    let gone = Script::start(|_| vec![]).await;
    let closed = client(&gone);
    drop(gone);
    tokio::task::yield_now().await;
    let result = closed.open(&object(ObjectKind::Blob), &task(), &Credentials::none(), None).await;
    assert!(matches!(result.map(|_| ()), Err(OriginError::Failed { .. })));
}

#[tokio::test]
async fn only_the_allow_list_is_asked_and_only_for_names() {
    let script = Script::start(|_| answer("200 OK", "", b"x")).await;
    let client = client(&script);
    let other = OriginObject { registry: "evil.test".to_owned(), ..object(ObjectKind::Blob) };
    let result = client.open(&other, &task(), &credentials(), None).await;
    assert!(
        matches!(result.map(|_| ()), Err(OriginError::NotAllowed { registry }) if registry == "evil.test")
    );
    let tricky = OriginObject { repository: "a/../../admin".to_owned(), ..object(ObjectKind::Blob) };
    assert!(client.open(&tricky, &task(), &credentials(), None).await.is_err());
    assert!(script.heads().is_empty());
    assert!(client.allows("REG.test") && !client.allows("evil.test"));
    assert_eq!(client.only_registry().as_deref(), Some("reg.test"));
}

#[tokio::test]
async fn a_tag_passes_with_status_and_headers() {
    let script = Script::start(|_| answer("404 Not Found", "Docker-Content-Digest: x\r\n", b"none")).await;
    let request = PassRequest {
        method: Method::GET,
        object: object(ObjectKind::Manifest),
        reference: "v1".to_owned(),
        list: None,
        accept: vec![HeaderValue::from_static("a/b"), HeaderValue::from_static("c/d")],
        credentials: credentials(),
    };
    let mut answer = client(&script).fetch(&request).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.headers["docker-content-digest"].as_bytes()),
        (404, &b"x"[..])
    );
    assert_eq!(answer.body.chunk().await.unwrap().unwrap(), "none");
    let head = script.heads().remove(0);
    assert!(head.starts_with("get /v2/team/app/manifests/v1 ") && head.contains("accept: c/d"), "{head}");
}

/// After the head, a byte now and then.
fn crawling() -> Vec<Step> {
    let mut steps = answer("200 OK", "Content-Length: 100000\r\n", b"x");
    for _ in 0..20 {
        steps.extend([Step::Pause(Duration::from_millis(100)), Step::Send(b"x".to_vec())]);
    }
    steps
}

#[tokio::test]
async fn a_body_that_crawls_counts_as_standing_still() {
    let started = Instant::now();
    let error = failure(crawling(), None).await;
    assert!(error.to_string().contains("less than 4096 bytes"), "{error}");
    assert!(
        error.is_retryable() && started.elapsed() < Duration::from_millis(1500),
        "{:?}",
        started.elapsed()
    );
}

fn head_request() -> PassRequest {
    PassRequest {
        method: Method::HEAD,
        object: object(ObjectKind::Manifest),
        reference: "v1".to_owned(),
        list: None,
        accept: vec![],
        credentials: Credentials::none(),
    }
}

#[tokio::test]
async fn one_that_does_not_answer_is_not_waited_for_again() {
    let script = Script::start(|_| vec![Step::Stall]).await;
    let client = client(&script);
    assert!(client.fetch(&head_request()).await.is_err());
    let started = Instant::now();
    let error = client.fetch(&head_request()).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("a moment ago") && error.is_retryable(), "{error}");
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(script.heads().len(), 1);
}

#[tokio::test]
async fn no_registry_leads_further_inside_than_it_is() {
    for location in ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://0.0.0.0:1/"] {
        let redirect = format!("Location: {location}\r\n");
        let error = failure(answer("307 X", &redirect, b""), None).await;
        assert!(error.to_string().contains("further inside"), "{location}: {error}");
        assert!(!error.to_string().contains("169.254"), "where it led is not told");
    }
    // A realm is no way in either: the registry's own refusal stands.
    let realm = "WWW-Authenticate: Bearer realm=\"http://169.254.169.254/token\"\r\n";
    let script = Script::start(move |_| answer("401 X", realm, b"")).await;
    let answer = client(&script).fetch(&head_request()).await.unwrap();
    assert_eq!(answer.status.as_u16(), 401);
}
