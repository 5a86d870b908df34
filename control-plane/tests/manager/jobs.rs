//! Preheat jobs by REST, with a scheduler that passes orders on and nodes that say what they are told to say.

use crate::harness::{Fixture, Session, peer};
use hawker_api::v1;
use hawker_api::v1::job_order::What as Order;
use hawker_api::v1::job_report::What as Said;
use hawker_api::v1::keep_alive_request::Kind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DIGEST: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

fn body(scope: &str, clusters: &[u64]) -> Value {
    json!({ "type": "preheat", "args": { "image": "r.lab:5000/a/b:1", "cluster_ids": clusters, "scope": scope } })
}

/// A cluster of these nodes (one whose name begins with `s` is a seed) and its scheduler's session.
async fn cluster(fixture: &Fixture, nodes: &[&str]) -> (Session, Vec<Session>) {
    let mut sessions = Vec::new();
    for (index, id) in nodes.iter().enumerate() {
        let mut request = peer(id, &format!("10.0.0.{}", index + 1));
        if id.starts_with('s') {
            request.host.as_mut().unwrap().set_kind(v1::HostKind::Seed);
        }
        let mut session = fixture.keep_alive(Kind::Peer(request)).await;
        session.placement().await;
        sessions.push(session);
    }
    (fixture.scheduler(1, "10.0.0.99:8002").await, sessions)
}

async fn report(scheduler: &Session, order: &v1::JobOrder, what: Said) {
    let report = v1::JobReport { job: order.job.clone(), host_id: order.host_id.clone(), what: Some(what) };
    scheduler.send(Kind::Jobs(v1::JobReports { reports: vec![report] })).await;
}

fn resolved() -> Said {
    let origin =
        v1::Origin { registry: "r.lab:5000".into(), repository: "a/b".into(), ..v1::Origin::default() };
    Said::Resolved(v1::Resolved {
        error: String::new(),
        task: DIGEST.into(),
        origin: Some(origin),
        tasks: vec![v1::TaskSize { task: DIGEST.into(), bytes: 100 }],
    })
}

fn state(phase: v1::HoldPhase, bytes_done: u64, error: &str) -> Said {
    Said::Hold(v1::HoldState { phase: phase.into(), bytes_done, bytes_total: 100, error: error.into() })
}

/// Answers the question what it is, then collects `count` orders to hold it, by host.
async fn until_held(scheduler: &mut Session, count: usize) -> BTreeMap<String, v1::JobOrder> {
    let mut orders = BTreeMap::new();
    while orders.len() < count {
        let order = scheduler.order().await;
        match &order.what {
            Some(Order::Resolve(resolve)) => {
                assert_eq!(resolve.image, "r.lab:5000/a/b:1");
                report(scheduler, &order, resolved()).await;
            }
            Some(Order::Hold(hold)) => {
                assert_eq!((hold.task.as_str(), hold.name.as_str()), (DIGEST, "r.lab:5000/a/b:1"));
                orders.insert(order.host_id.clone(), order);
            }
            other => panic!("{other:?}"),
        }
    }
    orders
}

