//! Metrics of what runtimes ask for and of downloads: how many, how quick.
//!
//! Invariant: label values come from fixed sets; a status code is one of ours or the origin's.

use super::Label;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Seconds to a head: from what a store gives to what the mirror's own limit allows.
const HEAD_SECONDS: [f64; 11] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds of a download: from a manifest to a model over a thin link.
const DOWNLOAD_SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0];
/// Why requests leave the peer-to-peer way: each has a series from the start.
const REASONS: [&str; 10] = [
    "io",
    "mismatch",
    "no_space",
    "origin_error",
    "overloaded",
    "private",
    "timeout",
    "too_large",
    "unavailable",
    "unversioned",
];

pub(super) struct Requests {
    answered: Family<Answered, Counter>,
    head: Family<OfKind, Histogram>,
    downloads: Family<Ended, Counter>,
    download: Histogram,
}

/// What a runtime asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    Blob,
    Manifest,
    File,
    Other,
}

impl Asked {
    /// By the path of the request.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path.starts_with("/files/") {
            Self::File
        } else if path.contains("/blobs/") {
            Self::Blob
        } else if path.contains("/manifests/") {
            Self::Manifest
        } else {
            Self::Other
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::File => "file",
            Self::Other => "other",
        }
    }
}

impl Requests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Self {
            answered: Family::default(),
            head: Family::new_with_constructor(|| Histogram::new(HEAD_SECONDS)),
            downloads: Family::default(),
            download: Histogram::new(DOWNLOAD_SECONDS),
        };
        let help = "Requests answered at the mirror, by what was asked for and status";
        registry.register("mirror_requests", help, requests.answered.clone());
        let help = "From a request at the mirror to the head of its answer";
        registry.register_with_unit("mirror_head", help, Unit::Seconds, requests.head.clone());
        let help = "Downloads that ended, by how";
        registry.register("downloads", help, requests.downloads.clone());
        let help = "Downloads that ended well, from their start to the whole digest";
        registry.register_with_unit("download", help, Unit::Seconds, requests.download.clone());
        for outcome in ["complete", "failed"] {
            requests.downloads.get_or_create(&Ended { outcome: Label(outcome) }).inc_by(0);
        }
        drop(requests.head.get_or_create(&OfKind { kind: Label(Asked::Blob.label()) }));
        requests
    }

    pub(super) fn answered(&self, asked: Asked, status: u16, after: Duration) {
        let kind = Label(asked.label());
        self.answered.get_or_create(&Answered { kind, code: status.into() }).inc();
        self.head.get_or_create(&OfKind { kind }).observe(after.as_secs_f64());
    }

    pub(super) fn downloaded(&self, well: bool, took: Duration) {
        let outcome = Label(if well { "complete" } else { "failed" });
        self.downloads.get_or_create(&Ended { outcome }).inc();
        if well {
            self.download.observe(took.as_secs_f64());
        }
    }
}

/// Every reason that is known beforehand.
pub(super) fn reasons() -> impl Iterator<Item = &'static str> {
    REASONS.into_iter()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    kind: Label,
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: Label,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_asked_for() {
        for (path, asked) in [
            ("/v2/a/blobs/sha256:0", Asked::Blob),
            ("/v2/a/manifests/latest", Asked::Manifest),
            ("/files/https://h/blobs/x", Asked::File),
            ("/v2/", Asked::Other),
        ] {
            assert_eq!(Asked::of(path), asked, "{path}");
        }
    }
}
