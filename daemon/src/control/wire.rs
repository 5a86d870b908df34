//! Between the scheduler's wire format and the swarm's own words.
//!
//! Invariant: what a scheduler sends is checked here, field by field; the rest of the daemon sees
//! well-formed values only.

mod jobs;

use crate::jobs::orders::JobOrder;
use crate::origin::{ObjectKind, OriginObject};
use crate::swarm::orders::{Assignment, Attested, Lease, LeaseOutcome, Notice, Order, Parent, Want};
use hawker_api::pieces::{MAX_PIECES, MAX_TASK_SIZE, PIECE_DIGEST_LEN, PieceDigest};
use hawker_api::task::{TaskId, TaskIdError};
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Most parents taken from one assignment.
const MAX_PARENTS: usize = 32;

/// A message that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub(super) struct WireError {
    field: &'static str,
    problem: String,
}

fn bad(field: &'static str, problem: impl Into<String>) -> WireError {
    WireError { field, problem: problem.into() }
}

/// Whom a message is for.
pub(super) enum Received {
    Swarm(Order),
    Jobs(JobOrder),
}

/// What the scheduler wants; `None` for messages without consequence.
pub(super) fn order(message: v1::SchedulerMessage) -> Result<Option<Received>, WireError> {
    use v1::scheduler_message::Kind;
    Ok(Some(Received::Swarm(match message.kind {
        None | Some(Kind::Welcome(_)) => return Ok(None),
        Some(Kind::Job(order)) => return Ok(Some(Received::Jobs(jobs::order(order)?))),
        Some(Kind::Assignment(assignment)) => Order::Assignment(self::assignment(assignment)?),
        Some(Kind::Lease(lease)) => Order::Lease(self::lease(lease)?),
        Some(Kind::LeaseRevoked(revoked)) => Order::Revoked { id: revoked.id },
        Some(Kind::AskPieceList(ask)) => Order::AskPieceList { task: task(&ask.task)? },
        Some(Kind::ListReset(reset)) => Order::ListReset { task: task(&reset.task)?, reason: reset.reason },
    })))
}

fn assignment(message: v1::Assignment) -> Result<Assignment, WireError> {
    let parents = message.parents.into_iter().take(MAX_PARENTS).map(parent);
    let parents = if message.parents_changed { Some(parents.collect::<Result<_, _>>()?) } else { None };
    Ok(Assignment {
        task: task(&message.task)?,
        size: size(message.size)?,
        parents,
        digests: message.digests.into_iter().map(attested).collect::<Result<_, _>>()?,
        refused: (!message.refused.is_empty()).then_some(message.refused),
    })
}

fn parent(message: v1::Parent) -> Result<Parent, WireError> {
    let ip: IpAddr =
        message.ip.parse().map_err(|error: std::net::AddrParseError| bad("parent.ip", error.to_string()))?;
    let port =
        u16::try_from(message.piece_port).map_err(|error| bad("parent.piece_port", error.to_string()))?;
    let seed = message.kind() == v1::HostKind::Seed;
    let v1::Parent { host_id, idc, location, reserve, .. } = message;
    Ok(Parent { host_id, addr: SocketAddr::new(ip, port), seed, idc, location, reserve })
}

fn attested(run: v1::DigestRun) -> Result<Attested, WireError> {
    let (digests, rest) = run.digests.as_chunks::<PIECE_DIGEST_LEN>();
    if !rest.is_empty() || run.first >= MAX_PIECES || digests.len() > MAX_PIECES as usize {
        return Err(bad("digests", "not whole digests of existing pieces"));
    }
    Ok(Attested { first: run.first, digests: digests.to_vec(), attester: run.attester.into() })
}

fn lease(message: v1::Lease) -> Result<Lease, WireError> {
    let origin = message.origin.ok_or_else(|| bad("lease.origin", "missing"))?;
    let pieces = message.pieces.ok_or_else(|| bad("lease.pieces", "missing"))?;
    let end = pieces.first.saturating_add(pieces.count).min(MAX_PIECES);
    Ok(Lease {
        id: message.id,
        task: task(&message.task)?,
        object: object(origin),
        pieces: pieces.first..end,
        size: size(message.size)?,
        traceparent: (!message.traceparent.is_empty()).then_some(message.traceparent),
    })
}

fn object(origin: v1::Origin) -> OriginObject {
    let kind = match origin.kind() {
        v1::OriginKind::Blob => ObjectKind::Blob,
        v1::OriginKind::Manifest => ObjectKind::Manifest,
        v1::OriginKind::File => ObjectKind::File,
    };
    let v1::Origin { registry, repository, version, .. } = origin;
    OriginObject { registry, repository, kind, version }
}

fn origin(object: OriginObject) -> v1::Origin {
    let kind = match object.kind {
        ObjectKind::Blob => v1::OriginKind::Blob,
        ObjectKind::Manifest => v1::OriginKind::Manifest,
        ObjectKind::File => v1::OriginKind::File,
    };
    let OriginObject { registry, repository, version, .. } = object;
    v1::Origin { registry, repository, kind: kind.into(), version }
}

fn task(text: &str) -> Result<TaskId, WireError> {
    text.parse().map_err(|error: TaskIdError| bad("task", error.to_string()))
}

fn size(bytes: u64) -> Result<Option<u64>, WireError> {
    if bytes > MAX_TASK_SIZE {
        return Err(bad("size", "larger than the limit"));
    }
    Ok((bytes > 0).then_some(bytes))
}

