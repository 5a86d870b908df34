//! Every route of the router's own list: closed without somebody, closed to who may not, open to who may.

use crate::harness::{Fixture, PASSWORD};
use hawker_control::manager::{Permission, Role, RouteInfo, registered_routes};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The routes that nobody needs to be known for.
const OPEN: [&str; 2] = ["health.show", "users.signin"];

/// A path that leads to the route, and to nothing that is there.
fn path(route: &RouteInfo) -> String {
    let parts = route.path.split('/').map(|part| if part.starts_with('{') { "999999" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn body(route: &RouteInfo) -> Option<Value> {
    (route.method != Method::GET).then(|| json!({}))
}

#[tokio::test]
async fn nothing_but_sign_in_and_health_answers_nobody() {
    let fixture = Fixture::start().await;
    let mut open = Vec::new();
    for route in registered_routes() {
        if !route.needs_token {
            open.push(route.name);
            continue;
        }
        for token in [None, Some(""), Some("forged"), Some("hwk_forged"), Some(PASSWORD)] {
            let answer = fixture.send(route.method.clone(), &path(&route), token, body(&route)).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{} {token:?}", route.name);
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
    }
    open.retain(|name| !name.starts_with("oidc."));
    assert_eq!(open, OPEN);
    println!("routes walked: {}", registered_routes().len());
}

#[tokio::test]
async fn a_role_or_a_token_that_is_too_little_is_refused_on_every_route() {
    let fixture = Fixture::start().await;
    let tokens = [
        (Role::Viewer, fixture.user("viewer", "viewer", &[]).await),
        (Role::Operator, fixture.user("operator", "operator", &[]).await),
        (Role::Admin, fixture.user("admin", "admin", &[]).await),
    ];
    let nothing = fixture.access_token(&[]).await;
    for route in registered_routes().iter().filter(|route| route.needs_token) {
        let answer = fixture.send(route.method.clone(), &path(route), Some(&nothing), body(route)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{} with an empty scope", route.name);
        let Some(permission) = route.permission else { continue };
        for (role, token) in &tokens {
            let answer = fixture.send(route.method.clone(), &path(route), Some(token), body(route)).await;
            let may = *role >= permission.least_role();
            assert_eq!(answer.status() != StatusCode::FORBIDDEN, may, "{} as {role}", route.name);
        }
        // Everything but this one.
        let others = Permission::ALL.iter().filter(|other| **other != permission).map(|other| other.name());
        let (others, this) = (others.collect::<Vec<_>>(), fixture.access_token(&[permission.name()]).await);
        let without = fixture.access_token(&others).await;
        for (token, may) in [(&without, false), (&this, true)] {
            let answer = fixture.send(route.method.clone(), &path(route), Some(token), body(route)).await;
            assert_eq!(answer.status() != StatusCode::FORBIDDEN, may, "{} scoped {may}", route.name);
        }
        for token in fixture.get("/api/v1/tokens").await["items"].as_array().unwrap() {
            if token["scopes"] != json!([]) {
                let path = format!("/api/v1/tokens/{}", token["id"]);
                assert_eq!(fixture.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
            }
        }
    }
}

#[tokio::test]
async fn an_account_for_one_cluster_reaches_no_other() {
    let fixture = Fixture::start().await;
    let second = fixture.create(json!({"name": "b"})).await["id"].as_u64().unwrap();
    let token = fixture.user("ann", "operator", &[second]).await;
    let mut walked = 0;
    for route in registered_routes().iter().filter(|route| route.in_cluster) {
        walked += 1;
        let other = route.path.replace("{id}", "1");
        let answer = fixture.send(route.method.clone(), &other, Some(&token), body(route)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{}", route.name);
    }
    assert!(walked >= 3);
    let get = async |path: &str| fixture.send(Method::GET, path, Some(&token), None).await;
    let list: Value = get("/api/v1/clusters").await.json().await.unwrap();
    assert_eq!((&list["total"], &list["items"][0]["id"]), (&json!(1), &json!(second)));
    assert_eq!(get(&format!("/api/v1/clusters/{second}")).await.status(), StatusCode::OK);
    assert_eq!(get("/api/v1/bandwidth").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(get(&format!("/api/v1/bandwidth?cluster_id={second}")).await.status(), StatusCode::OK);
    assert_eq!(get("/api/v1/placements?ip=10.0.0.1").await.status(), StatusCode::FORBIDDEN);
    let made = fixture.send(Method::POST, "/api/v1/clusters", Some(&token), Some(json!({"name": "c"}))).await;
    assert_eq!(made.status(), StatusCode::FORBIDDEN);
}

/// Whatever a viewer sends, to whichever route, nothing but his own tokens is another one afterwards.
#[tokio::test]
async fn a_viewer_changes_nothing_whatever_he_sends() {
    let fixture = Fixture::start().await;
    let token = fixture.user("viewer", "viewer", &[]).await;
    fixture.create(json!({"name": "b", "bio": "before"})).await;
    let snapshot = async || {
        let mut all = Vec::new();
        for path in ["/api/v1/clusters", "/api/v1/users", "/api/v1/schedulers"] {
            all.push(fixture.get(path).await);
        }
        all
    };
    let before = snapshot().await;
    let bodies = [
        json!({}),
        json!({"name": "evil", "bio": "evil", "is_default": true}),
        json!({"name": "evil2", "password": "long enough password", "role": "admin"}),
        json!({"role": "admin", "disabled": true}),
        json!({"type": "preheat", "args": {"image": "alpine"}}),
    ];
    let mut sent = 0;
    for route in registered_routes().iter().filter(|route| route.writes() && route.name != "users.signout") {
        if route.name.starts_with("tokens.") {
            continue;
        }
        for (body, id) in bodies.iter().flat_map(|body| ["1", "2", "3"].map(|id| (body, id))) {
            let path = route.path.replace("{id}", id);
            let answer = fixture.send(route.method.clone(), &path, Some(&token), Some(body.clone())).await;
            assert!(!answer.status().is_success(), "{} {body}: {}", route.name, answer.status());
            sent += 1;
        }
    }
    assert!(sent > 50, "{sent}");
    assert_eq!(snapshot().await, before);
}
