//! The real `hawker get` against a mirror that behaves as told: broken connections, changed files, wrong bytes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures::StreamExt;
use sha2::Digest;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// Between the bytes and the end of a broken answer.
const CUT_AFTER: std::time::Duration = std::time::Duration::from_millis(400);

/// A mirror with one file.
#[derive(Clone, Default)]
struct Mirror(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    etag: String,
    /// Every answer ends after so many bytes, whatever was announced; 0: none does.
    cut: usize,
    /// Refuse with this status.
    refuse: Option<u16>,
    requests: Vec<(Method, String, HeaderMap)>,
}

impl Mirror {
    fn new(bytes: &[u8], etag: &str) -> Self {
        let told = Told { bytes: bytes.to_vec(), etag: format!("\"{etag}\""), ..Told::default() };
        Self(Arc::new(Mutex::new(told)))
    }

    fn start(&self) -> SocketAddr {
        let (mirror, (tell, told)) = (self.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, Router::new().fallback(answer).with_state(mirror)).await.unwrap();
            });
        });
        told.recv().unwrap()
    }

    fn tell(&self, how: impl FnOnce(&mut Told)) {
        how(&mut self.0.lock().unwrap());
    }

    fn gets(&self) -> usize {
        self.0.lock().unwrap().requests.iter().filter(|(method, ..)| method == Method::GET).count()
    }
}

async fn answer(
    State(mirror): State<Mirror>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let mut told = mirror.0.lock().unwrap();
    told.requests.push((method.clone(), uri.to_string(), headers.clone()));
    let builder = Response::builder().header("etag", &told.etag);
    if let Some(status) = told.refuse {
        let text = r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#;
        return builder.status(status).body(Body::from(text)).unwrap();
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same = text("if-range").is_none_or(|tag| tag == told.etag);
    let size = told.bytes.len();
    let range = text("range").filter(|_| same).map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        match (first, last) {
            ("", last) => size - last.parse::<usize>().unwrap().min(size)..size,
            (first, "") => first.parse().unwrap()..size,
            (first, last) => first.parse().unwrap()..(last.parse::<usize>().unwrap() + 1).min(size),
        }
    });
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let bytes = told.bytes[range.unwrap_or(0..size)].to_vec();
    let builder = builder.status(status).header("content-length", bytes.len());
    if method == Method::HEAD {
        return builder.body(Body::empty()).unwrap();
    }
    if told.cut > 0 && bytes.len() > told.cut {
        let part = bytes[..told.cut].to_vec();
        let end = futures::stream::once(async {
            // What was sent is to arrive first.
            tokio::time::sleep(CUT_AFTER).await;
            Err(std::io::Error::other("cut"))
        });
        let stream = futures::stream::iter([Ok(part)]).chain(end);
        return builder.body(Body::from_stream(stream)).unwrap();
    }
    builder.body(Body::from(bytes)).unwrap()
}

