//! What the scheduler tells this node and what it is told, in plain types. The wire format is
//! [`crate::control`]'s.

use crate::jobs::orders::JobReport;
use crate::origin::OriginObject;
use hawker_api::pieces::{PieceDigest, PieceSet};
use hawker_api::task::TaskId;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

/// From the scheduler.
#[derive(Debug)]
pub enum Order {
    /// A session with a scheduler began: it knows nothing of this node yet.
    Connected,
    Disconnected,
    Assignment(Assignment),
    Lease(Lease),
    Revoked {
        id: u64,
    },
    AskPieceList {
        task: TaskId,
    },
    ListReset {
        task: TaskId,
        reason: String,
    },
}

#[derive(Debug)]
pub struct Assignment {
    pub task: TaskId,
    pub size: Option<u64>,
    /// Replace the former ones; `None`: unchanged.
    pub parents: Option<Vec<Parent>>,
    pub digests: Vec<Attested>,
    /// Nobody in the cluster can serve or fetch it for this node: why. `None`: not so, or no longer.
    pub refused: Option<String>,
}

/// Digests of consecutive pieces and the host that says so.
#[derive(Debug, Clone)]
pub struct Attested {
    pub first: u32,
    pub digests: Vec<PieceDigest>,
    pub attester: Arc<str>,
}

/// A peer to fetch from.
#[derive(Debug, Clone)]
pub struct Parent {
    pub host_id: String,
    pub addr: SocketAddr,
    pub seed: bool,
    pub idc: String,
    pub location: String,
    /// Busy with other traffic, and another parent has everything: it is spared while the others give.
    pub reserve: bool,
}

/// "Fetch these pieces from the origin, for the cluster."
#[derive(Debug)]
pub struct Lease {
    pub id: u64,
    pub task: TaskId,
    pub object: OriginObject,
    /// May reach past the end where the size is not known yet.
    pub pieces: Range<u32>,
    pub size: Option<u64>,
    /// The trace of whoever it is for.
    pub traceparent: Option<String>,
}

/// To the scheduler. Lost while there is no session: a new one begins with everything that still holds.
#[derive(Debug)]
pub enum Notice {
    Inventory(Vec<(TaskId, u64)>),
    Want(Want),
    Size {
        task: TaskId,
        size: u64,
    },
    /// Verified and on disk; `attested` where it came from the origin.
    Piece {
        task: TaskId,
        size: u64,
        piece: u32,
        attested: Option<PieceDigest>,
    },
    LeaseAlive {
        task: TaskId,
        id: u64,
    },
    LeaseExtended {
        task: TaskId,
        id: u64,
        pieces: Range<u32>,
    },
    LeaseEnded {
        task: TaskId,
        id: u64,
        outcome: LeaseOutcome,
    },
    Finished {
        task: TaskId,
        size: u64,
    },
    Abandoned {
        task: TaskId,
        detail: String,
    },
    PieceList {
        task: TaskId,
        size: u64,
        digests: Vec<Attested>,
        proven: bool,
    },
    BadPeer {
        task: TaskId,
        host_id: String,
        piece: u32,
        detail: String,
    },
    Mismatch {
        task: TaskId,
        attesters: Vec<String>,
    },
    Dropped(Vec<TaskId>),
    /// What is said of the manager's orders.
    Job(JobReport),
    Image(Image),
}

/// An image that somebody here wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `ghcr.io/a/b:v1`
    pub name: String,
    /// Of one platform.
    pub manifest: TaskId,
    /// Configuration and layers with their bytes.
    pub parts: Vec<(TaskId, u64)>,
}

#[derive(Debug)]
pub struct Want {
    pub task: TaskId,
    pub object: OriginObject,
    pub size: Option<u64>,
    pub held: PieceSet,
    /// Leases this node is still working on.
    pub fetching: Vec<Range<u32>>,
    /// The trace of whoever waits for it here.
    pub traceparent: Option<String>,
}

#[derive(Debug)]
pub enum LeaseOutcome {
    Done,
    Status { status: u16 },
    Failed { detail: String },
    Declined { detail: String },
}

/// The way to the scheduler.
pub trait Announce: Send + Sync + 'static {
    /// Never waits; what cannot be sent is dropped and the session is begun anew.
    fn tell(&self, notice: Notice);

    fn is_connected(&self) -> bool;
}
