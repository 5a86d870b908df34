//! What goes in and out of the scheduler's core, in plain types. The wire format is `grpc`'s.

use hawker_api::pieces::{PieceDigest, PieceSet};
use hawker_api::task::TaskId;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Name of a host, as it calls itself.
pub(crate) type HostId = Arc<str>;
/// One stream of one daemon.
pub(crate) type SessionId = u64;

/// A daemon, as it describes itself.
#[derive(Debug, Clone)]
pub(crate) struct HostInfo {
    pub(crate) id: HostId,
    pub(crate) ip: String,
    pub(crate) piece_port: u32,
    pub(crate) idc: String,
    pub(crate) location: String,
    pub(crate) seed: bool,
}

/// Where a task's bytes come from when nobody has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) kind: OriginKind,
    /// Of a file: which version of it; else empty.
    pub(crate) version: String,
}

/// What a daemon asks an origin for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginKind {
    Blob,
    Manifest,
    File,
}

/// Digests of consecutive pieces that one host attests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) digests: Vec<PieceDigest>,
    pub(crate) attester: HostId,
}

#[derive(Debug)]
pub(crate) enum Event {
    Connected { session: SessionId, host: HostInfo },
    Disconnected { session: SessionId },
    Message { session: SessionId, message: Message },
}

/// From a daemon.
#[derive(Debug)]
pub(crate) enum Message {
    Inventory(Vec<(TaskId, u64)>),
    Want(Want),
    Progress(Vec<Progress>),
    Finished {
        task: TaskId,
        size: u64,
    },
    Abandoned {
        task: TaskId,
    },
    LeaseEnded {
        task: TaskId,
        id: u64,
        outcome: LeaseOutcome,
    },
    PieceList(PieceList),
    BadPeer {
        task: TaskId,
        host: HostId,
    },
    Mismatch {
        task: TaskId,
        attesters: Vec<HostId>,
    },
    Dropped(Vec<TaskId>),
    /// Work is under way there, and it is alive.
    Beat,
    Image(Image),
    /// `None`: a report that makes no sense.
    Report(Option<Report>),
}

/// An image that a host wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) manifest: TaskId,
    /// Configuration and layers with their bytes.
    pub(crate) parts: Vec<(TaskId, u64)>,
}

/// How far an image is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    pub(crate) name: String,
    pub(crate) manifest: TaskId,
    /// Configuration and layers together.
    pub(crate) bytes: u64,
    pub(crate) nodes_done: usize,
    pub(crate) nodes_wanted: usize,
    /// Since the first node wanted it.
    pub(crate) age: Duration,
    /// Until the last of those that move has it.
    pub(crate) eta: Option<Duration>,
    /// Those with the fewest bytes first.
    pub(crate) stragglers: Vec<Straggler>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Straggler {
    pub(crate) host: HostId,
    pub(crate) bytes_done: u64,
    /// For people.
    pub(crate) reason: String,
}

/// What a host measured since its last report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) elapsed: Duration,
    /// On its uplinks and not Hawker's, bytes; `None`: it cannot see that.
    pub(crate) others_sent: Option<u64>,
    /// Of its uplinks, bytes per second; 0: not known.
    pub(crate) capacity: u64,
    /// Of all its uploads, bytes per second; 0: none.
    pub(crate) upload_limit: u64,
}

#[derive(Debug)]
pub(crate) struct PieceList {
    pub(crate) task: TaskId,
    pub(crate) size: u64,
    pub(crate) runs: Vec<Run>,
    pub(crate) proven: bool,
}

#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) task: TaskId,
    pub(crate) origin: Origin,
    pub(crate) size: Option<u64>,
    pub(crate) held: PieceSet,
    pub(crate) fetching: Vec<Range<u32>>,
    pub(crate) can_fetch: bool,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) task: TaskId,
    pub(crate) size: Option<u64>,
    pub(crate) pieces: Vec<u32>,
    pub(crate) attested: Vec<Run>,
    pub(crate) live_leases: Vec<u64>,
    pub(crate) extended: Vec<(u64, Range<u32>)>,
}

#[derive(Debug)]
pub(crate) enum LeaseOutcome {
    Done,
    /// Why not, for people: the origin's status, or what went wrong.
    Failed(String),
}

/// To a daemon.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) session: SessionId,
    pub(crate) order: Order,
}

#[derive(Debug)]
pub(crate) enum Order {
    Assignment(Assignment),
    Lease {
        id: u64,
        task: TaskId,
        origin: Origin,
        pieces: Range<u32>,
        size: Option<u64>,
    },
    LeaseRevoked {
        id: u64,
        reason: &'static str,
    },
    AskPieceList {
        task: TaskId,
    },
    ListReset {
        task: TaskId,
        reason: &'static str,
    },
    /// Another stream of the same daemon took over.
    Replaced,
    /// It had work and gave no sign of life: what it had is given to others.
    Silent,
}

#[derive(Debug, Default)]
pub(crate) struct Assignment {
    pub(crate) task: Option<TaskId>,
    pub(crate) size: Option<u64>,
    /// `None`: as before.
    pub(crate) parents: Option<Vec<Parent>>,
    pub(crate) digests: Vec<Run>,
    pub(crate) proven: bool,
    pub(crate) refused: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Parent {
    pub(crate) host: HostInfo,
    pub(crate) reason: String,
    /// Its uplink is busy, and another parent has everything.
    pub(crate) reserve: bool,
}
