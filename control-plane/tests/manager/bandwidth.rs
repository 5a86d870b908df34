//! The history of bandwidth, from a scheduler's message to the REST API.

use crate::harness::{Fixture, peer};
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use reqwest::Method;
use serde_json::{Value, json};

fn report(hosts: &[(&str, u64)]) -> Kind {
    let usage = |sent| v1::Usage {
        upload: Some(v1::Traffic { sent, received: 1 }),
        others: Some(v1::Traffic { sent: 7, received: 0 }),
        delivered: Some(v1::Delivered { seed: 3, ..v1::Delivered::default() }),
        ..v1::Usage::default()
    };
    let hosts = hosts
        .iter()
        .map(|(host, sent)| v1::HostUsage { host_id: (*host).to_owned(), usage: Some(usage(*sent)) });
    Kind::Bandwidth(v1::BandwidthReport { hosts: hosts.collect(), ..v1::BandwidthReport::default() })
}

/// Of all steps, since two seconds may fall into different ones.
fn sum(answer: &Value, pointer: &str) -> u64 {
    let items = answer["items"].as_array().unwrap();
    items.iter().filter_map(|item| item.pointer(pointer)?.as_u64()).sum()
}

#[tokio::test]
async fn what_schedulers_tell_is_kept_by_cluster_and_host_and_outlives_the_manager() {
    let fixture = Fixture::start().await;
    fixture.create(json!({"name": "b"})).await;
    let mut one = fixture.scheduler(1, "10.0.0.2:8002").await;
    let two = fixture.scheduler(2, "10.0.0.3:8002").await;
    one.send(report(&[("a", 1000), ("b", 500)])).await;
    one.send(report(&[("a", 24)])).await;
    two.send(report(&[("c", 9)])).await;
    let all = fixture
        .wait_for("/api/v1/bandwidth?step=86400", |answer| sum(answer, "/classes/upload/sent_bytes") == 1533)
        .await;
    assert_eq!((all["step"].as_i64(), all["total"].as_u64()), (Some(86400), Some(2)), "{all}");
    assert_eq!(sum(&all, "/classes/others/sent_bytes"), 28);
    assert_eq!(sum(&all, "/delivered/seed"), 12);
    let first = fixture.get("/api/v1/bandwidth?by=host&cluster_id=1&step=86400").await;
    let hosts: Vec<_> = first["items"].as_array().unwrap().iter().map(|item| &item["host_id"]).collect();
    assert_eq!(hosts, ["a", "b"]);
    assert_eq!(sum(&first, "/classes/upload/sent_bytes"), 1524);
    let page = fixture.get("/api/v1/bandwidth?by=host&step=86400&per_page=1&page=2").await;
    assert_eq!((page["items"].as_array().unwrap().len(), page["total"].as_u64()), (1, Some(3)));
    // The last figures are written when the manager ends.
    one.send(report(&[("a", 1_000_000)])).await;
    // What ends the stream comes behind the figures: once it has ended they have arrived.
    one.send(Kind::Peer(peer("a", "10.0.0.7"))).await;
    assert_eq!(one.ended().await.unwrap().code(), tonic::Code::InvalidArgument);
    drop((one, two));
    let fixture = fixture.restart().await;
    let after = fixture.get("/api/v1/bandwidth?step=86400").await;
    assert_eq!(sum(&after, "/classes/upload/sent_bytes"), 1_001_533);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_named() {
    let fixture = Fixture::start().await;
    for (query, says) in [
        ("step=0", "step"),
        ("step=15", "multiple of 10"),
        ("step=1&by=host", "steps of 10 s"),
        ("step=86410", "86400"),
        ("step=ten", "step"),
        ("since=-1", "since"),
        ("since=yesterday", "since"),
        ("by=moon", "by"),
        ("cluster_id=-1", "cluster_id"),
        ("per_page=0", "per_page"),
        ("until=3", "until"),
    ] {
        let path = format!("/api/v1/bandwidth?{query}");
        let answer = fixture.send(Method::GET, &path, Some(&fixture.token), None).await;
        assert_eq!((answer.status().as_u16(), query), (400, query));
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(says), "{query}: {problem}");
    }
    let none = fixture.get(&format!("/api/v1/bandwidth?since={}&cluster_id={}", i64::MAX, u64::MAX)).await;
    assert_eq!(none["total"], 0);
    let refused = fixture.send(Method::GET, "/api/v1/bandwidth", None, None).await;
    assert_eq!(refused.status().as_u16(), 401);
}

