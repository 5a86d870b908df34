//! Between the wire format and the core's messages.
//!
//! Invariant: what a daemon sends is bounded and well formed when the core sees it; the error names
//! the field.

use super::messages::{
    Assignment, Event, HostId, HostInfo, Image, LeaseOutcome, Message, Order, Origin, OriginKind, Parent,
    PieceList, Progress, Report, Rollout, Run, SessionId, Straggler, Want,
};
use super::summary::{Holder, Summary};
use crate::usage::Usage;
use hawker_api::pieces::{MAX_PIECES, MAX_TASK_SIZE, PIECE_DIGEST_LEN, PieceSet};
use hawker_api::policy::MAX_LIMIT;
use hawker_api::task::TaskId;
use hawker_api::v1;
use hawker_api::v1::daemon_message::Kind;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;
use tonic::Status;

/// Longest name (host id, IDC, location, registry, repository), bytes.
const MAX_NAME_BYTES: usize = 512;
/// Longest path of a file with its query, bytes.
const MAX_PATH_BYTES: usize = 4096;

/// Most tasks of one image that are told on.
const MAX_JOB_TASKS: usize = 256;

/// Longest time between two reports that is believed, and most bytes in it: a day at 10 Tbit/s and more.
const MAX_INTERVAL: Duration = Duration::from_hours(24);
const MAX_REPORTED_BYTES: u64 = 1 << 57;

/// Far ends of one report.
const MAX_PEERS: usize = 128;

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

pub(super) fn host(hello: v1::Hello) -> Result<HostInfo, WireError> {
    let host = hello.host.ok_or_else(|| bad("hello.host", "missing"))?;
    if host.id.is_empty() {
        return Err(bad("hello.host.id", "empty"));
    }
    let ip: IpAddr =
        host.ip.parse().map_err(|_| bad("hello.host.ip", format!("`{}` is no address", host.ip)))?;
    if !(1..=65535).contains(&host.piece_port) {
        return Err(bad("hello.host.piece_port", format!("{} is no port", host.piece_port)));
    }
    let seed = host.kind() == v1::HostKind::Seed;
    Ok(HostInfo {
        id: name("hello.host.id", host.id)?.into(),
        ip: ip.to_string(),
        piece_port: host.piece_port,
        idc: name("hello.host.idc", host.idc)?,
        location: name("hello.host.location", host.location)?,
        seed,
    })
}

pub(super) fn event(session: SessionId, message: v1::DaemonMessage) -> Result<Event, WireError> {
    let kind = message.kind.ok_or_else(|| bad("kind", "unknown message"))?;
    let message = match kind {
        Kind::Hello(_) => return Err(bad("hello", "only the first message is one")),
        Kind::Job(_) => return Err(bad("job", "is the relay's")),
        Kind::Beat(v1::Beat {}) => Message::Beat,
        Kind::Image(image) => Message::Image(self::image(image)?),
        Kind::Inventory(inventory) => {
            let held = inventory.holdings.into_iter().filter(|holding| holding.complete);
            let held = held.map(|holding| Ok((task(&holding.task)?, size(holding.size)?)));
            Message::Inventory(held.collect::<Result<_, WireError>>()?)
        }
        Kind::Want(want) => Message::Want(self::want(want)?),
        Kind::Progress(progress) => {
            Message::Progress(progress.tasks.into_iter().map(self::progress).collect::<Result<_, _>>()?)
        }
        Kind::Finished(finished) => {
            Message::Finished { task: task(&finished.task)?, size: size(finished.size)? }
        }
        Kind::Abandoned(abandoned) => Message::Abandoned { task: task(&abandoned.task)? },
        Kind::LeaseEnded(ended) => {
            Message::LeaseEnded { task: task(&ended.task)?, id: ended.id, outcome: outcome(&ended) }
        }
        Kind::PieceList(list) => Message::PieceList(PieceList {
            task: task(&list.task)?,
            size: size(list.size)?,
            runs: runs(list.digests)?,
            proven: list.proven,
        }),
        Kind::BadPeer(peer) => {
            Message::BadPeer { task: task(&peer.task)?, host: name("bad_peer.host_id", peer.host_id)?.into() }
        }
        Kind::Mismatch(mismatch) => Message::Mismatch {
            task: task(&mismatch.task)?,
            attesters: mismatch.attesters.into_iter().take(MAX_PIECES as usize).map(HostId::from).collect(),
        },
        Kind::Report(report) => Message::Report(self::report(&report)),
        Kind::Dropped(dropped) => {
            Message::Dropped(dropped.tasks.iter().map(|text| task(text)).collect::<Result<_, _>>()?)
        }
    };
    Ok(Event::Message { session, message })
}

