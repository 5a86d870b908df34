//! One keep-alive stream: registration, beats, and a daemon's placement whenever it changes.
//!
//! Invariant: however the stream ends, its seat is dropped with it.

use super::{Service, jobs, refusal, wire};
use crate::manager::directory::{Assigned, Seat};
use crate::manager::jobs::switch::{Attached, ToNode};
use crate::manager::unix_seconds;
use futures::stream::BoxStream;
use hawker_api::protocol::Protocol;
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use std::time::{Instant, SystemTime};
use tokio::sync::watch;
use tonic::{Code, Status, Streaming};

/// What is sent back; the first answer to a daemon is its placement.
pub(super) fn answers(
    service: Service,
    mut inbound: Streaming<v1::KeepAliveRequest>,
) -> BoxStream<'static, Result<v1::KeepAliveResponse, Status>> {
    Box::pin(async_stream::stream! {
        let mut registered = match register(&service, &mut inbound).await {
            Ok(Some(registered)) => registered,
            Ok(None) => return,
            Err(status) => {
                service.parts.metrics.grpc("KeepAlive", status.code());
                yield Err(status);
                return;
            }
        };
        service.parts.metrics.grpc("KeepAlive", Code::Ok);
        if let Changes::Scheduler { .. } = registered.changes {
            // Daemons find it in their placement.
            let protocol = Some(Protocol::spoken().into());
            yield Ok(v1::KeepAliveResponse { protocol, ..v1::KeepAliveResponse::default() });
        }
        loop {
            match registered.step(&service, &mut inbound).await {
                Step::Answer(answer) => yield Ok(*answer),
                Step::Beaten => {}
                Step::Left => return,
                Step::Refused(status) => {
                    yield Err(status);
                    return;
                }
            }
        }
    })
}

/// What happened on the stream.
enum Step {
    Answer(Box<v1::KeepAliveResponse>),
    Beaten,
    /// The end of the stream, orderly or not.
    Left,
    Refused(Status),
}

struct Registered {
    seat: Seat,
    changes: Changes,
}

enum Changes {
    Peer(watch::Receiver<Assigned>),
    Scheduler { cluster_id: u64, end: watch::Receiver<()>, orders: Attached },
}

/// News for whoever is at the other end.
enum Change {
    Placement(Assigned),
    Order(ToNode),
}

impl Registered {
    async fn step(&mut self, service: &Service, inbound: &mut Streaming<v1::KeepAliveRequest>) -> Step {
        tokio::select! {
            // First: that schedulers leave because this manager ends is no news to daemons.
            biased;
            () = service.cancel.cancelled() => Step::Refused(Status::unavailable("the manager is shutting down")),
            change = self.changes.next() => match change {
                Some(Change::Placement(assigned)) => {
                    let placement = Some(wire::placement(assigned, &service.parts.peer_keys));
                    Step::Answer(Box::new(v1::KeepAliveResponse { placement, ..v1::KeepAliveResponse::default() }))
                }
                Some(Change::Order(order)) => {
                    let job = Some(jobs::order(order));
                    Step::Answer(Box::new(v1::KeepAliveResponse { job, ..v1::KeepAliveResponse::default() }))
                }
                None => Step::Refused(ended(service)),
            },
            message = inbound.message() => match message {
                Ok(Some(message)) => self.message(service, message),
                Ok(None) | Err(_) => Step::Left,
            },
        }
    }

    fn message(&self, service: &Service, message: v1::KeepAliveRequest) -> Step {
        match message.kind {
            Some(Kind::Bandwidth(report)) => self.bandwidth(service, report),
            Some(Kind::Jobs(reports)) => self.jobs(service, reports),
            Some(Kind::Rollouts(told)) => self.rollouts(service, told),
            Some(Kind::Peer(_) | Kind::Scheduler(_)) => {
                Step::Refused(Status::invalid_argument("registered already: only beats may follow"))
            }
            // No kind that we know: a beat all the same.
            Some(Kind::Beat(_)) | None if self.seat.beat(Instant::now()) => Step::Beaten,
            Some(Kind::Beat(_)) | None => Step::Refused(ended(service)),
        }
    }
}