#[tokio::test]
async fn only_schedulers_tell_of_bandwidth_and_nonsense_costs_nothing() {
    let fixture = Fixture::start().await;
    let mut daemon = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.7"))).await;
    daemon.send(report(&[("a", 1)])).await;
    let status = daemon.ended().await.unwrap();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let scheduler = fixture.scheduler(1, "10.0.0.2:8002").await;
    let long = "x".repeat(5000);
    for _ in 0..3 {
        scheduler.send(report(&[("a", u64::MAX), (&long, 1), ("", 1)])).await;
    }
    scheduler.send(Kind::Bandwidth(v1::BandwidthReport::default())).await;
    scheduler.send(report(&[("b", 5)])).await;
    let wanted = |answer: &Value| answer["items"].to_string().contains("\"b\"");
    let hosts = fixture.wait_for("/api/v1/bandwidth?by=host&step=86400", wanted).await;
    let names: Vec<_> = hosts["items"].as_array().unwrap().iter().map(|item| &item["host_id"]).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn zones_hosts_and_tasks_are_listed_and_savings_are_money() {
    let fixture = Fixture::start().await;
    let prices = json!({"currency": "EUR", "originPerGB": 0.1, "crossZonePerGB": 0.01});
    fixture.edit(1, json!({"config": {"prices": prices}})).await;
    let scheduler = fixture.scheduler(1, "10.0.0.2:8002").await;
    let _daemon = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.7"))).await;
    let zone = |from: &str, to: &str, bytes| v1::ZoneTraffic { from: from.into(), to: to.into(), bytes };
    let usage = v1::Usage {
        upload: Some(v1::Traffic { sent: 700, received: 0 }),
        origin: Some(v1::Traffic { sent: 0, received: 1_000_000_000 }),
        delivered: Some(v1::Delivered {
            seed: 20_000_000_000,
            peer_cross_zone: 1_000_000_000,
            ..v1::Delivered::default()
        }),
        ..v1::Usage::default()
    };
    let hosts = vec![v1::HostUsage { host_id: "a".to_owned(), usage: Some(usage) }];
    let host = v1::TaskHost { host_id: "a".to_owned(), complete: true, pieces: 3 };
    let task = |name: &str, moved_bytes| v1::TaskSummary {
        task: name.to_owned(),
        size: 9_000_000,
        pieces: 3,
        holders: 1,
        downloading: 2,
        moved_bytes,
        origin_bytes: moved_bytes / 2,
        hosts: vec![host.clone()],
    };
    let report = v1::BandwidthReport {
        hosts,
        zones: vec![zone("h1", "h2", 40), zone("h1", "h1", 60), zone("h1", "h2", 50), zone("bad\0", "", 1)],
        tasks: vec![task("sha256:aa", 10), task("sha256:bb", 30), task("sha256:aa", 15), task("bad\0", 1)],
    };
    scheduler.send(Kind::Bandwidth(report)).await;

    let zones = fixture.wait_for("/api/v1/bandwidth?by=zone", |answer| answer["total"] == 2).await;
    assert_eq!(zones["items"][0], json!({"cluster_id": 1, "from": "h1", "to": "h2", "bytes": 90}));
    let saved = &zones["saved"];
    assert_eq!(saved["origin_bytes_avoided"], 20_000_000_000_u64);
    assert_eq!((saved["money"].as_f64(), &saved["currency"]), (Some(1.99), &json!("EUR")));
    let peers = fixture.get("/api/v1/bandwidth?by=peer&cluster_id=1").await;
    assert_eq!(peers["items"][0]["hostname"], "node-a");
    assert_eq!(peers["items"][0]["bytes"], 1_000_000_700);
    let tasks = fixture.get("/api/v1/bandwidth?by=task").await;
    assert_eq!((&tasks["items"][0]["task"], &tasks["items"][1]["bytes"]), (&json!("sha256:bb"), &json!(25)));
    // Second by second, for whole clusters.
    let live = fixture.get("/api/v1/bandwidth?step=1").await;
    assert_eq!(sum(&live, "/classes/upload/sent_bytes"), 700, "{live}");

    // Written after the lists.
    fixture.wait_for("/api/v1/tasks?cluster_id=1", |tasks| tasks["total"] == 2).await;
    let one = fixture.get("/api/v1/tasks/sha256:aa").await;
    assert_eq!(
        (&one["clusters"][0]["moved_bytes"], &one["clusters"][0]["origin_bytes"]),
        (&json!(25), &json!(12))
    );
    let wanted = json!({"cluster_id": 1, "host_id": "a", "hostname": "node-a", "ip": "10.0.0.7",
        "state": "complete", "pieces": 3});
    assert_eq!(one["hosts"], json!([wanted]));
    for unknown in ["sha256:cc", "%00"] {
        let path = format!("/api/v1/tasks/{unknown}");
        let answer = fixture.send(Method::GET, &path, Some(&fixture.token), None).await;
        assert_eq!(answer.status().as_u16(), 404, "{unknown}");
    }
}
