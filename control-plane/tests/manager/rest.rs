//! What holds for every route: how bad requests are refused, how lists are filtered, what is described.

use crate::harness::{Fixture, peer};
use hawker_api::v1::keep_alive_request::Kind;
use hawker_control::manager::registered_routes;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// Sends what no careful client would, and reads the problem it gets.
async fn refused(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{status}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    (status, problem)
}

#[tokio::test]
async fn what_cannot_be_used_is_named_with_its_place() {
    let fixture = Fixture::start().await;
    let json = "application/json";
    let deep = format!(r#"{{"config":{{"a":{}"#, "[".repeat(200_000));
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(64));
    for (kind, body, status, field, says) in [
        (json, "{", 400, None, "line 1 column 1"),
        (json, "{} {}", 400, None, "trailing characters"),
        (json, "", 400, None, "no JSON"),
        (json, r#"{"name":"a","nam":1}"#, 400, Some("nam"), "unknown field `nam`, expected one of `name`"),
        (json, r#"{"name":"a","scopes":{"cidr":[]}}"#, 400, Some("scopes.cidr"), "unknown field `cidr`"),
        (
            json,
            r#"{"name":"a","scopes":{"cidrs":["10.0.0.0/8",7]}}"#,
            400,
            Some("scopes.cidrs[1]"),
            "integer `7`",
        ),
        (json, r#"{"name":"a","name":"b"}"#, 400, None, "duplicate field `name`"),
        (json, r#"{"name":7}"#, 400, Some("name"), "expected a string"),
        (json, r#"{"name":"a\u0000"}"#, 400, None, "NUL"),
        (json, &long, 422, Some("name"), "name: `xxx"),
        (json, &long, 422, Some("name"), "must have 1 to 63 bytes"),
        ("text/plain", r#"{"name":"a"}"#, 415, None, "application/json"),
        ("application/x-www-form-urlencoded", "name=a", 415, None, "application/json"),
        (json, "[]", 400, None, "must be an object"),
        (json, &deep, 400, None, "recursion limit"),
    ] {
        let request = fixture.request(Method::POST, "/api/v1/clusters");
        let request = request.header("content-type", kind).body(body.to_owned());
        let (got, problem) = refused(request).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!((got, problem["field"].as_str()), (status, field), "{shown}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{shown}: {problem}");
    }
    let large = fixture.request(Method::POST, "/api/v1/clusters").header("content-type", json);
    let (status, problem) = refused(large.body("x".repeat((1 << 20) + 1))).await;
    assert_eq!((status, &problem["detail"]), (413, &json!("the body is larger than 1048576 bytes")));
    assert_eq!(fixture.get("/api/v1/clusters").await["total"], 1, "nothing was made");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let fixture = Fixture::start().await;
    for path in ["/api/v1/nothing", "/api/", "/api/v1/clusters/1/2/3", "/api/v2/clusters"] {
        assert_eq!(refused(fixture.request(Method::GET, path)).await.0, 404, "{path}");
    }
    let answer = fixture.request(Method::PUT, "/api/v1/clusters").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let allow = answer.headers()["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    for (query, says) in [("page=0", "page"), ("page=x", "page"), ("pag=1", "pag"), ("q=%00", "NUL")] {
        let (status, problem) =
            refused(fixture.request(Method::GET, &format!("/api/v1/clusters?{query}"))).await;
        assert_eq!(status, 400, "{query}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{query}: {problem}");
    }
    assert_eq!(refused(fixture.request(Method::GET, "/api/v1/clusters/one")).await.0, 400);
}

#[tokio::test]
async fn answers_are_nobodys_to_keep_to_sniff_or_to_frame() {
    let fixture = Fixture::start().await;
    for path in ["/api/v1/clusters", "/api/v1/nothing"] {
        let answer =
            fixture.request(Method::GET, path).header("origin", "https://evil.example").send().await.unwrap();
        let headers = answer.headers();
        assert_eq!(
            (&headers["x-content-type-options"], &headers["cache-control"]),
            (&"nosniff".parse().unwrap(), &"no-store".parse().unwrap())
        );
        assert_eq!(headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
        assert!(!headers.contains_key("access-control-allow-origin"), "{path}");
    }
}

#[tokio::test]
async fn lists_are_filtered_before_they_are_paged() {
    let fixture = Fixture::start().await;
    for name in ["east", "West", "north-east"] {
        fixture.create(json!({ "name": name })).await;
    }
    let found = fixture.get("/api/v1/clusters?q=EAST&per_page=1&page=2").await;
    assert_eq!((&found["total"], &found["items"][0]["name"]), (&json!(2), &json!("north-east")));
    let _one = fixture.keep_alive(Kind::Peer(peer("a1", "10.0.0.7"))).await;
    let _two = fixture.keep_alive(Kind::Peer(peer("b2", "10.0.0.8"))).await;
    let all = fixture.wait_for("/api/v1/peers", |list| list["total"] == 2).await;
    assert!(all["items"][0]["registered_at"].as_str().unwrap().ends_with('Z'), "{all}");
    for (query, ids) in [
        ("q=10.0.0.8", vec!["b2"]),
        ("q=NODE-A", vec!["a1"]),
        ("engine=portable", vec!["a1", "b2"]),
        ("engine=io_uring", vec![]),
        ("version=0.1.0&q=b2", vec!["b2"]),
        ("cluster_id=1", vec!["a1", "b2"]),
        ("cluster_id=2", vec![]),
    ] {
        let list = fixture.get(&format!("/api/v1/peers?{query}")).await;
        let found: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert_eq!((json!(found.len()), found), (list["total"].clone(), ids), "{query}");
    }
}

#[tokio::test]
async fn the_description_is_of_what_is_served() {
    let fixture = Fixture::start().await;
    let document = fixture.get("/api/v1/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    for route in registered_routes() {
        let operation = &document["paths"][&*route.path][route.method.as_str().to_lowercase()];
        assert_eq!(operation["operationId"], route.name);
        if let Some(permission) = route.permission {
            assert!(operation["description"].as_str().unwrap().contains(permission.name()), "{operation}");
        }
    }
    let answer = fixture.send(Method::GET, "/api/v1/openapi.json", None, None).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn signing_out_ends_the_session_at_once() {
    let fixture = Fixture::start().await;
    let me = fixture.get("/api/v1/users/me").await;
    assert_eq!((&me["name"], &me["role"], &me["cluster_ids"]), (&json!("root"), &json!("admin"), &json!([])));
    let (status, _) = fixture.call(Method::POST, "/api/v1/users/signout", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(fixture.call(Method::GET, "/api/v1/users/me", None).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn of_two_edits_of_one_revision_the_second_is_refused() {
    let fixture = Fixture::start().await;
    let path = "/api/v1/clusters/1";
    let shown = fixture.request(Method::GET, path).send().await.unwrap();
    let tag = shown.headers()["etag"].to_str().unwrap().to_owned();
    let edit = |tag: &str, bio: &str| {
        fixture.request(Method::PATCH, path).header("if-match", tag).json(&json!({ "bio": bio })).send()
    };
    let first = edit(&tag, "first").await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let newer = first.headers()["etag"].to_str().unwrap().to_owned();
    assert_ne!(newer, tag);
    for stale in [&tag, "\"other\"", &format!("W/{newer}"), &format!("{tag}, \"x\"")] {
        assert_eq!(edit(stale, "second").await.unwrap().status(), StatusCode::PRECONDITION_FAILED, "{stale}");
    }
    assert_eq!(edit("nonsense", "second").await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(fixture.get(path).await["bio"], "first");
    for fresh in ["*", &format!("\"x\", {newer}")] {
        let answer = edit(fresh, "third").await.unwrap();
        assert!(
            fresh == "*" || answer.status() == StatusCode::PRECONDITION_FAILED,
            "the first made it stale"
        );
    }
    let deleting = fixture.request(Method::DELETE, path).header("if-match", tag).send().await.unwrap();
    assert_eq!(deleting.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn of_many_edits_at_once_exactly_one_holds() {
    let fixture = Fixture::start().await;
    let edits = (0..8).map(|number| {
        let request = fixture.request(Method::PATCH, "/api/v1/clusters/1").header("if-match", "\"1\"");
        request.json(&json!({ "bio": format!("edit {number}") })).send()
    });
    let answers = futures::future::join_all(edits).await;
    let statuses: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
}
