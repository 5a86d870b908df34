//! Spans that no collector gets, counted by why.
//!
//! Invariant: no more than [`MAX_QUEUED_SPANS`] wait; the queue behind has room for as many, so that none is lost there
//! unseen.

use super::MAX_QUEUED_SPANS;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Of the process, as its subscriber is.
static QUEUE_FULL: AtomicU64 = AtomicU64::new(0);
static NOT_TAKEN: AtomicU64 = AtomicU64::new(0);

/// `hawker_trace_spans_dropped_total`, for the registry.
#[derive(Debug)]
pub struct DroppedSpans;

impl Collector for DroppedSpans {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Spans that were not exported: the queue was full, or the collector did not take them";
        let name = "hawker_trace_spans_dropped";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in [("queue", &QUEUE_FULL), ("collector", &NOT_TAKEN)] {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(metric.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

/// Spans between a [`Bounded`] processor and its [`Counted`] exporter.
pub(super) type Waiting = Arc<AtomicUsize>;

/// An exporter that counts what it does not get rid of.
#[derive(Debug)]
pub(super) struct Counted<E> {
    next: E,
    waiting: Waiting,
}

impl<E> Counted<E> {
    pub(super) fn new(next: E, waiting: Waiting) -> Self {
        Self { next, waiting }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let exported = self.next.export(batch).await;
        if exported.is_err() {
            NOT_TAKEN.fetch_add(u64::try_from(spans).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// A processor that drops what would not fit the queue of the next one.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    next: P,
    waiting: Waiting,
}

impl<P> Bounded<P> {
    pub(super) fn new(next: P, waiting: Waiting) -> Self {
        Self { next, waiting }
    }
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let one_more = |waiting: usize| (waiting < MAX_QUEUED_SPANS).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => self.next.on_end(span),
            Err(_) => {
                QUEUE_FULL.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}
