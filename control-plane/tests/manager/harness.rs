//! A manager on ephemeral ports, a signed-in REST client, and daemons and schedulers that register.

use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use hawker_api::v1::manager_client::ManagerClient;
use hawker_control::manager::{Database, Liveness, Manager, ManagerConfig};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub(crate) const PASSWORD: &str = "correct horse";
/// Longer than anything here takes; a test that waits for it fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    pub(crate) manager: Manager,
    pub(crate) token: String,
    http: reqwest::Client,
    dir: TempDir,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(Liveness::default()).await
    }

    pub(crate) async fn start_with(liveness: Liveness) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = bind(dir.path(), liveness).await;
        Self::signed_in(manager, dir).await
    }

    /// A manager that asks for a join token.
    pub(crate) async fn start_asking(tokens: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), dir.path().join("db/manager.db").into());
        let manager =
            Manager::bind(ManagerConfig { join_token_file: Some(tokens.to_owned()), ..config }).await;
        Self::signed_in(manager.unwrap(), dir).await
    }

    /// One of several managers on a database.
    pub(crate) async fn start_on(database: &Database, liveness: Liveness) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = bind_on(dir.path(), database.clone(), liveness).await;
        Self::signed_in(manager, dir).await
    }

    /// The same database in a new manager.
    pub(crate) async fn restart(self) -> Self {
        self.manager.shutdown().await;
        let manager = bind(self.dir.path(), Liveness::default()).await;
        Self { manager, ..self }
    }

    /// One more manager on the same database.
    pub(crate) async fn second(&self) -> Self {
        let manager = bind(self.dir.path(), Liveness::default()).await;
        Self::signed_in(manager, tempfile::tempdir().unwrap()).await
    }

    async fn signed_in(manager: Manager, dir: TempDir) -> Self {
        let mut fixture = Self { manager, token: String::new(), http: reqwest::Client::new(), dir };
        let answer = fixture.sign_in("root", PASSWORD).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let body: Value = answer.json().await.unwrap();
        fixture.token = body["token"].as_str().unwrap().to_owned();
        fixture
    }

    pub(crate) async fn sign_in(&self, name: &str, password: &str) -> Response {
        let body = json!({ "name": name, "password": password });
        self.send(Method::POST, "/api/v1/users/signin", None, Some(body)).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Response {
        let url = format!("http://{}{path}", self.manager.rest_addr());
        let mut request = self.http.request(method, url).timeout(PATIENCE);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// Makes a user and signs in as him: his bearer token.
    pub(crate) async fn user(&self, name: &str, role: &str, cluster_ids: &[u64]) -> String {
        let body = json!({"name": name, "password": PASSWORD, "role": role, "cluster_ids": cluster_ids});
        let (status, body) = self.call(Method::POST, "/api/v1/users", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let answer: Value = self.sign_in(name, PASSWORD).await.json().await.unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A personal access token of root's.
    pub(crate) async fn access_token(&self, scopes: &[&str]) -> String {
        let body = json!({"name": "test", "scopes": scopes});
        let (status, body) = self.call(Method::POST, "/api/v1/tokens", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["token"].as_str().unwrap().to_owned()
    }

    /// Another manager on the same database.
    pub(crate) async fn second_manager(&self) -> Manager {
        bind(self.dir.path(), Liveness::default()).await
    }

    /// A request with the token, to be made as the test likes.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.manager.rest_addr());
        self.http.request(method, url).timeout(PATIENCE).bearer_auth(&self.token)
    }

    /// Status and JSON (null where there is none) of a request with the token.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let answer = self.send(method, path, Some(&self.token), body).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub(crate) async fn create(&self, body: Value) -> Value {
        let (status, body) = self.call(Method::POST, "/api/v1/clusters", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body
    }

    pub(crate) async fn edit(&self, id: u64, body: Value) -> Value {
        let (status, body) = self.call(Method::PATCH, &format!("/api/v1/clusters/{id}"), Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    pub(crate) async fn grpc(&self) -> ManagerClient<Channel> {
        ManagerClient::connect(self.manager.local_uri()).await.unwrap()
    }

    /// Opens a keep-alive stream with `first` as its first message.
    pub(crate) async fn keep_alive(&self, first: Kind) -> Session {
        let (sender, receiver) = mpsc::channel(8);
        sender.send(v1::KeepAliveRequest { kind: Some(first) }).await.unwrap();
        let answers = self.grpc().await.keep_alive(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Session { sender, answers }
    }

    /// Opens one for a scheduler, and waits until the manager lists it.
    pub(crate) async fn scheduler(&self, cluster: u64, addr: &str) -> Session {
        let mut session = self.keep_alive(Kind::Scheduler(scheduler(cluster, addr))).await;
        assert!(session.answer().await.protocol.is_some(), "the first answer is the manager's version");
        self.wait_for("/api/v1/schedulers", |list| list["items"].to_string().contains(addr)).await;
        session
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("the list never became as wanted")
    }
}

async fn bind(dir: &Path, liveness: Liveness) -> Manager {
    bind_on(dir, dir.join("db/manager.db").into(), liveness).await
}

async fn bind_on(dir: &Path, database: Database, liveness: Liveness) -> Manager {
    Manager::bind(ManagerConfig { liveness, ..config(dir, database) }).await.unwrap()
}

pub(crate) fn config(dir: &Path, database: Database) -> ManagerConfig {
    let password = dir.join("password");
    std::fs::write(&password, format!("  {PASSWORD}\n")).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ManagerConfig::new(any, any, database, Some(password))
}

/// A keep-alive stream.
pub(crate) struct Session {
    sender: mpsc::Sender<v1::KeepAliveRequest>,
    answers: Streaming<v1::KeepAliveResponse>,
}

impl Session {
    pub(crate) async fn send(&self, kind: Kind) {
        self.sender.send(v1::KeepAliveRequest { kind: Some(kind) }).await.unwrap();
    }

    /// The next answer, whatever it carries.
    pub(crate) async fn answer(&mut self) -> v1::KeepAliveResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("no answer came");
        answer.unwrap().expect("the stream ended")
    }

    /// The next placement pushed.
    pub(crate) async fn placement(&mut self) -> v1::Placement {
        self.answer().await.placement.expect("an answer carries a placement")
    }

    /// The next order for a node.
    pub(crate) async fn order(&mut self) -> v1::JobOrder {
        loop {
            let answer = self.answer().await;
            if let Some(order) = answer.job {
                return order;
            }
            assert!(answer.protocol.is_some(), "an answer carries an order");
        }
    }

    /// Whether nothing comes for so long.
    pub(crate) async fn quiet_for(&mut self, millis: u64) -> bool {
        tokio::time::timeout(Duration::from_millis(millis), self.answers.message()).await.is_err()
    }

    /// Reads to the end of the stream: the status it ended with.
    pub(crate) async fn ended(&mut self) -> Option<Status> {
        let reading = async {
            loop {
                match self.answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the stream never ended")
    }
}

pub(crate) fn peer(id: &str, ip: &str) -> v1::PlaceRequest {
    let host = v1::Host {
        id: id.to_owned(),
        hostname: format!("node-{id}"),
        ip: ip.to_owned(),
        piece_port: 4000,
        version: "0.1.0".to_owned(),
        engine: "portable".to_owned(),
        engine_reason: "the kernel has no io_uring".to_owned(),
        ..v1::Host::default()
    };
    v1::PlaceRequest { host: Some(host), ..v1::PlaceRequest::default() }
}

pub(crate) fn scheduler(cluster: u64, addr: &str) -> v1::SchedulerRegistration {
    v1::SchedulerRegistration {
        hostname: format!("scheduler-{cluster}"),
        advertise_addr: addr.to_owned(),
        scheduler_cluster_id: cluster,
        version: "0.1.0".to_owned(),
        protocol: Some(hawker_api::protocol::Protocol::spoken().into()),
    }
}