/// `None`: figures that no link gives. It costs the host its say, not its session: what measures is not what matters.
fn report(report: &v1::Report) -> Option<Report> {
    let usage = report.usage.as_ref()?;
    let sane = |traffic: &v1::Traffic| traffic.sent.max(traffic.received) <= MAX_REPORTED_BYTES;
    let classes = [&usage.upload, &usage.download, &usage.origin, &usage.control, &usage.others];
    let capacity_is_sane = report.uplink_capacity.max(report.upload_limit) <= MAX_LIMIT;
    let elapsed = Duration::from_millis(report.interval_ms.into());
    if elapsed.is_zero()
        || elapsed > MAX_INTERVAL
        || !capacity_is_sane
        || !classes.into_iter().flatten().all(sane)
    {
        return None;
    }
    Some(Report {
        elapsed,
        others_sent: usage.others.as_ref().map(|others| others.sent),
        capacity: report.uplink_capacity,
        upload_limit: report.upload_limit,
    })
}

/// What the manager is told of a report.
pub(super) fn usage(message: &v1::DaemonMessage) -> Option<Usage> {
    match &message.kind {
        Some(Kind::Report(report)) if self::report(report).is_some() => report.usage.map(Usage::from),
        _ => None,
    }
}

/// What a report, if the message is one that makes sense, says of uploads by far end.
pub(super) fn uploads(message: &v1::DaemonMessage) -> impl Iterator<Item = (String, u64)> + '_ {
    let peers = match &message.kind {
        Some(Kind::Report(report)) => report.peers.as_slice(),
        _ => &[],
    };
    let sane = peers.iter().take(MAX_PEERS).filter(|peer| peer.sent <= MAX_REPORTED_BYTES);
    sane.map(|peer| (peer.ip.clone(), peer.sent))
}

