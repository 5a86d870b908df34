//! Registrations over keep-alive streams: how long they live, and what is pushed.

use crate::harness::{Fixture, peer, scheduler};
use hawker_api::protocol::Protocol;
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use hawker_control::health::{Health, MetricsConfig};
use hawker_control::manager::Liveness;
use prometheus_client::registry::Registry;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tonic::Code;

fn stale_after(millis: u64) -> Liveness {
    Liveness { stale_after: Duration::from_millis(millis), ..Liveness::default() }
}

#[tokio::test]
async fn without_beats_a_registration_goes_stale_and_with_beats_it_stays() {
    let fixture = Fixture::start_with(stale_after(1500)).await;
    let mut beating = fixture.keep_alive(Kind::Peer(peer("beating", "10.0.0.1"))).await;
    beating.placement().await;
    let since = Instant::now();
    let mut silent = fixture.keep_alive(Kind::Peer(peer("silent", "10.0.0.2"))).await;
    let mut mute = fixture.keep_alive(Kind::Scheduler(scheduler(1, "10.0.0.3:8002"))).await;
    let beats = async {
        loop {
            beating.send(Kind::Beat(v1::Beat {})).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = beats => unreachable!("it beats until the others have ended"),
        (silent, mute) = async { tokio::join!(silent.ended(), mute.ended()) } => {
            for status in [silent.unwrap(), mute.unwrap()] {
                assert_eq!(status.code(), Code::Aborted);
                assert!(status.message().contains("no beat for 1.5 s"), "{status:?}");
            }
        }
    }
    assert!(since.elapsed() >= Duration::from_millis(1500));
    let peers = fixture.get("/api/v1/peers").await;
    assert_eq!((&peers["total"], &peers["items"][0]["id"]), (&json!(1), &json!("beating")));
    assert_eq!(fixture.get("/api/v1/schedulers").await["total"], 0);
}

#[tokio::test]
async fn the_end_of_the_stream_ends_the_registration() {
    let fixture = Fixture::start().await;
    let mut session = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.1"))).await;
    session.placement().await;
    assert_eq!(fixture.get("/api/v1/peers").await["total"], 1);
    drop(session);
    fixture.wait_for("/api/v1/peers", |list| list["total"] == 0).await;
}

#[tokio::test]
async fn placements_are_pushed_when_they_change() {
    let fixture = Fixture::start().await;
    let mut session = fixture.keep_alive(Kind::Peer(peer("a", "10.2.0.7"))).await;
    assert_eq!(session.placement().await.cluster_name, "cluster-1");

    fixture.create(json!({"name": "b", "scopes": {"cidrs": ["10.2.0.0/16"]}})).await;
    let moved = session.placement().await;
    assert_eq!((moved.cluster_id, moved.schedulers.len()), (2, 0));
    assert_eq!(moved.reason, "cidr 10.2.0.0/16 contains 10.2.0.7");

    let scheduler = fixture.scheduler(2, "10.2.0.2:8002").await;
    let served = session.placement().await;
    assert_eq!(served.schedulers[0].addr, "10.2.0.2:8002");

    // Another cluster's scheduler and an edit that moves nobody: nothing comes before what follows.
    let _other = fixture.scheduler(1, "10.1.0.2:8002").await;
    fixture.create(json!({"name": "c", "scopes": {"cidrs": ["10.3.0.0/16"]}})).await;
    drop(scheduler);
    let unserved = session.placement().await;
    assert_eq!((unserved.cluster_id, unserved.schedulers.len(), unserved.fell_back), (2, 0, false));

    fixture.edit(2, json!({"scopes": {"cidrs": []}})).await;
    let back = session.placement().await;
    assert_eq!((back.cluster_id, back.schedulers[0].addr.as_str()), (1, "10.1.0.2:8002"));
}

#[tokio::test]
async fn a_restarted_daemon_takes_over_its_registration() {
    let fixture = Fixture::start().await;
    let mut old = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.1"))).await;
    old.placement().await;
    let mut new = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.2"))).await;
    new.placement().await;
    assert_eq!(old.ended().await.unwrap().code(), Code::Aborted);
    let peers = fixture.get("/api/v1/peers").await;
    assert_eq!((&peers["total"], &peers["items"][0]["ip"]), (&json!(1), &json!("10.0.0.2")));
}

#[tokio::test]
async fn streams_that_break_the_protocol_end_with_the_reason() {
    let fixture = Fixture::start_with(stale_after(2000)).await;
    for (first, says) in [
        (Kind::Beat(v1::Beat {}), "first message"),
        (Kind::Scheduler(scheduler(9, "10.0.0.1:8002")), "unknown scheduler cluster 9"),
        (Kind::Scheduler(scheduler(1, "10.0.0.1")), "advertise_addr: `10.0.0.1`"),
        (Kind::Scheduler(scheduler(1, "10.0.0.1:0")), "advertise_addr"),
        (Kind::Peer(peer("a", "nowhere")), "host.ip"),
        (Kind::Peer(v1::PlaceRequest { cluster_id: 9, ..peer("a", "10.0.0.1") }), "unknown cluster 9"),
    ] {
        let status = fixture.keep_alive(first).await.ended().await.unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    let mut twice = fixture.keep_alive(Kind::Peer(peer("a", "10.0.0.1"))).await;
    twice.send(Kind::Peer(peer("a", "10.0.0.1"))).await;
    assert_eq!(twice.ended().await.unwrap().code(), Code::InvalidArgument);
    let silence = tokio_stream::pending();
    let mut silent = fixture.grpc().await.keep_alive(silence).await.unwrap().into_inner();
    assert_eq!(silent.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    fixture.wait_for("/api/v1/peers", |list| list["total"] == 0).await;
}

/// One minor version apart works both ways; further apart is refused with both versions.
#[tokio::test]
async fn versions_too_far_apart_are_refused_by_name() {
    let fixture = Fixture::start().await;
    let own = Protocol::spoken();
    let announced = |minor| Some(v1::Protocol { major: own.major, minor });
    let daemon = |protocol| v1::PlaceRequest { protocol, ..peer("a", "10.0.0.1") };
    let program = |protocol| v1::SchedulerRegistration { protocol, ..scheduler(1, "10.0.0.1:8002") };
    for protocol in [None, announced(own.minor), announced(own.minor + 1)] {
        let placed = fixture.grpc().await.place(daemon(protocol)).await.unwrap().into_inner();
        assert_eq!(Protocol::announced(placed.protocol), own);
        let mut session = fixture.keep_alive(Kind::Scheduler(program(protocol))).await;
        assert_eq!(session.answer().await.protocol, Some(own.into()));
    }
    let far = announced(own.minor + 2);
    let refusals = [
        fixture.grpc().await.place(daemon(far)).await.unwrap_err(),
        fixture.keep_alive(Kind::Peer(daemon(far))).await.ended().await.unwrap(),
        fixture.keep_alive(Kind::Scheduler(program(far))).await.ended().await.unwrap(),
    ];
    for status in refusals {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains(&format!("{}.{}", own.major, own.minor + 2)), "{status:?}");
    }
}

#[tokio::test]
async fn a_restart_ends_streams_and_remembers_schedulers() {
    let fixture = Fixture::start().await;
    let mut session = fixture.scheduler(1, "10.1.0.2:8002").await;
    let fixture = fixture.restart().await;
    assert_eq!(session.ended().await.unwrap().code(), Code::Unavailable);
    let placed = fixture.get("/api/v1/placements?ip=10.1.0.7").await;
    assert_eq!(placed["schedulers"][0]["addr"], "10.1.0.2:8002");
}

#[tokio::test]
async fn registrations_and_requests_are_counted() {
    let fixture = Fixture::start().await;
    let mut registry = Registry::default();
    fixture.manager.register_metrics(&mut registry);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let health = Health::bind(MetricsConfig { addr: any, profile: false }, registry).await.unwrap();
    let _scheduler = fixture.scheduler(1, "10.1.0.2:8002").await;
    fixture.grpc().await.place(peer("a", "10.0.0.1")).await.unwrap();
    fixture.grpc().await.place(peer("a", "nowhere")).await.unwrap_err();
    let read = async |path: &str| {
        let url = format!("http://{}{path}", health.local_addr());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    assert_eq!(read("/healthz").await, "ok\n");
    let metrics = read("/metrics").await;
    for line in [
        "hawker_manager_registrations{kind=\"peer\"} 1",
        "hawker_manager_registrations{kind=\"seed\"} 0",
        "hawker_manager_registrations{kind=\"scheduler\"} 1",
        "hawker_manager_requests_total{api=\"rest\",route=\"/api/v1/users/signin\",code=\"200\"} 1",
        "hawker_manager_requests_total{api=\"grpc\",route=\"Place\",code=\"0\"} 1",
        "hawker_manager_requests_total{api=\"grpc\",route=\"Place\",code=\"3\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    health.shutdown().await;
}

#[tokio::test]
async fn registries_and_engine_are_checked_and_pushed() {
    let fixture = Fixture::start().await;
    let mut session = fixture.keep_alive(Kind::Peer(peer("a", "10.1.0.7"))).await;
    let config = |placement: v1::Placement| placement.config.unwrap();
    let first = config(session.placement().await);
    assert_eq!((first.registries, first.engine.as_str()), (None, "auto"));
    for (wanted, field) in [
        (json!({"registries": [{"host": "a.test", "server": "http://a.test"}]}), "registries[0].server"),
        (json!({"registries": [{"host": "a.test", "access": "trust-node"}]}), "registries[0].access"),
        (json!({"engine": "io_uring"}), "engine"),
    ] {
        let (status, problem) =
            fixture.call(Method::PATCH, "/api/v1/clusters/1", Some(json!({"config": wanted}))).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    // Nothing of these was pushed before what follows.
    let own = json!({"host": "Registry.test:5000", "server": "https://cache.test"});
    fixture.edit(1, json!({"config": {"registries": ["ghcr.io", own], "engine": "portable"}})).await;
    let pushed = config(session.placement().await);
    let rules = pushed.registries.unwrap().rules;
    let shown: Vec<_> = rules.iter().map(|rule| (rule.host.as_str(), rule.server.as_str())).collect();
    assert_eq!(shown, [("ghcr.io", "https://ghcr.io"), ("registry.test:5000", "https://cache.test")]);
    assert_eq!(pushed.engine, "portable");
}

#[tokio::test]
async fn a_changed_limit_is_pushed_to_the_clusters_daemons_alone() {
    let fixture = Fixture::start().await;
    fixture.create(json!({"name": "b", "scopes": {"cidrs": ["10.2.0.0/16"]}})).await;
    let mut ours = fixture.keep_alive(Kind::Peer(peer("a", "10.1.0.7"))).await;
    let mut theirs = fixture.keep_alive(Kind::Peer(peer("b", "10.2.0.7"))).await;
    let limit = |placement: v1::Placement| placement.config.unwrap().shaper.unwrap().upload_limit;
    assert_eq!((limit(ours.placement().await), limit(theirs.placement().await)), (0, 0));
    let rule = json!({"network": "10.1.0.0/16", "weight": 2});
    fixture.edit(1, json!({"config": {"shaper": {"uploadLimit": "80Mbps", "peers": [rule]}}})).await;
    let pushed = ours.placement().await.config.unwrap().shaper.unwrap();
    assert_eq!((pushed.upload_limit, pushed.peers[0].network.as_str()), (10_000_000, "10.1.0.0/16"));
    // Nothing was pushed to the other cluster before its own change.
    fixture.edit(2, json!({"config": {"shaper": {"uploadLimit": 1_000_000}}})).await;
    assert_eq!(limit(theirs.placement().await), 1_000_000);
}