fn hawker(mirror: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawker"));
    command.args(["--mirror", &mirror.to_string(), "--socket", "/nowhere/hawkerd.sock"]);
    command.args(arguments).env_remove("HAWKER_USER").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sha256(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const URL: &str = "https://a.test/dir/file.bin";

#[test]
fn a_file_comes_whole_with_the_headers_it_needs() {
    let bytes = vec![7; 3_000_000];
    let mirror = Mirror::new(&bytes, &sha256(&bytes));
    let (addr, dir) = (mirror.start(), tempfile::tempdir().unwrap());
    let out = dir.path().to_str().unwrap();
    let more = ["-H", "Authorization: Bearer x", "-H", "X-Key: k", "--tag", "t", "--ignore-query", "q"];
    let output = hawker(addr, &[&["get", URL, "-o", out], &more[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(std::fs::read(dir.path().join("file.bin")).unwrap() == bytes);
    assert!(stderr(&output).contains("2.86 MiB in"), "{}", stderr(&output));
    let told = mirror.0.lock().unwrap();
    let (_, path, headers) = told.requests.last().unwrap();
    assert_eq!(path, "/files/https://a.test/dir/file.bin");
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("hawker-forward-x-key", "k"),
        ("hawker-tag", "t"),
        ("hawker-ignore-query", "q"),
    ] {
        assert_eq!(headers.get(name).map(|it| it.to_str().unwrap()), Some(value), "{name}");
    }
}

#[test]
fn broken_connections_are_gone_on_with() {
    let bytes: Vec<u8> = (0..2_500_000_u32).flat_map(u32::to_le_bytes).collect();
    let mirror = Mirror::new(&bytes, &sha256(&bytes));
    mirror.tell(|told| told.cut = 4_000_000);
    let (addr, dir) = (mirror.start(), tempfile::tempdir().unwrap());
    let target = dir.path().join("f");
    let output = hawker(addr, &["get", URL, "-o", target.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(names(dir.path()), ["f"]);
    assert_eq!(mirror.gets(), 3, "10 MB in steps of 4");
}

#[test]
fn a_second_call_goes_on_with_the_same_version_and_not_with_another() {
    let bytes = vec![1; 100_000];
    let mirror = Mirror::new(&bytes, "url:v1");
    mirror.tell(|told| told.cut = 40_000);
    let (addr, dir) = (mirror.start(), tempfile::tempdir().unwrap());
    let (file, target) = (dir.path().join("f"), dir.path().join("f"));
    let target = target.to_str().unwrap();
    // As if killed: what came stays.
    let mut child = Command::new(env!("CARGO_BIN_EXE_hawker"))
        .args(["--mirror", &addr.to_string(), "get", URL, "-o", target])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while mirror.gets() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(names(dir.path())[0].ends_with(".part"), "{:?}", names(dir.path()));
    // Another version starts anew.
    let second = vec![2; 90_000];
    mirror.tell(|told| {
        (told.bytes, told.etag, told.cut) = (second.clone(), "\"url:v2\"".to_owned(), 0);
        told.requests.clear();
    });
    assert!(hawker(addr, &["get", URL, "-o", target]).status.success());
    assert!(std::fs::read(&file).unwrap() == second);
    assert!(mirror.0.lock().unwrap().requests.iter().all(|(.., headers)| !headers.contains_key("range")));
    // The first one goes on.
    mirror.tell(|told| (told.bytes, told.etag) = (bytes.clone(), "\"url:v1\"".to_owned()));
    assert!(hawker(addr, &["get", URL, "-o", target]).status.success());
    assert!(std::fs::read(&file).unwrap() == bytes);
    let told = mirror.0.lock().unwrap();
    let (.., headers) = told.requests.last().unwrap();
    assert!(headers["range"].to_str().unwrap().starts_with("bytes=40000-"), "{headers:?}");
    assert_eq!(headers["if-range"], "\"url:v1\"");
}

#[test]
fn wrong_bytes_and_refusals_leave_nothing() {
    let bytes = vec![3; 5000];
    let mirror = Mirror::new(&bytes, &sha256(b"something else"));
    let (addr, dir) = (mirror.start(), tempfile::tempdir().unwrap());
    let target = dir.path().join("f");
    let target = target.to_str().unwrap();
    let output = hawker(addr, &["get", URL, "-o", target]);
    assert!(
        !output.status.success() && stderr(&output).contains("the file is not sha256:"),
        "{}",
        stderr(&output)
    );
    mirror.tell(|told| (told.refuse, told.requests) = (Some(403), Vec::new()));
    let output = hawker(addr, &["get", URL, "-o", target]);
    assert!(
        !output.status.success() && stderr(&output).contains("403 Forbidden: not for you"),
        "{}",
        stderr(&output)
    );
    assert_eq!(mirror.gets(), 1, "a refusal is not asked for again");
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let output = hawker(closed, &["get", URL, "-o", target]);
    assert!(stderr(&output).contains("is hawkerd running?"), "{}", stderr(&output));
    for bad in [
        &["get", "ftp://a/b"][..],
        &["get", "nothing"],
        &["get", URL, "--range", "x"],
        &["get", URL, "-H", "x"],
    ] {
        assert!(!hawker(addr, bad).status.success(), "{bad:?}");
    }
}

#[test]
fn ranges_and_standard_output() {
    let bytes: Vec<u8> = (0..=255).collect();
    let mirror = Mirror::new(&bytes, &sha256(&bytes));
    let (addr, dir) = (mirror.start(), tempfile::tempdir().unwrap());
    let output = hawker(addr, &["get", URL, "-o", "-", "--quiet"]);
    assert!(output.stdout == bytes && output.stderr.is_empty(), "{}", stderr(&output));
    let target = dir.path().join("f");
    for (range, expected) in [("10-19", &bytes[10..20]), ("250-", &bytes[250..]), ("-6", &bytes[250..])] {
        let output = hawker(addr, &["get", URL, "--range", range, "-o", target.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(std::fs::read(&target).unwrap(), expected, "{range}");
    }
    let output = hawker(addr, &["get", URL, "-o", "-", "--quiet", "--range", "1-2"]);
    assert_eq!(output.stdout, [1, 2]);
}