/// A notice that is a message of its own.
pub(super) fn urgent(notice: Notice) -> Kind {
    match notice {
        Notice::Inventory(held) => {
            let holding = |(task, size): (TaskId, u64)| v1::Holding {
                task: task.to_string(),
                size,
                complete: true,
                pieces: Vec::new(),
            };
            Kind::Inventory(v1::Inventory { holdings: held.into_iter().map(holding).collect() })
        }
        Notice::Want(want) => Kind::Want(self::want(want)),
        Notice::LeaseEnded { task, id, outcome } => Kind::LeaseEnded(lease_ended(task, id, outcome)),
        Notice::Finished { task, size } => Kind::Finished(v1::Finished { task: task.to_string(), size }),
        Notice::Abandoned { task, detail } => {
            Kind::Abandoned(v1::Abandoned { task: task.to_string(), detail })
        }
        Notice::PieceList { task, size, digests, proven } => {
            let mut runs = Vec::new();
            for attested in digests {
                push_run(&mut runs, attested);
            }
            Kind::PieceList(v1::PieceList { task: task.to_string(), size, digests: runs, proven })
        }
        Notice::BadPeer { task, host_id, piece, detail } => {
            Kind::BadPeer(v1::BadPeer { task: task.to_string(), host_id, piece, detail })
        }
        Notice::Mismatch { task, attesters } => {
            Kind::Mismatch(v1::Mismatch { task: task.to_string(), attesters })
        }
        Notice::Dropped(tasks) => {
            Kind::Dropped(v1::Dropped { tasks: tasks.iter().map(ToString::to_string).collect() })
        }
        Notice::Job(report) => Kind::Job(jobs::report(report)),
        Notice::Image(image) => Kind::Image(jobs::image(image)),
        // Gathered by `Batch`, which never passes these on.
        Notice::Size { .. }
        | Notice::Piece { .. }
        | Notice::LeaseAlive { .. }
        | Notice::LeaseExtended { .. } => Kind::Progress(v1::Progress::default()),
    }
}

fn want(want: Want) -> v1::Want {
    v1::Want {
        task: want.task.to_string(),
        origin: Some(origin(want.object)),
        size: want.size.unwrap_or(0),
        pieces: want.held.as_bytes().to_vec(),
        fetching: want.fetching.iter().map(piece_range).collect(),
        can_fetch: true,
        traceparent: want.traceparent.unwrap_or_default(),
    }
}

fn lease_ended(task: TaskId, id: u64, outcome: LeaseOutcome) -> v1::LeaseEnded {
    use v1::LeaseOutcome as Wire;
    let (outcome, http_status, detail) = match outcome {
        LeaseOutcome::Done => (Wire::Done, 0, String::new()),
        LeaseOutcome::Status { status } => (Wire::Status, status.into(), String::new()),
        LeaseOutcome::Failed { detail } => (Wire::Failed, 0, detail),
        LeaseOutcome::Declined { detail } => (Wire::Declined, 0, detail),
    };
    v1::LeaseEnded { id, task: task.to_string(), outcome: outcome.into(), http_status, detail }
}

pub(super) fn piece_range(pieces: &Range<u32>) -> v1::PieceRange {
    v1::PieceRange { first: pieces.start, count: pieces.end.saturating_sub(pieces.start) }
}

/// Adds digests to `runs`, to the last one where they follow it.
pub(super) fn push_run(runs: &mut Vec<v1::DigestRun>, attested: Attested) {
    let bytes = |digests: &[PieceDigest]| digests.as_flattened().to_vec();
    let Attested { first, digests, attester } = attested;
    if let Some(last) = runs.last_mut() {
        let follows = u64::from(last.first) + (last.digests.len() / PIECE_DIGEST_LEN) as u64;
        if follows == u64::from(first) && *last.attester == *attester {
            last.digests.extend(bytes(&digests));
            return;
        }
    }
    runs.push(v1::DigestRun { first, digests: bytes(&digests), attester: attester.to_string() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> String {
        format!("sha256:{}", "5".repeat(64))
    }

    #[test]
    fn nonsense_of_a_scheduler_is_named() {
        use v1::scheduler_message::Kind;
        let run = v1::DigestRun { first: 0, digests: vec![1; 33], attester: String::new() };
        let cases = [
            (v1::Assignment { task: "x".into(), ..Default::default() }, "task"),
            (v1::Assignment { task: text(), size: u64::MAX, ..Default::default() }, "size"),
            (v1::Assignment { task: text(), digests: vec![run], ..Default::default() }, "digests"),
            (
                v1::Assignment {
                    task: text(),
                    parents_changed: true,
                    parents: vec![v1::Parent { ip: "nowhere".into(), ..Default::default() }],
                    ..Default::default()
                },
                "parent.ip",
            ),
        ];
        for (message, field) in cases {
            let message = v1::SchedulerMessage { kind: Some(Kind::Assignment(message)) };
            let Err(error) = order(message) else { panic!("{field}") };
            let error = error.to_string();
            assert!(error.starts_with(field), "{field}: {error}");
        }
    }

    proptest! {
        #[test]
        fn runs_say_the_same_as_single_digests(pieces in proptest::collection::btree_set(0u32..40, 0..20)) {
            let mut runs = Vec::new();
            for piece in &pieces {
                let digest = [u8::try_from(*piece).unwrap(); 32];
                push_run(&mut runs, Attested { first: *piece, digests: vec![digest], attester: "a".into() });
            }
            let mut back = Vec::new();
            for run in runs {
                let run = attested(run).unwrap();
                back.extend((run.first..).zip(run.digests).inspect(|(piece, digest)| {
                    assert_eq!(u32::from(digest[0]), *piece);
                }).map(|(piece, _)| piece));
            }
            prop_assert_eq!(back, pieces.into_iter().collect::<Vec<_>>());
        }
    }
}
