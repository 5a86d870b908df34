//! Sessions in cookies, their CSRF tokens, and sessions over restarts and on two managers.

use crate::harness::{Fixture, PASSWORD};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;

struct Browser {
    addr: SocketAddr,
    http: Client,
    cookie: String,
    csrf: String,
}

impl Browser {
    async fn sign_in(addr: SocketAddr) -> Self {
        let http = Client::new();
        let url = format!("http://{addr}/api/v1/users/signin?cookie=true");
        let body = json!({"name": "root", "password": PASSWORD});
        let answer = http.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        for wanted in ["hawker_session=", "; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age="] {
            assert!(set.contains(wanted), "{set}");
        }
        assert!(!set.contains("Secure"), "no TLS is configured: {set}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["user"]["name"], "root");
        assert!(body.get("token").is_none(), "{body}");
        let cookie = set.split(';').next().unwrap().to_owned();
        Self { addr, http, cookie, csrf: body["csrf_token"].as_str().unwrap().to_owned() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.addr);
        self.http.request(method, url).header("cookie", format!("theme=dark; {}", self.cookie))
    }

    async fn status(&self, path: &str) -> u16 {
        self.request(Method::GET, path).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn a_cookie_reads_and_with_its_csrf_token_writes() {
    let fixture = Fixture::start().await;
    let browser = Browser::sign_in(fixture.manager.rest_addr()).await;
    let me: Value =
        browser.request(Method::GET, "/api/v1/users/me").send().await.unwrap().json().await.unwrap();
    assert_eq!((&me["name"], &me["csrf_token"]), (&json!("root"), &json!(browser.csrf)));
    let edit = |csrf: Option<&str>| {
        let request = browser.request(Method::PATCH, "/api/v1/clusters/1").json(&json!({"bio": "new"}));
        match csrf {
            Some(csrf) => request.header("x-csrf-token", csrf),
            None => request,
        }
    };
    let other = Browser::sign_in(fixture.manager.rest_addr()).await;
    for wrong in [None, Some(""), Some("wrong"), Some(other.csrf.as_str()), Some(&browser.csrf[1..])] {
        let answer = edit(wrong).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{wrong:?}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let cross = edit(Some(&browser.csrf)).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(cross.status(), StatusCode::FORBIDDEN);
    assert_ne!(fixture.get("/api/v1/clusters/1").await["bio"], "new");
    assert_eq!(edit(Some(&browser.csrf)).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_cookie_is_no_bearer_token_and_the_other_way_round() {
    let fixture = Fixture::start().await;
    let browser = Browser::sign_in(fixture.manager.rest_addr()).await;
    let text = browser.cookie.split_once('=').unwrap().1;
    let answer = fixture.send(Method::GET, "/api/v1/users/me", Some(text), None).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let turned = Browser { cookie: format!("hawker_session={}", fixture.token), ..browser };
    assert_eq!(turned.status("/api/v1/users/me").await, 401);
}

#[tokio::test]
async fn signing_out_takes_the_cookie_back() {
    let fixture = Fixture::start().await;
    let browser = Browser::sign_in(fixture.manager.rest_addr()).await;
    let out = browser.request(Method::POST, "/api/v1/users/signout");
    let answer = out.header("x-csrf-token", &browser.csrf).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("hawker_session=; HttpOnly"));
    assert_eq!(browser.status("/api/v1/users/me").await, 401, "the session ended, whoever kept the cookie");
}

#[tokio::test]
async fn a_new_password_ends_every_session() {
    let fixture = Fixture::start().await;
    let browser = Browser::sign_in(fixture.manager.rest_addr()).await;
    let body = json!({"current_password": PASSWORD, "password": "another password"});
    let answer = fixture.call(Method::POST, "/api/v1/users/me/password", Some(body)).await;
    assert_eq!(answer.0, StatusCode::NO_CONTENT, "{}", answer.1);
    assert_eq!(browser.status("/api/v1/users/me").await, 401);
    assert_eq!(fixture.call(Method::GET, "/api/v1/users/me", None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.sign_in("root", "another password").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn sessions_work_on_either_of_two_managers_and_outlive_one() {
    let fixture = Fixture::start().await;
    let second = fixture.second_manager().await;
    let first_addr = fixture.manager.rest_addr();
    let browser = Browser::sign_in(first_addr).await;
    let at_second = Browser { addr: second.rest_addr(), ..Browser::sign_in(first_addr).await };
    assert_eq!(at_second.status("/api/v1/users/me").await, 200);
    // Ended at one, it has ended at the other.
    let out = at_second.request(Method::POST, "/api/v1/users/signout");
    let answer = out.header("x-csrf-token", &at_second.csrf).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let back = Browser { addr: first_addr, ..at_second };
    assert_eq!(back.status("/api/v1/users/me").await, 401);
    let kept = Browser { addr: second.rest_addr(), ..browser };
    fixture.manager.shutdown().await;
    assert_eq!(kept.status("/api/v1/users/me").await, 200);
    second.shutdown().await;
}
