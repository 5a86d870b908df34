//! A whole cluster in one process: real scheduler, real daemons, real sockets and stores, an origin
//! that counts what it sends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cluster/files.rs"]
mod files;
#[path = "cluster/handover.rs"]
mod handover;
#[path = "cluster/join.rs"]
mod join;
#[path = "cluster/policy.rs"]
mod policy;
mod support;
#[path = "cluster/traces.rs"]
mod traces;
#[path = "cluster/versions.rs"]
mod versions;

use hawker_api::v1;
use std::time::{Duration, Instant};
use support::{Cluster, MIB, content};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_nodes_without_a_seed_cost_the_origin_one_copy() {
    let cluster = Cluster::start(0, 8).await;
    let blob = cluster.publish(content(1, 40 * MIB + 17));
    let pulls = (0..8).map(|node| cluster.pull(node, &blob));
    for pulled in futures::future::join_all(pulls).await {
        assert!(pulled.unwrap() == blob.bytes);
    }
    let (sent, size) = (cluster.origin_bytes(), blob.bytes.len() as u64);
    assert!(sent <= size + size / 50, "the origin sent {sent} for {size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_a_seed_the_origin_meets_the_seed_alone() {
    let cluster = Cluster::start(1, 4).await;
    let blob = cluster.publish(content(2, 30 * MIB));
    let pulls = (1..5).map(|node| cluster.pull(node, &blob));
    for pulled in futures::future::join_all(pulls).await {
        assert!(pulled.unwrap() == blob.bytes);
    }
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64);
    for node in 1..5 {
        assert_eq!(cluster.delivered(node).await["origin"], 0, "node {node} went to the origin");
    }
    // Later ones come from whoever has it, and again from the own store.
    let late = cluster.pull(0, &blob).await.unwrap();
    assert!(late == blob.bytes);
    assert_eq!(cluster.delivered(0).await["local"], blob.bytes.len() as u64);
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_scheduler_that_dies_mid_pull_and_one_that_comes_back_change_nothing() {
    let mut cluster = Cluster::start(0, 4).await;
    cluster.limit_origin(20 * MIB as u64);
    let blob = cluster.publish(content(3, 40 * MIB));
    {
        let pulls = futures::future::join_all((0..4).map(|node| cluster.pull(node, &blob)));
        let killing = async {
            cluster.origin_has_sent(8 * MIB as u64).await;
            cluster.stop_scheduler().await;
        };
        let (pulled, ()) = tokio::join!(pulls, killing);
        for pulled in pulled {
            assert!(pulled.unwrap() == blob.bytes);
        }
    }
    cluster.start_scheduler().await;
    let before = cluster.origin_bytes();
    let new = cluster.add_node().await;
    assert!(cluster.pull(new, &blob).await.unwrap() == blob.bytes);
    assert_eq!(cluster.origin_bytes(), before, "the scheduler knows again who holds what");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refusal_of_the_origin_reaches_the_runtime_quickly() {
    let cluster = Cluster::start(0, 2).await;
    let blob = support::Blob::new(content(4, 100));
    for node in 0..2 {
        let error = cluster.pull(node, &blob).await.unwrap_err();
        assert_eq!(error, "404");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restarted_daemon_still_holds_what_it_held_and_serves_it() {
    let mut cluster = Cluster::start(0, 2).await;
    let blob = cluster.publish(content(5, 9 * MIB));
    assert!(cluster.pull(0, &blob).await.unwrap() == blob.bytes);
    cluster.restart_node(0).await;
    assert!(cluster.pull(1, &blob).await.unwrap() == blob.bytes);
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_download_limit_holds_over_all_parents() {
    let mut cluster = Cluster::start(0, 2).await;
    let blob = cluster.publish(content(8, 24 * MIB));
    for node in [0, 1] {
        assert!(cluster.pull(node, &blob).await.unwrap() == blob.bytes);
    }
    cluster.limit_downloads(8 * MIB as u64);
    let limited = cluster.add_node().await;
    let started = Instant::now();
    assert!(cluster.pull(limited, &blob).await.unwrap() == blob.bytes);
    let seconds = started.elapsed().as_secs_f64();
    // 24 MiB at 8 MiB/s; the readers' last steps are not waited for.
    assert!(seconds > 2.5, "{seconds:.2} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_no_node_gets_nothing_from_the_port_for_peers() {
    let cluster = Cluster::start(0, 2).await;
    let blob = cluster.publish(content(9, 3 * MIB));
    for node in [0, 1] {
        assert!(cluster.pull(node, &blob).await.unwrap() == blob.bytes);
    }
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64, "nodes share with each other");
    let guess = format!("Hawker {}", "07".repeat(32));
    for authorization in ["Bearer secret", "Hawker", guess.as_str()] {
        for path in [format!("/blobs/{}", blob.digest), format!("/blobs/{}/have", blob.digest)] {
            assert_eq!(cluster.as_a_stranger(0, &path, authorization).await, 403, "{path}");
        }
        let unknown = format!("/blobs/sha256:{}", "0".repeat(64));
        assert_eq!(cluster.as_a_stranger(0, &unknown, authorization).await, 403, "what is held is no news");
    }
    assert_eq!(cluster.as_a_stranger(0, "/healthz", "").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_of_the_cluster_hold_while_traffic_flows_and_outlive_the_manager() {
    let mut cluster = Cluster::start(0, 2).await;
    let blob = cluster.publish(content(9, 24 * MIB));
    assert!(cluster.pull(0, &blob).await.unwrap() == blob.bytes);
    let download = |limit: usize| {
        let shaper = v1::ShaperPolicy { download_limit: limit as u64, ..v1::ShaperPolicy::default() };
        v1::ClusterConfig { shaper: Some(shaper), ..v1::ClusterConfig::default() }
    };
    let in_force = async |cluster: &Cluster, limit: usize| {
        let held = async {
            let wanted = serde_json::json!({ "bytes_per_second": limit, "from": "cluster" });
            while cluster.status(1).await["shaper"]["limits"]["download"] != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(2), held).await.expect("the limit in force within 2 s");
    };
    cluster.push(download(2 * MIB));
    in_force(&cluster, 2 * MIB).await;
    // 12 s at this limit; it is lifted after one.
    let started = Instant::now();
    let lifting = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.push(download(200 * MIB));
    };
    let (pulled, ()) = tokio::join!(cluster.pull(1, &blob), lifting);
    let seconds = started.elapsed().as_secs_f64();
    assert!(pulled.unwrap() == blob.bytes && (1.0..6.0).contains(&seconds), "{seconds:.2} s");
    // What cannot be followed changes nothing.
    cluster.push(download(1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    in_force(&cluster, 200 * MIB).await;
    cluster.stop_manager();
    cluster.restart_node(1).await;
    in_force(&cluster, 200 * MIB).await;
    assert_eq!(cluster.status(1).await["cluster"]["source"], "cache");
}
