//! Daemons at a manager that asks for a join token: refused they serve as before and say why, and a new token needs no restart.

use crate::support::{Cluster, MIB, content};
use serde_json::Value;
use std::time::Duration;

const OLD: &str = "old-0123456789abcdef";
const NEW: &str = "new-0123456789abcdef";

/// Until the node says so of its manager.
async fn manager(cluster: &Cluster, node: usize, wanted: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let said = cluster.status(node).await["manager"].clone();
            if wanted(&said) {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("what is wanted of the manager")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_with_a_wrong_token_goes_on_by_its_last_placement_and_says_why() {
    let mut cluster = Cluster::start(0, 2).await;
    let first = cluster.publish(content(40, 3 * MIB));
    assert!(cluster.pull(0, &first).await.unwrap() == first.bytes);
    cluster.ask_for(NEW);
    cluster.write_join_tokens(0, OLD);
    cluster.restart_node(0).await;
    let refused = manager(&cluster, 0, |said| said["error"].is_string()).await;
    let error = refused["error"].as_str().unwrap();
    assert_eq!(refused["connected"], false);
    for says in
        ["asks for a join token: manager.joinTokenFile", "sent was what stands in manager.joinTokenFile: /"]
    {
        assert!(error.contains(says), "{error}");
    }
    assert!(!error.contains(OLD), "{error}");
    // Placed and shared as before: the other node's blob comes from there.
    assert_eq!(cluster.status(0).await["cluster"]["source"], "cache");
    let second = cluster.publish(content(41, 3 * MIB));
    assert!(cluster.pull(1, &second).await.unwrap() == second.bytes);
    let before = cluster.origin_bytes();
    assert!(cluster.pull(0, &second).await.unwrap() == second.bytes);
    assert!(cluster.pull(1, &first).await.unwrap() == first.bytes);
    assert_eq!(cluster.origin_bytes(), before);
    // A file without any is said just as clearly.
    cluster.write_join_tokens(0, "\n");
    manager(&cluster, 0, |said| said["error"].to_string().contains("has no join token")).await;
    // The next attempt reads the new one, behind the old one.
    cluster.write_join_tokens(0, &format!("{OLD}\n{NEW}\n"));
    manager(&cluster, 0, |said| said["connected"] == true && said["error"].is_null()).await;
    assert_eq!(cluster.status(0).await["cluster"]["source"], "manager");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_that_never_had_a_placement_pulls_from_the_origin_meanwhile() {
    let mut cluster = Cluster::start(0, 0).await;
    cluster.ask_for(NEW);
    let node = cluster.add_node().await;
    let error = manager(&cluster, node, |said| said["error"].is_string()).await["error"].to_string();
    assert!(error.contains("manager.joinTokenFile: /") && error.contains("No such file"), "{error}");
    let blob = cluster.publish(content(42, 3 * MIB));
    assert!(cluster.pull(node, &blob).await.unwrap() == blob.bytes);
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64);
    cluster.write_join_tokens(node, NEW);
    manager(&cluster, node, |said| said["connected"] == true).await;
}
