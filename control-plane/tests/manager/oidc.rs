//! Signing in with a real OpenID provider: `oidc-provider` of npm, in the directory that `TEST_OIDC` names.

use crate::harness::PASSWORD;
use hawker_control::manager::{Manager, ManagerConfig, OidcConfig, RawOidc, WebConfig};
use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;
use url::Url;

const SECRET: &str = "a client secret of 32 characters";

/// A port that nobody listens on; both ends must know the other's before they start.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Stand {
    manager: Manager,
    provider: Child,
    /// Held open: the provider ends when nobody reads what it says.
    _said: BufReader<ChildStdout>,
    issuer: String,
    _dir: TempDir,
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.provider.kill();
        let _ = self.provider.wait();
    }
}

impl Stand {
    async fn start(secret: &str) -> Self {
        let modules = PathBuf::from(std::env::var_os("TEST_OIDC").expect("TEST_OIDC is not set"));
        let (port, rest) = (free_port(), free_port());
        let (issuer, public) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{rest}"));
        // Modules are looked for beside the script.
        let script = modules.join(format!("provider-{port}.mjs"));
        std::fs::write(&script, include_str!("../oidc/provider.mjs")).unwrap();
        let redirect = format!("{public}/api/v1/oidc/corp/callback");
        let mut provider = Command::new("node")
            .arg(&script)
            .args([&port.to_string(), &redirect, SECRET])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(provider.stdout.take().unwrap());
        let mut line = String::new();
        while line != "serving\n" {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the provider does not start");
        }
        std::fs::remove_file(script).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let raw: RawOidc = serde_json::from_value(json!({
            "name": "corp", "label": "Corp", "issuer": issuer, "clientID": "hawker",
            "clientSecretFile": write("secret", &format!("{secret}\n")),
            "scopes": ["profile", "groups"],
            "roles": [
                {"group": "sre", "role": "operator"},
                {"group": "staff", "role": "viewer", "clusterIDs": [1]},
            ],
        }))
        .unwrap();
        let public_url: Url = public.parse().unwrap();
        let oidc = vec![OidcConfig::check(raw, Some(&public_url)).unwrap()];
        let web = WebConfig { public_url: Some(public_url), ..WebConfig::default() };
        let rest = SocketAddr::from(([127, 0, 0, 1], rest));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let password = write("password", PASSWORD);
        let config = ManagerConfig::new(rest, any, dir.path().join("manager.db"), Some(password));
        let manager = Manager::bind(ManagerConfig { web, oidc, ..config }).await.unwrap();
        Self { manager, provider, _said: said, issuer, _dir: dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.manager.rest_addr())
    }

    async fn is(&self, who: &str) {
        reqwest::get(format!("{}/user?name={who}", self.issuer)).await.unwrap();
    }
}

/// Keeps cookies by port and follows redirects by hand.
struct Browser {
    http: Client,
    cookies: HashMap<u16, HashMap<String, String>>,
}

impl Browser {
    fn new() -> Self {
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { http, cookies: HashMap::new() }
    }

