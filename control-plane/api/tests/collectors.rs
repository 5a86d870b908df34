//! Spans on their way to a collector of either protocol, and what becomes of those that it does not take.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hawker_api::trace::{self, DroppedSpans, TARGET, TraceConfig};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use prost::Message;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt;

/// More than the queue holds and is being sent.
const TOO_MANY: usize = 6000;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn serve_http(router: Router) -> SocketAddr {
    let (listener, addr) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    addr
}

async fn collect_http(spans: UnboundedSender<ExportTraceServiceRequest>) -> SocketAddr {
    let take = move |headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        spans.send(ExportTraceServiceRequest::decode(body).unwrap()).unwrap();
        std::future::ready(ExportTraceServiceResponse::default().encode_to_vec())
    };
    serve_http(Router::new().route("/v1/traces", post(take))).await
}

struct Taking(UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collect_grpc(spans: UnboundedSender<ExportTraceServiceRequest>) -> SocketAddr {
    let (listener, addr) = listen().await;
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Taking(spans)));
    tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    addr
}

/// Makes spans, and lets them go as a program does that ends.
async fn make_spans(count: usize, protocol: &str, collector: SocketAddr) {
    let config = TraceConfig::check(&format!("http://{collector}"), protocol, 1.0).unwrap().unwrap();
    let (layer, traces) = trace::layer("hawkerd", "node-1", &config).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for number in 0..count {
            tracing::info_span!(target: TARGET, "fetch", number).in_scope(|| {});
        }
    });
    tokio::task::spawn_blocking(move || traces.flush()).await.unwrap();
}

fn dropped(reason: &str) -> usize {
    let (mut registry, mut text) = (Registry::default(), String::new());
    registry.register_collector(Box::new(DroppedSpans));
    encode(&mut text, &registry).unwrap();
    let series = format!("hawker_trace_spans_dropped_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_of_either_protocol() {
    for protocol in ["grpc", "http/protobuf"] {
        let (sender, mut received) = unbounded_channel();
        let collector = match protocol {
            "grpc" => collect_grpc(sender).await,
            _ => collect_http(sender).await,
        };
        make_spans(3, protocol, collector).await;
        let request = received.try_recv().unwrap();
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.name"), "{protocol}");
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["fetch"; 3], "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_does_not_take_is_counted() {
    let refusing = serve_http(Router::new().fallback(StatusCode::BAD_REQUEST)).await;
    make_spans(5, "http/protobuf", refusing).await;
    assert_eq!((dropped("collector"), dropped("queue")), (5, 0));

    let stuck = serve_http(Router::new().fallback(std::future::pending::<StatusCode>)).await;
    make_spans(TOO_MANY, "http/protobuf", stuck).await;
    let queue = dropped("queue");
    assert!((TOO_MANY - 2048 - 2 * 512..=TOO_MANY - 2048).contains(&queue), "{queue}");
}