#[tokio::test]
async fn a_job_goes_to_the_nodes_and_their_progress_comes_back() {
    let fixture = Fixture::start().await;
    let (mut scheduler, _nodes) = cluster(&fixture, &["a", "b", "s"]).await;
    let answer =
        fixture.send(Method::POST, "/api/v1/jobs", Some(&fixture.token), Some(body("all", &[1]))).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["location"], "/api/v1/jobs/1");
    let job: Value = answer.json().await.unwrap();
    assert_eq!(
        (&job["id"], &job["created_by"], &job["args"]["scope"]),
        (&json!(1), &json!("root"), &json!("all"))
    );
    let order = scheduler.order().await;
    assert!(order.host_id == "s" && matches!(order.what, Some(Order::Resolve(_))), "{order:?}");
    report(&scheduler, &order, resolved()).await;
    let orders = until_held(&mut scheduler, 3).await;
    report(&scheduler, &orders["a"], state(v1::HoldPhase::Running, 40, "")).await;
    let running = fixture
        .wait_for("/api/v1/jobs/1", |job| job["nodes"][0]["bytes_done"] == 40 && job["state"] == "running")
        .await;
    assert_eq!(running["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(running["tasks"], json!([{ "task": DIGEST, "bytes": 100 }]));
    for host in ["a", "b", "s"] {
        report(&scheduler, &orders[host], state(v1::HoldPhase::Succeeded, 100, "")).await;
    }
    let ended = fixture.wait_for("/api/v1/jobs/1", |job| job["state"] == "succeeded").await;
    assert!(ended["ended_at"].as_str().unwrap().ends_with('Z'), "{ended}");
    let listed = fixture.get("/api/v1/jobs?state=succeeded").await;
    assert_eq!((&listed["total"], &listed["items"][0]["nodes_succeeded"]), (&json!(1), &json!(3)));
    assert_eq!(fixture.get("/api/v1/jobs?state=failed").await["total"], 0);
}

#[tokio::test]
async fn what_a_node_says_no_to_is_told() {
    let fixture = Fixture::start().await;
    let (mut scheduler, _nodes) = cluster(&fixture, &["a", "b"]).await;
    fixture.call(Method::POST, "/api/v1/jobs", Some(body("all", &[]))).await;
    let orders = until_held(&mut scheduler, 2).await;
    report(&scheduler, &orders["a"], state(v1::HoldPhase::Failed, 7, "no space")).await;
    report(&scheduler, &orders["b"], state(v1::HoldPhase::Succeeded, 100, "")).await;
    let failed = fixture.wait_for("/api/v1/jobs/1", |job| job["state"] == "failed").await;
    assert_eq!(failed["error"], "1 of 2 nodes failed; node-a: no space");
    assert_eq!(failed["nodes"][0]["error"], "no space");

    fixture.call(Method::POST, "/api/v1/jobs", Some(body("1", &[1]))).await;
    let order = scheduler.order().await;
    let error = v1::Resolved { error: "there is no image x".into(), ..v1::Resolved::default() };
    report(&scheduler, &order, Said::Resolved(error)).await;
    let failed = fixture.wait_for("/api/v1/jobs/2", |job| job["state"] == "failed").await;
    assert_eq!(failed["error"], format!("node-{}: there is no image x", order.host_id));
}

#[tokio::test]
async fn cancelling_stops_the_nodes_at_once() {
    let fixture = Fixture::start().await;
    let (mut scheduler, _nodes) = cluster(&fixture, &["a", "b"]).await;
    fixture.call(Method::POST, "/api/v1/jobs", Some(body("all", &[1]))).await;
    let orders = until_held(&mut scheduler, 2).await;
    report(&scheduler, &orders["a"], state(v1::HoldPhase::Succeeded, 100, "")).await;
    fixture.wait_for("/api/v1/jobs/1", |job| job["nodes_succeeded"] == 1).await;
    let (status, job) = fixture.call(Method::POST, "/api/v1/jobs/1/cancel", None).await;
    assert_eq!((status, &job["state"]), (StatusCode::OK, &json!("cancelled")), "{job}");
    let states: Vec<&Value> = job["nodes"].as_array().unwrap().iter().map(|node| &node["state"]).collect();
    assert_eq!(states, ["succeeded", "cancelled"]);
    let order = scheduler.order().await;
    assert!(order.host_id == "b" && matches!(order.what, Some(Order::Stop(_))), "{order:?}");
    let (status, problem) = fixture.call(Method::POST, "/api/v1/jobs/1/cancel", None).await;
    assert_eq!((status, &problem["detail"]), (StatusCode::CONFLICT, &json!("job 1 has ended: cancelled")));
}

#[tokio::test]
async fn who_did_not_hear_of_the_end_is_told_again() {
    let fixture = Fixture::start().await;
    let (mut scheduler, nodes) = cluster(&fixture, &["a", "b"]).await;
    fixture.call(Method::POST, "/api/v1/jobs", Some(body("all", &[1]))).await;
    let orders = until_held(&mut scheduler, 2).await;
    // What a node says while its work goes on does not stop it.
    report(&scheduler, &orders["a"], state(v1::HoldPhase::Running, 40, "")).await;
    fixture.wait_for("/api/v1/jobs/1", |job| job["nodes"][0]["bytes_done"] == 40).await;
    drop((scheduler, nodes));
    let fixture = fixture.restart().await;
    let (status, _) = fixture.call(Method::POST, "/api/v1/jobs/1/cancel", None).await;
    assert_eq!(status, StatusCode::OK);
    fixture.wait_for("/api/v1/jobs/1", |job| job["state"] == "cancelled").await;
    let (mut scheduler, _nodes) = cluster(&fixture, &["a", "b"]).await;
    for _ in 0..2 {
        report(&scheduler, &orders["b"], state(v1::HoldPhase::Running, 50, "")).await;
        let order = scheduler.order().await;
        assert!(order.host_id == "b" && matches!(order.what, Some(Order::Stop(_))), "{order:?}");
        assert_eq!(order.job, orders["b"].job);
    }
}

#[tokio::test]
async fn a_restarted_manager_goes_on_where_the_last_one_stopped() {
    let fixture = Fixture::start().await;
    let (mut scheduler, nodes) = cluster(&fixture, &["a", "b", "c"]).await;
    fixture.call(Method::POST, "/api/v1/jobs", Some(body("all", &[1]))).await;
    let orders = until_held(&mut scheduler, 3).await;
    report(&scheduler, &orders["a"], state(v1::HoldPhase::Succeeded, 100, "")).await;
    fixture.wait_for("/api/v1/jobs/1", |job| job["nodes_succeeded"] == 1).await;
    drop((scheduler, nodes));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.get("/api/v1/jobs/1").await["state"], "running");
    let (mut scheduler, _nodes) = cluster(&fixture, &["a", "b", "c"]).await;
    // Not asked again what it is; who has it is not told again.
    let again = until_held(&mut scheduler, 2).await;
    assert_eq!(again.keys().collect::<Vec<_>>(), ["b", "c"]);
    for (host, order) in &again {
        assert_eq!(order.job, orders[host].job, "nodes know the work by the same name");
        report(&scheduler, order, state(v1::HoldPhase::Succeeded, 100, "")).await;
    }
    fixture.wait_for("/api/v1/jobs/1", |job| job["state"] == "succeeded").await;
}

