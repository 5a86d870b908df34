//! One daemon follows another on the same store while pulls run: nothing fails, and nothing is fetched twice but what
//! was on its way.

use super::support::{Cluster, MIB, content};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pull_goes_on_with_the_next_daemon() {
    let mut cluster = Cluster::start(0, 2).await;
    cluster.limit_origin(20 * MIB as u64);
    let blob = cluster.publish(content(30, 60 * MIB + 5));
    let pulls = [cluster.pulling(0, &blob), cluster.pulling(1, &blob)].map(tokio::spawn);
    cluster.origin_has_sent(12 * MIB as u64).await;
    let first = cluster.hand_over(0).await;
    // Whoever comes now is the new daemon's.
    let late = tokio::spawn(cluster.pulling(0, &blob));
    cluster.origin_has_sent(30 * MIB as u64).await;
    // Once more: the first one's answer goes on through two.
    let second = cluster.hand_over(0).await;
    for pull in pulls.into_iter().chain([late]) {
        assert!(pull.await.unwrap().unwrap() == blob.bytes);
    }
    for ending in [first, second] {
        tokio::time::timeout(Duration::from_secs(20), ending)
            .await
            .expect("it ends with its answers")
            .unwrap();
    }
    let (sent, size) = (cluster.origin_bytes(), blob.bytes.len() as u64);
    // At most a piece that was on its way each time.
    assert!(sent <= size + 8 * MIB as u64, "the origin sent {sent} for {size}");
    let lifetime = cluster.status(0).await["lifetime"].clone();
    assert_eq!((&lifetime["starts"], &lifetime["taken_over"]), (&3.into(), &2.into()), "{lifetime}");
    let delivered = lifetime["delivered"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64);
    assert_eq!(delivered.sum::<u64>(), 2 * size, "{lifetime}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_held_is_kept_and_the_cluster_knows() {
    let mut cluster = Cluster::start(0, 2).await;
    let blob = cluster.publish(content(31, 9 * MIB));
    assert!(cluster.pull(0, &blob).await.unwrap() == blob.bytes);
    let ending = cluster.hand_over(0).await;
    assert!(cluster.pull(0, &blob).await.unwrap() == blob.bytes);
    assert!(cluster.pull(1, &blob).await.unwrap() == blob.bytes);
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64);
    ending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_that_fails_to_take_over_costs_nothing() {
    let mut cluster = Cluster::start(0, 1).await;
    cluster.limit_origin(20 * MIB as u64);
    let blob = cluster.publish(content(32, 40 * MIB));
    let pull = tokio::spawn(cluster.pulling(0, &blob));
    cluster.origin_has_sent(8 * MIB as u64).await;
    cluster.fail_to_take_over(0).await;
    let late = cluster.pulling(0, &blob);
    assert!(pull.await.unwrap().unwrap() == blob.bytes);
    assert!(late.await.unwrap() == blob.bytes);
    let (sent, size) = (cluster.origin_bytes(), blob.bytes.len() as u64);
    assert!(sent <= size + 4 * MIB as u64, "the origin sent {sent} for {size}");
    // And the next one takes over from that.
    cluster.hand_over(0).await.await.unwrap();
    assert!(cluster.pull(0, &blob).await.unwrap() == blob.bytes);
}
