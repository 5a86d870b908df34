//! Spans of a download: the whole of it, what each parent gave, a lease that came from the scheduler.
//!
//! Invariant: as many as there are parents and requests to the origin, not as there are pieces.

use super::download::Download;
use super::orders::Parent;
use crate::metrics::Source;
use crate::trace::{TARGET, count, go_on, note, traceparent};
use hawker_api::task::TaskId;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{Span, info_span};

/// A download, from its start to its end; below the request that was first to want it.
pub(super) fn download(download: &Download) -> Span {
    let span = info_span!(target: TARGET, "download", hawker.task = %download.task);
    if let Some(traceparent) = traceparent(&span) {
        // Set once: the span is new, and so is the download.
        let _ = download.traceparent.set(traceparent);
    }
    span
}

/// What is only known at the end of the current download.
pub(super) fn ended(download: &Download) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    let report = download.report();
    note(&span, "hawker.size", count(report.size));
    note(&span, "hawker.state", report.state);
    let fetched = report.fetched;
    for (key, bytes) in [
        ("hawker.fetched.peer_same_zone", fetched.peer_same_zone),
        ("hawker.fetched.peer_cross_zone", fetched.peer_cross_zone),
        ("hawker.fetched.seed", fetched.seed),
        ("hawker.fetched.origin", fetched.origin),
    ] {
        if bytes > 0 {
            note(&span, key, count(bytes));
        }
    }
}

/// A lease of the scheduler, where this node's own request is not what it answers: a seed's.
pub(super) fn lease(task: &TaskId, pieces: &Range<u32>, traceparent: Option<&str>) -> Span {
    let Some(traceparent) = traceparent else { return Span::none() };
    let span = info_span!(
        target: TARGET, "lease", hawker.task = %task, hawker.first_piece = pieces.start, hawker.end_piece = pieces.end
    );
    go_on(&span, traceparent);
    span
}

/// All work with one parent.
pub(super) struct FromParent {
    pub(super) span: Span,
    pieces: AtomicU64,
    bytes: AtomicU64,
}

impl FromParent {
    pub(super) fn new(parent: &Parent, source: Source) -> Self {
        let span = info_span!(
            target: TARGET, "fetch", otel.kind = "client", hawker.parent = parent.host_id, net.peer.name = %parent.addr,
            hawker.source = source.label(), hawker.reserve = parent.reserve
        );
        Self { span, pieces: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    pub(super) fn got(&self, bytes: u64) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for FromParent {
    fn drop(&mut self) {
        note(&self.span, "hawker.pieces", count(self.pieces.load(Ordering::Relaxed)));
        note(&self.span, "hawker.bytes", count(self.bytes.load(Ordering::Relaxed)));
    }
}
