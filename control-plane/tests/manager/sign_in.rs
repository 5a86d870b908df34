//! Signing in, and that nothing works without.

use crate::harness::{Fixture, PASSWORD};
use hawker_control::manager::registered_routes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn wrong_passwords_and_unknown_users_look_the_same() {
    let fixture = Fixture::start().await;
    let mut answers = Vec::new();
    for (name, password) in [("root", "wrong"), ("nobody", PASSWORD), ("root", ""), ("", PASSWORD)] {
        let answer = fixture.sign_in(name, password).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        answers.push(answer.json::<Value>().await.unwrap());
    }
    let wanted = json!({
        "type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "name or password is wrong",
    });
    assert!(answers.iter().all(|answer| *answer == wanted), "{answers:?}");
}

#[tokio::test]
async fn guesses_are_throttled() {
    let fixture = Fixture::start().await;
    for _ in 0..10 {
        assert_eq!(fixture.sign_in("root", "guess").await.status(), StatusCode::UNAUTHORIZED);
    }
    let answer = fixture.sign_in("root", PASSWORD).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn every_route_but_sign_in_and_health_needs_a_token() {
    let fixture = Fixture::start().await;
    let mut open = Vec::new();
    for route in registered_routes() {
        let path = route.path.replace("{id}", "1");
        for token in [None, Some(""), Some("forged"), Some(PASSWORD)] {
            let body = (route.method != Method::GET).then(|| json!({}));
            let answer = fixture.send(route.method.clone(), &path, token, body).await;
            if route.needs_token {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{} {path}", route.method);
                assert_eq!(answer.headers()["www-authenticate"], "Bearer");
                assert_eq!(answer.headers()["content-type"], "application/problem+json");
            }
        }
        if !route.needs_token {
            open.push(route.path);
        }
    }
    assert_eq!(open, ["/healthz", "/api/v1/users/signin"]);
    assert_eq!(fixture.get("/api/v1/clusters").await["total"], 1, "nothing was deleted on the way");
}

#[tokio::test]
async fn health_is_open() {
    let fixture = Fixture::start().await;
    let answer = fixture.send(Method::GET, "/healthz", None, None).await;
    assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, "ok\n"));
}

#[tokio::test]
async fn a_token_says_when_it_expires_and_outlives_a_restart() {
    let fixture = Fixture::start().await;
    let answer: Value = fixture.sign_in("root", PASSWORD).await.json().await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let left = answer["expires_at"].as_u64().unwrap() - now;
    assert!((86_300..=86_400).contains(&left), "{left}");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.get("/api/v1/clusters").await["total"], 1);
    assert_eq!(fixture.sign_in("root", PASSWORD).await.status(), StatusCode::OK);
}
