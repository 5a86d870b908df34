//! Several managers on one PostgreSQL: what one knows the other knows, and one that dies is missed by nobody.

use crate::harness::{Fixture, peer};
use crate::schema::Schema;
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use hawker_control::manager::{Database, Liveness};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// As in the manager, but for tests that wait for it.
const LIVENESS: Liveness = Liveness { stale_after: Duration::from_secs(3), max_registrations: 1000 };

async fn two(schema: &Schema) -> (Fixture, Fixture) {
    let database: Database = schema.url.parse().unwrap();
    let one = Fixture::start_on(&database, LIVENESS).await;
    (one, Fixture::start_on(&database, LIVENESS).await)
}

fn total(list: &Value) -> u64 {
    list["total"].as_u64().unwrap()
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn what_one_knows_the_other_knows() {
    let schema = Schema::make().await;
    let (one, two) = two(&schema).await;
    // A token is good at either.
    let listed = two.send(Method::GET, "/api/v1/clusters", Some(&one.token), None).await;
    assert_eq!(listed.status(), StatusCode::OK);
    // A cluster made at one is there for nodes of the other.
    let made = one.create(json!({"name": "b", "scopes": {"cidrs": ["10.2.0.0/16"]}})).await;
    two.wait_for("/api/v1/placements?ip=10.2.0.7", |placed| placed["cluster_id"] == made["id"]).await;
    // A scheduler registered at one is told to a daemon that registers at the other, also one that was there before.
    let mut daemon = two.keep_alive(Kind::Peer(peer("a", "10.2.0.7"))).await;
    assert!(daemon.placement().await.schedulers.is_empty());
    let scheduler = one.scheduler(2, "10.2.0.2:8002").await;
    assert_eq!(daemon.placement().await.schedulers[0].addr, "10.2.0.2:8002");
    let listed = one.wait_for("/api/v1/peers", |list| total(list) == 1).await;
    assert_eq!(listed["items"][0]["hostname"], "node-a");
    // A cluster with a host anywhere is not deleted.
    let (status, problem) = one.call(Method::DELETE, "/api/v1/clusters/2", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("node-a"), "{problem}");
    // What leaves at one is gone at the other.
    drop((daemon, scheduler));
    one.wait_for("/api/v1/peers", |list| total(list) == 0).await;
    two.wait_for("/api/v1/schedulers", |list| total(list) == 0).await;
    schema.drop().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn what_one_counted_is_in_the_answers_of_the_other() {
    let schema = Schema::make().await;
    let (one, two) = two(&schema).await;
    let (first, second) = (one.scheduler(1, "10.0.0.2:8002").await, two.scheduler(1, "10.0.0.3:8002").await);
    for (scheduler, sent) in [(&first, 1000), (&second, 24)] {
        let usage = v1::Usage { upload: Some(v1::Traffic { sent, received: 0 }), ..v1::Usage::default() };
        let hosts = vec![v1::HostUsage { host_id: "a".to_owned(), usage: Some(usage) }];
        let report = v1::BandwidthReport { hosts, ..v1::BandwidthReport::default() };
        scheduler.send(Kind::Bandwidth(report)).await;
    }
    for manager in [&one, &two] {
        let wanted = |answer: &Value| {
            let items = answer["items"].as_array().unwrap().iter();
            items.filter_map(|item| item.pointer("/classes/upload/sent_bytes")?.as_u64()).sum::<u64>() == 1024
        };
        manager.wait_for("/api/v1/bandwidth?by=host&step=86400", wanted).await;
    }
    schema.drop().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn hosts_move_over_when_one_dies_and_nobody_is_told_that_there_is_none() {
    let schema = Schema::make().await;
    let (one, two) = two(&schema).await;
    let scheduler = one.scheduler(1, "10.0.0.2:8002").await;
    let left_behind = one.keep_alive(Kind::Peer(peer("left", "10.0.0.8"))).await;
    two.wait_for("/api/v1/schedulers", |list| total(list) == 1).await;
    two.wait_for("/api/v1/peers", |list| total(list) == 1).await;
    let mut daemon = two.keep_alive(Kind::Peer(peer("a", "10.0.0.7"))).await;
    assert_eq!(daemon.placement().await.schedulers.len(), 1);
    one.manager.shutdown().await;
    drop((scheduler, left_behind));
    // It registers at the other one, as a scheduler with both addresses does.
    let moved = two.scheduler(1, "10.0.0.2:8002").await;
    let beating = async {
        loop {
            daemon.send(Kind::Beat(v1::Beat {})).await;
            moved.send(Kind::Beat(v1::Beat {})).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let listed = tokio::select! {
        listed = two.wait_for("/api/v1/peers", |list| total(list) == 1) => listed,
        () = beating => unreachable!("it beats for ever"),
    };
    assert_eq!(listed["items"][0]["id"], "a", "who did not move over is gone after a while");
    assert_eq!(total(&two.get("/api/v1/schedulers").await), 1);
    assert_eq!(two.sign_in("root", crate::harness::PASSWORD).await.status(), StatusCode::OK);
    drop(moved);
    // Of all that the daemon heard one thing: that the scheduler left in the end.
    assert!(daemon.placement().await.schedulers.is_empty());
    schema.drop().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: TEST_POSTGRES=postgres://user@host/database"]
async fn edits_at_both_at_the_same_time_are_both_made() {
    let schema = Schema::make().await;
    let (one, two) = two(&schema).await;
    let (bio, location) = (json!({"bio": "from one"}), json!({"scopes": {"location": "asia"}}));
    for _ in 0..5 {
        let reset = json!({"bio": "", "scopes": {"location": ""}});
        one.edit(1, reset).await;
        let (edited, also) = tokio::join!(one.edit(1, bio.clone()), two.edit(1, location.clone()));
        assert_eq!((&edited["bio"], &also["scopes"]["location"]), (&json!("from one"), &json!("asia")));
        for manager in [&one, &two] {
            let both =
                |cluster: &Value| cluster["bio"] == "from one" && cluster["scopes"]["location"] == "asia";
            manager.wait_for("/api/v1/clusters/1", both).await;
        }
    }
    schema.drop().await;
}
