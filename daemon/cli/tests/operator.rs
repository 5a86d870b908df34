//! The real `hawker` as an operator's tool, against a manager that behaves as told: signing in, paging, edits, refusals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

const PASSWORD: &str = "correct horse";
const TOKEN: &str = "token-1";
/// Clusters it has: more than one page.
const CLUSTERS: u64 = 1203;

type Seen = (Method, String, HeaderMap, Value);

#[derive(Clone, Default)]
struct Manager {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Everything is refused so.
    refuse: Arc<Mutex<Option<(StatusCode, &'static str)>>>,
}

impl Manager {
    fn start(&self) -> SocketAddr {
        let (manager, (tell, told)) = (self.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, Router::new().fallback(answer).with_state(manager)).await.unwrap();
            });
        });
        told.recv().unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn answer(State(manager): State<Manager>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.to_string();
    manager.seen.lock().unwrap().push((
        parts.method.clone(),
        path.clone(),
        parts.headers.clone(),
        body.clone(),
    ));
    let problem = |status: StatusCode, detail: &str| {
        let body = json!({"title": "t", "status": status.as_u16(), "detail": detail}).to_string();
        Response::builder().status(status).header("retry-after", "7").body(Body::from(body)).unwrap()
    };
    if let Some((status, detail)) = *manager.refuse.lock().unwrap() {
        return problem(status, detail);
    }
    let ok = |body: Value| {
        Response::builder().header("etag", "\"v7\"").body(Body::from(body.to_string())).unwrap()
    };
    if path == "/api/v1/users/signin" {
        return match body["password"] == PASSWORD {
            true => ok(json!({"token": TOKEN, "expires_at": "2030-01-01T00:00:00Z"})),
            false => problem(StatusCode::UNAUTHORIZED, "name or password is wrong"),
        };
    }
    if parts.headers.get("authorization").is_none_or(|value| value != format!("Bearer {TOKEN}").as_str()) {
        return problem(StatusCode::UNAUTHORIZED, "sign in first");
    }
    let page = parts
        .uri
        .query()
        .and_then(|query| url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "page"));
    let page: u64 = page.map_or(1, |(_, page)| page.parse().unwrap());
    match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/api/v1/clusters") => {
            let ids = (page - 1) * 500 + 1..=(page * 500).min(CLUSTERS);
            let items: Vec<_> =
                ids.map(|id| json!({"id": id, "name": format!("c-{id}"), "is_default": id == 1})).collect();
            ok(json!({"items": items, "total": CLUSTERS, "page": page, "per_page": 500}))
        }
        ("PATCH" | "GET", "/api/v1/clusters/1203") => {
            ok(json!({"id": 1203, "name": "c-1203", "bio": body["bio"]}))
        }
        ("DELETE", "/api/v1/clusters/2") | ("POST", "/api/v1/users/signout") => {
            Response::builder().status(204).body(Body::empty()).unwrap()
        }
        ("GET", "/api/v1/users/me") => ok(json!({"name": "robot"})),
        ("GET", "/api/v1/users") => {
            ok(json!({"items": [{"id": 1, "name": "root"}, {"id": 7, "name": "eve"}], "total": 2}))
        }
        ("POST", "/api/v1/users") | ("PATCH", "/api/v1/users/7") => ok(json!({"id": 7, "role": "operator"})),
        _ => problem(StatusCode::NOT_FOUND, "there is nothing at this path"),
    }
}

