//! What a cluster says of registries and engine: in force within seconds, and after a restart without a manager.

use crate::support::{Cluster, MIB, content};
use hawker_api::v1;
use serde_json::{Value, json};
use std::time::Duration;

fn config(registries: Option<&[&str]>, engine: &str) -> v1::ClusterConfig {
    let rule = |host: &&str| v1::RegistryRule { host: (*host).to_owned(), server: String::new() };
    let list = |hosts: &[&str]| v1::RegistryList { rules: hosts.iter().map(rule).collect() };
    v1::ClusterConfig { registries: registries.map(list), engine: engine.to_owned(), shaper: None }
}

/// Waits until the node knows that this is wanted.
async fn told(cluster: &Cluster, node: usize, wants: &Value) {
    let waiting = async {
        while cluster.status(node).await["cluster"]["wants"] != *wants {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), waiting).await.expect("told within 2 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_narrows_what_its_nodes_ask_and_outlives_the_manager() {
    let mut cluster = Cluster::start(0, 2).await;
    let (first, second) = (cluster.publish(content(20, 2 * MIB)), cluster.publish(content(21, 2 * MIB)));
    assert!(cluster.pull(0, &first).await.unwrap() == first.bytes);
    // The node's file has registry.test; what the cluster lists beside is no reason to ask anybody.
    cluster.push(config(Some(&["ghcr.io"]), ""));
    let wants = json!({"registries": ["ghcr.io"], "engine": "auto"});
    told(&cluster, 0, &wants).await;
    let before = cluster.origin_bytes();
    let refused = cluster.pull(0, &second).await.unwrap_err();
    assert!(refused.starts_with('4') || refused.starts_with('5'), "{refused}");
    cluster.stop_manager();
    cluster.restart_node(0).await;
    told(&cluster, 0, &wants).await;
    cluster.pull(0, &second).await.unwrap_err();
    assert_eq!(
        cluster.origin_bytes(),
        before,
        "nothing was asked of a registry that the cluster does not list"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_list_that_has_the_registry_or_goes_again_changes_nothing() {
    let cluster = Cluster::start(0, 2).await;
    let blobs = [22, 23].map(|seed| cluster.publish(content(seed, 2 * MIB)));
    for (blob, list) in blobs.iter().zip([Some(&["registry.test"][..]), None]) {
        cluster.push(config(Some(&[]), ""));
        told(&cluster, 0, &json!({"registries": [], "engine": "auto"})).await;
        cluster.pull(0, blob).await.unwrap_err();
        cluster.push(config(list, ""));
        told(&cluster, 0, &json!({"registries": list, "engine": "auto"})).await;
        assert!(cluster.pull(0, blob).await.unwrap() == blob.bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_sets_io_uring_aside_and_takes_it_back() {
    let cluster = Cluster::start(0, 2).await;
    let engine = async || cluster.status(0).await["engine"]["name"].clone();
    let own = engine().await;
    let blob = cluster.publish(content(24, 6 * MIB));
    assert!(cluster.pull(0, &blob).await.unwrap() == blob.bytes);
    cluster.push(config(None, "portable"));
    told(&cluster, 0, &json!({"registries": null, "engine": "portable"})).await;
    assert_eq!(engine().await, "portable");
    assert!(cluster.pull(1, &blob).await.unwrap() == blob.bytes, "the twin serves");
    cluster.push(config(None, "auto"));
    told(&cluster, 0, &json!({"registries": null, "engine": "auto"})).await;
    assert_eq!(engine().await, own);
    assert_eq!(cluster.origin_bytes(), blob.bytes.len() as u64);
}