    async fn get(&mut self, url: &Url) -> reqwest::Response {
        let cookies = self.cookies.entry(url.port().unwrap()).or_default();
        let header: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = self.http.get(url.clone()).header("cookie", header.join("; ")).send().await.unwrap();
        for set in answer.headers().get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// Follows redirects until an answer is none, or until the callback is about to be asked.
    async fn walk(&mut self, from: &str, into_callback: bool) -> (Url, Option<reqwest::Response>) {
        let mut url: Url = from.parse().unwrap();
        for _ in 0..12 {
            if url.path().ends_with("/callback") && !into_callback {
                return (url, None);
            }
            let answer = self.get(&url).await;
            if !answer.status().is_redirection() {
                return (url, Some(answer));
            }
            url = url.join(answer.headers()["location"].to_str().unwrap()).unwrap();
        }
        panic!("redirected without end, now to {url}");
    }

    async fn me(&mut self, stand: &Stand) -> (StatusCode, Value) {
        let answer = self.get(&stand.url("/api/v1/users/me").parse().unwrap()).await;
        (answer.status(), answer.json().await.unwrap())
    }
}

#[tokio::test]
#[ignore = "needs an OpenID provider: TEST_OIDC=directory with npm's oidc-provider installed"]
async fn groups_at_the_provider_are_roles_here() {
    let stand = Stand::start(SECRET).await;
    let list: Value = reqwest::get(stand.url("/api/v1/oidc")).await.unwrap().json().await.unwrap();
    assert_eq!(list, json!({"providers": [{"name": "corp", "label": "Corp"}]}));
    for (who, role, cluster_ids) in [("ann", "operator", json!([])), ("bob", "viewer", json!([1]))] {
        stand.is(who).await;
        let mut browser = Browser::new();
        let (url, answer) = browser.walk(&stand.url("/api/v1/oidc/corp/login"), true).await;
        assert_eq!(url.path(), "/", "{url}: {}", answer.unwrap().text().await.unwrap());
        let (status, me) = browser.me(&stand).await;
        assert_eq!((status, &me["name"]), (StatusCode::OK, &json!(format!("corp:{who}"))), "{me}");
        assert_eq!((&me["role"], &me["cluster_ids"]), (&json!(role), &cluster_ids));
        assert!(me["csrf_token"].is_string());
    }
    // In no group that counts, and called as somebody here is.
    stand.is("eve").await;
    let mut browser = Browser::new();
    let (_, answer) = browser.walk(&stand.url("/api/v1/oidc/corp/login"), true).await;
    assert_eq!(answer.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(browser.me(&stand).await.0, StatusCode::UNAUTHORIZED);

    let root = json!({"name": "root", "password": PASSWORD});
    let signed: Value = Client::new()
        .post(stand.url("/api/v1/users/signin"))
        .json(&root)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let get = async |path: &str| {
        let request = Client::new().get(stand.url(path)).bearer_auth(signed["token"].as_str().unwrap());
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let users = get("/api/v1/users").await;
    let sources: Vec<_> =
        users["items"].as_array().unwrap().iter().map(|user| (&user["name"], &user["source"])).collect();
    assert_eq!(json!(sources), json!([["corp:ann", "oidc"], ["corp:bob", "oidc"], ["root", "local"]]));
    let log = get("/api/v1/audit?action=oidc.callback").await;
    let outcomes: Vec<_> = log["items"].as_array().unwrap().iter().map(|entry| &entry["outcome"]).collect();
    assert_eq!(json!(outcomes), json!([403, 200, 200]));
}

#[tokio::test]
#[ignore = "needs an OpenID provider: TEST_OIDC=directory with npm's oidc-provider installed"]
async fn who_loses_his_groups_loses_what_they_gave_at_his_next_sign_in() {
    let stand = Stand::start(SECRET).await;
    let login = stand.url("/api/v1/oidc/corp/login");
    let (mut first, mut second, mut third) = (Browser::new(), Browser::new(), Browser::new());
    stand.is("ann").await;
    first.walk(&login, true).await;
    assert_eq!(first.me(&stand).await.1["role"], "operator");
    // Fewer: a lesser role at once, in sessions that are open, too.
    stand.is("ann&groups=staff").await;
    second.walk(&login, true).await;
    assert_eq!(second.me(&stand).await.1["role"], "viewer");
    assert_eq!(first.me(&stand).await.1["role"], "viewer");
    // None: nothing, wherever she was signed in.
    stand.is("ann&groups=guests").await;
    let (_, answer) = third.walk(&login, true).await;
    assert_eq!(answer.unwrap().status(), StatusCode::FORBIDDEN);
    for mut browser in [first, second, third] {
        assert_eq!(browser.me(&stand).await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
#[ignore = "needs an OpenID provider: TEST_OIDC=directory with npm's oidc-provider installed"]
async fn an_answer_is_good_once_in_the_browser_that_asked() {
    let stand = Stand::start(SECRET).await;
    let login = stand.url("/api/v1/oidc/corp/login");
    let (mut browser, mut other) = (Browser::new(), Browser::new());
    let (callback, _) = browser.walk(&login, false).await;
    assert!(callback.query().unwrap().contains("code="), "{callback}");
    // Somebody else's answer: no cookie, and the cookie of another attempt.
    assert_eq!(Browser::new().get(&callback).await.status(), StatusCode::BAD_REQUEST);
    let (own, _) = other.walk(&login, false).await;
    assert_eq!(other.get(&callback).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(other.get(&own).await.status(), StatusCode::BAD_REQUEST, "the attempt was used up");
    // A code that the provider did not give.
    let (mut forged, mut third) = (own.clone(), Browser::new());
    let (real, _) = third.walk(&login, false).await;
    let state = real.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    forged.set_query(Some(&format!("code=forged&state={state}")));
    assert_eq!(third.get(&forged).await.status(), StatusCode::BAD_GATEWAY);
    // The provider refuses.
    let (real, _) = third.walk(&login, false).await;
    let state = real.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    forged.set_query(Some(&format!("error=access_denied&error_description=no&state={state}")));
    let refused = third.get(&forged).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.text().await.unwrap().contains("access_denied no"));
    // The right one, and then again.
    assert_eq!(browser.get(&callback).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(browser.me(&stand).await.0, StatusCode::OK);
    assert_eq!(browser.get(&callback).await.status(), StatusCode::BAD_REQUEST);
    let unknown = reqwest::get(stand.url("/api/v1/oidc/nobody/login")).await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
#[ignore = "needs an OpenID provider: TEST_OIDC=directory with npm's oidc-provider installed"]
async fn a_wrong_client_secret_signs_nobody_in() {
    let stand = Stand::start("another secret").await;
    let mut browser = Browser::new();
    let (_, answer) = browser.walk(&stand.url("/api/v1/oidc/corp/login"), true).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(!answer.text().await.unwrap().contains("secret"));
}