impl Registered {
    /// What the nodes of a scheduler's cluster say of orders.
    fn jobs(&self, service: &Service, reports: v1::JobReports) -> Step {
        let Changes::Scheduler { .. } = self.changes else {
            return Step::Refused(Status::invalid_argument("only schedulers tell of jobs"));
        };
        for report in reports.reports {
            match jobs::report(report) {
                Ok(report) => service.parts.jobs.heard(report),
                Err(status) => return Step::Refused(status),
            }
        }
        Step::Beaten
    }

    /// How images come into a scheduler's cluster.
    fn rollouts(&self, service: &Service, told: v1::Rollouts) -> Step {
        let Changes::Scheduler { cluster_id, .. } = self.changes else {
            return Step::Refused(Status::invalid_argument("only schedulers tell of rollouts"));
        };
        for rollout in wire::rollouts(cluster_id, told, SystemTime::now()) {
            service.parts.rollouts.told(rollout);
        }
        Step::Beaten
    }

    /// What the nodes of a scheduler's cluster moved.
    fn bandwidth(&self, service: &Service, report: v1::BandwidthReport) -> Step {
        let Changes::Scheduler { cluster_id, .. } = self.changes else {
            return Step::Refused(Status::invalid_argument("only schedulers tell of bandwidth"));
        };
        let (bandwidth, now) = (&service.parts.bandwidth, SystemTime::now());
        wire::zones(&report)
            .for_each(|(from, to, bytes)| bandwidth.add_zones(cluster_id, from, to, bytes, now));
        let at = unix_seconds(now);
        wire::tasks(&report, cluster_id, at).for_each(|task| bandwidth.add_task(task, now));
        let kept = wire::bandwidth(report).map(|(host, usage)| bandwidth.add(cluster_id, host, &usage, now));
        if !kept.fold(true, |all, kept| all & kept) {
            tracing::warn!(cluster_id, "no room for the bandwidth of some hosts");
        }
        Step::Beaten
    }
}

impl Changes {
    /// The next news; `None` once the registration has ended.
    async fn next(&mut self) -> Option<Change> {
        match self {
            Self::Peer(changes) => {
                changes.changed().await.ok()?;
                Some(Change::Placement(changes.borrow_and_update().clone()))
            }
            Self::Scheduler { end, orders, .. } => tokio::select! {
                // Nothing is ever sent: it ends with the registration.
                Err(_) = end.changed() => None,
                order = orders.next() => order.map(Change::Order),
            },
        }
    }
}

/// `None`: the stream ended, or the manager shuts down, before there was a registration.
async fn register(
    service: &Service,
    inbound: &mut Streaming<v1::KeepAliveRequest>,
) -> Result<Option<Registered>, Status> {
    let first = tokio::select! {
        () = service.cancel.cancelled() => return Err(Status::unavailable("the manager is shutting down")),
        first = tokio::time::timeout(service.stale_after, inbound.message()) => first,
    };
    let first = first.map_err(|_| Status::deadline_exceeded("no registration on the stream"))?;
    let Some(message) = first? else { return Ok(None) };
    let (directory, now) = (&service.parts.directory, Instant::now());
    match message.kind {
        Some(Kind::Peer(request)) => {
            let (peer, wish) = wire::peer(request)?;
            let (seat, changes) = directory.join(peer, wish, now).map_err(|error| refusal(&error))?;
            Ok(Some(Registered { seat, changes: Changes::Peer(changes) }))
        }
        Some(Kind::Scheduler(registration)) => {
            let host = wire::scheduler(registration)?;
            let cluster_id = host.scheduler_cluster_id;
            let (seat, end) = directory.join_scheduler(host, now).map_err(|error| refusal(&error))?;
            let orders = service.parts.jobs.switch().attach(cluster_id);
            Ok(Some(Registered { seat, changes: Changes::Scheduler { cluster_id, end, orders } }))
        }
        Some(Kind::Beat(_) | Kind::Bandwidth(_) | Kind::Jobs(_) | Kind::Rollouts(_)) | None => {
            Err(Status::invalid_argument("the first message must be a registration"))
        }
    }
}

fn ended(service: &Service) -> Status {
    let seconds = service.stale_after.as_secs_f32();
    Status::aborted(format!("registration ended: no beat for {seconds} s, or a newer registration took over"))
}