/// A task for the manager.
pub(super) fn summary(summary: Summary) -> v1::TaskSummary {
    let host = |holder: Holder| v1::TaskHost {
        host_id: holder.host.to_string(),
        complete: holder.complete,
        pieces: holder.pieces,
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::TaskSummary {
        task: summary.task.to_string(),
        size: summary.size.unwrap_or(0),
        pieces: summary.pieces,
        holders: count(summary.holders),
        downloading: count(summary.downloading),
        moved_bytes: summary.moved.bytes,
        origin_bytes: summary.moved.origin,
        hosts: summary.hosts.into_iter().map(host).collect(),
    }
}

/// What a node says of an order, with its name; no more of it than the manager takes.
pub(super) fn job_report(host: &HostId, mut report: v1::JobReport) -> Result<v1::JobReport, WireError> {
    use v1::job_report::What;
    if report.job.is_empty() || report.job.len() > MAX_NAME_BYTES {
        return Err(bad("job.job", "no name, or a long one"));
    }
    match report.what.as_mut().ok_or_else(|| bad("job.what", "missing"))? {
        What::Resolved(resolved) => {
            resolved.error = resolved.error.chars().take(MAX_NAME_BYTES).collect();
            resolved.tasks.truncate(MAX_JOB_TASKS);
            if let Some(unknown) = resolved.tasks.iter().find(|entry| task(&entry.task).is_err()) {
                return Err(bad("job.resolved.tasks", format!("`{}` is no task", unknown.task)));
            }
        }
        What::Hold(state) => state.error = state.error.chars().take(MAX_NAME_BYTES).collect(),
    }
    host.to_string().clone_into(&mut report.host_id);
    Ok(report)
}

fn image(image: v1::Image) -> Result<Image, WireError> {
    let parts = image.parts.iter().take(MAX_JOB_TASKS);
    Ok(Image {
        name: bounded("image.name", image.name, MAX_PATH_BYTES)?,
        manifest: task(&image.manifest)?,
        parts: parts
            .map(|part| Ok((task(&part.task)?, size(part.bytes)?)))
            .collect::<Result<_, WireError>>()?,
    })
}

/// How images come into the cluster, as the manager is told.
pub(super) fn rollout(rollout: Rollout) -> v1::Rollout {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
    let straggler = |straggler: Straggler| v1::Straggler {
        host_id: straggler.host.to_string(),
        bytes_done: straggler.bytes_done,
        reason: straggler.reason,
    };
    v1::Rollout {
        name: rollout.name,
        manifest: rollout.manifest.to_string(),
        bytes: rollout.bytes,
        nodes_done: count(rollout.nodes_done),
        nodes_wanted: count(rollout.nodes_wanted),
        age_ms: millis(rollout.age),
        eta_ms: rollout.eta.map(millis),
        stragglers: rollout.stragglers.into_iter().map(straggler).collect(),
    }
}

fn want(want: v1::Want) -> Result<Want, WireError> {
    let origin = want.origin.ok_or_else(|| bad("want.origin", "missing"))?;
    let kind = match origin.kind() {
        v1::OriginKind::Blob => OriginKind::Blob,
        v1::OriginKind::Manifest => OriginKind::Manifest,
        v1::OriginKind::File => OriginKind::File,
    };
    Ok(Want {
        task: task(&want.task)?,
        origin: Origin {
            registry: name("want.origin.registry", origin.registry)?,
            repository: bounded("want.origin.repository", origin.repository, MAX_PATH_BYTES)?,
            kind,
            version: name("want.origin.version", origin.version)?,
        },
        size: known(size(want.size)?),
        held: PieceSet::from_bytes(&want.pieces, MAX_PIECES),
        fetching: want.fetching.iter().map(range).collect::<Result<_, _>>()?,
        can_fetch: want.can_fetch,
    })
}

fn progress(progress: v1::TaskProgress) -> Result<Progress, WireError> {
    let extended = progress.extended.iter().map(|extended| {
        let pieces = extended.pieces.as_ref().ok_or_else(|| bad("extended.pieces", "missing"))?;
        Ok((extended.id, range(pieces)?))
    });
    let extended = extended.collect::<Result<_, WireError>>()?;
    Ok(Progress {
        task: task(&progress.task)?,
        size: known(size(progress.size)?),
        pieces: progress.pieces,
        attested: runs(progress.attested)?,
        live_leases: progress.live_leases,
        extended,
    })
}

fn outcome(ended: &v1::LeaseEnded) -> LeaseOutcome {
    match ended.outcome() {
        v1::LeaseOutcome::Done => LeaseOutcome::Done,
        v1::LeaseOutcome::Status => {
            LeaseOutcome::Failed(format!("the origin answered {}", ended.http_status))
        }
        v1::LeaseOutcome::Failed | v1::LeaseOutcome::Declined => {
            LeaseOutcome::Failed(ended.detail.chars().take(MAX_NAME_BYTES).collect())
        }
    }
}

fn runs(runs: Vec<v1::DigestRun>) -> Result<Vec<Run>, WireError> {
    let run = |run: v1::DigestRun| {
        let (digests, rest) = run.digests.as_chunks::<PIECE_DIGEST_LEN>();
        let end = (run.first as usize).saturating_add(digests.len());
        if !rest.is_empty() || end > MAX_PIECES as usize {
            return Err(bad("digests", "not whole digests of existing pieces"));
        }
        Ok(Run { first: run.first, digests: digests.to_vec(), attester: run.attester.into() })
    };
    runs.into_iter().map(run).collect()
}

fn range(range: &v1::PieceRange) -> Result<Range<u32>, WireError> {
    let end = range.first.checked_add(range.count).filter(|end| *end <= MAX_PIECES);
    Ok(range.first..end.ok_or_else(|| bad("pieces", "range past the last possible piece"))?)
}

fn task(text: &str) -> Result<TaskId, WireError> {
    text.parse().map_err(|error: hawker_api::task::TaskIdError| bad("task", error.to_string()))
}

fn size(bytes: u64) -> Result<u64, WireError> {
    if bytes > MAX_TASK_SIZE {
        return Err(bad("size", format!("{bytes} is above the limit of {MAX_TASK_SIZE}")));
    }
    Ok(bytes)
}

fn known(size: u64) -> Option<u64> {
    (size > 0).then_some(size)
}

fn name(field: &'static str, text: String) -> Result<String, WireError> {
    bounded(field, text, MAX_NAME_BYTES)
}

fn bounded(field: &'static str, text: String, limit: usize) -> Result<String, WireError> {
    if text.len() > limit {
        return Err(bad(field, format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// An order as it goes out.
pub(super) fn message(order: Order) -> Result<v1::SchedulerMessage, Status> {
    use v1::scheduler_message::Kind;
    let kind = match order {
        Order::Replaced => {
            return Err(Status::aborted("another stream of this daemon took over, or there is no room"));
        }
        Order::Silent => {
            return Err(Status::aborted("no sign of life while there was work: it was given to others"));
        }
        Order::Assignment(assignment) => Kind::Assignment(self::assignment(assignment)),
        Order::Lease { id, task, origin, pieces, size } => Kind::Lease(v1::Lease {
            id,
            task: task.to_string(),
            origin: Some(self::origin(origin)),
            pieces: Some(v1::PieceRange { first: pieces.start, count: pieces.end - pieces.start }),
            size: size.unwrap_or(0),
            traceparent: String::new(),
        }),
        Order::LeaseRevoked { id, reason } => {
            Kind::LeaseRevoked(v1::LeaseRevoked { id, reason: reason.to_owned() })
        }
        Order::AskPieceList { task } => Kind::AskPieceList(v1::AskPieceList { task: task.to_string() }),
        Order::ListReset { task, reason } => {
            Kind::ListReset(v1::ListReset { task: task.to_string(), reason: reason.to_owned() })
        }
    };
    Ok(v1::SchedulerMessage { kind: Some(kind) })
}

/// The message with the trace it belongs to, where it can carry one.
pub(super) fn traced(mut message: v1::SchedulerMessage, traceparent: Option<String>) -> v1::SchedulerMessage {
    if let (Some(traceparent), Some(v1::scheduler_message::Kind::Lease(lease))) =
        (traceparent, &mut message.kind)
    {
        lease.traceparent = traceparent;
    }
    message
}

fn origin(origin: Origin) -> v1::Origin {
    let kind = match origin.kind {
        OriginKind::Blob => v1::OriginKind::Blob,
        OriginKind::Manifest => v1::OriginKind::Manifest,
        OriginKind::File => v1::OriginKind::File,
    };
    let Origin { registry, repository, version, .. } = origin;
    v1::Origin { registry, repository, kind: kind.into(), version }
}

fn assignment(assignment: Assignment) -> v1::Assignment {
    let run = |run: Run| v1::DigestRun {
        first: run.first,
        digests: run.digests.as_flattened().to_vec(),
        attester: run.attester.to_string(),
    };
    v1::Assignment {
        task: assignment.task.map(|task| task.to_string()).unwrap_or_default(),
        size: assignment.size.unwrap_or(0),
        parents_changed: assignment.parents.is_some(),
        parents: assignment.parents.into_iter().flatten().map(parent).collect(),
        digests: assignment.digests.into_iter().map(run).collect(),
        proven: assignment.proven,
        refused: assignment.refused,
    }
}

fn parent(parent: Parent) -> v1::Parent {
    let kind = if parent.host.seed { v1::HostKind::Seed } else { v1::HostKind::Peer };
    v1::Parent {
        host_id: parent.host.id.to_string(),
        ip: parent.host.ip,
        piece_port: parent.host.piece_port,
        kind: kind.into(),
        reason: parent.reason,
        location: parent.host.location,
        idc: parent.host.idc,
        reserve: parent.reserve,
    }
}
