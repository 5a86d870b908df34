//! An OTLP collector of the lab's own: takes spans from everything in it and keeps them.
//!
//! Invariant: it listens beside the control plane, where every node reaches it, and ends with this value.

use super::network::CONTROL;
use crate::netns;
use anyhow::{Context, Result, anyhow};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const PORT: u16 = 4317;

/// One span, as far as it matters here.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: none.
    pub(crate) parent: String,
    pub(crate) name: String,
    /// `hawkerd` or `hawker-control`, and on which host.
    pub(crate) program: String,
    pub(crate) host: String,
    pub(crate) took: Duration,
    attributes: Vec<(String, String)>,
}

impl Span {
    /// Empty where there is no such attribute.
    pub(crate) fn attribute(&self, key: &str) -> &str {
        self.attributes.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

pub(crate) struct Collector {
    spans: Spans,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<()>>>,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Collector {
    pub(crate) fn start() -> Result<Self> {
        let listener = netns::within(&netns::name("control"), || {
            TcpListener::bind((CONTROL, PORT)).with_context(|| format!("listen on {CONTROL}:{PORT}"))
        })?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let spans = Spans::default();
        let taking = spans.clone();
        let serving = std::thread::spawn(move || serve(listener, taking, stopped));
        Ok(Self { spans, stop: Some(stop), serving: Some(serving) })
    }

    pub(crate) fn endpoint() -> String {
        format!("http://{CONTROL}:{PORT}")
    }

    /// Everything that came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        let serving = self.serving.take().context("the collector serves")?;
        serving.join().map_err(|_| anyhow!("the collector panicked"))?
    }
}

fn serve(listener: TcpListener, spans: Spans, stopped: oneshot::Receiver<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(spans));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        tokio::select! {
            served = serving => served.context("serve as a collector"),
            _ = stopped => Ok(()),
        }
    })
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_program in request.into_inner().resource_spans {
            let resource =
                of_program.resource.map(|resource| attributes(resource.attributes)).unwrap_or_default();
            let said = |key: &str| {
                resource
                    .iter()
                    .find(|(name, _)| name == key)
                    .map(|(_, value)| value.clone())
                    .unwrap_or_default()
            };
            let spans = of_program.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                program: said("service.name"),
                host: said("host.name"),
                took: Duration::from_nanos(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)),
                attributes: attributes(span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(pairs: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::BoolValue(yes) => yes.to_string(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value.and_then(|value| value.value).map(text).unwrap_or_default()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
