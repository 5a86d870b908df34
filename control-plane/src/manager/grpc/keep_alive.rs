//! One keep-alive stream: registration, beats, and a daemon's placement whenever it changes.
//!
//! Invariant: however the stream ends, its seat is dropped with it.

use super::{Service, refusal, wire};
use crate::manager::directory::{Assigned, Seat};
use futures::stream::BoxStream;
use hawker_api::v1;
use hawker_api::v1::keep_alive_request::Kind;
use std::time::Instant;
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
        loop {
            match registered.step(&service, &mut inbound).await {
                Step::Answer(placement) => yield Ok(v1::KeepAliveResponse { placement: Some(placement) }),
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
    Answer(v1::Placement),
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
    Scheduler(watch::Receiver<()>),
}

impl Registered {
    async fn step(&mut self, service: &Service, inbound: &mut Streaming<v1::KeepAliveRequest>) -> Step {
        tokio::select! {
            // First: that schedulers leave because this manager ends is no news to daemons.
            biased;
            () = service.cancel.cancelled() => Step::Refused(Status::unavailable("the manager is shutting down")),
            change = self.changes.next() => match change {
                Some(placement) => Step::Answer(placement),
                None => Step::Refused(ended(service)),
            },
            message = inbound.message() => match message {
                Ok(Some(message)) => self.message(service, &message),
                Ok(None) | Err(_) => Step::Left,
            },
        }
    }

    fn message(&self, service: &Service, message: &v1::KeepAliveRequest) -> Step {
        match message.kind {
            Some(Kind::Peer(_) | Kind::Scheduler(_)) => {
                Step::Refused(Status::invalid_argument("registered already: only beats may follow"))
            }
            // No kind that we know: a beat all the same.
            Some(Kind::Beat(_)) | None if self.seat.beat(Instant::now()) => Step::Beaten,
            Some(Kind::Beat(_)) | None => Step::Refused(ended(service)),
        }
    }
}

impl Changes {
    /// The next placement; `None` once the registration has ended.
    async fn next(&mut self) -> Option<v1::Placement> {
        match self {
            Self::Peer(changes) => {
                changes.changed().await.ok()?;
                Some(wire::placement(changes.borrow_and_update().clone()))
            }
            Self::Scheduler(end) => {
                // Nothing is ever sent: it ends with the registration.
                while end.changed().await.is_ok() {}
                None
            }
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
            let (seat, end) = directory.join_scheduler(host, now).map_err(|error| refusal(&error))?;
            Ok(Some(Registered { seat, changes: Changes::Scheduler(end) }))
        }
        Some(Kind::Beat(_)) | None => {
            Err(Status::invalid_argument("the first message must be a registration"))
        }
    }
}

fn ended(service: &Service) -> Status {
    let seconds = service.stale_after.as_secs_f32();
    Status::aborted(format!("registration ended: no beat for {seconds} s, or a newer registration took over"))
}
