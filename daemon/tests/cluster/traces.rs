//! One trace from the runtime's request to the origin, by a collector of our own.

use crate::support::{Cluster, MIB, content};
use hawker_api::trace::{self, OtlpProtocol, TraceConfig};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use reqwest::header::{HeaderMap, HeaderValue};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Takes what is exported.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes =
            request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Its endpoint.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        endpoint
    }

    /// The spans, once there are some of all these names.
    async fn with(&self, names: &[&str]) -> Vec<Span> {
        let waiting = async {
            loop {
                let spans = self.0.lock().unwrap().clone();
                if names.iter().all(|name| spans.iter().any(|span| span.name == *name)) {
                    return spans;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(15), waiting).await;
        found.unwrap_or_else(|_| {
            let there: HashSet<_> = self.0.lock().unwrap().iter().map(|span| span.name.clone()).collect();
            panic!("of {names:?} there are only {there:?}")
        })
    }
}

fn text(span: &Span, key: &str) -> String {
    let value = span.attributes.iter().find(|pair| pair.key == key);
    match value.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        _ => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pull_is_one_trace_from_the_runtime_to_the_origin() {
    let collector = Collector::default();
    // What begins here is not recorded, so that the tests beside this one leave nothing.
    let config = TraceConfig { endpoint: collector.start().await, protocol: OtlpProtocol::Grpc, ratio: 0.0 };
    let (layer, _traces) = trace::layer("test", "here", &config).unwrap();
    tracing_subscriber::registry().with(layer).try_init().unwrap();

    let cluster = Cluster::start(1, 1).await;
    let blob = cluster.publish(content(71, 18 * MIB));
    assert!(cluster.pull_with(1, &blob, traced("01")).await.unwrap() == blob.bytes);
    let spans =
        collector.with(&["mirror", "download", "schedule", "lease", "origin", "fetch", "serve"]).await;

    let ids: HashSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    for span in &spans {
        let (trace, parent) = (hex(&span.trace_id), hex(&span.parent_span_id));
        assert_eq!(trace, TRACE, "{} is in another trace", span.name);
        let known = ids.contains(&span.parent_span_id) || parent == CALLER;
        // The download and the lease end after what is below them.
        assert!(
            known || ["fetch", "origin", "download"].contains(&span.name.as_str()),
            "{} has no parent",
            span.name
        );
    }
    let of = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let mirror = of("mirror");
    assert_eq!(hex(&mirror.parent_span_id), CALLER);
    let url = format!("/v2/library/thing/blobs/{}?ns=registry.test", blob.digest);
    assert_eq!(text(mirror, "http.url"), url);
    assert_eq!(text(mirror, "hawker.source"), "seed");
    assert_eq!(text(mirror, "hawker.bytes.seed"), blob.bytes.len().to_string());
    assert_eq!(
        (text(mirror, "http.status_code"), text(mirror, "hawker.complete")),
        ("200".into(), "true".into())
    );
    assert!(mirror.end_time_unix_nano > mirror.start_time_unix_nano);
    assert!(
        text(of("schedule"), "hawker.decision").starts_with("fetch from 1 parents"),
        "{:?}",
        of("schedule")
    );
    assert!(text(of("origin"), "http.url").ends_with(&format!("/v2/library/thing/blobs/{}", blob.digest)));
    assert_eq!(text(of("fetch"), "hawker.source"), "seed");
    assert_eq!(text(of("serve"), "hawker.task"), blob.digest);
    assert_eq!(cluster.origin_was_told(), [""; 0], "the origin is told only where that was wanted");

    callers_decide(&collector).await;
}

/// What a caller sends that records (`01`), or does not (`00`).
fn traced(flags: &str) -> HeaderMap {
    let parent = format!("00-{TRACE}-{CALLER}-{flags}");
    HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::try_from(parent).unwrap())])
}

async fn callers_decide(collector: &Collector) {
    // A registry that may know is told; of a caller that does not record, nothing is.
    let mut other = Cluster::start(0, 0).await;
    other.propagate_traces();
    let node = other.add_node().await;
    let second = other.publish(content(72, MIB));
    assert!(other.pull_with(node, &second, traced("00")).await.unwrap() == second.bytes);
    assert!(other.origin_was_told().iter().all(|parent| parent.ends_with("-00")));
    let third = other.publish(content(73, MIB));
    assert!(other.pull_with(node, &third, traced("01")).await.unwrap() == third.bytes);
    let recorded = format!("00-{TRACE}-");
    assert!(other.origin_was_told().iter().any(|told| told.starts_with(&recorded) && told.ends_with("-01")));
    let fetched = |digest: &str| {
        let spans = collector.0.lock().unwrap();
        spans.iter().any(|span| text(span, "hawker.task") == digest)
    };
    tokio::time::timeout(Duration::from_secs(15), async {
        while !fetched(&third.digest) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the recorded pull is not exported");
    assert!(!fetched(&second.digest), "a pull that its caller does not record was exported");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
