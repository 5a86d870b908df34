//! Traces: where spans go, and how a trace that began in one program goes on in another.
//!
//! Spans are those of `tracing` with the target [`TARGET`]; log lines never see them. Without an endpoint nothing listens to that target:
//! a span is then a branch on a static, and every function here returns at once.
//!
//! Invariant: nothing waits for a collector. Spans that do not fit the queue are dropped, at the end too; [`DroppedSpans`]
//! counts them.

mod collector;
mod dropped;

pub use collector::OtlpProtocol;
pub use dropped::DroppedSpans;

use dropped::{Bounded, Counted, Waiting};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanLimits,
};
use std::sync::Arc;
use std::time::Duration;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

/// Target of the spans that are exported, and of nothing else.
pub const TARGET: &str = "hawker::trace";
/// Spans that wait for the collector; more are dropped.
const MAX_QUEUED_SPANS: usize = 2048;
/// Spans sent at once, and how long they are gathered.
const MAX_BATCH_SPANS: usize = 512;
const GATHER: Duration = Duration::from_secs(1);
/// Longest time for one message to the collector.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that the program's end waits for what is still queued.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// Attributes and events of one span: what we set, and some to spare.
const MAX_ATTRIBUTES: u32 = 64;
const MAX_EVENTS: u32 = 64;

/// Where spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// `http(s)://host:port` of an OTLP collector's service of this protocol.
    pub endpoint: String,
    pub protocol: OtlpProtocol,
    /// Of traces that begin in this program; one that began elsewhere goes on as that decided.
    pub ratio: f64,
}

impl TraceConfig {
    /// `None`: no endpoint, no traces.
    ///
    /// # Errors
    /// The key below `telemetry` that is wrong, and what is wrong with it.
    pub fn check(endpoint: &str, protocol: &str, ratio: f64) -> Result<Option<Self>, (&'static str, String)> {
        let protocol = protocol.parse().map_err(|problem| ("otlpProtocol", problem))?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(("sampleRatio", format!("`{ratio}` is not between 0 and 1")));
        }
        if endpoint.is_empty() {
            return Ok(None);
        }
        let refuse = |why: String| Err(("otlpEndpoint", format!("`{endpoint}` {why}")));
        match Url::parse(endpoint) {
            Err(error) => refuse(format!("is not a URL: {error}")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                refuse("is not an http(s) URL".to_owned())
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Err(("otlpEndpoint", "has a user or password: credentials don't belong here".to_owned()))
            }
            Ok(_) => Ok(Some(Self { endpoint: endpoint.to_owned(), protocol, ratio })),
        }
    }
}

/// The way to the collector; ends with [`Traces::flush`].
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what is queued, for at most [`FLUSH_LIMIT`]. Blocks.
    pub fn flush(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_LIMIT)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// What sends spans of `program` to the collector, for the subscriber. To be called in a tokio runtime.
///
/// # Errors
/// The client of the collector cannot be built. That it does not answer is none: it may come later.
pub fn layer<S>(
    program: &'static str,
    host: &str,
    config: &TraceConfig,
) -> Result<(impl Layer<S> + Send + Sync + use<S>, Traces), ExporterBuildError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let waiting = Waiting::default();
    let exporter = Counted::new(collector::exporter(config)?, Arc::clone(&waiting));
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED_SPANS)
        .with_max_export_batch_size(MAX_BATCH_SPANS)
        .with_scheduled_delay(GATHER)
        .build();
    let resource = Resource::builder()
        .with_service_name(program)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", host.to_owned()),
        ])
        .build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded::new(batches, waiting))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.ratio))))
        .with_span_limits(SpanLimits {
            max_attributes_per_span: MAX_ATTRIBUTES,
            max_events_per_span: MAX_EVENTS,
            ..SpanLimits::default()
        })
        .with_resource(resource)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(program))
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|metadata| metadata.target() == TARGET));
    Ok((layer, Traces(Some(provider))))
}

/// The `traceparent` (W3C Trace Context) by which another program goes on with `span`; `None`: it is not recorded.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            (span.trace_flags() & TraceFlags::SAMPLED).to_u8()
        )
    })
}

/// Makes `span` go on with the trace of a `traceparent`; what is none leaves it as it is.
pub fn go_on(span: &Span, traceparent: &str) {
    if !span.is_disabled()
        && let Some(parent) = parse(traceparent)
    {
        // Only a span that was entered already refuses: there is none such among the callers.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Adds to `span` what is only known at its end.
pub fn note(span: &Span, key: &'static str, value: impl Into<opentelemetry::Value>) {
    if !span.is_disabled() {
        span.set_attribute(key, value);
    }
}

/// Length of every `traceparent` of version 00, bytes; later versions may be longer and begin so.
pub const TRACEPARENT_LEN: usize = 55;

fn parse(text: &str) -> Option<SpanContext> {
    let text = text.trim();
    let (head, rest) = text.split_at_checked(TRACEPARENT_LEN)?;
    let mut parts = head.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths = (version.len(), trace.len(), span.len(), flags.len()) == (2, 32, 16, 2);
    let version_fits = match version {
        "ff" => false,
        "00" => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    if !lengths || !version_fits || ![version, trace, span, flags].into_iter().all(is_hex) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let context = parse(PARENT).unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_remote() && context.is_sampled());
        assert!(!parse(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
        assert!(parse(&PARENT.replace("00-4", "cc-4").replace("-01", "-01-more")).is_some());
        for bad in [
            "",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &PARENT.replace("00-4", "ff-4"),
            &PARENT.replace("4bf9", "4BF9"),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn without_a_subscriber_there_is_nothing() {
        let span = tracing::info_span!(target: TARGET, "x");
        go_on(&span, PARENT);
        note(&span, "a", 1);
        assert_eq!(traceparent(&span), None);
    }

    #[test]
    fn wrong_settings_are_named() {
        assert_eq!(TraceConfig::check("", "grpc", 0.5), Ok(None));
        let http = TraceConfig::check("http://collector:4318", "http/protobuf", 1.0).unwrap().unwrap();
        assert_eq!(http.protocol, OtlpProtocol::HttpProtobuf);
        for (endpoint, protocol, ratio, key) in [
            ("", "grpc", 1.5, "sampleRatio"),
            ("", "grpc", f64::NAN, "sampleRatio"),
            ("collector:4317", "grpc", 1.0, "otlpEndpoint"),
            ("http://u:p@collector", "grpc", 1.0, "otlpEndpoint"),
            ("http://collector", "http/json", 1.0, "otlpProtocol"),
            ("", "", 1.0, "otlpProtocol"),
        ] {
            let problem = TraceConfig::check(endpoint, protocol, ratio).unwrap_err();
            assert_eq!(problem.0, key, "{endpoint} {protocol} {ratio}");
        }
    }
}
