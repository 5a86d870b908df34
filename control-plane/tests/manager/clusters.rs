//! Clusters over REST.

use crate::harness::{Fixture, peer};
use hawker_api::v1::keep_alive_request::Kind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn a_first_start_has_the_default_cluster() {
    let fixture = Fixture::start().await;
    let list = fixture.get("/api/v1/clusters").await;
    assert_eq!((&list["total"], &list["page"], &list["per_page"]), (&json!(1), &json!(1), &json!(100)));
    let cluster = &list["items"][0];
    assert_eq!((&cluster["name"], &cluster["is_default"]), (&json!("cluster-1"), &json!(true)));
}

#[tokio::test]
async fn create_read_update_delete_and_restart() {
    let fixture = Fixture::start().await;
    let scopes = json!({"cidrs": ["10.1.0.7/16"], "idc": "a|b", "location": "asia|cn", "hostnames": ["n-*"]});
    let body = json!({"name": "b", "bio": "second", "scopes": scopes, "config": {"shaper": {"uploadLimit": "1Gbps"}}});
    let created = fixture.create(body).await;
    let id = created["id"].as_u64().unwrap();
    assert_eq!(created["scopes"]["cidrs"], json!(["10.1.0.0/16"]));
    assert_eq!(
        (&created["scheduler_cluster_id"], &created["seed_peer_cluster_id"]),
        (&json!(id), &json!(id))
    );
    assert_eq!(fixture.get(&format!("/api/v1/clusters/{id}")).await, created);

    let edited = fixture.edit(id, json!({"name": "c", "scopes": {"idc": "z"}})).await;
    assert_eq!(edited["scopes"]["idc"], "z");
    for kept in ["bio", "config", "is_default", "created_at"] {
        assert_eq!(edited[kept], created[kept], "{kept}");
    }
    assert_eq!(edited["scopes"]["cidrs"], created["scopes"]["cidrs"]);

    let fixture = fixture.restart().await;
    assert_eq!(fixture.get(&format!("/api/v1/clusters/{id}")).await, edited);
    let path = format!("/api/v1/clusters/{id}");
    assert_eq!(fixture.call(Method::DELETE, &path, None).await, (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(fixture.call(Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(fixture.call(Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    let fixture = fixture.restart().await;
    assert_eq!(fixture.get("/api/v1/clusters").await["total"], 1);
}

#[tokio::test]
async fn the_default_moves_but_never_goes() {
    let fixture = Fixture::start().await;
    let (status, problem) = fixture.call(Method::DELETE, "/api/v1/clusters/1", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("`cluster-1` is the default"), "{problem}");
    let (status, _) =
        fixture.call(Method::PATCH, "/api/v1/clusters/1", Some(json!({"is_default": false}))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let second = fixture.create(json!({"name": "b", "is_default": true})).await;
    assert_eq!(fixture.get("/api/v1/clusters/1").await["is_default"], false);
    assert_eq!(fixture.get("/api/v1/placements").await["cluster_id"], second["id"]);
    let (status, _) = fixture.call(Method::DELETE, "/api/v1/clusters/1", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let fixture = Fixture::start().await;
    let (get, post, patch) = (Method::GET, Method::POST, Method::PATCH);
    let list = "/api/v1/clusters";
    let one = "/api/v1/clusters/1";
    for (method, path, body, status, says) in [
        (
            &post,
            list,
            json!({"name": "b", "scopes": {"cidrs": ["10.0.0.0/33"]}}),
            422,
            "scopes.cidrs: `10.0.0.0/33`",
        ),
        (&patch, one, json!({"scopes": {"hostnames": ["n["]}}), 422, "scopes.hostnames: `n[`"),
        (&patch, one, json!({"scopes": {"location": "a||b"}}), 422, "scopes.location: `a||b`"),
        (&post, list, json!({}), 422, "name"),
        (&post, list, json!({"name": "  "}), 422, "name"),
        (&post, list, json!({"name": "x".repeat(64)}), 422, "63 bytes"),
        (&post, list, json!({"name": "a\nb"}), 422, "control"),
        (&patch, one, json!({"bio": "x".repeat(1025)}), 422, "bio"),
        (&patch, one, json!({"config": {"x": "y".repeat(17_000)}}), 422, "config"),
        (&patch, one, json!({"config": {"parents": 4}}), 422, "config.parents: is no key"),
        (
            &patch,
            one,
            json!({"config": {"shaper": {"uploadLimit": 1}}}),
            422,
            "config.shaper.uploadLimit: 1B/s",
        ),
        (&post, list, json!({"name": "b", "config": {"shaper": 1}}), 422, "config.shaper: `1`"),
        (&post, list, json!({"name": "cluster-1"}), 409, "`cluster-1` exists already"),
        (&post, list, json!({"name": "b", "scope": {}}), 400, "`scope`"),
        (&post, list, json!({"name": "b", "scopes": {"cidr": []}}), 400, "`cidr`"),
        (&post, list, json!({"name": "b", "scheduler_cluster_id": 3}), 400, "`scheduler_cluster_id`"),
        (&post, list, json!({"name": 7}), 400, "name"),
        (&post, list, json!(["name"]), 400, ""),
        (&post, list, json!({"name": "b", "bio": "x".repeat(2 << 20)}), 413, ""),
        (&patch, "/api/v1/clusters/99", json!({"bio": ""}), 404, "no cluster 99"),
        (&get, "/api/v1/clusters/one", Value::Null, 400, "one"),
        (&get, "/api/v1/clusters/-1", Value::Null, 400, "-1"),
        (&get, "/api/v1/clusters/18446744073709551615", Value::Null, 404, "no cluster 18446744073709551615"),
        (&get, "/api/v1/clusters?page=0", Value::Null, 400, "page"),
        (&get, "/api/v1/clusters?per_page=1001", Value::Null, 400, "1000"),
        (&get, "/api/v1/clusters?size=3", Value::Null, 400, "size"),
        (&get, "/api/v1/placements?ip=10.0.0.300", Value::Null, 400, "`10.0.0.300`"),
        (&get, "/api/v1/placements?host=a", Value::Null, 400, "host"),
        (&get, "/api/v1/nothing", Value::Null, 404, ""),
        (&patch, list, json!({}), 405, ""),
    ] {
        let body = (*method != Method::GET).then_some(body);
        let answer = fixture.send(method.clone(), path, Some(&fixture.token), body).await;
        assert_eq!(answer.status().as_u16(), status, "{method} {path} {says}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{method} {path}: {problem}");
        if status == 422 {
            let (field, detail) = (problem["field"].as_str().unwrap(), problem["detail"].as_str().unwrap());
            assert!(detail.starts_with(&format!("{field}: ")), "{problem}");
        }
    }
    assert_eq!(fixture.get(list).await["total"], 1, "nothing was saved");
}

#[tokio::test]
async fn malformed_json_is_a_problem() {
    let fixture = Fixture::start().await;
    let url = format!("http://{}/api/v1/clusters", fixture.manager.rest_addr());
    let request = reqwest::Client::new().post(url).bearer_auth(&fixture.token);
    let answer = request.header("content-type", "application/json").body("{\"name\": ").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let fixture = Fixture::start().await;
    for number in 2..=5 {
        fixture.create(json!({"name": format!("c{number}")})).await;
    }
    let page = fixture.get("/api/v1/clusters?page=2&per_page=2").await;
    let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
    assert_eq!((ids, &page["total"]), (vec![json!(3), json!(4)], &json!(5)));
    let beyond = fixture.get("/api/v1/clusters?page=9223372036854775807&per_page=1000").await;
    assert_eq!((&beyond["items"], &beyond["total"]), (&json!([]), &json!(5)));
}

#[tokio::test]
async fn a_cluster_with_a_live_host_is_not_deleted() {
    let fixture = Fixture::start().await;
    fixture.create(json!({"name": "b", "scopes": {"cidrs": ["10.2.0.0/16"]}})).await;
    let mut session = fixture.keep_alive(Kind::Peer(peer("a", "10.2.0.7"))).await;
    assert_eq!(session.placement().await.cluster_id, 2);
    let scheduler = fixture.scheduler(2, "10.2.0.2:8002").await;
    let (status, problem) = fixture.call(Method::DELETE, "/api/v1/clusters/2", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("2 live hosts") && detail.contains("node-a (peer)"), "{detail}");
    drop(session);
    drop(scheduler);
    fixture.wait_for("/api/v1/peers", |list| list["total"] == 0).await;
    fixture.wait_for("/api/v1/schedulers", |list| list["total"] == 0).await;
    let (status, _) = fixture.call(Method::DELETE, "/api/v1/clusters/2", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn edits_at_the_same_time_do_not_lose_each_other() {
    let fixture = Fixture::start().await;
    let (bio, scopes) = tokio::join!(
        fixture.edit(1, json!({"bio": "new"})),
        fixture.edit(1, json!({"scopes": {"idc": "x"}})),
    );
    drop((bio, scopes));
    let cluster = fixture.get("/api/v1/clusters/1").await;
    assert_eq!((&cluster["bio"], &cluster["scopes"]["idc"]), (&json!("new"), &json!("x")));
}
