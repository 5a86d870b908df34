//! Placement over REST and gRPC: the same answer, and refusals that name what is wrong.

use crate::harness::{Fixture, peer};
use hawker_api::v1;
use serde_json::json;
use tonic::Code;

async fn three_clusters() -> Fixture {
    let fixture = Fixture::start().await;
    let scopes = json!({"cidrs": ["10.2.0.0/16"], "idc": "idc-2", "location": "asia|cn"});
    fixture.create(json!({"name": "b", "scopes": scopes})).await;
    let scopes = json!({"cidrs": ["10.2.3.0/24", "2001:db8::/32"], "hostnames": ["edge-*"]});
    fixture.create(json!({"name": "c", "scopes": scopes})).await;
    fixture
}

#[tokio::test]
async fn rest_and_grpc_agree() {
    let fixture = three_clusters().await;
    let _two = fixture.scheduler(2, "10.2.0.2:8002").await;
    let mut grpc = fixture.grpc().await;
    for (ip, idc, location, hostname, cluster) in [
        ("10.9.0.1", "", "", "n", 1),
        ("10.2.0.1", "", "", "n", 2),
        ("10.2.3.1", "", "", "n", 3),
        ("::ffff:10.2.3.1", "", "", "n", 3),
        ("2001:db8::7", "", "", "n", 3),
        ("10.9.0.1", "IDC-2", "", "n", 2),
        ("10.9.0.1", "", "asia|cn|hangzhou", "n", 2),
        ("10.9.0.1", "", "asia|jp", "n", 1),
        ("10.9.0.1", "idc-2", "", "edge-1", 3),
    ] {
        let query = format!("ip={ip}&idc={idc}&location={location}&hostname={hostname}").replace('|', "%7C");
        let rest = fixture.get(&format!("/api/v1/placements?{query}")).await;
        let mut request = peer("a", ip);
        let host = request.host.as_mut().unwrap();
        (host.idc, host.location, host.hostname) = (idc.to_owned(), location.to_owned(), hostname.to_owned());
        let told = grpc.place(request).await.unwrap().into_inner();
        assert_eq!((told.cluster_id, told.matched_cluster_id, told.fell_back), (cluster, cluster, false));
        let schedulers: Vec<_> = told
            .schedulers
            .iter()
            .map(|s| json!({"id": s.id, "hostname": s.hostname, "addr": s.addr}))
            .collect();
        let wanted = json!({
            "cluster_id": cluster, "cluster_name": told.cluster_name, "reason": told.reason,
            "scheduler_cluster_id": told.scheduler_cluster_id,
            "seed_peer_cluster_id": told.seed_peer_cluster_id, "schedulers": schedulers,
        });
        assert_eq!(rest, wanted);
        assert_eq!(told.schedulers.len(), usize::from(cluster == 2));
    }
}

#[tokio::test]
async fn a_freshly_edited_scope_is_used_at_once() {
    let fixture = three_clusters().await;
    let path = "/api/v1/placements?ip=172.20.0.1";
    assert_eq!(fixture.get(path).await["cluster_id"], 1);
    fixture.edit(2, json!({"scopes": {"cidrs": ["172.20.0.0/16"]}})).await;
    let placed = fixture.get(path).await;
    assert_eq!(placed["reason"], "cidr 172.20.0.0/16 contains 172.20.0.1");
    assert_eq!((&placed["cluster_id"], &placed["cluster_name"]), (&json!(2), &json!("b")));
}

#[tokio::test]
async fn placing_registers() {
    let fixture = three_clusters().await;
    let mut request = peer("a", "10.2.0.1");
    request.host.as_mut().unwrap().kind = v1::HostKind::Seed.into();
    fixture.grpc().await.place(request).await.unwrap();
    fixture.grpc().await.place(peer("b", "10.9.0.1")).await.unwrap();
    let seeds = fixture.get("/api/v1/seed-peers").await;
    assert_eq!((&seeds["total"], &seeds["items"][0]["id"]), (&json!(1), &json!("a")));
    let seed = &seeds["items"][0];
    assert_eq!(
        (&seed["kind"], &seed["cluster_id"], &seed["ip"]),
        (&json!("seed"), &json!(2), &json!("10.2.0.1"))
    );
    assert_eq!(fixture.get("/api/v1/peers").await["items"][0]["id"], "b");
}

#[tokio::test]
async fn pins_beat_scopes_and_fallback_is_told() {
    let fixture = three_clusters().await;
    let mut grpc = fixture.grpc().await;
    let pinned = v1::PlaceRequest { cluster_id: 3, ..peer("a", "10.2.0.1") };
    assert_eq!(grpc.place(pinned).await.unwrap().into_inner().reason, "pinned by cluster.id 3");
    let seed = v1::PlaceRequest { seed_peer_cluster_id: 3, ..peer("a", "10.2.0.1") };
    assert_eq!(grpc.place(seed).await.unwrap().into_inner().cluster_id, 3);

    let _one = fixture.scheduler(1, "10.1.0.2:8002").await;
    let strict = grpc.place(peer("a", "10.2.0.1")).await.unwrap().into_inner();
    assert_eq!((strict.cluster_id, strict.schedulers.len(), strict.fell_back), (2, 0, false));
    let lenient = v1::PlaceRequest { accept_default: true, ..peer("a", "10.2.0.1") };
    let fallen = grpc.place(lenient).await.unwrap().into_inner();
    assert_eq!((fallen.cluster_id, fallen.matched_cluster_id, fallen.fell_back), (1, 2, true));
    assert_eq!(fallen.schedulers[0].addr, "10.1.0.2:8002");
}

#[tokio::test]
async fn unusable_requests_are_refused_by_name() {
    let fixture = three_clusters().await;
    let mut grpc = fixture.grpc().await;
    let with = |change: fn(&mut v1::Host)| {
        let mut request = peer("a", "10.2.0.1");
        change(request.host.as_mut().unwrap());
        request
    };
    for (request, says) in [
        (v1::PlaceRequest { cluster_id: 77, ..peer("a", "10.2.0.1") }, "unknown cluster 77"),
        (
            v1::PlaceRequest { seed_peer_cluster_id: 78, ..peer("a", "10.2.0.1") },
            "unknown seed peer cluster 78",
        ),
        (
            v1::PlaceRequest { cluster_id: 2, seed_peer_cluster_id: 3, ..peer("a", "10.2.0.1") },
            "two clusters",
        ),
        (v1::PlaceRequest::default(), "no host"),
        (peer("a", "somewhere"), "host.ip: `somewhere`"),
        (peer("a", ""), "host.ip"),
        (peer("a", "0.0.0.0"), "host.ip: 0.0.0.0"),
        (peer("a", "224.0.0.1"), "host.ip: 224.0.0.1"),
        (peer("", "10.2.0.1"), "host.id"),
        (with(|host| host.piece_port = 0), "host.piece_port"),
        (with(|host| host.piece_port = 70_000), "host.piece_port: 70000"),
        (with(|host| host.kind = 9), "host.kind: 9"),
        (with(|host| host.idc = "x".repeat(1025)), "host.idc"),
    ] {
        let status = grpc.place(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    let huge = grpc.place(with(|host| host.version = "x".repeat(64 << 10))).await.unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    assert_eq!(fixture.get("/api/v1/peers").await["total"], 0);
}
