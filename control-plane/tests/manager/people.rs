//! Users, their tokens, and the audit log.

use crate::harness::{Fixture, PASSWORD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const INJECTIONS: [&str; 8] = [
    "<script>alert(1)</script>",
    "'; DROP TABLE users; --",
    "\" onmouseover=\"x",
    "{{7*7}}${7*7}",
    "../../etc/passwd",
    "%s%n%00",
    "$(reboot)`reboot`",
    "=cmd|' /C calc'!A0",
];

#[tokio::test]
async fn a_user_from_first_to_last() {
    let fixture = Fixture::start().await;
    let token = fixture.user("ann", "viewer", &[1]).await;
    let list = fixture.get("/api/v1/users").await;
    assert_eq!((&list["total"], &list["items"][0]["name"]), (&json!(2), &json!("ann")));
    let ann = list["items"][0].clone();
    assert_eq!(
        (&ann["role"], &ann["cluster_ids"], &ann["source"]),
        (&json!("viewer"), &json!([1]), &json!("local"))
    );
    assert!(!list.to_string().contains("argon2"), "{list}");
    let path = format!("/api/v1/users/{}", ann["id"]);
    let (status, edited) =
        fixture.call(Method::PATCH, &path, Some(json!({"role": "operator", "cluster_ids": []}))).await;
    assert_eq!((status, &edited["role"]), (StatusCode::OK, &json!("operator")));
    // The role counts at once, in a session that was there before.
    let made = fixture.send(Method::POST, "/api/v1/clusters", Some(&token), Some(json!({"name": "b"}))).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    // Disabled: signed out everywhere, at once.
    fixture.call(Method::PATCH, &path, Some(json!({"disabled": true}))).await;
    let me = fixture.send(Method::GET, "/api/v1/users/me", Some(&token), None).await;
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.sign_in("ann", PASSWORD).await.status(), StatusCode::UNAUTHORIZED);
    fixture
        .call(Method::PATCH, &path, Some(json!({"disabled": false, "password": "another password"})))
        .await;
    assert_eq!(fixture.sign_in("ann", PASSWORD).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.sign_in("ann", "another password").await.status(), StatusCode::OK);
    assert_eq!(fixture.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(fixture.call(Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    let (status, problem) = fixture.call(Method::DELETE, "/api/v1/users/1", None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert_eq!(fixture.call(Method::PATCH, "/api/v1/users/1", Some(json!({"role": "viewer"}))).await.0, 409);
}

#[tokio::test]
async fn what_no_user_can_be_is_named() {
    let fixture = Fixture::start().await;
    fixture.user("ann", "viewer", &[]).await;
    let long = "x".repeat(65);
    for (change, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": long}), "name"),
        (json!({"name": "corp:ann"}), "name"),
        (json!({"name": "a\u{202e}b"}), "name"),
        (json!({"password": "short"}), "password"),
        (json!({"password": "x".repeat(257)}), "password"),
        (json!({"role": "root"}), "role"),
        (json!({"role": "admin", "cluster_ids": [1]}), "cluster_ids"),
        (json!({"cluster_ids": [77]}), "cluster_ids"),
    ] {
        let mut body = json!({"name": "bob", "password": PASSWORD});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, problem) = fixture.call(Method::POST, "/api/v1/users", Some(body)).await;
        assert_eq!((status.as_u16(), problem["field"].as_str()), (422, Some(field)), "{change}: {problem}");
        assert!(!problem.to_string().contains(PASSWORD));
    }
    let taken = json!({"name": "ann", "password": PASSWORD});
    let (status, problem) = fixture.call(Method::POST, "/api/v1/users", Some(taken)).await;
    assert_eq!(
        (status.as_u16(), problem["detail"].as_str().unwrap()),
        (409, "a user named `ann` exists already")
    );
}

#[tokio::test]
async fn what_looks_like_code_comes_back_as_it_was_written() {
    let fixture = Fixture::start().await;
    for (index, text) in INJECTIONS.iter().enumerate() {
        let scopes = json!({"idc": text, "location": text, "hostnames": [text]});
        let cluster = fixture.create(json!({"name": text, "bio": text, "scopes": scopes})).await;
        assert_eq!((&cluster["name"], &cluster["bio"]), (&json!(text), &json!(text)));
        let shown = fixture.get(&format!("/api/v1/clusters/{}", cluster["id"])).await;
        assert_eq!(
            (&shown["scopes"]["idc"], &shown["scopes"]["location"]),
            (&json!(text), &json!(text)),
            "{text}"
        );
        let found =
            fixture.request(Method::GET, "/api/v1/clusters").query(&[("q", text)]).send().await.unwrap();
        assert_eq!(found.headers()["content-type"], "application/json");
        if !text.contains('\0') && !text.contains("%00") {
            assert_eq!(found.json::<Value>().await.unwrap()["total"], 1, "{text}");
        }
        let body = json!({"name": text, "password": PASSWORD});
        let (status, user) = fixture.call(Method::POST, "/api/v1/users", Some(body)).await;
        assert_eq!((status, &user["name"]), (StatusCode::CREATED, &json!(text)), "{user}");
        let (status, token) =
            fixture.call(Method::POST, "/api/v1/tokens", Some(json!({"name": text, "scopes": []}))).await;
        assert_eq!((status, &token["name"]), (StatusCode::CREATED, &json!(text)));
        let audit =
            fixture.request(Method::GET, "/api/v1/audit").query(&[("user", text)]).send().await.unwrap();
        assert_eq!(audit.json::<Value>().await.unwrap()["total"], 0);
        let all = fixture.get("/api/v1/audit?action=users.create").await;
        assert_eq!(all["total"], index + 1);
        assert_eq!(all["items"][0]["object"], format!("user {text}"));
        let wrong = fixture.sign_in(text, text).await;
        assert!([401, 429].contains(&wrong.status().as_u16()), "{text}");
    }
    assert_eq!(fixture.get("/api/v1/users").await["total"], INJECTIONS.len() + 1);
}

#[tokio::test]
async fn access_tokens_are_no_more_than_their_scopes_and_their_owner() {
    let fixture = Fixture::start().await;
    let viewer = fixture.user("ann", "viewer", &[]).await;
    let make = async |token: &str, body: Value| {
        let answer = fixture.send(Method::POST, "/api/v1/tokens", Some(token), Some(body)).await;
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, problem) =
        make(&viewer, json!({"name": "x", "scopes": ["clusters:read", "users:write"]})).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("scopes[1]")), "{problem}");
    for (body, field) in [
        (json!({"name": "x", "scopes": ["everything"]}), "scopes[0]"),
        (json!({"name": "", "scopes": []}), "name"),
        (json!({"name": "x", "scopes": [], "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"name": "x", "scopes": [], "expires_at": "2999-01-01T00:00:00Z"}), "expires_at"),
    ] {
        let (status, problem) = make(&viewer, body).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    let (status, made) =
        make(&viewer, json!({"name": "ci", "scopes": ["clusters:read", "tokens:write"]})).await;
    assert_eq!(status, 201);
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("hwk_"), "{token}");
    // A token cannot make a better one.
    let (status, _) = make(token, json!({"name": "more", "scopes": ["hosts:read"]})).await;
    assert_eq!(status, 422);
    let get = async |path: &str| fixture.send(Method::GET, path, Some(token), None).await.status().as_u16();
    assert_eq!((get("/api/v1/clusters").await, get("/api/v1/peers").await), (200, 403));
    let list: Value =
        fixture.send(Method::GET, "/api/v1/tokens", Some(&viewer), None).await.json().await.unwrap();
    assert_eq!((&list["total"], &list["items"][0]["user"]), (&json!(1), &json!("ann")));
    assert!(
        list["items"][0]["last_used_at"].is_string() && list["items"][0].get("token").is_none(),
        "{list}"
    );
    // What is another one's is not there for who is no admin.
    let bob = fixture.user("bob", "operator", &[]).await;
    let path = format!("/api/v1/tokens/{}", made["id"]);
    let foreign = fixture.send(Method::DELETE, &path, Some(&bob), None).await;
    assert_eq!(foreign.status(), StatusCode::NOT_FOUND);
    let all = fixture.send(Method::GET, "/api/v1/tokens?all=true", Some(&bob), None).await;
    assert_eq!(all.status(), StatusCode::FORBIDDEN);
    assert_eq!(fixture.get("/api/v1/tokens?all=true").await["total"], 1);
    // Revoked: at once.
    assert_eq!(fixture.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(get("/api/v1/clusters").await, 401);
}

#[tokio::test]
async fn a_token_expires_and_no_token_ends_sessions_or_sets_passwords() {
    let fixture = Fixture::start().await;
    // Later than what follows takes on a busy machine.
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    let soon = humantime::format_rfc3339_seconds(soon).to_string();
    let body = json!({"name": "x", "scopes": ["clusters:read"], "expires_at": soon});
    let (_, made) = fixture.call(Method::POST, "/api/v1/tokens", Some(body)).await;
    let token = made["token"].as_str().unwrap();
    let get =
        async || fixture.send(Method::GET, "/api/v1/clusters", Some(token), None).await.status().as_u16();
    assert_eq!(get().await, 200);
    for path in ["/api/v1/users/signout", "/api/v1/users/me/password"] {
        let body = json!({"current_password": PASSWORD, "password": "another password"});
        let answer = fixture.send(Method::POST, path, Some(token), Some(body)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let expires = async {
        while get().await != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), expires).await.expect("it never expired");
}

#[tokio::test]
async fn every_change_and_every_try_is_in_the_audit_log_without_secrets() {
    let fixture = Fixture::start().await;
    let viewer = fixture.user("ann", "viewer", &[]).await;
    fixture.edit(1, json!({"bio": "new"})).await;
    fixture.send(Method::PATCH, "/api/v1/clusters/1", Some(&viewer), Some(json!({"bio": "evil"}))).await;
    fixture.call(Method::POST, "/api/v1/clusters", Some(json!({"name": ""}))).await;
    fixture.sign_in("root", "wrong password").await;
    let (_, made) =
        fixture.call(Method::POST, "/api/v1/tokens", Some(json!({"name": "ci", "scopes": []}))).await;
    let path = "/api/v1/users/me/password";
    let body = json!({"current_password": "wrong", "password": "another password"});
    assert_eq!(fixture.call(Method::POST, path, Some(body)).await.0, StatusCode::FORBIDDEN);
    let log = fixture.get("/api/v1/audit").await;
    let items = log["items"].as_array().unwrap();
    let found: Vec<_> = items
        .iter()
        .map(|item| {
            format!(
                "{} {} {} {}",
                item["user"].as_str().unwrap(),
                item["action"].as_str().unwrap(),
                item["object"].as_str().unwrap(),
                item["outcome"]
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "root users.password user root 403",
            &format!("root tokens.create token {} ci 201", made["id"]),
            " users.signin user root 401",
            "root clusters.create cluster  422",
            "ann clusters.update /api/v1/clusters/1 403",
            "root clusters.update cluster 1 cluster-1 200",
            " users.signin user ann 200",
            "root users.create user ann 201",
            " users.signin user root 200",
        ]
    );
    assert_eq!(
        items[5]["detail"]["bio"],
        json!({"before": "default cluster, made at the first start", "after": "new"})
    );
    assert!(items.iter().all(|item| item["remote"] == "127.0.0.1"), "{log}");
    let text = log.to_string();
    for secret in [PASSWORD, "wrong password", "another password", made["token"].as_str().unwrap(), &viewer] {
        assert!(!text.contains(secret), "{secret}");
    }
    let ann = fixture.get("/api/v1/audit?user=ann&per_page=1").await;
    assert_eq!((&ann["total"], &ann["items"][0]["action"]), (&json!(1), &json!("clusters.update")));
    assert_eq!(fixture.get("/api/v1/audit?until=2020-01-01T00:00:00Z").await["total"], 0);
    assert_eq!(fixture.get("/api/v1/audit?since=2020-01-01T00:00:00Z&action=users.create").await["total"], 1);
    assert_eq!(
        fixture.call(Method::GET, "/api/v1/audit?since=yesterday", None).await.0,
        StatusCode::BAD_REQUEST
    );
}