#[tokio::test]
async fn of_two_managers_on_one_database_one_works_and_the_other_takes_over() {
    let fixture = Fixture::start().await;
    let other = fixture.second().await;
    let (mut scheduler, nodes) = cluster(&fixture, &["a", "b"]).await;
    let (mut spare, _others) = cluster(&other, &["a", "b"]).await;
    fixture.call(Method::POST, "/api/v1/jobs", Some(body("all", &[1]))).await;
    // Either may be first: the other hears nothing of it.
    let (working, waiting, first) = tokio::select! {
        orders = until_held(&mut scheduler, 2) => (true, &mut spare, orders),
        orders = until_held(&mut spare, 2) => (false, &mut scheduler, orders),
    };
    assert!(waiting.quiet_for(3000).await, "both managers order the same work");
    if working {
        drop((scheduler, nodes));
        fixture.manager.shutdown().await;
        let taken = until_held(&mut spare, 2).await;
        assert_eq!(taken["a"].job, first["a"].job);
        for order in taken.values() {
            report(&spare, order, state(v1::HoldPhase::Succeeded, 100, "")).await;
        }
        other.wait_for("/api/v1/jobs/1", |job| job["state"] == "succeeded").await;
    } else {
        for order in first.values() {
            report(&spare, order, state(v1::HoldPhase::Succeeded, 100, "")).await;
        }
        fixture.wait_for("/api/v1/jobs/1", |job| job["state"] == "succeeded").await;
    }
}

#[tokio::test]
async fn jobs_that_make_no_sense_are_refused_with_the_reason() {
    let fixture = Fixture::start().await;
    let (_scheduler, _nodes) = cluster(&fixture, &["a"]).await;
    fixture.create(json!({ "name": "empty", "scopes": { "cidrs": ["192.0.2.0/24"] } })).await;
    let args = |args: Value| json!({ "type": "preheat", "args": args });
    for (body, status, says) in [
        (body("all", &[7]), 422, "args.cluster_ids: there is no cluster 7"),
        (body("most", &[1]), 422, "args.scope: `most`"),
        (body("seeds", &[1]), 409, "no node in scope `seeds`: cluster 1 `cluster-1` has no live seed peer"),
        (body("all", &[1, 2]), 409, "no node in scope `all`: cluster 2 `empty` has no live node"),
        (args(json!({ "image": "a:b:c" })), 422, "args.image"),
        (args(json!({ "image": "a", "url": "https://a/b" })), 422, "one of both"),
        (args(json!({ "url": "file:///etc/passwd" })), 422, "args.url"),
        (args(json!({ "image": "a", "platforms": ["linux"] })), 422, "args.platforms: `linux`"),
        (args(json!({ "image": "a", "colour": 1 })), 400, "colour"),
        (json!({ "type": "bake", "args": { "image": "a" } }), 400, "bake"),
    ] {
        let (got, problem) = fixture.call(Method::POST, "/api/v1/jobs", Some(body.clone())).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(got == status && detail.contains(says), "{body}: {got} {problem}");
    }
    for (path, says) in
        [("/api/v1/jobs/9", "there is no job 9"), ("/api/v1/jobs?state=odd", "`odd` is none of")]
    {
        let (status, problem) = fixture.call(Method::GET, path, None).await;
        assert!(status.is_client_error() && problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let (status, _) = fixture.call(Method::POST, "/api/v1/jobs/9/cancel", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(fixture.get("/api/v1/jobs").await["total"], 0, "nothing was left behind");
}
