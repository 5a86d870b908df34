//! What the manager gives the console besides the API everybody uses: its files, and the values that join a cluster.

use crate::harness::{Fixture, peer};
use hawker_api::v1::keep_alive_request::Kind;
use reqwest::{Method, StatusCode};
use serde_json::json;

#[tokio::test]
async fn the_values_of_a_cluster_have_the_charts_keys() {
    let fixture = Fixture::start().await;
    let scopes = json!({"idc": "cluster-2|cluster-3", "location": "asia|cn: #1"});
    let id = fixture.create(json!({"name": "b\u{2028}x: y", "scopes": scopes})).await["id"].as_u64().unwrap();
    let ask = async |path: String| fixture.send(Method::GET, &path, Some(&fixture.token), None).await;
    let answer = ask(format!("/api/v1/clusters/{id}/values")).await;
    assert_eq!(answer.headers()["content-type"], "application/yaml");
    let text = answer.text().await.unwrap();
    let (addr, rest) = (fixture.manager.grpc_addr(), fixture.manager.rest_addr());
    let wanted = format!(
        "# Joins cluster 2: helm install -f FILE. Add the registries your nodes pull from.\n\
         containerRuntime:\n  containerd:\n    enable: true\n    injectConfigPath: true\n    registries:\n    - https://ghcr.io\n\
         scheduler:\n  replicas: 1\n  config:\n    manager:\n      addr: {addr}\n      schedulerClusterID: 2\n\
         seedPeer:\n  replicas: 1\n  config:\n    scheduler:\n      manager:\n        netAddrs:\n        - type: tcp\n          addr: {addr}\n        \
         seedPeer:\n          enable: true\n          clusterID: 2\n\
         dfdaemon:\n  config:\n    host:\n      idc: cluster-2\n      location: 'asia|cn: #1'\n    \
         scheduler:\n      manager:\n        netAddrs:\n        - type: tcp\n          addr: {addr}\n\
         manager:\n  enable: false\n\
         externalManager:\n  enable: true\n  host: 127.0.0.1\n  restPort: {}\n  grpcPort: {}\n",
        rest.port(),
        addr.port()
    );
    assert_eq!(text, wanted);
    let default = ask("/api/v1/clusters/1/values".to_owned()).await.text().await.unwrap();
    assert!(
        !default.contains("host:\n"),
        "a cluster without IDC and location needs nothing of its nodes: {default}"
    );
    assert_eq!(ask("/api/v1/clusters/77/values".to_owned()).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_host_says_why_it_runs_this_engine() {
    let fixture = Fixture::start().await;
    let _daemon = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.7"))).await;
    let peers = fixture.wait_for("/api/v1/peers", |list| list["total"] == 1).await;
    assert_eq!(peers["items"][0]["engine_reason"], "the kernel has no io_uring");
}

/// Whether or not this program was built with the console.
#[tokio::test]
async fn paths_of_the_console_need_no_token_and_paths_of_the_api_are_never_its() {
    let fixture = Fixture::start().await;
    let get = async |path: &str| fixture.send(Method::GET, path, None, None).await;
    let (page, route) = (get("/").await, get("/clusters/7").await);
    assert_eq!(page.status(), route.status());
    let built = page.status() == StatusCode::OK;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert_eq!(built, policy.contains("script-src 'self'"), "{policy}");
    let text = page.text().await.unwrap();
    assert!(if built { text.contains("<html") } else { text.contains("without its console") }, "{text}");
    for path in ["/api/v1/nothing", "/api"] {
        let answer = get(path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
    let posted = fixture.send(Method::POST, "/clusters", None, Some(json!({}))).await;
    assert_eq!(posted.status(), StatusCode::NOT_FOUND);
}
