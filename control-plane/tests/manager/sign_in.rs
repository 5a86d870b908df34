//! Signing in, and that nothing works without.

use crate::harness::{Fixture, PASSWORD};
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
    let expires = humantime::parse_rfc3339(answer["expires_at"].as_str().unwrap()).unwrap();
    let left = expires.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - now;
    assert!((86_300..=86_400).contains(&left), "{left}");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.get("/api/v1/clusters").await["total"], 1);
    assert_eq!(fixture.sign_in("root", PASSWORD).await.status(), StatusCode::OK);
}
