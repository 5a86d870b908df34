//! What goes in and out of the scheduler's core, in plain types. The wire format is `grpc`'s.

use hawker_api::pieces::{PieceDigest, PieceSet};
use hawker_api::task::TaskId;
use std::ops::Range;
use std::sync::Arc;

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
    pub(crate) manifest: bool,
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
    Finished { task: TaskId, size: u64 },
    Abandoned { task: TaskId },
    LeaseEnded { task: TaskId, id: u64, outcome: LeaseOutcome },
    PieceList(PieceList),
    BadPeer { task: TaskId, host: HostId },
    Mismatch { task: TaskId, attesters: Vec<HostId> },
    Dropped(Vec<TaskId>),
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
}
