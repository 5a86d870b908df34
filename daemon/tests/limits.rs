//! Limits of one daemon alone: what it reads from its origin.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with tests that play other scripts")]
mod scripted;

use scripted::{Lone, Script, digest_of};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_limit_holds_and_what_is_read_is_counted() {
    let content: Vec<u8> = (0..4_000_000u32).map(|at| at.to_le_bytes()[0]).collect();
    let lone = Lone::start(Script::blob(&content), "shaper.origin_limit=2MB/s").await;
    let started = Instant::now();
    let path = format!("/v2/a/b/blobs/{}?ns=registry.test", digest_of(&content));
    let answer = lone.ask("GET", &path, "").await;
    let seconds = started.elapsed().as_secs_f64();
    assert!(answer.status == 200 && answer.body == content);
    assert!(seconds > 1.7, "{seconds:.2} s");
    let status = lone.status().await;
    assert_eq!(status["shaper"]["mode"], "user");
    let classes = status["shaper"]["classes"].as_array().unwrap();
    let origin = classes.iter().find(|class| class["class"] == "origin").unwrap();
    assert_eq!(origin["received_bytes"], content.len());
}