fn hawker(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hawker"))
        .env_clear()
        .env("HOME", home)
        .args(words)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn succeeds(home: &Path, words: &[&str]) -> String {
    let output = hawker(home, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(home: &Path, words: &[&str]) -> String {
    let output = hawker(home, words);
    assert!(!output.status.success(), "{words:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// Signed in at a manager; the home directory and the manager's address.
fn signed_in(manager: &Manager) -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    let url = format!("http://{}", manager.start());
    let password = home.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let said = succeeds(
        home.path(),
        &["login", &url, "--user", "root", "--password-file", password.to_str().unwrap()],
    );
    assert!(said.contains("as root") && !said.contains(TOKEN), "{said}");
    (home, url)
}

#[test]
fn a_token_is_kept_for_its_manager_alone_and_forgotten() {
    let (manager, other) = (Manager::default(), Manager::default());
    let (home, _) = signed_in(&manager);
    let kept = home.path().join(".config/hawker/session.json");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let elsewhere = format!("http://{}", other.start());
    let refused = fails(home.path(), &["cluster", "ls", "--manager", &elsewhere]);
    assert!(refused.contains("nobody is signed in at"), "{refused}");
    assert!(other.seen().is_empty(), "another manager was asked");
    manager.seen();
    succeeds(home.path(), &["logout"]);
    let (method, path, headers, _) = manager.seen().remove(0);
    assert_eq!((method, path.as_str()), (Method::POST, "/api/v1/users/signout"));
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}").as_str());
    assert!(!kept.exists());
    assert!(fails(home.path(), &["peers"]).contains("hawker login"));
}

#[test]
fn a_wrong_password_is_said_and_nothing_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let url = format!("http://{}", Manager::default().start());
    let password = home.path().join("password");
    std::fs::write(&password, "guess").unwrap();
    let words = ["login", &url, "--user", "root", "--password-file", password.to_str().unwrap()];
    let refused = fails(home.path(), &words);
    assert!(refused.contains("401") && refused.contains("name or password is wrong"), "{refused}");
    assert!(!home.path().join(".config/hawker/session.json").exists());
    // No terminal to ask on.
    assert!(fails(home.path(), &["login", &url, "--user", "root"]).contains("--password-file"));
}

#[test]
fn a_token_file_is_enough() {
    let (manager, home) = (Manager::default(), tempfile::tempdir().unwrap());
    let (url, token) = (format!("http://{}", manager.start()), home.path().join("token"));
    std::fs::write(&token, TOKEN).unwrap();
    let token = token.to_str().unwrap();
    let listed =
        succeeds(home.path(), &["--manager", &url, "--token-file", token, "cluster", "ls", "-o", "json"]);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.len() as u64, CLUSTERS, "all pages");
    assert!(succeeds(home.path(), &["login", &url, "--token-file", token]).contains("as robot"));
    assert!(succeeds(home.path(), &["cluster", "ls"]).contains("c-1203"));
}

#[test]
fn an_edit_names_the_version_it_changes() {
    let manager = Manager::default();
    let (home, _) = signed_in(&manager);
    manager.seen();
    let said = succeeds(home.path(), &["cluster", "edit", "c-1203", "--bio", "edge"]);
    assert!(said.contains("edge"), "{said}");
    let (method, path, headers, body) = manager.seen().pop().unwrap();
    assert_eq!((method, path.as_str()), (Method::PATCH, "/api/v1/clusters/1203"));
    assert_eq!((headers["if-match"].to_str().unwrap(), body), ("\"v7\"", json!({"bio": "edge"})));
    assert!(fails(home.path(), &["cluster", "edit", "c-1203"]).contains("nothing to change"));
    assert!(fails(home.path(), &["cluster", "show", "nowhere"]).contains("there is no cluster `nowhere`"));
    assert!(fails(home.path(), &["cluster", "rm", "2"]).contains("--yes"));
    assert!(succeeds(home.path(), &["cluster", "rm", "2", "--yes"]).contains("removed cluster c-2"));
}

#[test]
fn users_are_made_locked_out_and_let_in() {
    let manager = Manager::default();
    let (home, _) = signed_in(&manager);
    let password = home.path().join("hers");
    std::fs::write(&password, "a long one\n").unwrap();
    manager.seen();
    let file = password.to_str().unwrap();
    let words = ["users", "add", "eve", "--role", "operator", "--cluster", "2", "--password-file", file];
    let said = succeeds(home.path(), &words);
    assert!(said.contains("eve") && said.contains("operator") && !said.contains("a long one"), "{said}");
    let (method, path, _, body) = manager.seen().pop().unwrap();
    assert_eq!((method, path.as_str()), (Method::POST, "/api/v1/users"));
    let wanted = json!({"name": "eve", "password": "a long one", "role": "operator", "cluster_ids": [2]});
    assert_eq!(body, wanted);
    for (word, disabled) in [("disable", true), ("enable", false)] {
        succeeds(home.path(), &["users", word, "eve"]);
        let (method, path, _, body) = manager.seen().pop().unwrap();
        assert_eq!((method, path.as_str()), (Method::PATCH, "/api/v1/users/7"));
        assert_eq!(body, json!({ "disabled": disabled }));
    }
    assert!(fails(home.path(), &["users", "disable", "nobody"]).contains("there is no user `nobody`"));
    std::fs::write(&password, "\n").unwrap();
    assert!(fails(home.path(), &words).contains("the password is empty"));
}

#[test]
fn refusals_say_what_to_do() {
    let manager = Manager::default();
    let (home, _) = signed_in(&manager);
    for (status, detail, expected) in [
        (StatusCode::UNAUTHORIZED, "expired", vec!["401", "expired", "login"]),
        (StatusCode::FORBIDDEN, "viewers may not", vec!["403", "viewers may not"]),
        (StatusCode::PRECONDITION_FAILED, "etag", vec!["412", "somebody else"]),
        (StatusCode::SERVICE_UNAVAILABLE, "no database", vec!["503", "no database", "in 7 s"]),
        (StatusCode::CONFLICT, "name is taken", vec!["409", "name is taken"]),
    ] {
        *manager.refuse.lock().unwrap() = Some((status, detail));
        let said = fails(home.path(), &["cluster", "ls"]);
        assert!(expected.iter().all(|word| said.contains(word)), "{status}: {said}");
    }
    let nobody = fails(
        home.path(),
        &["login", "http://127.0.0.1:1", "--user", "a", "--password-file", "/etc/hostname"],
    );
    assert!(nobody.contains("is it running"), "{nobody}");
}
