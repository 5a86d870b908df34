//! The join token: who is let in, who is not, and how one token follows another.

use crate::harness::{Fixture, config, peer};
use hawker_api::v1;
use hawker_api::v1::manager_client::ManagerClient;
use hawker_control::health::{Health, MetricsConfig};
use hawker_control::manager::{Manager, ManagerConfig};
use hawker_control::scheduler::{Scheduler, SchedulerConfig};
use prometheus_client::registry::Registry;
use reqwest::Method;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

const OLD: &str = "old-0123456789abcdef";
const NEW: &str = "new-0123456789abcdef";
const ASKS: &str = "this manager asks for a join token";

/// A manager that asks for what stands in the file.
async fn asking(text: &str) -> (Fixture, PathBuf, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("join");
    std::fs::write(&file, text).unwrap();
    (Fixture::start_asking(&file).await, file, dir)
}

/// One call with this header.
async fn place(fixture: &Fixture, header: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(peer("a", "10.0.0.1"));
    if let Some(header) = header {
        let value: MetadataValue<Ascii> = header.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    fixture.grpc().await.place(request).await.map(drop)
}

async fn shows(fixture: &Fixture, token: &str) -> Result<(), Status> {
    place(fixture, Some(&format!("Bearer {token}"))).await
}

/// Until the manager has read the file again.
async fn until_taken(fixture: &Fixture, token: &str, taken: bool) {
    let waiting = async {
        while shows(fixture, token).await.is_ok() != taken {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the file is read again");
}

#[tokio::test]
async fn a_token_of_the_file_lets_in_and_nothing_else_does() {
    let (fixture, _, _dir) = asking(&format!("# of November\n\n{OLD}\n{NEW}\n")).await;
    for header in [format!("Bearer {OLD}"), format!("Bearer {NEW}"), format!("bearer  {NEW} ")] {
        place(&fixture, Some(&header)).await.unwrap();
    }
    let (prefix, longer) = (&OLD[..19], format!("{OLD}x"));
    for (header, says) in [
        (None, ASKS.to_owned()),
        (Some("Bearer "), ASKS.to_owned()),
        (Some("Basic cm9vdDpyb290"), ASKS.to_owned()),
        (Some(OLD), ASKS.to_owned()),
        (Some(&*format!("Bearer {prefix}")), "is none of its own".to_owned()),
        (Some(&*format!("Bearer {longer}")), "is none of its own".to_owned()),
        (Some("Bearer # of November"), "is none of its own".to_owned()),
    ] {
        let status = place(&fixture, header).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{header:?}");
        assert!(status.message().contains(&says), "{header:?}: {status:?}");
        assert!(status.message().ends_with("manager.joinTokenFile"), "{status:?}");
        assert!(!format!("{status:?}").contains(prefix), "a refusal shows the token: {status:?}");
    }
    assert_eq!(fixture.get("/api/v1/peers").await["total"], 1);
}

#[tokio::test]
async fn without_the_key_everybody_may_join() {
    let fixture = Fixture::start().await;
    place(&fixture, None).await.unwrap();
    shows(&fixture, "whatever was sent").await.unwrap();
}

/// Every method that the contract has, as the contract's own text lists them, and some that it does not have.
#[tokio::test]
async fn no_method_is_open() {
    let (fixture, _, _dir) = asking(OLD).await;
    let contract = include_str!("../../api/proto/hawker/v1/manager.proto");
    let (mut service, mut paths) = ("", Vec::new());
    for line in contract.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split([' ', '{']).next().unwrap();
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            paths.push(format!("/hawker.v1.{service}/{}", rest.split('(').next().unwrap()));
        }
    }
    assert!(paths.contains(&"/hawker.v1.Manager/KeepAlive".to_owned()), "{paths:?}");
    println!("methods walked: {}", paths.len());
    paths.extend(
        ["/hawker.v1.Manager/NoSuch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/"]
            .map(str::to_owned),
    );
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for path in paths {
        for (token, refused) in [(None, true), (Some(NEW), true), (Some(OLD), false)] {
            let mut asking = client.post(format!("{}{path}", fixture.manager.local_uri()));
            asking = asking.header("content-type", "application/grpc").timeout(Duration::from_secs(5));
            if let Some(token) = token {
                asking = asking.bearer_auth(token);
            }
            // An empty message: what a method thinks of it is told in its answer, or in the trailers.
            let answer = asking.body(vec![0; 5]).send().await.unwrap();
            let unauthenticated = answer.headers().get("grpc-status").is_some_and(|status| status == "16");
            assert_eq!(unauthenticated, refused, "{path} with {token:?}: {:?}", answer.headers());
        }
    }
}

#[tokio::test]
async fn a_token_follows_another_without_a_gap_or_a_restart() {
    let (fixture, file, dir) = asking(OLD).await;
    std::fs::write(&file, format!("{NEW}\n{OLD}\n")).unwrap();
    until_taken(&fixture, NEW, true).await;
    shows(&fixture, OLD).await.unwrap();
    // As the kubelet does it: another file in its place.
    let next = dir.path().join("next");
    std::fs::write(&next, NEW).unwrap();
    std::fs::rename(&next, &file).unwrap();
    until_taken(&fixture, OLD, false).await;
    shows(&fixture, NEW).await.unwrap();
    // What cannot be used leaves those in force that could.
    for broken in [Some(""), Some("short"), None] {
        match broken {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
        shows(&fixture, NEW).await.unwrap();
        assert_eq!(shows(&fixture, OLD).await.unwrap_err().code(), Code::Unauthenticated);
    }
    std::fs::write(&file, OLD).unwrap();
    until_taken(&fixture, OLD, true).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("join");
    for (text, says) in [
        (None, "No such file"),
        (Some(""), "has no join token"),
        (Some("fifteen-letters"), "16 to 512 characters"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let config = config(dir.path(), dir.path().join("db/manager.db").into());
        let config = ManagerConfig { join_token_file: Some(file.clone()), ..config };
        let error = Manager::bind(config).await.map(drop).unwrap_err().to_string();
        let named = format!("manager.joinTokenFile: {}: ", file.display());
        assert!(error.starts_with(&named) && error.contains(says), "{error}");
        assert!(!dir.path().join("db").exists(), "the database was not touched");
    }
}

#[tokio::test]
async fn refusals_are_counted() {
    let (fixture, _, _dir) = asking(OLD).await;
    let mut registry = Registry::default();
    fixture.manager.register_metrics(&mut registry);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let health = Health::bind(MetricsConfig { addr: any, profile: false }, registry).await.unwrap();
    place(&fixture, None).await.unwrap_err();
    for _ in 0..2 {
        shows(&fixture, NEW).await.unwrap_err();
    }
    shows(&fixture, OLD).await.unwrap();
    let metrics =
        reqwest::get(format!("http://{}/metrics", health.local_addr())).await.unwrap().text().await.unwrap();
    for line in [
        "hawker_manager_join_refused_total{token=\"missing\"} 1",
        "hawker_manager_join_refused_total{token=\"unknown\"} 2",
        "hawker_manager_requests_total{api=\"grpc\",route=\"Place\",code=\"0\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    health.shutdown().await;
}

async fn scheduler(fixture: &Fixture, tokens: Option<&Path>) -> Scheduler {
    let config = SchedulerConfig {
        grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise_addr: "10.0.0.2:8002".to_owned(),
        cluster_id: 1,
        manager_addrs: vec![fixture.manager.local_uri()],
        join_token_file: tokens.map(Path::to_owned),
        use_reports: true,
    };
    Scheduler::bind(config).await.unwrap()
}

#[tokio::test]
async fn a_scheduler_joins_with_the_token_and_finds_a_new_one_by_itself() {
    let (fixture, _, dir) = asking(NEW).await;
    let own = dir.path().join("own");
    let registered = |list: &serde_json::Value| list["total"] == 1;
    for (text, joins) in [(OLD.to_owned(), false), (format!("{OLD}\n{NEW}"), true)] {
        std::fs::write(&own, text).unwrap();
        let one = scheduler(&fixture, Some(&own)).await;
        if !joins {
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert_eq!(fixture.get("/api/v1/schedulers").await["total"], 0);
            // It tries again, and reads again.
            std::fs::write(&own, NEW).unwrap();
        }
        fixture.wait_for("/api/v1/schedulers", registered).await;
        one.shutdown().await;
        fixture.wait_for("/api/v1/schedulers", |list| list["total"] == 0).await;
    }
    let without = scheduler(&fixture, None).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(fixture.get("/api/v1/schedulers").await["total"], 0);
    without.shutdown().await;
}

#[tokio::test]
async fn a_daemon_that_was_let_in_stays_when_its_token_goes() {
    let (fixture, file, _dir) = asking(&format!("{OLD}\n{NEW}")).await;
    let bearer: MetadataValue<Ascii> = format!("Bearer {OLD}").parse().unwrap();
    let shown = move |mut request: Request<()>| -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", bearer.clone());
        Ok(request)
    };
    let channel = tonic::transport::Endpoint::from_shared(fixture.manager.local_uri()).unwrap();
    let mut client = ManagerClient::with_interceptor(channel.connect().await.unwrap(), shown);
    let first =
        v1::KeepAliveRequest { kind: Some(v1::keep_alive_request::Kind::Peer(peer("stays", "10.2.0.7"))) };
    let beats = futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
    let mut answers = client.keep_alive(beats).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    std::fs::write(&file, NEW).unwrap();
    until_taken(&fixture, OLD, false).await;
    let cluster = json!({"name": "b", "scopes": {"cidrs": ["10.2.0.0/16"]}});
    fixture.create(cluster).await;
    let moved = answers.message().await.unwrap().unwrap().placement.unwrap();
    assert_eq!(moved.cluster_name, "b");
}

#[tokio::test]
async fn the_values_of_a_cluster_name_the_secret_and_not_the_token() {
    let (fixture, _, _dir) = asking(OLD).await;
    let text = fixture.send(Method::GET, "/api/v1/clusters/1/values", Some(&fixture.token), None).await;
    let text = text.text().await.unwrap();
    assert!(text.ends_with("joinToken:\n  existingSecret: hawker-join-token\n"), "{text}");
    let command =
        "#   kubectl --namespace NAMESPACE create secret generic hawker-join-token --from-file=token=FILE\n";
    assert!(text.contains(command) && !text.contains(OLD), "{text}");
}
